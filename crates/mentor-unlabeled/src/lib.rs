//! What both tasks need from unlabelled images: ramps and burn-in, thresholds, acceptance
//! statistics.
//!
//! Knows neither masks nor boxes: everything here is a function of the step, or of tensors of any
//! shape that agree with each other.

mod acceptance;
mod ramp;
mod threshold;

pub use acceptance::{Acceptance, TaughtShare};
pub use ramp::{Ramp, burnt_in, linear_ramp, sigmoid_ramp};
pub use threshold::confident;
