//! The task that this crate is for.

/// Semantic segmentation: one class per pixel. What its terms see is said in `sees.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seg;
