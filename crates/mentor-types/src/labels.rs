//! What stands beside an image.

use std::fmt::Debug;

use crate::{BoxLabels, Geometry, LabelMask};

/// A kind of label, and the forms that it takes in a batch.
///
/// How labels are read from files, and how they follow the views of their image, is said where files are known.
pub trait Labels: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The labels of all images of a batch.
    type Targets: Clone + Debug + Default + PartialEq + Send + Sync + 'static;
    /// Where in the weak views of a batch that is which its strong views show: by it a pseudo-label goes from one to the
    /// other. It covers crops, flips and `CutMix` alike.
    type Link: Clone + Debug + Default + PartialEq + Send + Sync + 'static;
}

impl Labels for LabelMask {
    /// `[n, height, width]`: class, [`IGNORE`](crate::IGNORE) or [`UNKNOWN`](crate::UNKNOWN).
    type Targets = Vec<u8>;
    /// `[n, height, width]`: for every pixel of a strong view the flat index `(sample * height + y) * width + x` of the
    /// weak pixel that shows the same spot, or -1 where no weak view shows it. A pasted pixel points into the weak view of
    /// the image that it came from, so one gather takes every pseudo-label to its own pixel.
    type Link = Vec<i32>;
}

impl Labels for BoxLabels {
    /// One for each image.
    type Targets = Vec<BoxLabels>;
    /// One for each image: from points of its strong view to points of its weak one.
    type Link = Vec<Geometry>;
}
