//! What the loader hands to a step, still on the host: bytes of pixels, in fixed shapes, and labels.

use crate::Labels;

/// Colour images of one size: `rgb` holds `[n, height, width, 3]` bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// Number of images.
    pub n: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// sRGB bytes, `[n, height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// Images with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples<L: Labels> {
    /// The images.
    pub images: Images,
    /// What is known of them.
    pub targets: L::Targets,
}

/// Two views of each image: the teacher sees the weak one, the student the strong one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs<L: Labels> {
    /// Weakly augmented images.
    pub weak: Images,
    /// Strongly augmented images of the same size.
    pub strong: Images,
    /// From the strong views to the weak ones.
    pub link: L::Link,
    /// Labels of the weak views: of an unlabelled image all is unknown, unless there are pseudo-labels of it on file; what carries
    /// a class or is ignored takes no pseudo-label.
    pub targets: L::Targets,
    /// The truth of the weak views where the data set has it: only ever compared with pseudo-labels in statistics, never
    /// trained on; unknown elsewhere.
    pub truth: L::Targets,
}

/// One micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<L: Labels> {
    /// Images with (perhaps partial) labels.
    pub labelled: Samples<L>,
    /// Views of images without, or with partial, labels; `None` where the recipe has no such stream.
    pub unlabelled: Option<Pairs<L>>,
}
