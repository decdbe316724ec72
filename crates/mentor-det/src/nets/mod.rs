//! Detectors: a backbone, a feature pyramid and a head that says the same things of every place, some with a second stage that
//! says more of the best of them; with torchvision's names where torchvision has them.

mod anchors;
mod config;
mod faster_rcnn;
mod fcos;
mod gfl;
mod points;
mod retinanet;
mod tower;
mod two_stages;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod parity_faster_rcnn;
#[cfg(test)]
mod parity_heads;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "../../../../tests/golden/nets_rule.rs"]
pub(crate) mod rule;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use mentor_nets::{Backbone, Cost, Fpn, Grouped};
use mentor_types::{BoxCoding, DetLevel, DetOutput, Group, LevelLayout, Tap};

use crate::assign::AssignConfig;

pub use anchors::Anchors;
pub use config::{NetConfig, NetTable, SharedKeys};
pub use faster_rcnn::{BoxHead, BoxPredictor, RegionHeads, Rpn, RpnConv, RpnHead, TwoStages};
pub use fcos::{FcosClassification, FcosHead, FcosRegression};
pub use gfl::{GflHead, Scale};
pub use points::Points;
pub use retinanet::{RetinanetClassification, RetinanetHead, RetinanetRegression};
pub use tower::{HeadNorm, TowerLayer};
pub use two_stages::TwoStageTable;

/// What a head makes of the features of one level.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it says.
    pub level: DetLevel,
    /// What goes into its class scores, `[n, c, h, w]`.
    pub cls_tower: Tensor<4>,
    /// What goes into its distances, `[n, c, h, w]`.
    pub reg_tower: Tensor<4>,
}

/// One of the two towers of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tower {
    /// The one that ends in class scores.
    Classes,
    /// The one that ends in boxes.
    Boxes,
}

/// What says classes and boxes, with one set of weights for all levels.
pub trait Head: Module {
    /// What it says of the features `[n, channels, h, w]` of the level of this stride, whose points lie at `point` of their
    /// squares.
    fn forward(&self, stride: usize, point: f32, features_nchw: Tensor<4>) -> Told;

    /// Which places answer for which objects, as its reference has it.
    fn assign(&self) -> AssignConfig;

    /// The convolution that makes class scores, of one anchor after the other.
    fn scores(&self) -> &Conv2d;

    /// How many anchors there are at each point.
    fn anchors(&self) -> usize {
        1
    }

    /// Multiply-adds of the convolutions on a level's map of this size.
    fn macs(&self, size: [usize; 2]) -> u64;

    /// What a tower has made of a level's features behind so many of its convolutions with their norms, before the activation.
    fn partway(&self, tower: Tower, convs: usize, features_nchw: Tensor<4>) -> Tensor<4>;

    /// The class scores, `[n, k, p]`, that the rest of its tower makes of such features.
    fn classes_onward(&self, convs: usize, partway_nchw: Tensor<4>) -> Tensor<3>;

    /// The ways to edges, `[n, 4, p]`, that the rest of its tower makes of such features of a level, and what they are made of.
    fn boxes_onward(&self, convs: usize, layout: &LevelLayout, partway_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding);
}

/// A backbone and the pyramid over its stages.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Pyramid {
    pub body: Backbone,
    pub fpn: Fpn,
}

/// A pyramid with a head on each of its levels.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Detector<H: Head> {
    pub backbone: Pyramid,
    pub head: H,
    /// Where the points lie, see [`Points`].
    #[module(skip)]
    pub points: Points,
}

impl<H: Head> Detector<H> {
    fn dense(&self, images_nchw: Tensor<4>) -> DetOutput {
        self.backbone.dense(&self.head, self.points, images_nchw)
    }

    fn head(&self) -> &H {
        &self.head
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        self.backbone.macs(&self.head, size)
    }

    fn classes(&self) -> usize {
        self.head.scores().weight.lazy_shape()[0] / self.head.anchors()
    }
}

impl Pyramid {
    /// What a head says of all levels.
    fn dense<H: Head>(&self, head: &H, points: Points, images_nchw: Tensor<4>) -> DetOutput {
        let [.., height, width] = images_nchw.dims();
        let mut taps = self.body.forward(images_nchw);
        let maps = self.fpn.forward(&taps);
        let mut levels = Vec::new();
        for (level, map) in maps {
            taps.insert(level.tap(), map.clone());
            let Told { level, cls_tower, reg_tower } = head.forward(level.stride(), points.part(), map);
            taps.insert(Tap::ClsTower, cls_tower);
            taps.insert(Tap::RegTower, reg_tower);
            levels.push(level);
        }
        DetOutput { levels, regions: None, taps, image_size: [height, width] }
    }

    /// Multiply-adds of the convolutions, those of a head on all levels included.
    fn macs<H: Head>(&self, head: &H, size: [usize; 2]) -> u64 {
        let (mut cost, mut sizes) = (Cost::at(size), BTreeMap::new());
        self.body.count(&mut cost, |tap, size| {
            sizes.insert(tap, size);
        });
        let (pyramid, levels) = self.fpn.count(|stage| sizes[&stage]);
        let heads: u64 = levels.into_iter().map(|(_, size)| head.macs(size)).sum();
        cost.macs + pyramid + heads
    }

    fn tap_channels(&self, tap: Tap) -> Option<usize> {
        let is_level = self.fpn.levels().iter().any(|level| level.tap() == tap);
        match tap {
            Tap::ClsTower | Tap::RegTower => Some(self.fpn.channels()),
            _ if is_level => Some(self.fpn.channels()),
            _ => self.body.channels(tap),
        }
    }
}

/// What a map says of each anchor of each point, as [`DetLevel`] has it: `[n, anchors * c, h, w]`, anchor by anchor, to
/// `[n, c, h * w * anchors]`.
fn at_places(map_nchw: Tensor<4>, anchors: usize) -> Tensor<3> {
    let [n, channels, height, width] = map_nchw.dims();
    let each = channels / anchors;
    match anchors {
        1 => map_nchw.flatten(2, 3),
        _ => map_nchw.reshape([n, anchors, each, height * width]).permute([0, 2, 3, 1]).flatten(2, 3),
    }
}

/// A detector.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum DetNet {
    FasterRcnn(TwoStages),
    Fcos(Detector<FcosHead>),
    Gfl(Detector<GflHead>),
    Retinanet(Detector<RetinanetHead>),
}

/// The pyramid learns as the head does: a file of a backbone does not hold it.
impl Grouped for DetNet {
    fn group(path: &str, rank: usize) -> Group {
        let segments: Vec<&str> = path.split('.').collect();
        let is_head = !segments.windows(2).any(|pair| pair == ["backbone", "body"]);
        Group { is_head, ..Group::of_rank(rank) }
    }
}

/// The same expression over the net of any variant.
macro_rules! each {
    ($net:expr, $inner:ident => $value:expr) => {
        match $net {
            DetNet::FasterRcnn($inner) => $value,
            DetNet::Fcos($inner) => $value,
            DetNet::Gfl($inner) => $value,
            DetNet::Retinanet($inner) => $value,
        }
    };
}

impl DetNet {
    /// What the net says of a batch of images, and its features; a net with two stages also what the second says of the
    /// proposals of the first.
    ///
    /// The net computes in the type of the images; norms, and what it says, are f32.
    ///
    /// # Shapes
    /// Images are `[n, 3, h, w]`, normalised, of any size. A level of stride `s` has `h / s` by `w / s` places, rounded up, so
    /// that the points of its last row and column may lie outside the image. Taps: `stem`, `c2` .. `c5`; the levels that the
    /// net has of `p2` .. `p7`; `cls_tower` and `reg_tower`, what goes into the last convolutions, once for each level, the
    /// finest first.
    #[must_use]
    pub fn forward(&self, images_nchw: Tensor<4>) -> DetOutput {
        let mut output = self.dense(images_nchw);
        if let Self::FasterRcnn(net) = self {
            output.regions = Some(net.regions(&output, net.proposals(&output)));
        }
        output
    }

    /// The same without a second stage, which is asked of [`two_stages`](Self::two_stages).
    #[must_use]
    pub fn dense(&self, images_nchw: Tensor<4>) -> DetOutput {
        each!(self, net => net.dense(images_nchw))
    }

    /// The net, if it has two stages.
    #[must_use]
    pub fn two_stages(&self) -> Option<&TwoStages> {
        match self {
            Self::FasterRcnn(net) => Some(net),
            Self::Fcos(_) | Self::Gfl(_) | Self::Retinanet(_) => None,
        }
    }

    /// What a tower of its head has made of a level's features `[n, channels, h, w]` behind so many of its convolutions, before
    /// the activation.
    ///
    /// # Panics
    /// If the head cannot be entered in the middle, or the tower has fewer convolutions.
    #[must_use]
    pub fn partway(&self, tower: Tower, convs: usize, features_nchw: Tensor<4>) -> Tensor<4> {
        each!(self, net => net.head().partway(tower, convs, features_nchw))
    }

    /// The class scores that the rest of the tower makes of such features, `[n, classes, p]`.
    ///
    /// # Panics
    /// As [`partway`](Self::partway).
    #[must_use]
    pub fn classes_onward(&self, convs: usize, partway_nchw: Tensor<4>) -> Tensor<3> {
        each!(self, net => net.head().classes_onward(convs, partway_nchw))
    }

    /// The ways to edges that the rest of the tower makes of such features of a level, `[n, 4, p]`, and what they are made of.
    ///
    /// # Panics
    /// As [`partway`](Self::partway).
    #[must_use]
    pub fn boxes_onward(&self, convs: usize, layout: &LevelLayout, partway_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        each!(self, net => net.head().boxes_onward(convs, layout, partway_nchw))
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        each!(self, net => net.classes())
    }

    /// Which places answer for which objects, unless a recipe says it.
    #[must_use]
    pub fn assign(&self) -> AssignConfig {
        each!(self, net => net.head().assign())
    }

    /// Multiply-adds of the convolutions for one image of `size` (height, width).
    #[must_use]
    pub fn macs(&self, size: [usize; 2]) -> u64 {
        each!(self, net => net.macs(size))
    }

    /// Pixels from one place of each level to the next, the finest level first.
    #[must_use]
    pub fn strides(&self) -> Vec<usize> {
        each!(self, net => net.backbone.fpn.levels()).iter().map(|level| level.stride()).collect()
    }

    /// Pixels from one place of the coarsest level to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.strides().into_iter().max().expect("a pyramid has a level")
    }

    /// Channels at a tap; `None` for a tap that this net lacks.
    #[must_use]
    pub fn tap_channels(&self, tap: Tap) -> Option<usize> {
        match tap {
            Tap::Logits => Some(self.classes()),
            _ => each!(self, net => net.backbone.tap_channels(tap)),
        }
    }
}
