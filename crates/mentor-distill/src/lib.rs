//! The one trait of all terms of a loss with their companions, and the formulas of distillation over
//! plain tensors: rows x classes, maps `[n, c, h, w]`, with a weight for each entry that counts. Knows no
//! task, no recipe and no network.
//!
//! A teacher's tensor is always taken off the graph; a gradient reaches the student alone.

mod affinity;
mod channel;
mod correlation;
mod mean;
mod soft_labels;
mod standard;
mod term;

pub use affinity::{affinities, affinity_distance};
pub use channel::channel_divergence;
pub use correlation::correlation;
pub use mean::weighted_mean;
pub use soft_labels::{kl_divergence, soft_cross_entropy};
pub use standard::{mean_and_deviation, standardised};
pub use term::{
    Column, Companion, Companions, Examples, Needs, Nothing, Place, Reads, Sees, Shared, Start, Stream, Term,
    TermTable, check_classes, check_terms, columns, evaluate,
};

#[cfg(test)]
mod golden;
