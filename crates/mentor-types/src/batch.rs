//! What the loader hands to a step, still on the host: bytes of pixels and labels, fixed shapes.

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

/// Images with one label per pixel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// The images.
    pub images: Images,
    /// `[n, height, width]`: class, [`IGNORE`](crate::IGNORE) or [`UNKNOWN`](crate::UNKNOWN).
    pub targets: Vec<u8>,
}

/// Two views of each image: the teacher sees the weak one, the student the strong one.
///
/// The geometry between the views is `origin`: for every pixel of a strong view the flat index
/// `(sample * height + y) * width + x` of the weak pixel that shows the same spot, or -1 where no
/// weak view shows it. It covers crops, flips and `CutMix` alike (a pasted pixel points into the
/// weak view of the image that it came from), so a pseudo-label reaches its own pixel by one
/// gather.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Weakly augmented images.
    pub weak: Images,
    /// Strongly augmented images of the same size.
    pub strong: Images,
    /// `[n, height, width]`, see above.
    pub origin: Vec<i32>,
    /// Labels of the weak views, `[n, height, width]`: all [`UNKNOWN`](crate::UNKNOWN) for an unlabelled image;
    /// a pixel that carries a class or is ignored takes no pseudo-label.
    pub targets: Vec<u8>,
    /// The truth of the weak views where the data set has it, `[n, height, width]`: only ever
    /// compared with pseudo-labels in statistics, never trained on; unknown elsewhere.
    pub truth: Vec<u8>,
}

/// One micro-batch of segmentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegBatch {
    /// Images with (perhaps partial) labels.
    pub labelled: Samples,
    /// Views of images without, or with partial, labels; `None` where the recipe has no such stream.
    pub unlabelled: Option<Pairs>,
}
