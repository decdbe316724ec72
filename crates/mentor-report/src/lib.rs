//! What a run looks like: pictures of label masks, and one HTML file that tells the whole run.
//!
//! Nothing here opens a run folder, a data set or a network: the caller brings the numbers and the
//! images, and gets pictures and text back. Equal input gives equal bytes.

mod chart;
mod html;
pub mod pictures;
mod report;
mod sections;
mod text;

pub use mentor_train::{Log, LogLine};
pub use report::{BadSample, Comparison, Example, Model, PseudoExample, ReportInput, html};
