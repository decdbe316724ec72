//! Semantic segmentation: nets, the supervised loss, the terms of distillation, learning from
//! unlabelled images, the training step and the metrics.
//!
//! Knows no file: images and masks arrive in batches, weights and checkpoints leave as bytes.

mod class_weights;
pub mod companions;
mod context;
pub mod distill;
mod evaluate;
mod labels;
pub mod metrics;
pub mod nets;
mod sees;
mod step;
pub mod supervised;
mod task;
pub mod unlabelled;
pub mod upload;
pub mod views;

pub use context::Context;
pub use evaluate::{EvalConfig, Judged, Sliding, evaluate, most_probable, predict, predict_mask};
pub use step::SegMethod;
pub use task::Seg;
