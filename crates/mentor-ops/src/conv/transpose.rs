//! Transposed convolution: the gradient of a convolution's input, as an operation of its own.
//!
//! All three passes are those of that convolution with the roles of its maps exchanged, so its kernels compute them.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::ModuleOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::ops::ConvTransposeOptions;

use crate::conv::epilogue::Epilogue;
use crate::conv::paths::Convolution;
use crate::conv::shape::ConvShape;
use crate::conv::{ConvGradients, by_our_kernels};
use crate::cpu::flex::{tensor, values};

/// The transposed convolution of `x_nchw` with `weight` `[in, out / groups, kh, kw]`: every input pixel adds its
/// multiple of the kernel to the output.
///
/// A side of the output has `stride * (side - 1) + dilation * (kernel - 1) + 1 + padding_out - 2 * padding` pixels. On
/// the CPU in f32 it is computed by the kernels of [`conv2d`](crate::conv2d), with the same bits on any number of
/// threads; whatever else there is goes to burn's operation.
///
/// # Shapes
/// `[n, in, h, w]` to `[n, out, h', w']`; `bias` is `[out]`.
///
/// # Panics
/// If the channels of `x_nchw`, `weight` and `bias` do not fit, or the output would have no pixels, or `MENTOR_CPU`
/// names instructions that are unknown or that the CPU lacks.
#[must_use]
pub fn conv_transpose2d(
    x_nchw: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvTransposeOptions<2>,
) -> Tensor<4> {
    let (x, w) = (x_nchw.dims(), weight.dims());
    assert_eq!(x[1], w[0], "a map {x:?} does not fit a transposed weight {w:?}");
    assert!(out_size(&x, &w, &options).is_some(), "no pixels from a map {x:?} by {w:?} with {options:?}");
    let channels = w[1] * options.groups;
    let weight = weight.into_dispatch();
    let y = Tensor::from_dispatch(Dispatch::mentor_conv_transpose2d(x_nchw.into_dispatch(), weight, options));
    let Some(bias) = bias else { return y };
    assert_eq!(bias.dims(), [channels], "the bias does not fit a transposed weight {w:?}");
    y + bias.reshape([1, channels, 1, 1])
}

/// The sides of the output; none if one would be empty.
fn out_size(x: &[usize; 4], weight: &[usize; 4], options: &ConvTransposeOptions<2>) -> Option<[usize; 2]> {
    let side = |axis: usize| {
        let reach = options.stride[axis] * x[axis + 2].checked_sub(1)?;
        let kernel = options.dilation[axis] * weight[axis + 2].checked_sub(1)? + 1;
        (reach + kernel + options.padding_out[axis]).checked_sub(2 * options.padding[axis]).filter(|side| *side > 0)
    };
    Some([side(0)?, side(1)?])
}

/// The transposed convolution that is routed by device.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait ConvTranspose: Backend {
    fn mentor_conv_transpose2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv_transpose2d(x, weight, None, options)
    }
}

/// Its gradients, which are called on the backend below autodiff only.
pub(crate) trait ConvTransposeGradients: ConvGradients {
    fn mentor_conv_transpose2d_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        let _ = x;
        Self::conv_transpose2d_x_backward(weight, grad, options)
    }

    fn mentor_conv_transpose2d_weight(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv_transpose2d_weight_backward(x, weight, grad, options)
    }
}

#[cfg(feature = "cube")]
impl ConvTranspose for burn::backend::Cube {}
#[cfg(feature = "cube")]
impl ConvTransposeGradients for burn::backend::Cube {}

/// The convolution that this one is the transposed of, from the output to `x`; none if burn's operation has to do it.
fn transposed(x: &FlexTensor, weight: &FlexTensor, options: &ConvTransposeOptions<2>) -> Option<Convolution> {
    let (x_dims, weight_dims) = (x.shape().dims(), weight.shape().dims());
    let ([images, in_channels, height, width], [_, group_out, kernel_height, kernel_width]) = (x_dims, weight_dims);
    let shape = ConvShape {
        images,
        in_channels: group_out * options.groups,
        out_channels: in_channels,
        groups: options.groups,
        size: out_size(&x_dims, &weight_dims, options)?,
        out_size: [height, width],
        kernel: [kernel_height, kernel_width],
        stride: options.stride,
        padding: options.padding,
        dilation: options.dilation,
    };
    by_our_kernels([x, weight], shape)
}

impl ConvTranspose for Flex {
    fn mentor_conv_transpose2d(x: FlexTensor, weight: FlexTensor, options: ConvTransposeOptions<2>) -> FlexTensor {
        let Some(convolution) = transposed(&x, &weight, &options) else {
            return Flex::conv_transpose2d(x, weight, None, options);
        };
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        tensor(convolution.input_gradient(values(&weight), values(&x)), convolution.shape().in_dims())
    }
}

impl ConvTransposeGradients for Flex {
    fn mentor_conv_transpose2d_x(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvTransposeOptions<2>,
    ) -> FlexTensor {
        let Some(convolution) = transposed(&x, &weight, &options) else {
            return Flex::conv_transpose2d_x_backward(weight, grad, options);
        };
        let (weight, grad) = (weight.to_contiguous(), grad.to_contiguous());
        let gradient = convolution.forward(values(&grad), values(&weight), Epilogue::bias(None));
        tensor(gradient, convolution.shape().out_dims())
    }

    fn mentor_conv_transpose2d_weight(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvTransposeOptions<2>,
    ) -> FlexTensor {
        let Some(convolution) = transposed(&x, &weight, &options) else {
            return Flex::conv_transpose2d_weight_backward(x, weight, grad, options);
        };
        let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
        tensor(convolution.weight_gradient(values(&grad), values(&x)), weight.shape().dims::<4>())
    }
}

/// The backward pass.
#[derive(Debug)]
struct ConvTransposeBackward;

impl<B: ConvTransposeGradients> Backward<B, 2> for ConvTransposeBackward {
    type State = ([NodeId; 2], ConvTransposeOptions<2>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = B::mentor_dense(grads.consume::<B>(&ops.node));
        let ([x, weight], options) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        let [of_x, of_weight] = ops.parents.map(|node| node.map(|node| node.id));
        if let Some(node) = of_weight {
            let gradient = B::mentor_conv_transpose2d_weight(x.clone(), weight.clone(), grad.clone(), options.clone());
            grads.register::<B>(node, gradient);
        }
        if let Some(node) = of_x {
            grads.register::<B>(node, B::mentor_conv_transpose2d_x(x, weight, grad, options));
        }
    }
}

impl<B: ConvTranspose + ConvTransposeGradients, C: CheckpointStrategy> ConvTranspose for Autodiff<B, C> {
    fn mentor_conv_transpose2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        let forward = |x: FloatTensor<Self>, weight: FloatTensor<Self>, options| {
            B::mentor_conv_transpose2d(x.into_primitive(), weight.into_primitive(), options)
        };
        let nodes = [x.node(), weight.node()];
        match Backward::<B, 2>::prepare::<C>(ConvTransposeBackward, nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let saved = [prepared.checkpoint(&x), prepared.checkpoint(&weight)];
                prepared.finish((saved, options.clone()), forward(x, weight, options))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward(x, weight, options)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};
    use burn::tensor::{DType, Device, module};

    type Operation = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, ConvTransposeOptions<2>) -> Tensor<4>;

    /// Output and the gradients of x, weight and bias.
    fn results(
        operation: Operation,
        x: [usize; 4],
        weight: [usize; 4],
        options: &ConvTransposeOptions<2>,
    ) -> [Vec<f32>; 4] {
        let (x, weight) = (noise(x, "x").require_grad(), noise(weight, "weight").require_grad());
        let bias = noise([weight.dims()[1] * options.groups], "bias").require_grad();
        let y = operation(x.clone(), weight.clone(), Some(bias.clone()), options.clone());
        let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
        [
            values(y),
            values(x.grad(&grads).unwrap()),
            values(weight.grad(&grads).unwrap()),
            values(bias.grad(&grads).unwrap()),
        ]
    }

    #[test]
    fn output_and_gradients_are_as_burns() {
        let mut checked = 0;
        for [in_channels, group_out, groups] in [[3, 5, 1], [4, 3, 2], [6, 1, 6], [40, 36, 1]] {
            for (kernel, stride, dilation) in
                [([2, 2], 2, 1), ([4, 4], 2, 1), ([3, 3], 1, 1), ([3, 2], 3, 2), ([1, 1], 2, 1), ([1, 1], 1, 1)]
            {
                for (padding, padding_out) in [(0, 0), (1, 0), (1, 1), (0, 2)] {
                    let padding_out = padding_out.min(stride - 1);
                    let options =
                        ConvTransposeOptions::new([stride; 2], [padding; 2], [padding_out; 2], [dilation; 2], groups);
                    let (x, weight) = ([2, in_channels, 5, 7], [in_channels, group_out, kernel[0], kernel[1]]);
                    let ours = results(conv_transpose2d, x, weight, &options);
                    let burns = results(module::conv_transpose2d, x, weight, &options);
                    for (ours, burns) in ours.iter().zip(&burns) {
                        assert_close(ours, burns, 1e-5, &format!("{x:?} by {weight:?} with {options:?}"));
                    }
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 96);
    }

    #[test]
    fn a_pixel_leaves_its_multiple_of_the_kernel() {
        let device = Device::flex();
        let x = Tensor::<4>::from_data([[[[1.0, 2.0]]]], &device);
        let weight = Tensor::<4>::from_data([[[[1.0, 10.0, 100.0]]]], &device);
        let options = ConvTransposeOptions::new([1, 2], [0, 0], [0, 1], [1, 1], 1);
        let y = conv_transpose2d(x, weight, None, options);
        assert_eq!(y.dims(), [1, 1, 1, 6]);
        assert_eq!(values(y), [1.0, 10.0, 102.0, 20.0, 200.0, 0.0]);
    }

    #[test]
    fn one_and_four_threads_give_the_same_bits() {
        let options = ConvTransposeOptions::new([2, 2], [1, 1], [0, 0], [1, 1], 1);
        let run = || results(conv_transpose2d, [3, 36, 20, 25], [36, 20, 4, 4], &options);
        let [one, four] = with_one_and_four_threads(run);
        assert_eq!(one, four);
    }

    #[test]
    fn only_what_is_tracked_gets_a_gradient() {
        let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
        let (x, weight) = (noise([1, 2, 5, 5], "x"), noise([2, 3, 2, 2], "weight"));
        let tracked = weight.clone().require_grad();
        let grads = conv_transpose2d(x.clone(), tracked.clone(), None, options.clone()).sum().backward();
        assert!(tracked.grad(&grads).is_some() && x.grad(&grads).is_none());
        let tracked = x.require_grad();
        let grads = conv_transpose2d(tracked.clone(), weight.clone(), None, options).sum().backward();
        assert!(tracked.grad(&grads).is_some() && weight.grad(&grads).is_none());
    }

    #[test]
    fn other_types_go_to_burn() {
        let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
        let (x, weight) = (noise([1, 2, 5, 5], "x").cast(DType::F64), noise([2, 3, 2, 2], "w").cast(DType::F64));
        let ours = conv_transpose2d(x.clone(), weight.clone(), None, options.clone());
        assert_eq!(ours.dtype(), DType::F64);
        assert_eq!(values(ours), values(module::conv_transpose2d(x, weight, None, options)));
    }

    #[test]
    #[should_panic(expected = "does not fit a transposed weight [4, 3, 2, 2]")]
    fn channels_that_do_not_fit_are_named() {
        let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
        let _ = conv_transpose2d(noise([1, 2, 5, 5], "x"), noise([4, 3, 2, 2], "weight"), None, options);
    }

    #[test]
    #[should_panic(expected = "no pixels from a map")]
    fn an_output_without_pixels_is_refused() {
        let options = ConvTransposeOptions::new([1, 1], [1, 1], [0, 0], [1, 1], 1);
        let _ = conv_transpose2d(noise([1, 2, 2, 2], "x"), noise([2, 3, 1, 1], "weight"), None, options);
    }
}
