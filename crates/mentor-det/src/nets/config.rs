//! The recipe tables of a detector.

use burn::tensor::Device;
use mentor_nets::{
    BackboneKind, BackboneSpec, BatchNormMode, Fpn, Fresh, Level, P6From, PyramidKind, PyramidSpec, check_levels,
    freeze_norms,
};
use mentor_types::{Found, MAX_CLASSES, Tap, below};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anchors::{Anchors, square};
use super::faster_rcnn::{RegionHeads, Rpn, RpnHead, TwoStages};
use super::fcos::FcosHead;
use super::gfl::GflHead;
use super::points::Points;
use super::retinanet::RetinanetHead;
use super::tower::HeadNorm;
use super::two_stages::TwoStageTable;
use super::{DetNet, Detector, Pyramid};

/// A detector: the name of the table picks the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetConfig {
    /// Anchors propose regions, and a second stage says the class of each and how its box differs from it, as torchvision's
    /// (Faster R-CNN, arXiv 1506.01497, on a feature pyramid).
    FasterRcnn(TwoStageTable),
    /// Every place inside a box says its class and the distances to its edges, without anchors, as torchvision's (FCOS,
    /// arXiv 1904.01355).
    Fcos(NetTable),
    /// Every place says its class as surely as its box fits, and a distribution for the distance to each edge (generalised focal
    /// loss, arXiv 2006.04388).
    Gfl(NetTable),
    /// Every anchor says its class and how the box differs from it, as torchvision's (`RetinaNet`, arXiv 1708.02002).
    Retinanet(NetTable),
}

/// The keys of a net's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetTable {
    /// The backbone.
    pub backbone: BackboneKind,
    /// Channels of the backbone's stem; everything else scales with it. Default: as published, 64 for
    /// a `ResNet`, 32 for `MobileNetV2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// The levels of the pyramid, one after the other, each with places twice as far apart: 4 pixels at `p2`, 8 at `p3`, 128
    /// at `p7`. Small objects need fine levels. Default: `p3` to `p7`, as published.
    #[serde(default = "published_levels")]
    pub levels: Vec<Level>,
    /// Which way the pyramid is gone through: `fpn`, from the coarsest level down, or `pafpn`, down and up again. Default: `fpn`.
    #[serde(default)]
    pub pyramid: PyramidKind,
    /// What `p6` stands on, `p5` or `c5`. Default: `p5`.
    #[serde(default)]
    pub p6_from: P6From,
    /// Channels of the pyramid and of the head. Default: 256 at the published width, scaled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_channels: Option<usize>,
    /// Where the points lie that boxes are told from. Default: `middle`.
    #[serde(default)]
    pub points: Points,
    /// Convolutions of the head before its last ones. Default: 4, as published.
    #[serde(default = "published_convs")]
    pub head_convs: usize,
    /// What follows each of them: `group`, a group norm; of `retinanet` alone `none`, for weights that torchvision trained
    /// without. Default: `group`.
    #[serde(default)]
    pub head_norm: HeadNorm,
    /// Of `retinanet`: the anchors at each point. Default: nine, as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Anchors>,
    /// Of `gfl`: how many distances to an edge have a probability, 0 strides, 1 and so on. Default: 17, as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bins: Option<usize>,
    /// Batch norms, which the backbone alone has: `train` or `frozen`. Default: train.
    #[serde(default)]
    pub batch_norm: BatchNormMode,
    /// A file of weights (.pth, .safetensors, .bpk) or a run's folder. Default: none, initial weights
    /// are a function of the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Whether `weights` may be for another number of classes; the class scores then start afresh.
    /// Default: false.
    #[serde(default)]
    pub new_classes: bool,
}

fn published_levels() -> Vec<Level> {
    vec![Level::P3, Level::P4, Level::P5, Level::P6, Level::P7]
}

fn published_convs() -> usize {
    4
}

/// The keys that all nets have.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct SharedKeys<'a> {
    pub backbone: BackboneKind,
    pub width: Option<usize>,
    pub levels: &'a [Level],
    pub pyramid: PyramidKind,
    pub p6_from: P6From,
    pub head_channels: Option<usize>,
    pub points: Points,
    pub batch_norm: BatchNormMode,
    pub weights: Option<&'a str>,
    pub new_classes: bool,
}

/// The published channels of pyramid and head.
const CHANNELS: usize = 256;

/// The published number of distances to an edge.
const BINS: usize = 17;

impl NetTable {
    /// A table with every key at its default.
    #[must_use]
    pub fn new(backbone: BackboneKind) -> Self {
        Self {
            backbone,
            width: None,
            levels: published_levels(),
            pyramid: PyramidKind::Fpn,
            p6_from: P6From::P5,
            head_channels: None,
            points: Points::Middle,
            head_convs: published_convs(),
            head_norm: HeadNorm::Group,
            anchors: None,
            bins: None,
            batch_norm: BatchNormMode::Train,
            weights: None,
            new_classes: false,
        }
    }
}

impl NetConfig {
    /// The table of a net with one stage.
    #[must_use]
    pub fn table(&self) -> Option<&NetTable> {
        match self {
            Self::FasterRcnn(_) => None,
            Self::Fcos(table) | Self::Gfl(table) | Self::Retinanet(table) => Some(table),
        }
    }

    /// The keys that all nets have.
    #[must_use]
    pub fn shared(&self) -> SharedKeys<'_> {
        match self {
            Self::FasterRcnn(table) => SharedKeys {
                backbone: table.backbone,
                width: table.width,
                levels: &table.levels,
                pyramid: table.pyramid,
                p6_from: table.p6_from,
                head_channels: table.head_channels,
                points: table.points,
                batch_norm: table.batch_norm,
                weights: table.weights.as_deref(),
                new_classes: table.new_classes,
            },
            Self::Fcos(table) | Self::Gfl(table) | Self::Retinanet(table) => SharedKeys {
                backbone: table.backbone,
                width: table.width,
                levels: &table.levels,
                pyramid: table.pyramid,
                p6_from: table.p6_from,
                head_channels: table.head_channels,
                points: table.points,
                batch_norm: table.batch_norm,
                weights: table.weights.as_deref(),
                new_classes: table.new_classes,
            },
        }
    }

    /// The name of the table in a recipe.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::FasterRcnn(_) => "faster_rcnn",
            Self::Fcos(_) => "fcos",
            Self::Gfl(_) => "gfl",
            Self::Retinanet(_) => "retinanet",
        }
    }

    /// The same net with every default written out.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let (width, head_channels) = (self.backbone().width, self.head_channels());
        let mut resolved = self.clone();
        let table = match &mut resolved {
            Self::FasterRcnn(table) => {
                let (anchors, region_width) = (table.anchors(), table.region_width(width));
                (table.anchors, table.region_width) = (Some(anchors), Some(region_width));
                (table.width, table.head_channels) = (Some(width), Some(head_channels));
                return resolved;
            }
            Self::Fcos(table) => table,
            Self::Gfl(table) => {
                table.bins.get_or_insert(BINS);
                table
            }
            Self::Retinanet(table) => {
                table.anchors.get_or_insert_default();
                table
            }
        };
        (table.width, table.head_channels) = (Some(width), Some(head_channels));
        resolved
    }

    /// Pushes (key below the table, message) for every value out of range.
    pub fn check(&self, found: &mut Found) {
        let table = self.shared();
        let mut problem = |key: &str, message: String| found.push((format!("{}.{key}", self.name()), message));
        if let Some(width) = table.width.filter(|width| !(1..=512).contains(width)) {
            problem("width", format!("{width} channels, expected 1 to 512"));
        }
        if let Err(message) = check_levels(table.levels) {
            problem("levels", message);
        }
        if let Some(channels) = table.head_channels.filter(|channels| !(1..=4096).contains(channels)) {
            problem("head_channels", format!("{channels} channels, expected 1 to 4096"));
        }
        if let Some(convs) = self.head_convs().filter(|convs| !(1..=16).contains(convs)) {
            problem("head_convs", format!("{convs} convolutions, expected 1 to 16"));
        }
        // What a table says that does not name it.
        let silent = if matches!(self, Self::FasterRcnn(_)) { P6From::Pooled } else { P6From::P5 };
        if table.p6_from != silent && !table.levels.contains(&Level::P6) {
            problem("p6_from", "has no effect without the level p6".into());
        }
        let stages = table.levels.iter().filter(|level| level.stage().is_some()).count();
        if table.pyramid == PyramidKind::Pafpn && stages < 2 {
            problem("pyramid", "has no effect with one level of p2 to p5: there is no way up".into());
        }
        if table.p6_from == P6From::Pooled && table.levels.contains(&Level::P7) {
            problem("p6_from", "no p7 stands on a pooled p6, expected \"p5\" or \"c5\"".into());
        }
        if table.new_classes && table.weights.is_none() {
            problem("new_classes", "has no effect without `weights`".into());
        }
        match self {
            Self::FasterRcnn(table) => below(self.name(), found, |found| table.check(found)),
            Self::Fcos(table) | Self::Gfl(table) | Self::Retinanet(table) => self.check_head(table, found),
        }
    }

    /// Of the keys that not every head has.
    fn check_head(&self, table: &NetTable, found: &mut Found) {
        let name = self.name();
        let foreign = |key: &str, of: &str| (format!("{name}.{key}"), format!("`{name}` has none, `{of}` does"));
        match (self, &table.anchors) {
            (Self::Retinanet(_), Some(anchors)) => {
                let finest = table.levels.first().copied().unwrap_or(Level::P2);
                below(&format!("{name}.anchors"), found, |found| anchors.check(finest.stride(), found));
            }
            (_, None) => {}
            (_, Some(_)) => found.push(foreign("anchors", "retinanet")),
        }
        match (self, table.bins) {
            (Self::Gfl(_), Some(bins)) if !(2..=64).contains(&bins) => {
                found.push((format!("{name}.bins"), format!("{bins} distances, expected 2 to 64")));
            }
            (Self::Gfl(_), _) | (_, None) => {}
            (_, Some(_)) => found.push(foreign("bins", "gfl")),
        }
        if table.head_norm == HeadNorm::None && !matches!(self, Self::Retinanet(_)) {
            let message = format!("the towers of `{name}` have group norms, expected \"group\"");
            found.push((format!("{name}.head_norm"), message));
        }
    }

    /// Widths and heights in pixels of the anchors at each point of a level; for a net without anchors the square that stands
    /// for the objects of the level.
    #[must_use]
    pub fn anchors(&self, level: Level) -> Vec<[f32; 2]> {
        match self {
            Self::FasterRcnn(table) => table.anchors().at(level.stride()),
            Self::Fcos(_) | Self::Gfl(_) => vec![square(level.stride())],
            Self::Retinanet(table) => table.anchors.clone().unwrap_or_default().at(level.stride()),
        }
    }

    /// The backbone with its defaults.
    #[must_use]
    pub fn backbone(&self) -> BackboneSpec {
        let SharedKeys { backbone: kind, width, .. } = self.shared();
        BackboneSpec { kind, width: width.unwrap_or(kind.published_width()), output_stride: 32 }
    }

    fn head_channels(&self) -> usize {
        let spec = self.backbone();
        let scaled = CHANNELS * spec.width / spec.kind.published_width();
        self.shared().head_channels.unwrap_or(scaled.max(1))
    }

    /// Convolutions of the head before its last ones, where that is a key.
    #[must_use]
    pub fn head_convs(&self) -> Option<usize> {
        self.table().map(|table| table.head_convs)
    }

    /// Channels at a tap; `None` for a tap that this net lacks.
    #[must_use]
    pub fn tap_channels(&self, tap: Tap) -> Option<usize> {
        let is_level = self.shared().levels.iter().any(|level| level.tap() == tap);
        match tap {
            Tap::ClsTower | Tap::RegTower => Some(self.head_channels()),
            _ if is_level => Some(self.head_channels()),
            _ => self.backbone().channels(tap),
        }
    }

    /// A fresh net whose weights are a function of the seed and their paths. `weights` is not read:
    /// this crate knows no files.
    ///
    /// # Panics
    /// As [`build`](Self::build).
    #[must_use]
    pub fn init(&self, classes: usize, seed: u64, device: &Device) -> DetNet {
        Fresh::seeded(device, seed, |fresh| self.build_on(classes, fresh))
    }

    /// The net with weights of zero, which are allocated only when they are used: for counting, and for a
    /// file to fill.
    ///
    /// # Panics
    /// If the table was not checked, or there are no or too many classes.
    #[must_use]
    pub fn build(&self, classes: usize, device: &Device) -> DetNet {
        self.build_on(classes, &Fresh::on(device))
    }

    fn build_on(&self, classes: usize, fresh: &Fresh) -> DetNet {
        let limit = 1..=MAX_CLASSES;
        assert!(limit.contains(&classes), "{classes} classes, expected 1 to {MAX_CLASSES}");
        let (shared, spec, channels) = (self.shared(), self.backbone(), self.head_channels());
        let body = spec.init(fresh);
        let body = match shared.batch_norm {
            BatchNormMode::Train => body,
            BatchNormMode::Frozen => freeze_norms(body),
        };
        let pyramid = PyramidSpec { levels: shared.levels, kind: shared.pyramid, p6_from: shared.p6_from, channels };
        let backbone = Pyramid { body, fpn: Fpn::new(&spec, pyramid, fresh) };
        let points = shared.points;
        match self {
            Self::FasterRcnn(table) => DetNet::FasterRcnn(TwoStages {
                backbone,
                rpn: Rpn { head: RpnHead::new(channels, table.anchors(), fresh) },
                roi_heads: RegionHeads::new(channels, table.bins, table.region_width(spec.width), classes, fresh),
                points,
                limits: table.limits(),
                bins: table.bins,
            }),
            Self::Fcos(table) => {
                let head = FcosHead::new(channels, table.head_convs, classes, fresh);
                DetNet::Fcos(Detector { backbone, head, points })
            }
            Self::Gfl(table) => {
                let strides = table.levels.iter().map(|level| level.stride()).collect();
                let head =
                    GflHead::new(channels, table.head_convs, table.bins.unwrap_or(BINS), strides, classes, fresh);
                DetNet::Gfl(Detector { backbone, head, points })
            }
            Self::Retinanet(table) => {
                let anchors = table.anchors.clone().unwrap_or_default();
                let head = RetinanetHead::new(channels, table.head_convs, table.head_norm, anchors, classes, fresh);
                DetNet::Retinanet(Detector { backbone, head, points })
            }
        }
    }
}
