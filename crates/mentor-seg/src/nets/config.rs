//! The recipe tables of a segmentation net.

use burn::tensor::Device;
use mentor_nets::{BackboneKind, BackboneSpec, BatchNormMode, Fresh, freeze_norms};
use mentor_types::{MAX_CLASSES, Tap};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deeplab::{DeepLabHead, DeepLabPlusHead};
use super::fcn::FcnHead;
use super::psp::PspHead;
use super::{SegNet, Segmenter};

/// A segmentation net: the name of the table picks the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetConfig {
    /// A 3x3 convolution and scores on `c5`, as torchvision's FCN (after arXiv 1411.4038).
    Fcn(NetTable),
    /// Pyramid pooling with bins 1, 2, 3, 6 on `c5` (`PSPNet`, arXiv 1612.01105).
    Pspnet(NetTable),
    /// Dilated convolutions of several rates on `c5`, as torchvision's (`DeepLabV3`, arXiv 1706.05587).
    Deeplabv3(NetTable),
    /// The same with a decoder that goes back to `c2` (`DeepLabV3+`, arXiv 1802.02611).
    Deeplabv3plus(NetTable),
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
    /// How many times smaller than the image the deepest features are: 8, 16 or 32. Default: 8, but 16
    /// for `deeplabv3plus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_stride: Option<usize>,
    /// Channels of the head. Default: a quarter of `c5` for `fcn` and `pspnet`; 256 at the published
    /// width, scaled with it, for `deeplabv3` and `deeplabv3plus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_channels: Option<usize>,
    /// Whether there is an auxiliary FCN head on `c4`, for `supervised.auxiliary_weight`. Default: false.
    #[serde(default)]
    pub auxiliary: bool,
    /// Probability with which a channel of the head is dropped while training, in [0, 1); the papers'
    /// code has 0.1 for `fcn` and `pspnet` and 0.5 in torchvision's `deeplabv3`. Default: 0.
    #[serde(default)]
    pub dropout: f64,
    /// Batch norms: `train` or `frozen`. Default: train.
    #[serde(default)]
    pub batch_norm: BatchNormMode,
    /// A file of weights (.pth, .safetensors, .bpk) or a run's folder. Default: none, initial weights
    /// are a function of the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Whether `weights` may be for another number of classes; the last layers then start afresh.
    /// Default: false.
    #[serde(default)]
    pub new_classes: bool,
}

impl NetTable {
    /// A table with every key at its default.
    #[must_use]
    pub fn new(backbone: BackboneKind) -> Self {
        Self {
            backbone,
            width: None,
            output_stride: None,
            head_channels: None,
            auxiliary: false,
            dropout: 0.0,
            batch_norm: BatchNormMode::Train,
            weights: None,
            new_classes: false,
        }
    }
}

/// The published channels of `DeepLabV3+`'s low-level branch, and of the dilated branches.
const PLUS_LOW_CHANNELS: usize = 48;
const ASPP_CHANNELS: usize = 256;

impl NetConfig {
    /// The table, whatever the head.
    #[must_use]
    pub fn table(&self) -> &NetTable {
        match self {
            Self::Fcn(table) | Self::Pspnet(table) | Self::Deeplabv3(table) | Self::Deeplabv3plus(table) => table,
        }
    }

    /// The table, to be changed.
    pub(crate) fn table_mut(&mut self) -> &mut NetTable {
        match self {
            Self::Fcn(table) | Self::Pspnet(table) | Self::Deeplabv3(table) | Self::Deeplabv3plus(table) => table,
        }
    }

    /// The name of the table in a recipe.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fcn(_) => "fcn",
            Self::Pspnet(_) => "pspnet",
            Self::Deeplabv3(_) => "deeplabv3",
            Self::Deeplabv3plus(_) => "deeplabv3plus",
        }
    }

    /// The same net with every default written out.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let (spec, head_channels) = (self.backbone(), self.head_channels());
        let mut resolved = self.clone();
        let table = resolved.table_mut();
        table.width = Some(spec.width);
        table.output_stride = Some(spec.output_stride);
        table.head_channels = Some(head_channels);
        resolved
    }

    /// Pushes (key below the table, message) for every value out of range.
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        let table = self.table();
        let mut problem = |key: &str, message: String| problems.push((format!("{}.{key}", self.name()), message));
        if let Some(width) = table.width.filter(|width| !(1..=512).contains(width)) {
            problem("width", format!("{width} channels, expected 1 to 512"));
        }
        if let Some(stride) = table.output_stride.filter(|stride| ![8, 16, 32].contains(stride)) {
            problem("output_stride", format!("found {stride}, expected 8, 16 or 32"));
        }
        if let Some(channels) = table.head_channels.filter(|channels| !(1..=4096).contains(channels)) {
            problem("head_channels", format!("{channels} channels, expected 1 to 4096"));
        }
        if !(0.0..1.0).contains(&table.dropout) {
            problem("dropout", format!("probability {}, expected at least 0 and below 1", table.dropout));
        }
        if table.new_classes && table.weights.is_none() {
            problem("new_classes", "has no effect without `weights`".into());
        }
    }

    /// The backbone with its defaults.
    #[must_use]
    pub fn backbone(&self) -> BackboneSpec {
        let table = self.table();
        let output_stride = if matches!(self, Self::Deeplabv3plus(_)) { 16 } else { 8 };
        BackboneSpec {
            kind: table.backbone,
            width: table.width.unwrap_or(table.backbone.published_width()),
            output_stride: table.output_stride.unwrap_or(output_stride),
        }
    }

    /// Channels of the head.
    #[must_use]
    pub(crate) fn head_channels(&self) -> usize {
        let default = match self {
            Self::Fcn(_) | Self::Pspnet(_) => self.backbone_channels(Tap::C5) / 4,
            Self::Deeplabv3(_) | Self::Deeplabv3plus(_) => self.scaled(ASPP_CHANNELS),
        };
        self.table().head_channels.unwrap_or(default.max(1))
    }

    /// Channels at a tap; `None` for a tap that segmentation nets lack.
    #[must_use]
    pub fn tap_channels(&self, tap: Tap) -> Option<usize> {
        if tap == Tap::Head { Some(self.head_channels()) } else { self.backbone().channels(tap) }
    }

    fn backbone_channels(&self, tap: Tap) -> usize {
        self.backbone().channels(tap).expect("every backbone has c2 to c5")
    }

    /// A published number of channels at this width.
    fn scaled(&self, published: usize) -> usize {
        let spec = self.backbone();
        (published * spec.width / spec.kind.published_width()).max(1)
    }

    /// A fresh net whose weights are a function of the seed and their paths. `weights` is not read:
    /// this crate knows no files.
    ///
    /// # Panics
    /// As [`build`](Self::build).
    #[must_use]
    pub fn init(&self, classes: usize, seed: u64, device: &Device) -> SegNet {
        Fresh::seeded(device, seed, |fresh| self.build_on(classes, fresh))
    }

    /// The net with weights of zero, which are allocated only when they are used: for counting, and for a
    /// file to fill.
    ///
    /// # Panics
    /// If the table was not checked, or there are no or too many classes.
    #[must_use]
    pub fn build(&self, classes: usize, device: &Device) -> SegNet {
        self.build_on(classes, &Fresh::on(device))
    }

    fn build_on(&self, classes: usize, fresh: &Fresh) -> SegNet {
        let limit = 1..=MAX_CLASSES;
        assert!(limit.contains(&classes), "{classes} classes, expected 1 to {MAX_CLASSES}");
        let (table, spec) = (self.table(), self.backbone());
        let [c2, c4, c5] = [Tap::C2, Tap::C4, Tap::C5].map(|tap| self.backbone_channels(tap));
        let (channels, dropout) = (self.head_channels(), table.dropout);
        let backbone = spec.init(fresh);
        let auxiliary = table.auxiliary.then(|| FcnHead::new(c4, (c4 / 4).max(1), classes, dropout, fresh));
        let net = match self {
            Self::Fcn(_) => {
                let head = FcnHead::new(c5, channels, classes, dropout, fresh);
                SegNet::Fcn(Segmenter::new(backbone, head, auxiliary))
            }
            Self::Pspnet(_) => {
                let head = PspHead::new(c5, channels, classes, dropout, fresh);
                SegNet::Pspnet(Segmenter::new(backbone, head, auxiliary))
            }
            Self::Deeplabv3(_) => {
                let head = DeepLabHead::new(c5, channels, spec.output_stride, classes, dropout, fresh);
                SegNet::Deeplabv3(Segmenter::new(backbone, head, auxiliary))
            }
            Self::Deeplabv3plus(_) => {
                let low = [c2, self.scaled(PLUS_LOW_CHANNELS)];
                let head = DeepLabPlusHead::new(c5, low, channels, spec.output_stride, classes, dropout, fresh);
                SegNet::Deeplabv3plus(Segmenter::new(backbone, head, auxiliary))
            }
        };
        match table.batch_norm {
            BatchNormMode::Train => net,
            BatchNormMode::Frozen => freeze_norms(net),
        }
    }
}
