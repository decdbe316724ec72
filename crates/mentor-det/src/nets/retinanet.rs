//! The head of `RetinaNet`.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{DType, Tensor};
use mentor_nets::{Cost, Fresh, Init, conv};
use mentor_types::{BoxCoding, DetLevel, LevelLayout};

use crate::assign::{AssignConfig, MaxIouAssign};
use crate::deltas::decoded;

use super::anchors::{Anchors, sides};
use super::tower::{HeadNorm, PRIOR, TowerLayer, blocks, count, head_conv, onward, partway, through};
use super::{Head, Told, Tower, at_places};

/// The part that says classes.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct RetinanetClassification {
    pub conv: Vec<Vec<TowerLayer>>,
    pub cls_logits: Conv2d,
}

/// The part that says how boxes differ from anchors.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct RetinanetRegression {
    pub conv: Vec<Vec<TowerLayer>>,
    pub bbox_reg: Conv2d,
}

/// Two towers, shared by all levels: for each anchor of each point one says the scores of the classes, the other how the box
/// differs from the anchor.
///
/// # Source
/// arXiv 1708.02002; structure, names and start as torchvision's `RetinaNetHead`. Every class has a probability of 0.01 at the
/// start.
///
/// # Differs
/// A point lies in the middle of its square of pixels unless `points` says otherwise. Towers have group norms, of fewer groups
/// where there are few channels, unless `head_norm` says otherwise: torchvision's `retinanet_resnet50_fpn` has none, stands on
/// `p5` as here, and has its points in the corner; its `retinanet_resnet50_fpn_v2` has norms and stands on `c5`. torchvision's
/// scores have a place for the background, class 0, which ours have not. Its weights `COCO_V1` were trained with frozen norms
/// of the backbone whose epsilon was 0, where ours is 1e-5.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct RetinanetHead {
    pub classification_head: RetinanetClassification,
    pub regression_head: RetinanetRegression,
    #[module(skip)]
    anchors: Anchors,
}

impl RetinanetHead {
    pub(super) fn new(
        channels: usize,
        convs: usize,
        norm: HeadNorm,
        anchors: Anchors,
        classes: usize,
        fresh: &Fresh,
    ) -> Self {
        let count = anchors.count();
        Self {
            classification_head: RetinanetClassification {
                conv: blocks(channels, convs, norm, fresh),
                cls_logits: head_conv(channels, count * classes, Init::prior(PRIOR), fresh),
            },
            regression_head: RetinanetRegression {
                conv: blocks(channels, convs, norm, fresh),
                bbox_reg: head_conv(channels, count * 4, Init::Constant(0.0), fresh),
            },
            anchors,
        }
    }
}

impl RetinanetHead {
    fn classes(&self, cls_tower_nchw: Tensor<4>) -> Tensor<3> {
        let logits_nchw = conv(&self.classification_head.cls_logits, cls_tower_nchw);
        at_places(logits_nchw.cast(DType::F32), self.anchors.count())
    }

    /// The ways to edges, and how the boxes differ from anchors.
    fn boxes(&self, anchors: &[[f32; 2]], reg_tower_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        let [.., height, width] = reg_tower_nchw.dims();
        let told_nchw = conv(&self.regression_head.bbox_reg, reg_tower_nchw).cast(DType::F32);
        let deltas_n4p = at_places(told_nchw, anchors.len());
        let sides_11p = [0, 1].map(|axis| sides(anchors, axis, height * width, &deltas_n4p.device()));
        (decoded(&deltas_n4p, &sides_11p), BoxCoding::Deltas(deltas_n4p))
    }
}

impl Head for RetinanetHead {
    fn forward(&self, stride: usize, point: f32, features_nchw: Tensor<4>) -> Told {
        let [.., height, width] = features_nchw.dims();
        let (says, finds) = (&self.classification_head, &self.regression_head);
        let cls_tower = through(says.conv.iter().flatten(), features_nchw.clone());
        let reg_tower = through(finds.conv.iter().flatten(), features_nchw);
        let anchors = self.anchors.at(stride);
        let (distances, coding) = self.boxes(&anchors, reg_tower.clone());
        let level = DetLevel {
            class_logits: self.classes(cls_tower.clone()),
            distances,
            coding,
            centerness: None,
            layout: LevelLayout { stride, size: [height, width], point, anchors },
        };
        Told { level, cls_tower, reg_tower }
    }

    fn partway(&self, tower: Tower, convs: usize, features_nchw: Tensor<4>) -> Tensor<4> {
        let layers = match tower {
            Tower::Classes => &self.classification_head.conv,
            Tower::Boxes => &self.regression_head.conv,
        };
        partway(layers.iter().flatten(), convs, features_nchw)
    }

    fn classes_onward(&self, convs: usize, partway_nchw: Tensor<4>) -> Tensor<3> {
        self.classes(onward(self.classification_head.conv.iter().flatten(), convs, partway_nchw))
    }

    fn boxes_onward(&self, convs: usize, layout: &LevelLayout, partway_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        self.boxes(&layout.anchors, onward(self.regression_head.conv.iter().flatten(), convs, partway_nchw))
    }

    fn assign(&self) -> AssignConfig {
        AssignConfig::MaxIou(MaxIouAssign::default())
    }

    fn scores(&self) -> &Conv2d {
        &self.classification_head.cls_logits
    }

    fn anchors(&self) -> usize {
        self.anchors.count()
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        for tower in [&self.classification_head.conv, &self.regression_head.conv] {
            count(tower.iter().flatten(), &mut cost);
        }
        // All convolutions of a head keep the size.
        cost.conv(&self.classification_head.cls_logits);
        cost.conv(&self.regression_head.bbox_reg);
        cost.macs
    }
}
