//! The heads of `DeepLabV3` and `DeepLabV3+`.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use mentor_nets::{ConvNorm, ConvSpec, Cost, Fresh, conv, conv_norm_relu, score_conv};
use mentor_ops::{adaptive_avg_pool2d, resize_bilinear};
use mentor_types::{Key, Tap, Taps};

use super::dropout::dropout;
use super::{Head, TapSizes, at};

/// The mean over the map, a 1x1 convolution, norm and `ReLU`, spread over the map again.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct ImagePooling {
    pub conv_1: Conv2d,
    pub bn_2: BatchNorm,
}

/// One branch of the pyramid.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub enum Branch {
    Dilated(ConvNorm),
    Image(ImagePooling),
}

impl Branch {
    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Dilated(layer) => layer.relu(x_nchw),
            Self::Image(pooling) => {
                let [.., height, width] = x_nchw.dims();
                let mean = adaptive_avg_pool2d(x_nchw, [1, 1]);
                let mean = conv_norm_relu(&pooling.conv_1, &pooling.bn_2, mean);
                let [n, channels, ..] = mean.dims();
                mean.expand([n, channels, height, width])
            }
        }
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        match self {
            Self::Dilated(layer) => layer.count(&mut cost),
            Self::Image(pooling) => {
                cost.size = [1, 1];
                cost.conv(&pooling.conv_1);
            }
        }
        cost.macs
    }
}

/// Atrous spatial pyramid pooling: a 1x1 convolution, 3x3 convolutions of three dilations and the mean
/// of the map side by side, joined by a 1x1 convolution.
///
/// # Source
/// arXiv 1706.05587, section 3.3; structure, names and start as torchvision's `ASPP`. Rates are 12, 24, 36 at
/// output stride 8 (torchvision), 6, 12, 18 at 16 (the paper), and half of that at 32 (ours).
///
/// # Differs
/// Dropout takes whole channels, torchvision's single values (its probability is 0.5, ours 0 unless
/// the recipe says more). Training on one image, torchvision refuses the mean's batch norm; ours
/// returns its offset.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Aspp {
    pub convs: Vec<Branch>,
    pub project: ConvNorm,
    dropout: f64,
}

impl Aspp {
    fn new(input: usize, channels: usize, output_stride: usize, dropout: f64, fresh: &Fresh) -> Self {
        let rates = [1, 2, 3].map(|factor| factor * 96 / output_stride);
        let mut convs = vec![Branch::Dilated(ConvNorm::new(ConvSpec::new(input, channels, 1), fresh))];
        for rate in rates {
            let spec = ConvSpec::new(input, channels, 3).dilation(rate);
            convs.push(Branch::Dilated(ConvNorm::new(spec, fresh)));
        }
        let ConvNorm { conv_0: conv_1, bn_1: bn_2 } = ConvNorm::new(ConvSpec::new(input, channels, 1), fresh);
        convs.push(Branch::Image(ImagePooling { conv_1, bn_2 }));
        let project = ConvNorm::new(ConvSpec::new(convs.len() * channels, channels, 1), fresh);
        Self { convs, project, dropout }
    }

    fn forward(&self, x_nchw: Tensor<4>, key: Option<Key>) -> Tensor<4> {
        let maps = self.convs.iter().map(|branch| branch.forward(x_nchw.clone())).collect();
        dropout(self.project.relu(Tensor::cat(maps, 1)), self.dropout, key)
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        self.project.count(&mut cost);
        cost.macs + self.convs.iter().map(|branch| branch.macs(size)).sum::<u64>()
    }
}

/// The pyramid, a 3x3 convolution, and scores.
///
/// # Source
/// torchvision's `DeepLabHead`, names and start included.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct DeepLabHead {
    pub aspp_0: Aspp,
    pub conv_1: Conv2d,
    pub bn_2: BatchNorm,
    pub score_4: Conv2d,
}

impl DeepLabHead {
    pub(super) fn new(
        input: usize,
        channels: usize,
        output_stride: usize,
        classes: usize,
        dropout: f64,
        fresh: &Fresh,
    ) -> Self {
        let ConvNorm { conv_0: conv_1, bn_1: bn_2 } = ConvNorm::new(ConvSpec::new(channels, channels, 3), fresh);
        Self {
            aspp_0: Aspp::new(input, channels, output_stride, dropout, fresh),
            conv_1,
            bn_2,
            score_4: score_conv(channels, classes, fresh),
        }
    }
}

impl Head for DeepLabHead {
    fn forward(&self, taps: &Taps, key: Option<Key>) -> (Tensor<4>, Tensor<4>) {
        let pyramid = self.aspp_0.forward(at(taps, Tap::C5), key);
        let head = conv_norm_relu(&self.conv_1, &self.bn_2, pyramid);
        (conv(&self.score_4, head.clone()), head)
    }

    fn last(&self) -> &Conv2d {
        &self.score_4
    }

    fn macs(&self, sizes: &TapSizes) -> u64 {
        let mut cost = Cost::at(sizes[&Tap::C5]);
        cost.conv(&self.conv_1);
        cost.conv(&self.score_4);
        cost.macs + self.aspp_0.macs(sizes[&Tap::C5])
    }
}

/// The pyramid, brought to the size of `c2` and joined with few channels of it; two 3x3 convolutions,
/// and scores at the size of `c2`.
///
/// # Source
/// arXiv 1802.02611, section 3.1 and table 1: 48 low-level channels, two 3x3 convolutions of 256.
///
/// # Differs
/// Plain convolutions where the paper's fastest variants have depthwise separable ones; resizing with
/// corners not aligned, and layers that start, as torchvision's `DeepLabV3` has them.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct DeepLabPlusHead {
    pub aspp: Aspp,
    pub low: ConvNorm,
    pub fuse: Vec<ConvNorm>,
    pub score: Conv2d,
}

impl DeepLabPlusHead {
    /// `low` is the channels of `c2` and what they are reduced to.
    pub(super) fn new(
        input: usize,
        low: [usize; 2],
        channels: usize,
        output_stride: usize,
        classes: usize,
        dropout: f64,
        fresh: &Fresh,
    ) -> Self {
        let fuse = [low[1] + channels, channels].map(|input| ConvNorm::new(ConvSpec::new(input, channels, 3), fresh));
        Self {
            aspp: Aspp::new(input, channels, output_stride, dropout, fresh),
            low: ConvNorm::new(ConvSpec::new(low[0], low[1], 1), fresh),
            fuse: fuse.into(),
            score: score_conv(channels, classes, fresh),
        }
    }
}

impl Head for DeepLabPlusHead {
    fn forward(&self, taps: &Taps, key: Option<Key>) -> (Tensor<4>, Tensor<4>) {
        let low = self.low.relu(at(taps, Tap::C2));
        let [.., height, width] = low.dims();
        let deep = resize_bilinear(self.aspp.forward(at(taps, Tap::C5), key), [height, width], false);
        let joined = Tensor::cat(vec![low, deep], 1);
        let head = self.fuse.iter().fold(joined, |x, layer| layer.relu(x));
        (conv(&self.score, head.clone()), head)
    }

    fn last(&self) -> &Conv2d {
        &self.score
    }

    fn macs(&self, sizes: &TapSizes) -> u64 {
        let mut low = Cost::at(sizes[&Tap::C2]);
        self.low.count(&mut low);
        let mut cost = Cost::at(sizes[&Tap::C2]);
        self.fuse.iter().for_each(|layer| layer.count(&mut cost));
        cost.conv(&self.score);
        cost.macs + low.macs + self.aspp.macs(sizes[&Tap::C5])
    }
}
