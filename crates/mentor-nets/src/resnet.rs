//! `ResNet`, field by field as torchvision's, without its classifier.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use burn::tensor::ops::MaxPoolOptions;
use mentor_ops::{Activation, max_pool2d};
use mentor_types::{Tap, Taps};

use crate::blocks::norm;
use crate::{ConvNorm, ConvSpec, Cost, Fresh, conv_norm, conv_norm_relu};

/// How blocks of one stage are wired.
#[derive(Clone, Copy)]
struct Stage {
    input: usize,
    planes: usize,
    stride: usize,
    dilation: usize,
}

/// Two 3x3 convolutions around a shortcut (ResNet-18 and 34).
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct BasicBlock {
    pub conv1: Conv2d,
    pub bn1: BatchNorm,
    pub conv2: Conv2d,
    pub bn2: BatchNorm,
    pub downsample: Option<ConvNorm>,
}

impl BasicBlock {
    fn new(at: Stage, fresh: &Fresh) -> Self {
        let first = ConvSpec::of_backbone(at.input, at.planes, 3).stride(at.stride).dilation(at.dilation);
        Self {
            conv1: first.build(fresh),
            bn1: norm(at.planes, fresh),
            conv2: ConvSpec::of_backbone(at.planes, at.planes, 3).dilation(at.dilation).build(fresh),
            bn2: norm(at.planes, fresh),
            downsample: downsample(at, at.planes, fresh),
        }
    }

    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        let residual = shortcut(self.downsample.as_ref(), x_nchw.clone());
        let y = conv_norm_relu(&self.conv1, &self.bn1, x_nchw);
        conv_norm(&self.conv2, &self.bn2, y, Some(residual), Activation::Relu)
    }
}

/// 1x1, 3x3 and 1x1 convolutions around a shortcut, four times wider at the end (ResNet-50 and
/// deeper); the stride is in the 3x3 one, as in torchvision.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Bottleneck {
    pub conv1: Conv2d,
    pub bn1: BatchNorm,
    pub conv2: Conv2d,
    pub bn2: BatchNorm,
    pub conv3: Conv2d,
    pub bn3: BatchNorm,
    pub downsample: Option<ConvNorm>,
}

impl Bottleneck {
    const EXPANSION: usize = 4;

    fn new(at: Stage, fresh: &Fresh) -> Self {
        let middle = ConvSpec::of_backbone(at.planes, at.planes, 3).stride(at.stride).dilation(at.dilation);
        let output = at.planes * Self::EXPANSION;
        Self {
            conv1: ConvSpec::of_backbone(at.input, at.planes, 1).build(fresh),
            bn1: norm(at.planes, fresh),
            conv2: middle.build(fresh),
            bn2: norm(at.planes, fresh),
            conv3: ConvSpec::of_backbone(at.planes, output, 1).build(fresh),
            bn3: norm(output, fresh),
            downsample: downsample(at, output, fresh),
        }
    }

    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        let residual = shortcut(self.downsample.as_ref(), x_nchw.clone());
        let y = conv_norm_relu(&self.conv1, &self.bn1, x_nchw);
        let y = conv_norm_relu(&self.conv2, &self.bn2, y);
        conv_norm(&self.conv3, &self.bn3, y, Some(residual), Activation::Relu)
    }
}

fn downsample(at: Stage, output: usize, fresh: &Fresh) -> Option<ConvNorm> {
    (at.stride != 1 || at.input != output)
        .then(|| ConvNorm::new(ConvSpec::of_backbone(at.input, output, 1).stride(at.stride), fresh))
}

fn shortcut(downsample: Option<&ConvNorm>, x_nchw: Tensor<4>) -> Tensor<4> {
    match downsample {
        Some(layer) => layer.linear(x_nchw),
        None => x_nchw,
    }
}

/// One block of either kind.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Block {
    Basic(BasicBlock),
    Bottleneck(Bottleneck),
}

impl Block {
    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Basic(block) => block.forward(x_nchw),
            Self::Bottleneck(block) => block.forward(x_nchw),
        }
    }

    fn channels(&self) -> usize {
        let last = match self {
            Self::Basic(block) => &block.conv2,
            Self::Bottleneck(block) => &block.conv3,
        };
        last.weight.lazy_shape()[0]
    }

    fn count(&self, cost: &mut Cost) {
        let (convs, downsample) = match self {
            Self::Basic(block) => (vec![&block.conv1, &block.conv2], &block.downsample),
            Self::Bottleneck(block) => (vec![&block.conv1, &block.conv2, &block.conv3], &block.downsample),
        };
        if let Some(layer) = downsample {
            let mut branch = Cost::at(cost.size);
            layer.count(&mut branch);
            cost.macs += branch.macs;
        }
        for layer in convs {
            cost.conv(layer);
        }
    }
}

/// `ResNet` without its classifier.
///
/// # Source
/// arXiv 1512.03385; structure, names, start and dilation as torchvision's `resnet.py`
/// (`replace_stride_with_dilation`).
///
/// # Differs
/// torchvision dilates only bottleneck nets. Here basic blocks follow the same rule, with both of
/// their 3x3 convolutions dilated: where a stage's stride is replaced, its first block keeps the
/// dilation of the stage before and the others take the new one.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct ResNet {
    pub conv1: Conv2d,
    pub bn1: BatchNorm,
    pub layer1: Vec<Block>,
    pub layer2: Vec<Block>,
    pub layer3: Vec<Block>,
    pub layer4: Vec<Block>,
}

impl ResNet {
    /// A fresh net with `width` channels in the stem (64 as published) and `blocks` per stage.
    ///
    /// # Panics
    /// If `output_stride` is not 8, 16 or 32.
    #[must_use]
    pub fn new(blocks: [usize; 4], bottleneck: bool, width: usize, output_stride: usize, fresh: &Fresh) -> Self {
        let dilate = match output_stride {
            8 => [false, false, true, true],
            16 => [false, false, false, true],
            32 => [false; 4],
            other => panic!("output stride {other}, expected 8, 16 or 32"),
        };
        let (mut input, mut dilation) = (width, 1);
        let mut stage = |index: usize| {
            let planes = width << index;
            let previous = dilation;
            let stride = match (index, dilate[index]) {
                (0, _) => 1,
                (_, true) => {
                    dilation *= 2;
                    1
                }
                (_, false) => 2,
            };
            let first = Stage { input, planes, stride, dilation: previous };
            input = if bottleneck { planes * Bottleneck::EXPANSION } else { planes };
            let rest = Stage { input, planes, stride: 1, dilation };
            let stages = std::iter::once(first).chain(std::iter::repeat_n(rest, blocks[index] - 1));
            stages.map(|at| Self::block(at, bottleneck, fresh)).collect::<Vec<_>>()
        };
        Self {
            conv1: ConvSpec::of_backbone(3, width, 7).stride(2).build(fresh),
            bn1: norm(width, fresh),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
        }
    }

    fn block(at: Stage, bottleneck: bool, fresh: &Fresh) -> Block {
        if bottleneck {
            Block::Bottleneck(Bottleneck::new(at, fresh))
        } else {
            Block::Basic(BasicBlock::new(at, fresh))
        }
    }

    fn stages(&self) -> [(Tap, &Vec<Block>); 4] {
        [(Tap::C2, &self.layer1), (Tap::C3, &self.layer2), (Tap::C4, &self.layer3), (Tap::C5, &self.layer4)]
    }

    /// Channels at a tap that this net has.
    pub(crate) fn channels(&self, tap: Tap) -> Option<usize> {
        if tap == Tap::Stem {
            return Some(self.conv1.weight.lazy_shape()[0]);
        }
        let (_, blocks) = self.stages().into_iter().find(|(at, _)| *at == tap)?;
        blocks.last().map(Block::channels)
    }

    /// Features at `stem` (before the pooling), `c2` .. `c5`.
    ///
    /// # Shapes
    /// Images are `[n, 3, h, w]`, normalised.
    #[must_use]
    pub fn forward(&self, images_nchw: Tensor<4>) -> Taps {
        let mut taps = Taps::default();
        let stem = conv_norm_relu(&self.conv1, &self.bn1, images_nchw);
        let pool = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
        let mut x = max_pool2d(stem.clone(), pool);
        taps.insert(Tap::Stem, stem);
        for (tap, blocks) in self.stages() {
            x = blocks.iter().fold(x, |x, block| block.forward(x));
            taps.insert(tap, x.clone());
        }
        taps
    }

    /// Adds the cost of a forward pass; `sizes` receives the size of the map at each tap.
    pub fn count(&self, cost: &mut Cost, mut sizes: impl FnMut(Tap, [usize; 2])) {
        cost.conv(&self.conv1);
        sizes(Tap::Stem, cost.size);
        cost.pool();
        for (tap, blocks) in self.stages() {
            blocks.iter().for_each(|block| block.count(cost));
            sizes(tap, cost.size);
        }
    }
}
