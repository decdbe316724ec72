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
use super::fcos::FcosHead;
use super::gfl::GflHead;
use super::retinanet::RetinanetHead;
use super::tower::HeadNorm;
use super::{DetNet, Detector, Pyramid};

/// A detector: the name of the table picks the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetConfig {
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

/// Where a point lies in its square of pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Points {
    /// In its middle, as in the papers.
    #[default]
    Middle,
    /// At its upper left corner: for weights that torchvision trained.
    Corner,
}

impl Points {
    /// How far from the upper left corner, in parts of the side.
    pub(super) fn part(self) -> f32 {
        match self {
            Self::Middle => 0.5,
            Self::Corner => 0.0,
        }
    }
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
    /// The table, whatever the head.
    #[must_use]
    pub fn table(&self) -> &NetTable {
        match self {
            Self::Fcos(table) | Self::Gfl(table) | Self::Retinanet(table) => table,
        }
    }

    /// The name of the table in a recipe.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
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
        let table = self.table();
        let mut problem = |key: &str, message: String| found.push((format!("{}.{key}", self.name()), message));
        if let Some(width) = table.width.filter(|width| !(1..=512).contains(width)) {
            problem("width", format!("{width} channels, expected 1 to 512"));
        }
        if let Err(message) = check_levels(&table.levels) {
            problem("levels", message);
        }
        if let Some(channels) = table.head_channels.filter(|channels| !(1..=4096).contains(channels)) {
            problem("head_channels", format!("{channels} channels, expected 1 to 4096"));
        }
        if !(1..=16).contains(&table.head_convs) {
            problem("head_convs", format!("{} convolutions, expected 1 to 16", table.head_convs));
        }
        if table.p6_from != P6From::P5 && !table.levels.contains(&Level::P6) {
            problem("p6_from", "has no effect without the level p6".into());
        }
        let stages = table.levels.iter().filter(|level| level.stage().is_some()).count();
        if table.pyramid == PyramidKind::Pafpn && stages < 2 {
            problem("pyramid", "has no effect with one level of p2 to p5: there is no way up".into());
        }
        if table.new_classes && table.weights.is_none() {
            problem("new_classes", "has no effect without `weights`".into());
        }
        self.check_head(found);
    }

    /// Of the keys that not every head has.
    fn check_head(&self, found: &mut Found) {
        let (table, name) = (self.table(), self.name());
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
            Self::Fcos(_) | Self::Gfl(_) => vec![square(level.stride())],
            Self::Retinanet(table) => table.anchors.clone().unwrap_or_default().at(level.stride()),
        }
    }

    /// The backbone with its defaults.
    #[must_use]
    pub fn backbone(&self) -> BackboneSpec {
        let NetTable { backbone: kind, width, .. } = *self.table();
        BackboneSpec { kind, width: width.unwrap_or(kind.published_width()), output_stride: 32 }
    }

    fn head_channels(&self) -> usize {
        let spec = self.backbone();
        let scaled = CHANNELS * spec.width / spec.kind.published_width();
        self.table().head_channels.unwrap_or(scaled.max(1))
    }

    /// Channels at a tap; `None` for a tap that this net lacks.
    #[must_use]
    pub fn tap_channels(&self, tap: Tap) -> Option<usize> {
        let is_level = self.table().levels.iter().any(|level| level.tap() == tap);
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
        let (table, spec, channels) = (self.table(), self.backbone(), self.head_channels());
        let body = spec.init(fresh);
        let body = match table.batch_norm {
            BatchNormMode::Train => body,
            BatchNormMode::Frozen => freeze_norms(body),
        };
        let pyramid = PyramidSpec { levels: &table.levels, kind: table.pyramid, p6_from: table.p6_from, channels };
        let backbone = Pyramid { body, fpn: Fpn::new(&spec, pyramid, fresh) };
        let (convs, points) = (table.head_convs, table.points);
        match self {
            Self::Fcos(_) => {
                let head = FcosHead::new(channels, convs, classes, fresh);
                DetNet::Fcos(Detector { backbone, head, points })
            }
            Self::Gfl(_) => {
                let strides = table.levels.iter().map(|level| level.stride()).collect();
                let head = GflHead::new(channels, convs, table.bins.unwrap_or(BINS), strides, classes, fresh);
                DetNet::Gfl(Detector { backbone, head, points })
            }
            Self::Retinanet(_) => {
                let anchors = table.anchors.clone().unwrap_or_default();
                let head = RetinanetHead::new(channels, convs, table.head_norm, anchors, classes, fresh);
                DetNet::Retinanet(Detector { backbone, head, points })
            }
        }
    }
}
