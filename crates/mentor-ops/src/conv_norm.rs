//! A convolution and the batch norm behind it: one pass over the map where nothing trains.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::nn::BatchNorm;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor};

use crate::conv::{Conv, conv2d, convolution, tensor, values};
use crate::conv_epilogue::{Activation, Epilogue};
use crate::norm::{Norm, NormOptions, batch_norm, batch_norm_relu, running_statistics};
use crate::optional::Optional;

/// The convolution of `x_nchw` with `weight`, its batch norm by `layer`, the sum with an optional
/// `residual`, and an activation.
///
/// On a device with autodiff, and wherever the norm uses statistics of the batch, it is
/// [`conv2d`](crate::conv2d), then [`batch_norm`](crate::batch_norm) or
/// [`batch_norm_relu`](crate::batch_norm_relu). Off the graph the norm is a factor and a shift of
/// every channel: on the CPU in f32 the weights are scaled on their way into the convolution, which
/// adds shift and residual and applies the activation when it stores a value. The two differ in the
/// last bits.
///
/// # Shapes
/// `[n, in, h, w]` and `[out, in / groups, kh, kw]` to `[n, out, h', w']`, which is also the residual's.
///
/// # Panics
/// If map, weight and layer do not fit, or the residual has another shape than the output.
#[must_use]
pub fn conv2d_norm(
    x_nchw: Tensor<4>,
    weight: Tensor<4>,
    layer: &BatchNorm,
    residual: Option<Tensor<4>>,
    activation: Activation,
    options: ConvOptions<2>,
) -> Tensor<4> {
    let gamma = layer.gamma.val();
    let is_tracked = x_nchw.is_autodiff()
        || weight.is_autodiff()
        || gamma.is_autodiff()
        || residual.as_ref().is_some_and(Tensor::is_autodiff);
    if is_tracked {
        return in_turn(conv2d(x_nchw, weight, None, options), layer, residual, activation);
    }
    let (x, w, channels) = (x_nchw.dims(), weight.dims(), gamma.dims()[0]);
    assert_eq!(x[1], w[1] * options.groups, "a map {x:?} does not fit a weight {w:?} of {} groups", options.groups);
    assert_eq!(w[0], channels, "a weight {w:?} does not fit a batch norm of {channels} channels");
    let [mean, variance] = running_statistics(layer, &x_nchw.device());
    let norm = FixedNorm {
        gamma: gamma.into_dispatch(),
        beta: layer.beta.val().into_dispatch(),
        mean: mean.into_dispatch(),
        variance: variance.into_dispatch(),
    };
    let residual = Optional::from(residual.map(Tensor::into_dispatch));
    let options = ConvNormOptions { conv: options, epsilon: layer.epsilon, activation };
    let (x, weight) = (x_nchw.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::mentor_conv2d_norm(x, weight, norm, residual, options))
}

/// Norm, sum and activation of a map, as the nets in training compute them.
fn in_turn(x_nchw: Tensor<4>, layer: &BatchNorm, residual: Option<Tensor<4>>, activation: Activation) -> Tensor<4> {
    match (activation, residual) {
        (Activation::Identity, None) => batch_norm(layer, x_nchw),
        (Activation::Identity, Some(residual)) => batch_norm(layer, x_nchw) + residual,
        (Activation::Relu, residual) => batch_norm_relu(layer, x_nchw, residual),
        (Activation::Relu6, residual) => batch_norm_relu(layer, x_nchw, residual).clamp_max(6.0),
    }
}

/// A batch norm whose statistics are constants.
#[derive(ExtensionType)]
pub(crate) struct FixedNorm<B: Backend> {
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
}

/// What else there is to say.
#[derive(Clone, Debug)]
pub(crate) struct ConvNormOptions {
    conv: ConvOptions<2>,
    epsilon: f64,
    activation: Activation,
}

/// The pair that is routed by device; tracked tensors never get here.
#[backend_extension(Flex, Cube: cfg(feature = "cuda"))]
pub(crate) trait ConvNorm: Conv + Norm {
    fn mentor_conv2d_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] norm: FixedNorm<Self>,
        #[extension_type] residual: Optional<Self>,
        options: ConvNormOptions,
    ) -> FloatTensor<Self> {
        composed::<Self>(x, weight, norm, residual, options)
    }
}

#[cfg(feature = "cuda")]
impl ConvNorm for burn::backend::Cube {}

fn composed<B: Conv + Norm>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    norm: FixedNorm<B>,
    residual: Optional<B>,
    options: ConvNormOptions,
) -> FloatTensor<B> {
    let FixedNorm { gamma, beta, mean, variance } = norm;
    let ConvNormOptions { conv, epsilon, activation } = options;
    let y = B::mentor_conv2d(x, weight, Optional::Absent, conv);
    let options = NormOptions { epsilon, relu: activation != Activation::Identity };
    let y = B::mentor_frozen_norm(y, gamma, beta, mean, variance, residual, options);
    if activation == Activation::Relu6 { B::float_clamp_max(y, 6.0.into()) } else { y }
}

impl ConvNorm for Flex {
    fn mentor_conv2d_norm(
        x: FlexTensor,
        weight: FlexTensor,
        norm: FixedNorm<Self>,
        residual: Optional<Self>,
        options: ConvNormOptions,
    ) -> FlexTensor {
        let of_norm = [&norm.gamma, &norm.beta, &norm.mean, &norm.variance];
        let is_f32 = of_norm.iter().all(|tensor| tensor.dtype() == DType::F32)
            && !matches!(&residual, Optional::Present(residual) if residual.dtype() != DType::F32);
        let Some(convolution) = convolution(&x, &weight, &options.conv).filter(|_| is_f32) else {
            return composed::<Flex>(x, weight, norm, residual, options);
        };
        let dims = convolution.shape().out_dims();
        let residual = residual.into_option();
        if let Some(residual) = &residual {
            assert_eq!(residual.shape().dims(), dims, "the residual has another shape than the map");
        }
        let of_norm = of_norm.map(FlexTensor::to_contiguous);
        let (scale, shift) = scale_and_shift(of_norm.each_ref().map(|tensor| values(tensor)), options.epsilon as f32);
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let residual = residual.map(|residual| residual.to_contiguous());
        let epilogue = Epilogue {
            scale: Some(&scale),
            bias: Some(&shift),
            residual: residual.as_ref().map(values),
            activation: options.activation,
        };
        tensor(convolution.forward(values(&x), values(&weight), epilogue), dims)
    }
}

/// The norm as `scale * x + shift`.
fn scale_and_shift([gamma, beta, mean, variance]: [&[f32]; 4], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let scale: Vec<f32> =
        gamma.iter().zip(variance).map(|(gamma, variance)| gamma / (variance + epsilon).sqrt()).collect();
    let shift = scale.iter().zip(beta.iter().zip(mean)).map(|(scale, (beta, mean))| beta - scale * mean).collect();
    (scale, shift)
}
