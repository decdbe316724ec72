//! One backbone of several.

use burn::module::Module;
use burn::tensor::Tensor;
use mentor_types::{Tap, Taps};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cost, Fresh, MobileNetV2, ResNet};

/// The backbones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackboneKind {
    /// ResNet-18: basic blocks (arXiv 1512.03385).
    Resnet18,
    /// ResNet-34: basic blocks (arXiv 1512.03385).
    Resnet34,
    /// ResNet-50: bottleneck blocks (arXiv 1512.03385).
    Resnet50,
    /// ResNet-101: bottleneck blocks (arXiv 1512.03385).
    Resnet101,
    /// `MobileNetV2` (arXiv 1801.04381). Its depthwise convolutions are slow on CPUs.
    MobilenetV2,
}

impl BackboneKind {
    /// The published number of channels of the stem: 64 for `ResNet`s, 32 for `MobileNetV2`.
    #[must_use]
    pub fn published_width(self) -> usize {
        match self {
            Self::MobilenetV2 => MobileNetV2::WIDTH,
            _ => 64,
        }
    }
}

/// Which backbone, how wide, how much it shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackboneSpec {
    /// Which.
    pub kind: BackboneKind,
    /// Channels of the stem; all others scale with it.
    pub width: usize,
    /// How many times smaller than the image `c5` is: 8, 16 or 32. Strides beyond it are replaced
    /// by dilation.
    pub output_stride: usize,
}

impl BackboneSpec {
    /// A fresh backbone.
    ///
    /// # Panics
    /// If the width is zero or the output stride not 8, 16 or 32.
    #[must_use]
    pub fn init(&self, fresh: &Fresh) -> Backbone {
        assert!(self.width > 0, "a backbone of width 0");
        let resnet = |blocks, bottleneck| {
            Backbone::ResNet(ResNet::new(blocks, bottleneck, self.width, self.output_stride, fresh))
        };
        match self.kind {
            BackboneKind::Resnet18 => resnet([2, 2, 2, 2], false),
            BackboneKind::Resnet34 => resnet([3, 4, 6, 3], false),
            BackboneKind::Resnet50 => resnet([3, 4, 6, 3], true),
            BackboneKind::Resnet101 => resnet([3, 4, 23, 3], true),
            BackboneKind::MobilenetV2 => Backbone::MobileNetV2(MobileNetV2::new(self.width, self.output_stride, fresh)),
        }
    }

    /// Channels at `stem` and `c2` .. `c5`; `None` for a tap that backbones lack.
    #[must_use]
    pub fn channels(&self, tap: Tap) -> Option<usize> {
        let expansion = match self.kind {
            BackboneKind::Resnet18 | BackboneKind::Resnet34 => 1,
            BackboneKind::Resnet50 | BackboneKind::Resnet101 => 4,
            BackboneKind::MobilenetV2 => return MobileNetV2::channels_at(tap, self.width),
        };
        match tap {
            Tap::Stem => Some(self.width),
            Tap::C2 => Some(self.width * expansion),
            Tap::C3 => Some(self.width * 2 * expansion),
            Tap::C4 => Some(self.width * 4 * expansion),
            Tap::C5 => Some(self.width * 8 * expansion),
            _ => None,
        }
    }
}

/// A backbone.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Backbone {
    ResNet(ResNet),
    MobileNetV2(MobileNetV2),
}

impl Backbone {
    /// Features at `stem`, `c2` .. `c5`.
    ///
    /// # Shapes
    /// Images are `[n, 3, h, w]`, normalised; every stride-2 layer rounds sizes up.
    #[must_use]
    pub fn forward(&self, images_nchw: Tensor<4>) -> Taps {
        match self {
            Self::ResNet(net) => net.forward(images_nchw),
            Self::MobileNetV2(net) => net.forward(images_nchw),
        }
    }

    /// Channels at `stem` and `c2` .. `c5`; `None` for a tap that backbones lack.
    #[must_use]
    pub fn channels(&self, tap: Tap) -> Option<usize> {
        match self {
            Self::ResNet(net) => net.channels(tap),
            Self::MobileNetV2(net) => net.channels(tap),
        }
    }

    /// Adds the cost of a forward pass; `sizes` receives the size of the map at each tap.
    pub fn count(&self, cost: &mut Cost, sizes: impl FnMut(Tap, [usize; 2])) {
        match self {
            Self::ResNet(net) => net.count(cost, sizes),
            Self::MobileNetV2(net) => net.count(cost, sizes),
        }
    }

    /// Multiply-adds of the convolutions for one image of `size` (height, width).
    #[must_use]
    pub fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        self.count(&mut cost, |_, _| {});
        cost.macs
    }
}
