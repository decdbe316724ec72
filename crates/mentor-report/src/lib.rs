//! What a run looks like: pictures, and one HTML file that tells the whole run.
//!
//! Nothing here opens a run folder, a data set or a network, and the page knows no task: the caller brings numbers,
//! names and drawn images, and gets text back. What a task draws is in [`pictures`], for its own module to choose.
//! Equal input gives equal bytes.

mod chart;
mod html;
mod input;
pub mod pictures;
mod report;
mod sections;

pub use input::{
    Class, Comparison, Confusion, Example, Gallery, LegendEntry, LineChart, Model, PlotLine, Plots, ReportInput,
    Section, Swatch, TILE_WIDTH, Tally, TallyRow,
};
pub use report::html;
