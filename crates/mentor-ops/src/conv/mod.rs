//! Two-dimensional convolution: our own kernels for f32 on the CPU, burn's operation elsewhere.

mod columns;
mod depthwise;
#[cfg(target_arch = "x86_64")]
mod direct;
mod epilogue;
#[cfg(target_arch = "x86_64")]
mod micro;
pub(crate) mod padded;
mod paths;
pub(crate) mod shape;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod winograd;
mod with_norm;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::ModuleOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor};

use crate::conv::epilogue::Epilogue;
use crate::conv::paths::Convolution;
use crate::conv::shape::ConvShape;
use crate::cpu::flex::{dense, tensor, values};
use crate::cpu::instructions::Instructions;
use crate::optional::Optional;

pub use epilogue::Activation;
pub use transpose::conv_transpose2d;
pub use with_norm::conv2d_norm;

/// The convolution of `x_nchw` with `weight` `[out, in / groups, kh, kw]`.
///
/// On the CPU in f32 it is our own, with the same bits on any number of threads; whatever else there
/// is goes to burn's operation.
///
/// It uses the best instructions that the CPU has, and the last bits of the result may differ between
/// instructions. The environment variable `MENTOR_CPU` forces them, here and in the other operations
/// (whose bits are the same with all): `avx512`, `avx2` (with FMA) or `portable`; it is read once, by
/// the first operation. On the portable path groups of several channels are burn's.
///
/// # Shapes
/// `[n, in, h, w]` to `[n, out, h', w']`; `bias` is `[out]`.
///
/// # Panics
/// If the channels of `x_nchw`, `weight` and `bias` do not fit, or the kernel is larger than the
/// padded map, or `MENTOR_CPU` names instructions that are unknown or that the CPU lacks.
#[must_use]
pub fn conv2d(x_nchw: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: ConvOptions<2>) -> Tensor<4> {
    let (x, w) = (x_nchw.dims(), weight.dims());
    assert_eq!(x[1], w[1] * options.groups, "a map {x:?} does not fit a weight {w:?} of {} groups", options.groups);
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [w[0]], "the bias does not fit a weight {w:?}");
    }
    let bias = Optional::from(bias.map(Tensor::into_dispatch));
    Tensor::from_dispatch(Dispatch::mentor_conv2d(x_nchw.into_dispatch(), weight.into_dispatch(), bias, options))
}

/// The convolution that is routed by device.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait Conv: Backend {
    fn mentor_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Optional<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, bias.into_option(), options)
    }
}

/// Its gradients, which are called on the backend below autodiff only.
pub(crate) trait ConvGradients: Backend {
    /// A gradient in dense memory: a broadcast one would be made dense by each of its readers.
    fn mentor_dense(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        grad
    }

    fn mentor_conv2d_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(x, weight, grad, options)
    }

    fn mentor_conv2d_weight(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(x, weight, grad, options)
    }

    fn mentor_conv2d_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::conv2d_bias_backward(x, bias, grad)
    }
}

#[cfg(feature = "cube")]
impl Conv for burn::backend::Cube {}
#[cfg(feature = "cube")]
impl ConvGradients for burn::backend::Cube {}

/// The convolution of these operands by our kernels, or none if burn's operation has to do it.
pub(crate) fn convolution(x: &FlexTensor, weight: &FlexTensor, options: &ConvOptions<2>) -> Option<Convolution> {
    by_our_kernels([x, weight], shape(x.shape().dims(), weight.shape().dims(), options)?)
}

/// The convolution of this shape by our kernels; none for operands of other types than f32, or without any product.
pub(crate) fn by_our_kernels(operands: [&FlexTensor; 2], shape: ConvShape) -> Option<Convolution> {
    let is_ours = operands.iter().all(|operand| operand.dtype() == DType::F32) && !shape.lens().contains(&0);
    if is_ours { Convolution::new(shape, Instructions::chosen()) } else { None }
}

/// The sides of a convolution; none if the output has no pixels.
fn shape(x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>) -> Option<ConvShape> {
    let ([images, in_channels, height, width], [out_channels, _, kernel_height, kernel_width]) = (x, weight);
    let (size, kernel) = ([height, width], [kernel_height, kernel_width]);
    let mut out_size = [0; 2];
    for axis in 0..2 {
        let (before, after) = options.padding[axis];
        let covered = options.dilation[axis] * kernel[axis].checked_sub(1)? + 1;
        out_size[axis] = (size[axis] + before + after).checked_sub(covered)? / options.stride[axis] + 1;
    }
    Some(ConvShape {
        images,
        in_channels,
        out_channels,
        groups: options.groups,
        size,
        out_size,
        kernel,
        stride: options.stride,
        padding: [options.padding[0].0, options.padding[1].0],
        dilation: options.dilation,
    })
}

impl Conv for Flex {
    fn mentor_conv2d(x: FlexTensor, weight: FlexTensor, bias: Optional<Self>, options: ConvOptions<2>) -> FlexTensor {
        let bias = bias.into_option();
        let Some(convolution) = convolution(&x, &weight, &options) else {
            return Flex::conv2d(x, weight, bias, options);
        };
        let (x, weight, bias) = (x.to_contiguous(), weight.to_contiguous(), bias.map(|bias| bias.to_contiguous()));
        let epilogue = Epilogue::bias(bias.as_ref().map(values));
        tensor(convolution.forward(values(&x), values(&weight), epilogue), convolution.shape().out_dims())
    }
}

impl ConvGradients for Flex {
    fn mentor_dense(grad: FlexTensor) -> FlexTensor {
        dense(&grad)
    }

    fn mentor_conv2d_x(x: FlexTensor, weight: FlexTensor, grad: FlexTensor, options: ConvOptions<2>) -> FlexTensor {
        let dims = x.shape().dims::<4>();
        let Some(convolution) = convolution(&x, &weight, &options) else {
            return Flex::conv2d_x_backward(x, weight, grad, options);
        };
        let (weight, grad) = (weight.to_contiguous(), grad.to_contiguous());
        let gradient = convolution.input_gradient(values(&weight), values(&grad));
        tensor(gradient, dims)
    }

    fn mentor_conv2d_weight(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let dims = weight.shape().dims::<4>();
        let Some(convolution) = convolution(&x, &weight, &options) else {
            return Flex::conv2d_weight_backward(x, weight, grad, options);
        };
        let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
        let gradient = convolution.weight_gradient(values(&x), values(&grad));
        tensor(gradient, dims)
    }

    fn mentor_conv2d_bias(x: FlexTensor, bias: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let [_, channels, height, width] = grad.shape().dims::<4>();
        if grad.dtype() != DType::F32 {
            return Flex::conv2d_bias_backward(x, bias, grad);
        }
        let grad = grad.to_contiguous();
        tensor(paths::bias_gradient(channels, height * width, values(&grad)), [channels])
    }
}

/// The backward pass: of input and weight, and of the bias where there is one.
#[derive(Debug)]
struct ConvBackward;

impl<B: ConvGradients, const N: usize> Backward<B, N> for ConvBackward {
    type State = ([NodeId; 2], Option<FloatTensor<B>>, ConvOptions<2>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = B::mentor_dense(grads.consume::<B>(&ops.node));
        let ([x, weight], bias, options) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        let parent = |index: usize| ops.parents.get(index).and_then(Option::as_ref).map(|node| node.id);
        if let Some(node) = parent(1) {
            let gradient = B::mentor_conv2d_weight(x.clone(), weight.clone(), grad.clone(), options.clone());
            grads.register::<B>(node, gradient);
        }
        if let (Some(node), Some(bias)) = (parent(2), bias) {
            grads.register::<B>(node, B::mentor_conv2d_bias(x.clone(), bias, grad.clone()));
        }
        if let Some(node) = parent(0) {
            grads.register::<B>(node, B::mentor_conv2d_x(x, weight, grad, options));
        }
    }
}

impl<B: Conv + ConvGradients, C: CheckpointStrategy> Conv for Autodiff<B, C> {
    fn mentor_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Optional<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let bias = bias.into_option();
        match &bias {
            None => tracked::<B, C, 2>([x.node(), weight.node()], x, weight, bias, options),
            Some(node) => tracked::<B, C, 3>([x.node(), weight.node(), node.node()], x, weight, bias, options),
        }
    }
}

/// Computes the output, and registers the backward pass if a gradient is asked of any input.
fn tracked<B: Conv + ConvGradients, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    options: ConvOptions<2>,
) -> FloatTensor<Autodiff<B, C>> {
    let bias = bias.map(|bias| bias.into_primitive());
    let forward = |x: FloatTensor<Autodiff<B, C>>, weight: FloatTensor<Autodiff<B, C>>, bias: Option<_>, options| {
        B::mentor_conv2d(x.into_primitive(), weight.into_primitive(), Optional::from(bias), options)
    };
    match Backward::<B, N>::prepare::<C>(ConvBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prepared) => {
            let saved = [prepared.checkpoint(&x), prepared.checkpoint(&weight)];
            let state = (saved, bias.clone(), options.clone());
            prepared.finish(state, forward(x, weight, bias, options))
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(x, weight, bias, options)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, noise_values, values, with_one_and_four_threads};
    use burn::tensor::{Device, module};

    type Conv2d = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, ConvOptions<2>) -> Tensor<4>;

    /// Output and the gradients of x, weight and bias.
    fn results(conv: Conv2d, x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>) -> [Vec<f32>; 4] {
        let x = noise(x, "x").require_grad();
        let weight_tensor = noise(weight, "weight").require_grad();
        let bias = noise([weight[0]], "bias").require_grad();
        let y = conv(x.clone(), weight_tensor.clone(), Some(bias.clone()), options.clone());
        let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
        [
            values(y),
            values(x.grad(&grads).unwrap()),
            values(weight_tensor.grad(&grads).unwrap()),
            values(bias.grad(&grads).unwrap()),
        ]
    }

    fn assert_as_burn(x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>) {
        let (ours, burns) = (results(conv2d, x, weight, options), results(module::conv2d, x, weight, options));
        for (part, (ours, burns)) in
            ["output", "gradient of x", "gradient of weight", "gradient of bias"].iter().zip(ours.iter().zip(&burns))
        {
            assert_close(ours, burns, 1e-5, &format!("{part} of {x:?} by {weight:?} with {options:?}"));
        }
        for instructions in Instructions::available() {
            for (ours, burns) in kernels(x, weight, options, instructions).iter().zip(&burns) {
                let what = format!("{x:?} by {weight:?} with {options:?} and {instructions:?}");
                assert_close(ours, burns, 1e-5, &what);
            }
        }
    }

    /// As [`results`], but for the bias, by the kernels of some instructions; nothing if it has none.
    fn kernels(
        x: [usize; 4],
        weight: [usize; 4],
        options: &ConvOptions<2>,
        instructions: Instructions,
    ) -> Vec<Vec<f32>> {
        let Some(convolution) = Convolution::new(shape(x, weight, options).unwrap(), instructions) else {
            return Vec::new();
        };
        let [x_len, y_len, weight_len] = convolution.shape().lens();
        let (x, w, bias) =
            (noise_values(x_len, "x"), noise_values(weight_len, "weight"), noise_values(weight[0], "bias"));
        let grad = noise_values(y_len, "grad");
        let y = convolution.forward(&x, &w, Epilogue::bias(Some(&bias)));
        vec![y, convolution.input_gradient(&w, &grad), convolution.weight_gradient(&x, &grad)]
    }

    /// All that fits of three map sizes, three dilations and three paddings.
    fn check_all(kernel: usize, channels: [usize; 3]) {
        let [in_channels, out_channels, groups] = channels;
        let mut checked = 0;
        for (height, width) in [(7, 10), (1, 1), (9, 5)] {
            for dilation in [1, 2, 4] {
                let covered = dilation * (kernel - 1) + 1;
                for padding in [[0, 0], [covered / 2, covered / 2], [height + 2, width + 1]] {
                    if height + 2 * padding[0] < covered || width + 2 * padding[1] < covered {
                        continue;
                    }
                    for stride in [[1, 1], [2, 2], [3, 2]] {
                        let options = ConvOptions::new(stride, padding, [dilation; 2], groups);
                        let weight = [out_channels, in_channels / groups, kernel, kernel];
                        assert_as_burn([2, in_channels, height, width], weight, &options);
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 30);
    }

    #[test]
    fn kernels_of_one_are_as_burns() {
        check_all(1, [3, 4, 1]);
    }

    #[test]
    fn kernels_of_three_are_as_burns() {
        check_all(3, [3, 5, 1]);
    }

    #[test]
    fn kernels_of_five_are_as_burns() {
        check_all(5, [2, 3, 1]);
    }

    #[test]
    fn kernels_of_seven_are_as_burns() {
        check_all(7, [3, 2, 1]);
    }

    #[test]
    fn depthwise_kernels_are_as_burns() {
        check_all(1, [3, 3, 3]);
        check_all(3, [4, 4, 4]);
        check_all(5, [3, 3, 3]);
    }

    #[test]
    fn other_groups_are_as_burns() {
        check_all(3, [4, 6, 2]);
    }

    #[test]
    fn many_channels_and_tiles_are_as_burns() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        assert_as_burn([3, 40, 33, 47], [24, 40, 3, 3], &options);
        assert_as_burn([1, 130, 6, 5], [70, 130, 3, 3], &options);
        assert_as_burn([2, 96, 20, 30], [17, 96, 1, 1], &ConvOptions::new([1, 1], [0, 0], [1, 1], 1));
    }

    #[test]
    fn a_kernel_taller_than_wide_and_uneven_padding_are_as_burns() {
        let options = ConvOptions { padding: [(0, 2), (3, 1)], ..ConvOptions::new([2, 1], [0, 0], [1, 2], 1) };
        let (x, weight) = (noise([2, 3, 9, 8], "x"), noise([4, 3, 5, 2], "weight"));
        let ours = conv2d(x.clone(), weight.clone(), None, options.clone());
        let padded = module::conv2d(x, weight, None, options);
        assert_eq!(ours.dims(), padded.dims());
        assert_close(&values(ours), &values(padded), 1e-5, "output");
    }

    #[test]
    fn one_and_four_threads_give_the_same_bits() {
        for (weight, stride, groups) in
            [([20, 16, 3, 3], 1, 1), ([20, 16, 3, 3], 2, 1), ([20, 16, 1, 1], 1, 1), ([16, 1, 3, 3], 1, 16)]
        {
            let options = ConvOptions::new([stride; 2], [weight[2] / 2; 2], [1, 1], groups);
            let [one, four] = with_one_and_four_threads(|| results(conv2d, [3, 16, 40, 50], weight, &options));
            assert_eq!(one, four);
        }
    }

    #[test]
    fn a_plain_device_and_untracked_tensors_work() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let (x, weight) = (noise([1, 2, 5, 5], "x"), noise([3, 2, 3, 3], "weight"));
        let untracked = values(conv2d(x.clone(), weight.clone(), None, options.clone()));
        let plain = conv2d(x.inner(), weight.inner(), None, options);
        assert!(!plain.device().is_autodiff());
        assert_eq!(values(plain), untracked);
    }

    #[test]
    fn only_what_is_tracked_gets_a_gradient() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let (x, weight) = (noise([1, 2, 5, 5], "x"), noise([3, 2, 3, 3], "weight"));
        let tracked = weight.clone().require_grad();
        let grads = conv2d(x.clone(), tracked.clone(), None, options.clone()).sum().backward();
        assert!(tracked.grad(&grads).is_some() && x.grad(&grads).is_none());
        let tracked = x.require_grad();
        let grads = conv2d(tracked.clone(), weight.clone(), None, options).sum().backward();
        assert!(tracked.grad(&grads).is_some() && weight.grad(&grads).is_none());
    }

    #[test]
    fn transposed_views_are_read_in_their_order() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let (x, weight) = (noise([2, 4, 6, 5], "x").swap_dims(2, 3), noise([4, 3, 3, 3], "weight").swap_dims(0, 1));
        let ours = conv2d(x.clone(), weight.clone(), None, options.clone());
        assert_close(&values(ours), &values(module::conv2d(x, weight, None, options)), 1e-5, "output");
    }

    #[test]
    fn other_types_go_to_burn() {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let (x, weight) = (noise([1, 2, 5, 5], "x"), noise([3, 2, 3, 3], "weight"));
        let (x, weight) = (x.cast(DType::F64), weight.cast(DType::F64));
        let ours = conv2d(x.clone(), weight.clone(), None, options.clone());
        assert_eq!(ours.dtype(), DType::F64);
        assert_eq!(values(ours), values(module::conv2d(x, weight, None, options)));
    }

    #[test]
    #[should_panic(expected = "does not fit a weight [3, 4, 3, 3]")]
    fn channels_that_do_not_fit_are_named() {
        let device = Device::flex();
        let (x, weight) = (Tensor::zeros([1, 2, 5, 5], &device), Tensor::zeros([3, 4, 3, 3], &device));
        let _ = conv2d(x, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    }
}
