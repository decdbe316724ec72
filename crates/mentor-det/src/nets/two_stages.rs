//! The recipe table of a detector with two stages.

use mentor_nets::{BackboneKind, BatchNormMode, Level, P6From, PyramidKind};
use mentor_types::{Found, below, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anchors::Anchors;
use super::points::Points;
use crate::proposals::ProposalLimits;

/// The keys of a net's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwoStageTable {
    /// The backbone.
    pub backbone: BackboneKind,
    /// Channels of the backbone's stem; everything else scales with it. Default: as published, 64 for
    /// a `ResNet`, 32 for `MobileNetV2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// The levels of the pyramid, one after the other, each with places twice as far apart: 4 pixels at `p2`, 8 at `p3`, 64
    /// at `p6`. All of them propose; what is in a region is seen at `p2` to `p5`. Default: `p2` to `p6`, as published.
    #[serde(default = "published_levels")]
    pub levels: Vec<Level>,
    /// Which way the pyramid is gone through: `fpn`, from the coarsest level down, or `pafpn`, down and up again. Default: `fpn`.
    #[serde(default)]
    pub pyramid: PyramidKind,
    /// What `p6` stands on: `pooled`, `p5` or `c5`. Default: `pooled`, as published.
    #[serde(default = "pooled")]
    pub p6_from: P6From,
    /// Channels of the pyramid and of the first stage. Default: 256 at the published width, scaled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_channels: Option<usize>,
    /// Where the points lie that boxes are told from. Default: `middle`.
    #[serde(default)]
    pub points: Points,
    /// The anchors at each point. Default: one of 8 strides for each of the three ratios, as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Anchors>,
    /// How many of the surest places of each level are looked at for proposals. Default 1000.
    #[serde(default = "thousand")]
    pub candidates: usize,
    /// How many regions are proposed at most to the second stage in each image, the surest. Default 1000.
    #[serde(default = "thousand")]
    pub proposals: usize,
    /// Of two proposals of a level that overlap by more than this the surer one is kept; intersection over union, in [0, 1].
    /// Default 0.7.
    #[serde(default = "proposal_nms_iou")]
    pub proposal_nms_iou: f64,
    /// Bins along each side of a region. Default 7, as published.
    #[serde(default = "bins")]
    pub bins: usize,
    /// Values that each of the two layers on a region makes of it. Default: 1024 at the published width, scaled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_width: Option<usize>,
    /// Batch norms, which the backbone alone has: `train` or `frozen`. Default: train.
    #[serde(default)]
    pub batch_norm: BatchNormMode,
    /// A file of weights (.pth, .safetensors, .bpk) or a run's folder. Default: none, initial weights
    /// are a function of the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Whether `weights` may be for another number of classes; what depends on it then starts afresh.
    /// Default: false.
    #[serde(default)]
    pub new_classes: bool,
}

fn published_levels() -> Vec<Level> {
    vec![Level::P2, Level::P3, Level::P4, Level::P5, Level::P6]
}

fn pooled() -> P6From {
    P6From::Pooled
}

fn thousand() -> usize {
    1000
}

fn proposal_nms_iou() -> f64 {
    0.7
}

fn bins() -> usize {
    7
}

/// The published values of each layer on a region.
const REGION_WIDTH: usize = 1024;

impl TwoStageTable {
    /// A table with every key at its default.
    #[must_use]
    pub fn new(backbone: BackboneKind) -> Self {
        Self {
            backbone,
            width: None,
            levels: published_levels(),
            pyramid: PyramidKind::Fpn,
            p6_from: pooled(),
            head_channels: None,
            points: Points::Middle,
            anchors: None,
            candidates: thousand(),
            proposals: thousand(),
            proposal_nms_iou: proposal_nms_iou(),
            bins: bins(),
            region_width: None,
            batch_norm: BatchNormMode::Train,
            weights: None,
            new_classes: false,
        }
    }

    /// The anchors, or the published ones.
    pub(super) fn anchors(&self) -> Anchors {
        self.anchors.clone().unwrap_or(Anchors { side: 8.0, sizes: 1, ..Anchors::default() })
    }

    /// The values of each layer on a region, for a backbone of this width.
    pub(super) fn region_width(&self, width: usize) -> usize {
        let scaled = REGION_WIDTH * width / self.backbone.published_width();
        self.region_width.unwrap_or(scaled.max(1))
    }

    pub(super) fn limits(&self) -> ProposalLimits {
        let Self { candidates, proposals, proposal_nms_iou: nms_iou, .. } = *self;
        ProposalLimits { candidates, nms_iou, proposals }
    }

    /// Reports values out of range, of the keys that other nets have not.
    pub(super) fn check(&self, found: &mut Found) {
        for (key, value, limit) in [
            ("candidates", self.candidates, 10_000),
            ("proposals", self.proposals, 10_000),
            ("bins", self.bins, 32),
            ("region_width", self.region_width.unwrap_or(1), 8192),
        ] {
            if !(1..=limit).contains(&value) {
                found.push((key.to_owned(), format!("found {value}, expected 1 to {limit}")));
            }
        }
        check_probability("proposal_nms_iou", self.proposal_nms_iou, found);
        if let Some(anchors) = &self.anchors {
            let finest = self.levels.first().copied().unwrap_or(Level::P2);
            below("anchors", found, |found| anchors.check(finest.stride(), found));
        }
    }
}
