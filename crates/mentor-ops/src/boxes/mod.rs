//! Boxes on maps: what a map shows inside of them.

mod pool;
mod roi_align;

pub use roi_align::{RoiAlign, roi_align, roi_align_levels};
