//! Label masks with three states: a class, ignored, or unknown.

/// The largest number of classes a mask can tell apart.
pub const MAX_CLASSES: usize = 254;

/// A pixel that counts nowhere: no loss, no pseudo-label, no metric.
pub const IGNORE: u8 = 255;

/// A pixel nobody labelled: no supervised loss, but free for pseudo-labels.
pub const UNKNOWN: u8 = 254;

/// One label per pixel: a class index below [`MAX_CLASSES`], [`IGNORE`] or [`UNKNOWN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMask {
    width: usize,
    height: usize,
    labels: Vec<u8>,
}

impl LabelMask {
    /// A mask from its labels in row order.
    ///
    /// # Panics
    /// If there are not `width * height` labels.
    #[must_use]
    pub fn new(width: usize, height: usize, labels: Vec<u8>) -> Self {
        assert_eq!(labels.len(), width * height, "{} labels for a {width}x{height} mask", labels.len());
        Self { width, height, labels }
    }

    /// A mask with one label everywhere.
    #[must_use]
    pub fn filled(width: usize, height: usize, label: u8) -> Self {
        Self { width, height, labels: vec![label; width * height] }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// All labels in row order.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// All labels in row order, to be changed in place.
    pub fn labels_mut(&mut self) -> &mut [u8] {
        &mut self.labels
    }

    /// The label at column `x`, row `y`.
    ///
    /// # Panics
    /// If the pixel lies outside the mask.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> u8 {
        assert!(x < self.width && y < self.height, "pixel ({x}, {y}) of a {}x{} mask", self.width, self.height);
        self.labels[y * self.width + x]
    }

    /// The labels, taken out.
    #[must_use]
    pub fn into_labels(self) -> Vec<u8> {
        self.labels
    }
}
