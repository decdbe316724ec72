//! The nouns every other crate speaks: images and label masks on the host, what a network
//! returns, where its features are tapped and by what adapter, the terms of a loss, what a check of
//! settings found, scores, and the keys of randomness.
//!
//! Nothing here reads a file, computes a gradient or chooses a device.

mod adapter;
mod batch;
mod boxes;
mod found;
mod geometry;
mod group;
mod key;
mod labels;
mod mask;
mod output;
mod resize;
mod scores;
mod season;
mod tap;
mod task;
mod terms;

pub use adapter::{AdapterKind, AdapterSpec};
pub use batch::{Batch, Images, Pairs, Samples};
pub use boxes::{BoxKind, BoxLabels, Detection, Edges, LabelBox};
pub use found::{Found, below, check_at_least_0, check_probability, check_weight};
pub use geometry::{CutBox, Geometry, Weighed};
pub use group::Group;
pub use key::{Key, KeyRng};
pub use labels::Labels;
pub use mask::{IGNORE, LabelMask, MAX_CLASSES, UNKNOWN};
pub use output::{BoxCoding, DetLevel, DetOutput, LevelLayout, Regions, SegOutput, Taps};
pub use resize::Resize;
pub use scores::{ClassScore, ScoreNames, ScoreRecord, ScoreRow, Scores};
pub use season::Season;
pub use tap::Tap;
pub use task::TaskName;
pub use terms::{LossTerms, Stat, Stats, Term};
