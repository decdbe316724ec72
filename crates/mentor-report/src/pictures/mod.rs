//! Pictures: what a task draws of its labels, and what puts drawings together.

mod boxes;
mod heat;
mod masks;
mod panels;
mod text;

pub use boxes::{box_legend, detected_boxes, labelled_boxes, without_boxes};
pub use heat::heat;
pub use masks::{legend, mistakes, overlay, shown_labels, shrink_mask};
pub use panels::{grid, panel, shrink, with_legend};

pub(crate) use text::blend;
