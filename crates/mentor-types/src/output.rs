//! What networks return.

use burn::tensor::Tensor;

use crate::Tap;

/// The features a forward pass left at its taps, in the order of the pass.
#[derive(Clone, Debug, Default)]
pub struct Taps(Vec<(Tap, Tensor<4>)>);

impl Taps {
    /// Keeps `features_nchw` under `tap`.
    pub fn insert(&mut self, tap: Tap, features_nchw: Tensor<4>) {
        self.0.push((tap, features_nchw));
    }

    /// The features `[n, c, h, w]` at `tap`, if the network has that tap.
    #[must_use]
    pub fn get(&self, tap: Tap) -> Option<&Tensor<4>> {
        self.0.iter().find(|(name, _)| *name == tap).map(|(_, features)| features)
    }

    /// All taps with their features.
    pub fn iter(&self) -> impl Iterator<Item = (Tap, &Tensor<4>)> {
        self.0.iter().map(|(tap, features)| (*tap, features))
    }
}

/// What a segmentation network returns for a batch of images.
#[derive(Clone, Debug)]
pub struct SegOutput {
    /// Class scores before softmax, `[n, classes, h, w]`, at the resolution of the head (a fraction
    /// of the image's): distillation compares these, the supervised loss their upsampled form.
    pub logits: Tensor<4>,
    /// Scores of the auxiliary head, where the network has one and trains.
    pub auxiliary: Option<Tensor<4>>,
    /// Features on the way.
    pub taps: Taps,
    /// Height and width of the images that went in.
    pub image_size: [usize; 2],
}

impl SegOutput {
    /// The features `[n, c, h, w]` at a tap, or the logits.
    #[must_use]
    pub fn at(&self, tap: Tap) -> Option<&Tensor<4>> {
        if tap == Tap::Logits { Some(&self.logits) } else { self.taps.get(tap) }
    }

    /// The outputs of the first `n` images, and of the rest.
    ///
    /// # Panics
    /// If there are fewer than `n` images, or none is left.
    #[must_use]
    pub fn split(self, n: usize) -> (Self, Self) {
        let all = self.logits.dims()[0];
        assert!(0 < n && n < all, "cannot split {all} images after {n}");
        let part = |from: usize, to: usize| {
            let cut = |x: &Tensor<4>| x.clone().narrow(0, from, to - from);
            Self {
                logits: cut(&self.logits),
                auxiliary: self.auxiliary.as_ref().map(cut),
                taps: Taps(self.taps.0.iter().map(|(tap, features)| (*tap, cut(features))).collect()),
                image_size: self.image_size,
            }
        };
        (part(0, n), part(n, all))
    }
}

/// What a dense detector returns for a batch of images.
#[derive(Clone, Debug)]
pub struct DetOutput {
    /// The levels of its pyramid, the finest first.
    pub levels: Vec<DetLevel>,
    /// Features on the way.
    pub taps: Taps,
    /// Height and width of the images that went in.
    pub image_size: [usize; 2],
}

/// What a dense detector says at each place of one level. The place in column `x` and row `y` stands for the point
/// `((x + 0.5) * stride, (y + 0.5) * stride)` of the image.
#[derive(Clone, Debug)]
pub struct DetLevel {
    /// Pixels of the image from one place to the next.
    pub stride: usize,
    /// Class scores before the sigmoid, `[n, classes, h, w]`.
    pub class_logits: Tensor<4>,
    /// From the point to the left, upper, right and lower edge of the box, in pixels, `[n, 4, h, w]`; never negative.
    pub distances: Tensor<4>,
    /// How central the point is in its box, before the sigmoid, `[n, 1, h, w]`, where the detector says it.
    pub centerness: Option<Tensor<4>>,
}

impl DetOutput {
    /// The outputs of the first `n` images, and of the rest.
    ///
    /// # Panics
    /// If there are fewer than `n` images, or none is left.
    #[must_use]
    pub fn split(self, n: usize) -> (Self, Self) {
        let all = self.levels[0].class_logits.dims()[0];
        assert!(0 < n && n < all, "cannot split {all} images after {n}");
        let part = |from: usize, to: usize| {
            let cut = |x: &Tensor<4>| x.clone().narrow(0, from, to - from);
            let level = |level: &DetLevel| DetLevel {
                stride: level.stride,
                class_logits: cut(&level.class_logits),
                distances: cut(&level.distances),
                centerness: level.centerness.as_ref().map(cut),
            };
            Self {
                levels: self.levels.iter().map(level).collect(),
                taps: Taps(self.taps.0.iter().map(|(tap, features)| (*tap, cut(features))).collect()),
                image_size: self.image_size,
            }
        };
        (part(0, n), part(n, all))
    }
}
