//! Detection: nets, assignment, the supervised loss, the terms of distillation, the training step, decoding and the metrics.
//!
//! Knows no file: images and boxes arrive in batches, weights and checkpoints leave as bytes.

pub mod assign;
pub mod companions;
mod context;
mod cross_entropy;
mod decode;
mod deltas;
pub mod distill;
mod evaluate;
mod fit;
mod found;
mod grid;
mod largest;
pub mod metrics;
pub mod nets;
mod overlap;
mod pairs;
mod pooling;
mod proposals;
mod regions;
mod sees;
mod step;
pub mod supervised;
mod task;
#[cfg(test)]
mod testing;
pub mod unlabelled;
pub mod upload;
pub mod views;
mod ways;
mod weighed;

pub use context::{Context, Labelled, Nets, SecondLabels, SecondStage};
pub use decode::{EvalConfig, SoftNms, detections, predict, suppress, suppress_softly};
pub use evaluate::{Judged, evaluate, found_in};
pub use fit::check_fit;
pub use found::FoundBoxes;
pub use grid::Grid;
pub use proposals::{ProposalLimits, Proposals};
pub use regions::{RegionSampling, RegionTargets};
pub use step::DetMethod;
pub use task::Det;
pub use weighed::{Weighed, weighed};
