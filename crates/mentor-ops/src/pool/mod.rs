//! Pooling: the largest pixel of windows, and averages of bins.

mod adaptive;
mod max;

pub use adaptive::adaptive_avg_pool2d;
pub use max::max_pool2d;
