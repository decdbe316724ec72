//! What every net is built of: convolutions without bias, batch norms, and their costs.

use burn::module::{Module, ParamGroup};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;
use mentor_ops::{Activation, conv2d, conv2d_norm};
use mentor_weights::{Fans, Fresh, Init};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A square convolution, padded so that stride 1 keeps the size.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
    weight: Init,
    bias: Option<Init>,
}

impl ConvSpec {
    /// `input` to `output` channels with a kernel of `kernel` by `kernel` (odd), stride 1, no bias; it
    /// starts as a convolution of `PyTorch` does.
    #[must_use]
    pub fn new(input: usize, output: usize, kernel: usize) -> Self {
        Self { input, output, kernel, stride: 1, dilation: 1, groups: 1, weight: Init::FanIn, bias: None }
    }

    /// The same of a backbone: torchvision starts all of its backbones' convolutions so.
    pub(crate) fn of_backbone(input: usize, output: usize, kernel: usize) -> Self {
        Self::new(input, output, kernel).start(Init::HeNormal)
    }

    /// With this stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// With this dilation.
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// With every channel on its own.
    #[must_use]
    pub fn depthwise(self) -> Self {
        Self { groups: self.input, ..self }
    }

    /// With weights that start so.
    #[must_use]
    pub fn start(self, weight: Init) -> Self {
        Self { weight, ..self }
    }

    /// With a bias that starts so.
    #[must_use]
    pub fn bias(self, bias: Init) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The layer.
    #[must_use]
    pub fn build(self, fresh: &Fresh) -> Conv2d {
        let padding = self.dilation * (self.kernel - 1) / 2;
        let config = Conv2dConfig::new([self.input, self.output], [self.kernel; 2])
            .with_stride([self.stride; 2])
            .with_dilation([self.dilation; 2])
            .with_groups(self.groups)
            .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
            .with_bias(self.bias.is_some())
            // Any other initialiser would draw from a process-wide generator at first use.
            .with_initializer(Initializer::Zeros);
        let layer = config.init(fresh.device());
        let fans = Fans::of_conv(&layer.weight.lazy_shape());
        fresh.says(&layer.weight, self.weight, fans);
        if let (Some(bias), Some(init)) = (&layer.bias, self.bias) {
            fresh.says(bias, init, fans);
        }
        layer
    }
}

/// The last convolution of a head: 1x1 with a bias, both starting as in `PyTorch`. He's deviation by fan-out,
/// `sqrt(2 / classes)`, would make a fresh net sure of its guesses.
#[must_use]
pub fn score_conv(input: usize, classes: usize, fresh: &Fresh) -> Conv2d {
    ConvSpec::new(input, classes, 1).bias(Init::FanIn).build(fresh)
}

/// A batch norm of `channels` with torchvision's epsilon (1e-5) and momentum (0.1).
pub(crate) fn norm(channels: usize, fresh: &Fresh) -> BatchNorm {
    fresh.norm(BatchNormConfig::new(channels).init(fresh.device()))
}

/// The convolution `layer` of `x_nchw`, through [`mentor_ops::conv2d`], computed in the type of the
/// map: weights of another type (f32 beside maps of bf16) are cast to it.
///
/// # Shapes
/// `[n, in, h, w]` to `[n, out, h', w']`.
///
/// # Panics
/// If the layer has "same" padding: none of ours has.
#[must_use]
pub fn conv(layer: &Conv2d, x_nchw: Tensor<4>) -> Tensor<4> {
    let dtype = x_nchw.dtype();
    let bias = layer.bias.as_ref().map(|bias| bias.val().cast(dtype));
    conv2d(x_nchw, layer.weight.val().cast(dtype), bias, options(layer))
}

/// The convolution `conv` as [`conv`], its batch norm, the sum with an optional residual, and an
/// activation, through [`mentor_ops::conv2d_norm`].
///
/// # Shapes
/// `[n, in, h, w]` to `[n, out, h', w']`, which is also the residual's.
///
/// # Panics
/// If the convolution has "same" padding or a bias: none of ours before a norm has.
#[must_use]
pub fn conv_norm(
    conv: &Conv2d,
    norm: &BatchNorm,
    x_nchw: Tensor<4>,
    residual: Option<Tensor<4>>,
    activation: Activation,
) -> Tensor<4> {
    assert!(conv.bias.is_none(), "a convolution with a bias before a batch norm");
    let weight = conv.weight.val().cast(x_nchw.dtype());
    conv2d_norm(x_nchw, weight, norm, residual, activation, options(conv))
}

/// [`conv_norm`] with `ReLU` and no residual.
#[must_use]
pub fn conv_norm_relu(conv: &Conv2d, norm: &BatchNorm, x_nchw: Tensor<4>) -> Tensor<4> {
    conv_norm(conv, norm, x_nchw, None, Activation::Relu)
}

fn options(layer: &Conv2d) -> ConvOptions<2> {
    ConvOptions::new_with_padding(layer.stride, padding(layer), layer.dilation, layer.groups)
}

fn padding(layer: &Conv2d) -> [(usize, usize); 2] {
    match layer.padding {
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        PaddingConfig2d::Valid => [(0, 0), (0, 0)],
        PaddingConfig2d::Same => panic!("a convolution with \"same\" padding, expected explicit padding"),
    }
}

/// A convolution and its batch norm, as torchvision's `Sequential(conv, bn, ...)`: `0` and `1`.
#[derive(Module, Debug)]
pub struct ConvNorm {
    /// Without bias.
    pub conv_0: Conv2d,
    /// Over its outputs.
    pub bn_1: BatchNorm,
}

impl ConvNorm {
    /// The convolution of `spec` and a norm.
    #[must_use]
    pub fn new(spec: ConvSpec, fresh: &Fresh) -> Self {
        Self { conv_0: spec.build(fresh), bn_1: norm(spec.output, fresh) }
    }

    /// Convolution and norm.
    #[must_use]
    pub fn linear(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        conv_norm(&self.conv_0, &self.bn_1, x_nchw, None, Activation::Identity)
    }

    /// Convolution, norm, `ReLU`.
    #[must_use]
    pub fn relu(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        conv_norm_relu(&self.conv_0, &self.bn_1, x_nchw)
    }

    /// Convolution, norm, `ReLU` up to 6.
    #[must_use]
    pub(crate) fn relu6(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        conv_norm(&self.conv_0, &self.bn_1, x_nchw, None, Activation::Relu6)
    }

    /// Adds its cost.
    pub fn count(&self, cost: &mut Cost) {
        cost.conv(&self.conv_0);
    }
}

/// Multiply-adds counted along a path through a net, and the size of the map where the path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-adds of convolutions for one image; norms, activations and resizing are left out.
    pub macs: u64,
    /// Height and width of the map.
    pub size: [usize; 2],
}

impl Cost {
    /// No cost yet, at a map of this size.
    #[must_use]
    pub fn at(size: [usize; 2]) -> Self {
        Self { macs: 0, size }
    }

    /// Goes through a convolution.
    pub fn conv(&mut self, layer: &Conv2d) {
        let pads = padding(layer);
        for (axis, side) in self.size.iter_mut().enumerate() {
            let span = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1;
            *side = window_steps(*side + pads[axis].0 + pads[axis].1, span, layer.stride[axis]);
        }
        let per_pixel = layer.weight.lazy_shape().num_elements() as u64;
        self.macs += per_pixel * (self.size[0] * self.size[1]) as u64;
    }

    /// Goes through pooling of 3x3 with stride 2 and padding 1.
    pub fn pool(&mut self) {
        self.size = self.size.map(|side| window_steps(side + 2, 3, 2));
    }
}

fn window_steps(padded: usize, span: usize, stride: usize) -> usize {
    if padded < span { 0 } else { (padded - span) / stride + 1 }
}

/// Which batch-norm statistics a net uses while it trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNormMode {
    /// Those of the batch; running statistics follow.
    #[default]
    Train,
    /// The running ones, fixed; scales and offsets of the norms do not train either. For fine-tuning
    /// from a file with small batches.
    Frozen,
}

/// Freezes every batch norm of a module: running statistics are used and not updated, gamma and
/// beta are not trained (as Detectron's frozen batch norm). Everything else trains on.
///
/// The setting survives `valid()`, `train()` and loading; it is not part of a record.
#[must_use]
pub fn freeze_norms<M: Module>(module: M) -> M {
    let group = ParamGroup::from_regex(r"(^|\.)(gamma|beta|training|running_mean|running_var)$")
        .expect("the pattern is a valid regular expression");
    module.freeze_group(group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::optim::GradientsParams;
    use burn::tensor::Device;
    use mentor_ops::sum_all;
    use mentor_weights::named_weights;

    fn net(device: &Device) -> ConvNorm {
        Fresh::seeded(device, 1, |fresh| ConvNorm::new(ConvSpec::new(3, 4, 3), fresh))
    }

    #[test]
    fn a_cost_follows_strides_and_dilation() {
        let fresh = Fresh::on(&Device::flex());
        let mut cost = Cost::at([33, 20]);
        cost.conv(&ConvSpec::new(3, 8, 7).stride(2).build(&fresh));
        assert_eq!(cost, Cost { macs: 3 * 8 * 49 * 17 * 10, size: [17, 10] });
        cost.pool();
        assert_eq!(cost.size, [9, 5]);
        cost.conv(&ConvSpec::new(8, 8, 3).dilation(2).depthwise().build(&fresh));
        assert_eq!(cost.size, [9, 5]);
        assert_eq!(cost.macs, 3 * 8 * 49 * 170 + 8 * 9 * 45);
    }

    #[test]
    fn a_frozen_norm_keeps_its_statistics_and_weights_while_the_convolution_trains() {
        let device = Device::flex().autodiff();
        let net = freeze_norms(net(&device));
        let before = named_weights(&net);
        let x = Tensor::<4>::ones([2, 3, 5, 5], &device) * 2.0;
        let grads = sum_all(net.relu(x.clone()) + net.linear(x)).backward();
        let grads = GradientsParams::from_grads(grads, &net);
        assert!(grads.get::<4>(net.conv_0.weight.id).is_some());
        assert!(grads.get::<1>(net.bn_1.gamma.id).is_none());
        assert_eq!(named_weights(&net), before);
        let net = net.valid().train();
        assert!(!net.bn_1.training.is_enabled());
        assert!(!net.bn_1.gamma.val().is_require_grad());
        assert!(net.conv_0.weight.val().is_require_grad());
    }

    #[test]
    fn an_unfrozen_norm_updates_its_statistics() {
        let device = Device::flex().autodiff();
        let net = net(&device);
        let before = named_weights(&net);
        let _ = net.relu(Tensor::<4>::ones([2, 3, 5, 5], &device));
        assert_ne!(named_weights(&net)["bn_1.running_mean"], before["bn_1.running_mean"]);
    }
}
