//! A convolution and the batch norm behind it: one pass over the map where nothing trains.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::nn::BatchNorm;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor};

use crate::conv::epilogue::{Activation, Epilogue};
use crate::conv::{Conv, conv2d, convolution};
use crate::cpu::flex::{tensor, values};
use crate::norm::options::NormOptions;
use crate::norm::{Norm, batch_norm, batch_norm_relu, running_statistics};
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
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
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

#[cfg(feature = "cube")]
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
        let (scale, shift) = scale_and_shift(of_norm.each_ref().map(values), options.epsilon as f32);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};
    use burn::module::{Module, Param};
    use burn::nn::BatchNormConfig;
    use burn::tensor::Device;

    const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Relu, Activation::Relu6];

    /// A norm with weights and statistics of its own, off the graph.
    fn fixed(channels: usize) -> BatchNorm {
        trained(channels).valid()
    }

    /// The same on the graph.
    fn trained(channels: usize) -> BatchNorm {
        let mut layer = BatchNormConfig::new(channels).init(&Device::flex().autodiff());
        layer.gamma = Param::from_tensor(noise([channels], "gamma") * 2.0);
        layer.beta = Param::from_tensor(noise([channels], "beta") * 3.0);
        layer.running_mean.update(noise([channels], "mean").inner());
        layer.running_var.update((noise([channels], "variance") + 1.2).inner());
        layer
    }

    /// Map, weight and residual on the graph.
    fn operands(x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>) -> [Tensor<4>; 3] {
        let (x, weight) = (noise(x, "x"), noise(weight, "weight"));
        let y = conv2d(x.clone(), weight.clone(), None, options.clone());
        [x, weight, noise(y.dims(), "residual") * 4.0]
    }

    /// One pass against two, with and without a residual, for every activation.
    fn assert_as_two_passes(x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>, tolerance: f32) {
        let layer = fixed(weight[0]);
        let [x, weight, residual] = operands(x, weight, options).map(Tensor::inner);
        for residual in [None, Some(residual)] {
            for activation in ACTIVATIONS {
                let (x, weight, options) = (x.clone(), weight.clone(), options.clone());
                let what = format!("{:?} by {:?} with {options:?}, {activation:?}", x.dims(), weight.dims());
                let y = conv2d(x.clone(), weight.clone(), None, options.clone());
                let expected = values(in_turn(y, &layer, residual.clone(), activation));
                let found = conv2d_norm(x, weight, &layer, residual.clone(), activation, options);
                assert_close(&values(found), &expected, tolerance, &what);
                let changed = expected.iter().any(|value| *value != 0.0);
                assert!(changed, "nothing to compare for {what}");
            }
        }
    }

    #[test]
    fn one_pass_is_as_two() {
        for (channels, groups) in [([3, 5], 1), ([4, 6], 2), ([6, 6], 6), ([9, 17], 1)] {
            for (kernel, stride, dilation) in [(1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1), (5, 2, 2)] {
                let padding = dilation * (kernel - 1) / 2;
                let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], groups);
                let weight = [channels[1], channels[0] / groups, kernel, kernel];
                assert_as_two_passes([2, channels[0], 13, 19], weight, &options, 1e-5);
            }
        }
        // By tiles, whose errors are of the size of the largest value, which `Relu6` cuts off here.
        assert_as_two_passes([1, 40, 33, 47], [70, 40, 3, 3], &ConvOptions::new([1, 1], [1, 1], [1, 1], 1), 3e-5);
    }

    #[test]
    fn on_the_graph_output_and_gradients_are_those_of_two_passes_to_the_bit() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let tensors = operands([2, 3, 7, 9], [5, 3, 3, 3], &options);
        for (frozen, activation) in [false, true].into_iter().flat_map(|frozen| ACTIVATIONS.map(|a| (frozen, a))) {
            let results = |in_one: bool| {
                let layer = if frozen { trained(5).no_grad().freeze() } else { trained(5) };
                let [x, weight, residual] = tensors.clone().map(|tensor| tensor.detach().require_grad());
                let (kept, options) = ([x.clone(), weight.clone(), residual.clone()], options.clone());
                let y = if in_one {
                    conv2d_norm(x, weight, &layer, Some(residual), activation, options)
                } else {
                    in_turn(conv2d(x, weight, None, options), &layer, Some(residual), activation)
                };
                let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
                let gradients = kept.map(|tensor| values(tensor.grad(&grads).unwrap()));
                (values(y), gradients, values(layer.running_mean.value_sync()))
            };
            assert_eq!(results(true), results(false), "{activation:?}");
        }
    }

    #[test]
    fn a_plain_map_before_weights_on_the_graph_stays_on_the_graph() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let [x, weight, _] = operands([1, 3, 5, 5], [4, 3, 3, 3], &options);
        let y = conv2d_norm(x.inner(), weight.require_grad(), &trained(4), None, Activation::Relu, options);
        assert!(y.is_autodiff());
    }

    #[test]
    fn nan_stays_nan_and_one_and_four_threads_give_the_same_bits() {
        for (weight, groups) in [([20, 16, 3, 3], 1), ([16, 1, 3, 3], 16)] {
            let options = ConvOptions::new([1, 1], [1, 1], [1, 1], groups);
            let layer = fixed(weight[0]);
            let [x, weight, residual] = operands([2, 16, 23, 37], weight, &options).map(Tensor::inner);
            let run = |x: Tensor<4>, residual: Tensor<4>| {
                let options = options.clone();
                values(conv2d_norm(x, weight.clone(), &layer, Some(residual), Activation::Relu6, options))
            };
            let [one, four] = with_one_and_four_threads(|| run(x.clone(), residual.clone()));
            assert_eq!(one, four);
            let nan = |map: Tensor<4>| map.slice_fill([0..1, 2..3, 5..6, 36..37], f32::NAN);
            let is_nan = |values: Vec<f32>| values.iter().filter(|value| value.is_nan()).count();
            assert_eq!(is_nan(run(x.clone(), nan(residual.clone()))), 1);
            // A corner sees its neighbours: six pixels of every channel that sums this one.
            let summing = if groups == 1 { 20 } else { 1 };
            assert_eq!(is_nan(run(nan(x.clone()), residual.clone())), 6 * summing);
        }
    }

    #[test]
    fn maps_of_bf16_are_computed_in_two_passes() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let layer = fixed(4);
        let [x, weight, residual] =
            operands([1, 3, 5, 5], [4, 3, 3, 3], &options).map(|tensor| tensor.inner().cast(DType::BF16));
        let y = conv2d(x.clone(), weight.clone(), None, options.clone());
        let expected = batch_norm_relu(&layer, y, Some(residual.clone()));
        let found = conv2d_norm(x, weight, &layer, Some(residual), Activation::Relu, options);
        assert_eq!(found.dtype(), DType::BF16);
        assert_eq!(values(found.cast(DType::F32)), values(expected.cast(DType::F32)));
    }

    #[test]
    #[should_panic(expected = "the residual has another shape")]
    fn a_residual_of_another_shape_is_refused() {
        let device = Device::flex();
        let (x, weight) = (Tensor::zeros([1, 3, 5, 5], &device), Tensor::zeros([4, 3, 3, 3], &device));
        let residual = Some(Tensor::zeros([1, 4, 5, 5], &device));
        let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        let _ = conv2d_norm(x, weight, &fixed(4), residual, Activation::Relu, options);
    }
}
