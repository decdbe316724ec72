//! `MobileNetV2`, names as torchvision's, without the convolution that feeds its classifier.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use mentor_ops::Activation;
use mentor_types::{Tap, Taps};

use crate::blocks::norm;
use crate::{ConvNorm, ConvSpec, Cost, Fresh, conv_norm};

/// Expansion, channels at the published width, blocks and stride of the seven stages (table 2).
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// The entries of `features` whose outputs are taps.
const TAPS: [(usize, Tap); 5] = [(0, Tap::Stem), (3, Tap::C2), (6, Tap::C3), (13, Tap::C4), (17, Tap::C5)];

/// One entry of an inverted residual's `conv`.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Step {
    Activated(ConvNorm),
    Conv(Conv2d),
    Norm(BatchNorm),
}

/// Expand, depthwise, project; with a shortcut where input and output agree.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    /// The steps in order.
    pub conv: Vec<Step>,
    shortcut: bool,
}

impl InvertedResidual {
    fn new(
        input: usize,
        output: usize,
        expansion: usize,
        stride: usize,
        dilation: usize,
        shortcut: bool,
        fresh: &Fresh,
    ) -> Self {
        let hidden = input * expansion;
        let mut steps = Vec::new();
        if expansion != 1 {
            steps.push(Step::Activated(ConvNorm::new(ConvSpec::of_backbone(input, hidden, 1), fresh)));
        }
        let depthwise = ConvSpec::of_backbone(hidden, hidden, 3).stride(stride).dilation(dilation).depthwise();
        steps.push(Step::Activated(ConvNorm::new(depthwise, fresh)));
        steps.push(Step::Conv(ConvSpec::of_backbone(hidden, output, 1).build(fresh)));
        steps.push(Step::Norm(norm(output, fresh)));
        Self { conv: steps, shortcut }
    }

    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        let residual = self.shortcut.then(|| x_nchw.clone());
        let y = self.conv.iter().fold(x_nchw, |x, step| match step {
            Step::Activated(layer) => layer.relu6(x),
            Step::Conv(_) | Step::Norm(_) => x,
        });
        let (conv, norm) = self.projection();
        conv_norm(conv, norm, y, residual, Activation::Identity)
    }

    /// The last two steps.
    fn projection(&self) -> (&Conv2d, &BatchNorm) {
        match self.conv.as_slice() {
            [.., Step::Conv(conv), Step::Norm(norm)] => (conv, norm),
            _ => unreachable!("a block ends with a convolution and its norm"),
        }
    }
}

/// One entry of `features`.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum MobileNetLayer {
    Stem(ConvNorm),
    Block(InvertedResidual),
}

/// `MobileNetV2` up to its last block.
///
/// # Source
/// arXiv 1801.04381, table 2; structure, names, start and rounding of channels as torchvision's
/// `mobilenetv2.py`.
///
/// # Differs
/// The last 1x1 convolution (1280 channels, `features.18`) serves the classifier and is left out;
/// `c5` is the output of the last block. Strides are replaced by dilation with the rule of
/// torchvision's `ResNet`; torchvision has none for this net.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    /// The stem and 17 blocks.
    pub features: Vec<MobileNetLayer>,
}

impl MobileNetV2 {
    /// The published channels of the stem.
    pub const WIDTH: usize = 32;

    /// A fresh net with `width` channels in the stem (32 as published; the others scale with it and
    /// are rounded to multiples of 8).
    ///
    /// # Panics
    /// If `output_stride` is not 8, 16 or 32.
    #[must_use]
    pub fn new(width: usize, output_stride: usize, fresh: &Fresh) -> Self {
        assert!([8, 16, 32].contains(&output_stride), "output stride {output_stride}, expected 8, 16 or 32");
        let mut input = channels(Self::WIDTH, width);
        let stem = ConvNorm::new(ConvSpec::of_backbone(3, input, 3).stride(2), fresh);
        let mut features = vec![MobileNetLayer::Stem(stem)];
        let (mut reached, mut dilation) = (2, 1);
        for (expansion, base, blocks, stage_stride) in STAGES {
            for block in 0..blocks {
                let wanted = if block == 0 { stage_stride } else { 1 };
                // The block whose stride is replaced keeps the dilation that was before it.
                let current = dilation;
                let stride = if reached * wanted > output_stride {
                    dilation *= wanted;
                    1
                } else {
                    reached *= wanted;
                    wanted
                };
                let output = channels(base, width);
                let shortcut = wanted == 1 && input == output;
                let layer = InvertedResidual::new(input, output, expansion, stride, current, shortcut, fresh);
                features.push(MobileNetLayer::Block(layer));
                input = output;
            }
        }
        Self { features }
    }

    /// Channels at a tap of a net of this width.
    pub(crate) fn channels_at(tap: Tap, width: usize) -> Option<usize> {
        let base = match tap {
            Tap::Stem => Self::WIDTH,
            Tap::C2 => 24,
            Tap::C3 => 32,
            Tap::C4 => 96,
            Tap::C5 => 320,
            _ => return None,
        };
        Some(channels(base, width))
    }

    /// Channels at a tap that this net has.
    pub(crate) fn channels(&self, tap: Tap) -> Option<usize> {
        let (index, _) = TAPS.iter().find(|(_, at)| *at == tap)?;
        let last = match &self.features[*index] {
            MobileNetLayer::Stem(stem) => &stem.conv_0,
            MobileNetLayer::Block(block) => block.projection().0,
        };
        Some(last.weight.lazy_shape()[0])
    }

    /// Features at `stem`, `c2` .. `c5` (the blocks that end with stride 4, 8, 16 and 32).
    ///
    /// # Shapes
    /// Images are `[n, 3, h, w]`, normalised.
    #[must_use]
    pub fn forward(&self, images_nchw: Tensor<4>) -> Taps {
        let mut taps = Taps::default();
        let mut x = images_nchw;
        for (index, layer) in self.features.iter().enumerate() {
            x = match layer {
                MobileNetLayer::Stem(stem) => stem.relu6(x),
                MobileNetLayer::Block(block) => block.forward(x),
            };
            if let Some((_, tap)) = TAPS.iter().find(|(last, _)| *last == index) {
                taps.insert(*tap, x.clone());
            }
        }
        taps
    }

    /// Adds the cost of a forward pass; `sizes` receives the size of the map at each tap.
    pub fn count(&self, cost: &mut Cost, mut sizes: impl FnMut(Tap, [usize; 2])) {
        for (index, layer) in self.features.iter().enumerate() {
            match layer {
                MobileNetLayer::Stem(stem) => stem.count(cost),
                MobileNetLayer::Block(block) => {
                    for step in &block.conv {
                        match step {
                            Step::Activated(layer) => layer.count(cost),
                            Step::Conv(layer) => cost.conv(layer),
                            Step::Norm(_) => {}
                        }
                    }
                }
            }
            if let Some((_, tap)) = TAPS.iter().find(|(last, _)| *last == index) {
                sizes(*tap, cost.size);
            }
        }
    }
}

/// `base` channels at another width: the nearest multiple of 8, and never less than nine tenths.
fn channels(base: usize, width: usize) -> usize {
    let scaled = base as f64 * width as f64 / MobileNetV2::WIDTH as f64;
    let rounded = (((scaled + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (rounded as f64) < 0.9 * scaled { rounded + 8 } else { rounded }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn channels_are_multiples_of_eight_near_the_scaled_ones() {
        let at = |width| [32, 16, 24, 96, 160, 320].map(|base| channels(base, width));
        assert_eq!(at(32), [32, 16, 24, 96, 160, 320]);
        assert_eq!(at(16), [16, 8, 16, 48, 80, 160]);
        assert_eq!(at(8), [8, 8, 8, 24, 40, 80]);
    }
}
