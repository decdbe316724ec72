//! Faster R-CNN: a first stage that proposes boxes, and a second that says what is in them.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};
use mentor_nets::{ConvSpec, Cost, Fresh, FullyConnected, Init, conv};
use mentor_types::{BoxCoding, DetLevel, DetOutput, LevelLayout, Regions};

use crate::assign::{AssignConfig, MaxIouAssign};
use crate::deltas::decoded;
use crate::pooling;
use crate::proposals::{ProposalLimits, Proposals};

use super::anchors::{Anchors, sides};
use super::points::Points;
use super::tower::head_conv;
use super::{Head, Pyramid, Told, Tower, at_places};

/// A convolution that torchvision wraps with its activation.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct RpnConv {
    pub conv_0: Conv2d,
}

/// For each anchor of each point whether there is an object, and how its box differs from the anchor.
///
/// # Source
/// Ren et al. 2015, arXiv 1506.01497, section 3.1; structure, names and start as torchvision's `RPNHead` with one convolution.
///
/// # Differs
/// A point lies in the middle of its square of pixels unless `points` says otherwise.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct RpnHead {
    pub conv: Vec<RpnConv>,
    pub cls_logits: Conv2d,
    pub bbox_pred: Conv2d,
    #[module(skip)]
    anchors: Anchors,
}

/// The first stage.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Rpn {
    pub head: RpnHead,
}

/// The layers on a region's features.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct BoxHead {
    pub fc6: FullyConnected,
    pub fc7: FullyConnected,
}

/// The scores of background and classes, and how the box of each differs from the region.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct BoxPredictor {
    pub cls_score: FullyConnected,
    pub bbox_pred: FullyConnected,
}

/// The second stage.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct RegionHeads {
    pub box_head: BoxHead,
    pub box_predictor: BoxPredictor,
}

/// A pyramid, a head on each of its levels, and a second stage on regions.
///
/// # Source
/// Ren et al. 2015, arXiv 1506.01497, on a feature pyramid (Lin et al. 2017, arXiv 1612.03144); structure, names and start as
/// torchvision's `FasterRCNN` with `TwoMLPHead` and `FastRCNNPredictor`.
///
/// # Differs
/// torchvision counts background among the classes, as class 0: its 91 are our 90.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct TwoStages {
    pub backbone: Pyramid,
    pub rpn: Rpn,
    pub roi_heads: RegionHeads,
    /// Where the points lie, see [`Points`].
    #[module(skip)]
    pub points: Points,
    #[module(skip)]
    pub(super) limits: ProposalLimits,
    #[module(skip)]
    pub(super) bins: usize,
}

impl RpnHead {
    pub(super) fn new(channels: usize, anchors: Anchors, fresh: &Fresh) -> Self {
        let ends = |outputs| {
            ConvSpec::new(channels, outputs, 1).start(Init::Normal(0.01)).bias(Init::Constant(0.0)).build(fresh)
        };
        Self {
            conv: vec![RpnConv { conv_0: head_conv(channels, channels, Init::Constant(0.0), fresh) }],
            cls_logits: ends(anchors.count()),
            bbox_pred: ends(4 * anchors.count()),
            anchors,
        }
    }

    fn convolved(&self, features_nchw: Tensor<4>) -> Tensor<4> {
        self.conv.iter().fold(features_nchw, |x, layer| relu(conv(&layer.conv_0, x)))
    }
}

impl Head for RpnHead {
    fn forward(&self, stride: usize, point: f32, features_nchw: Tensor<4>) -> Told {
        let [.., height, width] = features_nchw.dims();
        let x_nchw = self.convolved(features_nchw);
        let anchors = self.anchors.at(stride);
        let told = |layer: &Conv2d| at_places(conv(layer, x_nchw.clone()).cast(DType::F32), anchors.len());
        let (class_logits, deltas_n4p) = (told(&self.cls_logits), told(&self.bbox_pred));
        let sides_11p = [0, 1].map(|axis| sides(&anchors, axis, height * width, &deltas_n4p.device()));
        let level = DetLevel {
            class_logits,
            distances: decoded(&deltas_n4p, &sides_11p),
            coding: BoxCoding::Deltas(deltas_n4p),
            centerness: None,
            layout: LevelLayout { stride, size: [height, width], point, anchors },
        };
        Told { level, cls_tower: x_nchw.clone(), reg_tower: x_nchw }
    }

    fn assign(&self) -> AssignConfig {
        AssignConfig::MaxIou(MaxIouAssign { high: 0.7, low: 0.3, low_quality: true })
    }

    fn scores(&self) -> &Conv2d {
        &self.cls_logits
    }

    fn anchors(&self) -> usize {
        self.anchors.count()
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        self.conv.iter().for_each(|layer| cost.conv(&layer.conv_0));
        cost.conv(&self.cls_logits);
        cost.conv(&self.bbox_pred);
        cost.macs
    }

    fn partway(&self, _: Tower, _: usize, _: Tensor<4>) -> Tensor<4> {
        panic!("a first stage cannot be entered in the middle")
    }

    fn classes_onward(&self, _: usize, _: Tensor<4>) -> Tensor<3> {
        panic!("a first stage cannot be entered in the middle")
    }

    fn boxes_onward(&self, _: usize, _: &LevelLayout, _: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        panic!("a first stage cannot be entered in the middle")
    }
}

impl RegionHeads {
    /// For regions of `channels` channels and `bins` by `bins` bins, with layers of `width`.
    pub(super) fn new(channels: usize, bins: usize, width: usize, classes: usize, fresh: &Fresh) -> Self {
        Self {
            box_head: BoxHead {
                fc6: FullyConnected::new(channels * bins * bins, width, fresh),
                fc7: FullyConnected::new(width, width, fresh),
            },
            box_predictor: BoxPredictor {
                cls_score: FullyConnected::new(width, classes + 1, fresh),
                bbox_pred: FullyConnected::new(width, 4 * (classes + 1), fresh),
            },
        }
    }

    /// Multiply-adds of a region.
    fn macs(&self) -> u64 {
        let Self { box_head: BoxHead { fc6, fc7 }, box_predictor: BoxPredictor { cls_score, bbox_pred } } = self;
        [fc6, fc7, cls_score, bbox_pred].into_iter().map(FullyConnected::macs).sum()
    }
}

impl TwoStages {
    pub(super) fn dense(&self, images_nchw: Tensor<4>) -> DetOutput {
        self.backbone.dense(&self.rpn.head, self.points, images_nchw)
    }

    pub(super) fn head(&self) -> &RpnHead {
        &self.rpn.head
    }

    /// With the second stage on as many regions as are proposed at most.
    pub(super) fn macs(&self, size: [usize; 2]) -> u64 {
        self.backbone.macs(&self.rpn.head, size) + self.limits.proposals as u64 * self.roi_heads.macs()
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.roi_heads.box_predictor.cls_score.outputs() - 1
    }

    /// The boxes that the first stage is surest of, off the graph.
    #[must_use]
    pub fn proposals(&self, output: &DetOutput) -> Proposals {
        Proposals::of(output, &self.limits)
    }

    /// What the second stage says of regions of the images that `output` is about. Their features are those of the level of
    /// their size, `p2` to `p5`.
    #[must_use]
    pub fn regions(&self, output: &DetOutput, regions: Proposals) -> Regions {
        let Proposals { edges_nr4, real_nr } = regions;
        let [n, r, _] = edges_nr4.dims();
        let dtype = output.taps.iter().last().map_or(DType::F32, |(_, map)| map.dtype());
        let BoxHead { fc6, fc7 } = &self.roi_heads.box_head;
        let pooled = pooling::at_own_levels(&output.taps, &edges_nr4, self.bins).cast(dtype);
        let x = pooled.flatten::<4>(0, 1).flatten::<2>(1, 3);
        let x = relu(fc7.forward(relu(fc6.forward(x))));
        let BoxPredictor { cls_score, bbox_pred } = &self.roi_heads.box_predictor;
        let classes = self.classes();
        let deltas: Tensor<4> = bbox_pred.forward(x.clone()).cast(DType::F32).reshape([n, r, classes + 1, 4]);
        Regions {
            class_logits: cls_score.forward(x).cast(DType::F32).reshape([n, r, classes + 1]),
            deltas: deltas.narrow(2, 1, classes),
            edges_nr4,
            real_nr,
        }
    }
}
