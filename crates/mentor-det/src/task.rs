//! The task that this crate is for.

/// Object detection: boxes with classes. What its terms see is said in `sees.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Det;
