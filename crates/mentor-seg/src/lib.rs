//! Semantic segmentation: nets, the supervised loss, the terms of distillation, learning from
//! unlabelled images, the training step and the metrics.
//!
//! Knows no file: images and masks arrive in batches, weights and checkpoints leave as bytes.

pub mod companions;
mod context;
pub mod distill;
mod evaluate;
mod labels;
pub mod metrics;
mod model;
pub mod nets;
mod step;
pub mod supervised;
pub mod unlabelled;
pub mod upload;

pub use context::{Context, Seg, Views};
pub use evaluate::{EvalConfig, Judged, Sliding, evaluate, most_probable, predict, predict_mask};
pub use model::SegModel;
pub use step::SegMethod;
