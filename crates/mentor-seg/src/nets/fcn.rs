//! The head of FCN, which is also the auxiliary head of every net.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use mentor_nets::{ConvNorm, ConvSpec, Cost, Fresh, conv, conv_norm_relu, score_conv};
use mentor_types::{Key, Tap, Taps};

use super::dropout::dropout;
use super::{Head, TapSizes, at};

/// 3x3 convolution, norm, `ReLU`, dropout, 1x1 convolution.
///
/// # Source
/// torchvision's `FCNHead`, names included. It starts as `PyTorch`'s layers do: torchvision starts its backbones
/// alone in another way.
///
/// # Differs
/// Dropout takes whole channels, torchvision's single values (its probability is 0.1, ours 0 unless
/// the recipe says more).
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct FcnHead {
    pub conv_0: Conv2d,
    pub bn_1: BatchNorm,
    pub score_4: Conv2d,
    dropout: f64,
}

impl FcnHead {
    pub(super) fn new(input: usize, channels: usize, classes: usize, dropout: f64, fresh: &Fresh) -> Self {
        let ConvNorm { conv_0, bn_1 } = ConvNorm::new(ConvSpec::new(input, channels, 3), fresh);
        Self { conv_0, bn_1, score_4: score_conv(channels, classes, fresh), dropout }
    }

    /// Scores and what goes into the last convolution, before dropout.
    pub(super) fn scores(&self, features_nchw: Tensor<4>, key: Option<Key>) -> (Tensor<4>, Tensor<4>) {
        let head = conv_norm_relu(&self.conv_0, &self.bn_1, features_nchw);
        (conv(&self.score_4, dropout(head.clone(), self.dropout, key)), head)
    }
}

impl Head for FcnHead {
    fn forward(&self, taps: &Taps, key: Option<Key>) -> (Tensor<4>, Tensor<4>) {
        self.scores(at(taps, Tap::C5), key)
    }

    fn last(&self) -> &Conv2d {
        &self.score_4
    }

    fn macs(&self, sizes: &TapSizes) -> u64 {
        let mut cost = Cost::at(sizes[&Tap::C5]);
        cost.conv(&self.conv_0);
        cost.conv(&self.score_4);
        cost.macs
    }
}
