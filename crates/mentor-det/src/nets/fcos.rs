//! The head of FCOS.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};
use mentor_nets::{Cost, Fresh, Init, conv};
use mentor_types::{BoxCoding, DetLevel, LevelLayout};

use crate::assign::{AssignConfig, FcosAssign};

use super::anchors::square;
use super::tower::{PRIOR, TowerLayer, count, head_conv, onward, partway, through, tower};
use super::{Head, Told, Tower, at_places};

/// The part that says classes.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct FcosClassification {
    pub conv: Vec<TowerLayer>,
    pub cls_logits: Conv2d,
}

/// The part that says where the edges are, and how central a place is.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct FcosRegression {
    pub conv: Vec<TowerLayer>,
    pub bbox_reg: Conv2d,
    pub bbox_ctrness: Conv2d,
}

/// Two towers, shared by all levels: one ends in the scores of the classes, the other in the distances to the edges of a box
/// and in centerness. Distances are `relu(bbox_reg) * stride` pixels.
///
/// # Source
/// arXiv 1904.01355, with centerness on the tower of the distances and distances in units of the stride (arXiv 2006.09214);
/// structure, names and start as torchvision's `FCOSHead`. Every class has a probability of 0.01 at the start.
///
/// # Differs
/// A point lies in the middle of its square of pixels, as in the papers, unless `points` says otherwise. Norms of few channels have fewer groups. torchvision's scores have a place for the background, class 0, which ours
/// have not.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct FcosHead {
    pub classification_head: FcosClassification,
    pub regression_head: FcosRegression,
}

impl FcosHead {
    pub(super) fn new(channels: usize, convs: usize, classes: usize, fresh: &Fresh) -> Self {
        let last = |output, bias| head_conv(channels, output, bias, fresh);
        Self {
            classification_head: FcosClassification {
                conv: tower(channels, convs, fresh),
                cls_logits: last(classes, Init::prior(PRIOR)),
            },
            regression_head: FcosRegression {
                conv: tower(channels, convs, fresh),
                bbox_reg: last(4, Init::Constant(0.0)),
                bbox_ctrness: last(1, Init::Constant(0.0)),
            },
        }
    }
}

impl FcosHead {
    fn classes(&self, cls_tower_nchw: Tensor<4>) -> Tensor<3> {
        at_places(conv(&self.classification_head.cls_logits, cls_tower_nchw).cast(DType::F32), 1)
    }

    fn distances(&self, stride: usize, reg_tower_nchw: Tensor<4>) -> Tensor<3> {
        let told = conv(&self.regression_head.bbox_reg, reg_tower_nchw).cast(DType::F32);
        at_places(relu(told).mul_scalar(stride as f64), 1)
    }
}

impl Head for FcosHead {
    fn forward(&self, stride: usize, point: f32, features_nchw: Tensor<4>) -> Told {
        let [.., height, width] = features_nchw.dims();
        let (says, finds) = (&self.classification_head, &self.regression_head);
        let cls_tower = through(&says.conv, features_nchw.clone());
        let reg_tower = through(&finds.conv, features_nchw);
        let centerness = conv(&finds.bbox_ctrness, reg_tower.clone()).cast(DType::F32);
        let anchors = vec![square(stride)];
        let level = DetLevel {
            layout: LevelLayout { stride, size: [height, width], point, anchors },
            class_logits: self.classes(cls_tower.clone()),
            distances: self.distances(stride, reg_tower.clone()),
            coding: BoxCoding::Distances,
            centerness: Some(at_places(centerness, 1)),
        };
        Told { level, cls_tower, reg_tower }
    }

    fn partway(&self, tower: Tower, convs: usize, features_nchw: Tensor<4>) -> Tensor<4> {
        let layers = match tower {
            Tower::Classes => &self.classification_head.conv,
            Tower::Boxes => &self.regression_head.conv,
        };
        partway(layers, convs, features_nchw)
    }

    fn classes_onward(&self, convs: usize, partway_nchw: Tensor<4>) -> Tensor<3> {
        self.classes(onward(&self.classification_head.conv, convs, partway_nchw))
    }

    fn boxes_onward(&self, convs: usize, layout: &LevelLayout, partway_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        let reg_tower = onward(&self.regression_head.conv, convs, partway_nchw);
        (self.distances(layout.stride, reg_tower), BoxCoding::Distances)
    }

    fn assign(&self) -> AssignConfig {
        AssignConfig::Fcos(FcosAssign::default())
    }

    fn scores(&self) -> &Conv2d {
        &self.classification_head.cls_logits
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        count(&self.classification_head.conv, &mut cost);
        count(&self.regression_head.conv, &mut cost);
        // All convolutions of a head keep the size.
        for layer in
            [&self.classification_head.cls_logits, &self.regression_head.bbox_reg, &self.regression_head.bbox_ctrness]
        {
            cost.conv(layer);
        }
        cost.macs
    }
}
