//! Detection: nets, assignment, the supervised loss, the terms of distillation, the training step and the metrics.
//!
//! Knows no file: images and boxes arrive in batches, weights and checkpoints leave as bytes.

pub mod metrics;
