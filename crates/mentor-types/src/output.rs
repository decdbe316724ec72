//! What networks return.

use std::ops::Range;

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
        let part = |images: Range<usize>| Self {
            logits: cut(&self.logits, &images),
            auxiliary: self.auxiliary.as_ref().map(|auxiliary| cut(auxiliary, &images)),
            taps: Taps(self.taps.0.iter().map(|(tap, features)| (*tap, cut(features, &images))).collect()),
            image_size: self.image_size,
        };
        (part(0..n), part(n..all))
    }
}

/// What a detector returns for a batch of images.
#[derive(Clone, Debug)]
pub struct DetOutput {
    /// The levels of its pyramid, the finest first. Of a detector with two stages this is the first, whose only class says
    /// that there is an object.
    pub levels: Vec<DetLevel>,
    /// What the second stage says, of a detector with two, where it was asked.
    pub regions: Option<Regions>,
    /// Features on the way.
    pub taps: Taps,
    /// Height and width of the images that went in.
    pub image_size: [usize; 2],
}

/// What a dense detector says at the places of one level: one for each anchor of each point; row by row, and at each point its
/// anchors in their order. There are `p = rows * columns * anchors` of them.
#[derive(Clone, Debug)]
pub struct DetLevel {
    /// Where the places are.
    pub layout: LevelLayout,
    /// Class scores before the sigmoid, `[n, classes, p]`.
    pub class_logits: Tensor<3>,
    /// From the point to the left, upper, right and lower edge of the box, in pixels, `[n, 4, p]`. A side that lies beyond the
    /// point is negative; left plus right and upper plus lower never are.
    pub distances: Tensor<3>,
    /// What the distances were made of.
    pub coding: BoxCoding,
    /// How central the point is in its box, before the sigmoid, `[n, 1, p]`, where the detector says it.
    pub centerness: Option<Tensor<3>>,
}

/// What the second stage of a detector says of `r` regions of each of `n` images, in `k` classes.
#[derive(Clone, Debug)]
pub struct Regions {
    /// `[n, r, 4]`: left, top, right, bottom in pixels; without a gradient.
    pub edges_nr4: Tensor<3>,
    /// `[n, r]`: 1 where there is a region, 0 where an image has fewer.
    pub real_nr: Tensor<2>,
    /// Scores before the softmax, `[n, r, 1 + k]`: of background, then of the classes.
    pub class_logits: Tensor<3>,
    /// How the box differs from the region if it holds an object of the class, `[n, r, k, 4]`: shifts in tenths of the region's
    /// sides, logarithms of the ratios of sides in fifths; x, y, width, height.
    pub deltas: Tensor<4>,
}

/// The points of a level, and the anchors at each of them.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelLayout {
    /// Pixels of the image from one point to the next.
    pub stride: usize,
    /// Rows and columns of points.
    pub size: [usize; 2],
    /// How far the point lies from the upper left corner of its square of `stride` pixels, in parts of its side: 0.5 in the middle.
    pub point: f32,
    /// Widths and heights in pixels of the anchors at each point, all of them centred on it; a detector without anchors has one,
    /// which stands for the objects that the level is for.
    pub anchors: Vec<[f32; 2]>,
}

impl LevelLayout {
    /// How many places there are.
    #[must_use]
    pub fn places(&self) -> usize {
        self.size[0] * self.size[1] * self.anchors.len()
    }
}

/// How a detector says where the edges of a box are.
#[derive(Clone, Debug)]
pub enum BoxCoding {
    /// By the distances themselves.
    Distances,
    /// By how the box differs from the anchor of its place: shifts in parts of its sides, logarithms of the ratios of sides;
    /// `[n, 4, p]`, x, y, width, height.
    Deltas(Tensor<3>),
    /// By a distribution over distances of 0, 1, .. strides for each edge, before the softmax: `[n, 4, bins, p]`.
    Distribution(Tensor<4>),
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
        let part = |images: Range<usize>| Self {
            levels: self.levels.iter().map(|level| level.images(images.clone())).collect(),
            regions: self.regions.as_ref().map(|regions| regions.images(&images)),
            taps: Taps(self.taps.0.iter().map(|(tap, features)| (*tap, cut(features, &images))).collect()),
            image_size: self.image_size,
        };
        (part(0..n), part(n..all))
    }
}

impl Regions {
    /// What is said of some of the images.
    fn images(&self, images: &Range<usize>) -> Self {
        Self {
            edges_nr4: cut(&self.edges_nr4, images),
            real_nr: cut(&self.real_nr, images),
            class_logits: cut(&self.class_logits, images),
            deltas: cut(&self.deltas, images),
        }
    }
}

impl DetLevel {
    /// What it says of some of the images.
    fn images(&self, images: Range<usize>) -> Self {
        let coding = match &self.coding {
            BoxCoding::Distances => BoxCoding::Distances,
            BoxCoding::Deltas(deltas) => BoxCoding::Deltas(cut(deltas, &images)),
            BoxCoding::Distribution(logits) => BoxCoding::Distribution(cut(logits, &images)),
        };
        Self {
            layout: self.layout.clone(),
            class_logits: cut(&self.class_logits, &images),
            distances: cut(&self.distances, &images),
            coding,
            centerness: self.centerness.as_ref().map(|centerness| cut(centerness, &images)),
        }
    }
}

/// Some of the images.
fn cut<const D: usize>(x: &Tensor<D>, images: &Range<usize>) -> Tensor<D> {
    x.clone().narrow(0, images.start, images.len())
}
