//! What both tasks need from unlabelled images: who labels them, thresholds and acceptance statistics.
//!
//! Knows neither masks nor boxes: everything here is a function of tensors of any shape that agree with
//! each other.

mod acceptance;
mod teaching;
mod threshold;

pub use acceptance::{Acceptance, TaughtShare};
pub use teaching::Teaching;
pub use threshold::confident;
