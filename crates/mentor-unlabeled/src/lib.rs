//! What both tasks need from unlabelled images: who labels them, what is taught of them, thresholds and acceptance statistics.
//!
//! Knows neither masks nor boxes: everything here is a function of tensors of any shape that agree with
//! each other, or of any net.

mod acceptance;
mod labellers;
mod teaching;
mod threshold;

pub use acceptance::{Acceptance, TaughtShare};
pub use labellers::{Labellers, Taught};
pub use teaching::Teaching;
pub use threshold::confident;
