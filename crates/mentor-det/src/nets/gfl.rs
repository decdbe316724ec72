//! The head of generalised focal loss.

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Int, Tensor};
use mentor_nets::{Cost, Fresh, Init, conv};
use mentor_types::{BoxCoding, DetLevel, LevelLayout};

use crate::assign::{AssignConfig, AtssAssign};

use super::anchors::square;
use super::tower::{PRIOR, TowerLayer, count, head_conv, onward, partway, through, tower};
use super::{Head, Told, Tower, at_places};

/// What a level multiplies by before its distributions are read off.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Scale {
    pub scale: Param<Tensor<1>>,
}

/// Two towers, shared by all levels: one ends in the scores of the classes, which say how well the box fits, too; the other, for
/// each edge, in a distribution over distances of 0, 1, .. `bins - 1` strides from the point, whose mean is the distance.
///
/// # Source
/// Li et al. 2020, arXiv 2006.04388, section 3 and figure 3: `softmax` over 17 distances, no centerness. Names and the learnt
/// factor of each level are those of the authors' `GFLHead`; every class has a probability of 0.01 at the start.
///
/// # Differs
/// A point lies in the middle of its square of pixels unless `points` says otherwise; the authors' lies in its corner. Names of
/// the towers' layers are counted as in a `Sequential`. Norms of few channels have fewer groups.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct GflHead {
    pub cls_convs: Vec<TowerLayer>,
    pub reg_convs: Vec<TowerLayer>,
    pub gfl_cls: Conv2d,
    pub gfl_reg: Conv2d,
    /// One for each level, the finest first.
    pub scales: Vec<Scale>,
    #[module(skip)]
    strides: Vec<usize>,
}

impl GflHead {
    pub(super) fn new(
        channels: usize,
        convs: usize,
        bins: usize,
        strides: Vec<usize>,
        classes: usize,
        fresh: &Fresh,
    ) -> Self {
        Self {
            cls_convs: tower(channels, convs, fresh),
            reg_convs: tower(channels, convs, fresh),
            gfl_cls: head_conv(channels, classes, Init::prior(PRIOR), fresh),
            gfl_reg: head_conv(channels, 4 * bins, Init::Constant(0.0), fresh),
            scales: strides.iter().map(|_| Scale { scale: fresh.constant([1], 1.0) }).collect(),
            strides,
        }
    }
}

impl GflHead {
    fn classes(&self, cls_tower_nchw: Tensor<4>) -> Tensor<3> {
        at_places(conv(&self.gfl_cls, cls_tower_nchw).cast(DType::F32), 1)
    }

    /// The ways to edges, and the distributions of which they are the means.
    fn boxes(&self, stride: usize, reg_tower_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        let [n, _, height, width] = reg_tower_nchw.dims();
        let index = self.strides.iter().position(|own| *own == stride);
        let scale = self.scales[index.expect("a level of the net")].scale.val().reshape([1, 1, 1, 1]);
        let edges_nchw = conv(&self.gfl_reg, reg_tower_nchw).cast(DType::F32) * scale;
        let bins = edges_nchw.dims()[1] / 4;
        let logits_n4bp = edges_nchw.reshape([n, 4, bins, height * width]);
        (means(logits_n4bp.clone()).mul_scalar(stride as f64), BoxCoding::Distribution(logits_n4bp))
    }
}

impl Head for GflHead {
    fn forward(&self, stride: usize, point: f32, features_nchw: Tensor<4>) -> Told {
        let [.., height, width] = features_nchw.dims();
        let cls_tower = through(&self.cls_convs, features_nchw.clone());
        let reg_tower = through(&self.reg_convs, features_nchw);
        let (distances, coding) = self.boxes(stride, reg_tower.clone());
        let level = DetLevel {
            layout: LevelLayout { stride, size: [height, width], point, anchors: vec![square(stride)] },
            class_logits: self.classes(cls_tower.clone()),
            distances,
            coding,
            centerness: None,
        };
        Told { level, cls_tower, reg_tower }
    }

    fn partway(&self, tower: Tower, convs: usize, features_nchw: Tensor<4>) -> Tensor<4> {
        let layers = match tower {
            Tower::Classes => &self.cls_convs,
            Tower::Boxes => &self.reg_convs,
        };
        partway(layers, convs, features_nchw)
    }

    fn classes_onward(&self, convs: usize, partway_nchw: Tensor<4>) -> Tensor<3> {
        self.classes(onward(&self.cls_convs, convs, partway_nchw))
    }

    fn boxes_onward(&self, convs: usize, layout: &LevelLayout, partway_nchw: Tensor<4>) -> (Tensor<3>, BoxCoding) {
        self.boxes(layout.stride, onward(&self.reg_convs, convs, partway_nchw))
    }

    fn assign(&self) -> AssignConfig {
        AssignConfig::Atss(AtssAssign::default())
    }

    fn scores(&self) -> &Conv2d {
        &self.gfl_cls
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        count(&self.cls_convs, &mut cost);
        count(&self.reg_convs, &mut cost);
        // All convolutions of a head keep the size.
        cost.conv(&self.gfl_cls);
        cost.conv(&self.gfl_reg);
        cost.macs
    }
}

/// The means of distributions over 0, 1, .., `[n, 4, bins, p]` before the softmax to `[n, 4, p]`.
fn means(logits_n4bp: Tensor<4>) -> Tensor<3> {
    let [n, edges, bins, places] = logits_n4bp.dims();
    let steps = Tensor::<1, Int>::arange(0..bins as i64, &logits_n4bp.device()).float().cast(DType::F32);
    (softmax(logits_n4bp, 2) * steps.reshape([1, 1, bins, 1])).sum_dim(2).reshape([n, edges, places])
}
