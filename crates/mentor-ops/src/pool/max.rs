//! Max pooling: our own kernel for f32 on the CPU, burn's operation elsewhere.

use std::mem::MaybeUninit;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{DType, Device, Tensor, module};
use rayon::prelude::*;

use crate::conv::padded::Layout;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::{filled, with_scratch};
use crate::cpu::flex::{dense, tensor, values};
use crate::cpu::simd;

/// Max pooling, as burn's operation of this name but faster on the CPU.
///
/// The gradient goes to the first of several largest pixels; NaN counts as the largest.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, h', w']`.
///
/// # Panics
/// If the window is larger than the padded map.
#[must_use]
pub fn max_pool2d(x_nchw: Tensor<4>, options: MaxPoolOptions<2>) -> Tensor<4> {
    let on_cpu = x_nchw.device().without_autodiff() == Device::flex() && x_nchw.dtype() == DType::F32;
    if !on_cpu || options.ceil_mode || x_nchw.shape().num_elements() == 0 {
        return module::max_pool2d(x_nchw, options);
    }
    Tensor::from_dispatch(Dispatch::mentor_max_pool2d(x_nchw.into_dispatch(), options))
}

/// Max pooling that is routed by autodiff or not; it only gets f32 on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait MaxPool: Backend {
    fn mentor_max_pool2d(x: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self>;
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait MaxPoolGradient: Backend {
    /// The output, and for each of its pixels the tap that saw the largest pixel.
    fn mentor_max_pool2d_places(
        x: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of a map of `size`.
    fn mentor_max_pool2d_gradient(
        size: [usize; 4],
        places: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
    ) -> FloatTensor<Self>;
}

/// The window as that of a depthwise convolution.
fn window([images, channels, height, width]: [usize; 4], options: &MaxPoolOptions<2>) -> ConvShape {
    let size = [height, width];
    let out_size = [0, 1].map(|axis| {
        let (before, after) = options.padding[axis];
        let covered = options.dilation[axis] * (options.kernel_size[axis] - 1) + 1;
        let padded = size[axis] + before + after;
        assert!(covered <= padded, "a window of {covered} pixels is larger than a padded map of {padded}");
        (padded - covered) / options.stride[axis] + 1
    });
    ConvShape {
        images,
        in_channels: channels,
        out_channels: channels,
        groups: channels,
        size,
        out_size,
        kernel: options.kernel_size,
        stride: options.stride,
        padding: [options.padding[0].0, options.padding[1].0],
        dilation: options.dilation,
    }
}

/// Whether the windows lie side by side, each pixel in one of them at most.
fn are_tiles(shape: &ConvShape) -> bool {
    shape.stride == shape.kernel && shape.padding == [0, 0] && shape.dilation == [1, 1]
}

/// The largest pixel of every tile of a plane, and the tap that saw it, the first of equal ones.
fn largest_of_tiles(shape: &ConvShape, plane: &[f32], mut write: impl FnMut(usize, f32, f32)) {
    let ([rows, columns], width) = (shape.kernel, shape.size[1]);
    with_scratch(2 * width, |scratch| {
        // First down the columns, which the compiler vectorises, then along what is left.
        let (best, place) = scratch.split_at_mut(width);
        for (band, plane) in plane.chunks_exact(rows * width).enumerate() {
            best.fill(f32::NEG_INFINITY);
            place.fill(0.0);
            for (row, x) in plane.chunks_exact(width).enumerate() {
                simd::keep_largest(best, place, x, row as f32);
            }
            let tiles = best.chunks_exact(columns).zip(place.chunks_exact(columns));
            for (tile, (best, place)) in tiles.enumerate() {
                let (mut largest, mut row, mut column) = (f32::NEG_INFINITY, f32::INFINITY, 0);
                for (index, (x, place)) in best.iter().zip(place).enumerate() {
                    if *x > largest || x.is_nan() || (*x == largest && *place < row) {
                        (largest, row, column) = (*x, *place, index);
                    }
                }
                write(band * shape.out_size[1] + tile, largest, row * columns as f32 + column as f32);
            }
        }
    });
}

/// The largest pixel of every window.
fn forward(shape: &ConvShape, x: &[f32]) -> Vec<f32> {
    if are_tiles(shape) {
        return forward_with_places(shape, x).0;
    }
    let (layout, width) = (Layout::new(shape), shape.out_size[1]);
    let compute = |plane: &[f32], out: &mut [MaybeUninit<f32>]| {
        with_scratch(layout.len() + width, |scratch| {
            let (padded, best) = scratch.split_at_mut(layout.len());
            layout.fill(0, plane, f32::NEG_INFINITY, padded);
            for (row, out) in out.chunks_mut(width).enumerate() {
                let padded = &padded[row * shape.stride[0] * layout.row..];
                best.fill(f32::NEG_INFINITY);
                layout.taps.iter().for_each(|tap| simd::raise(best, &padded[*tap..tap + width]));
                out.write_copy_of_slice(best);
            }
        });
    };
    // SAFETY: every row of every plane is written.
    unsafe {
        filled(shape.images * shape.out_channels * shape.out_area(), |out| {
            let planes = out.par_chunks_mut(shape.out_area()).zip(x.par_chunks(shape.area()));
            planes.for_each(|(out, plane)| compute(plane, out));
        })
    }
}

/// As [`forward`], with the tap that saw the largest pixel, the first of equal ones.
fn forward_with_places(shape: &ConvShape, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (layout, width) = (Layout::new(shape), shape.out_size[1]);
    let len = shape.images * shape.out_channels * shape.out_area();
    let (mut y, mut places) = (vec![f32::NEG_INFINITY; len], vec![0.0; len]);
    let outputs = y.par_chunks_mut(shape.out_area()).zip(places.par_chunks_mut(shape.out_area()));
    if are_tiles(shape) {
        outputs.zip(x.par_chunks(shape.area())).for_each(|((y, places), plane)| {
            largest_of_tiles(shape, plane, |tile, largest, place| (y[tile], places[tile]) = (largest, place));
        });
        return (y, places);
    }
    outputs.zip(x.par_chunks(shape.area())).for_each(|((y, places), plane)| {
        with_scratch(layout.len(), |padded| {
            layout.fill(0, plane, f32::NEG_INFINITY, padded);
            for (row, (y, places)) in y.chunks_mut(width).zip(places.chunks_mut(width)).enumerate() {
                let padded = &padded[row * shape.stride[0] * layout.row..];
                for (index, tap) in layout.taps.iter().enumerate() {
                    simd::keep_largest(y, places, &padded[*tap..tap + width], index as f32);
                }
            }
        });
    });
    (y, places)
}

/// The gradient of the map: that of every window goes to its largest pixel.
fn gradient(shape: &ConvShape, places: &[f32], grad: &[f32]) -> Vec<f32> {
    let ([height, width], [stride_down, stride_right]) = (shape.size, shape.stride);
    let taps: Vec<[usize; 2]> = (0..shape.taps())
        .map(|tap| [tap / shape.kernel[1] * shape.dilation[0], tap % shape.kernel[1] * shape.dilation[1]])
        .collect();
    let mut out = vec![0.0; shape.images * shape.in_channels * shape.area()];
    let inputs = places.par_chunks(shape.out_area()).zip(grad.par_chunks(shape.out_area()));
    out.par_chunks_mut(shape.area()).zip(inputs).for_each(|(out, (places, grad))| {
        let rows = places.chunks(shape.out_size[1]).zip(grad.chunks(shape.out_size[1]));
        for (row, (places, grad)) in rows.enumerate() {
            for (column, (place, grad)) in places.iter().zip(grad).enumerate() {
                let [down, right] = taps[*place as usize];
                let y = (row * stride_down + down).wrapping_sub(shape.padding[0]);
                let x = (column * stride_right + right).wrapping_sub(shape.padding[1]);
                // A window of nothing but minus infinity may point beside the map.
                if y < height && x < width {
                    out[y * width + x] += grad;
                }
            }
        }
    });
    out
}

impl MaxPool for Flex {
    fn mentor_max_pool2d(x: FlexTensor, options: MaxPoolOptions<2>) -> FlexTensor {
        let shape = window(x.shape().dims(), &options);
        let y = forward(&shape, values(&x.to_contiguous()));
        tensor(y, [shape.images, shape.out_channels, shape.out_size[0], shape.out_size[1]])
    }
}

impl MaxPoolGradient for Flex {
    fn mentor_max_pool2d_places(x: FlexTensor, options: MaxPoolOptions<2>) -> (FlexTensor, FlexTensor) {
        let shape = window(x.shape().dims(), &options);
        let (y, places) = forward_with_places(&shape, values(&x.to_contiguous()));
        let out_dims = [shape.images, shape.out_channels, shape.out_size[0], shape.out_size[1]];
        (tensor(y, out_dims), tensor(places, out_dims))
    }

    fn mentor_max_pool2d_gradient(
        size: [usize; 4],
        places: FlexTensor,
        grad: FlexTensor,
        options: MaxPoolOptions<2>,
    ) -> FlexTensor {
        tensor(gradient(&window(size, &options), values(&places), values(&dense(&grad))), size)
    }
}

/// The backward pass.
#[derive(Debug)]
struct MaxPoolBackward;

impl<B: MaxPoolGradient> Backward<B, 1> for MaxPoolBackward {
    type State = ([usize; 4], FloatTensor<B>, MaxPoolOptions<2>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (size, places, options) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::mentor_max_pool2d_gradient(size, places, grad, options));
        }
    }
}

impl<B: MaxPool + MaxPoolGradient, C: CheckpointStrategy> MaxPool for Autodiff<B, C> {
    fn mentor_max_pool2d(x: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self> {
        let size = x.shape().dims();
        match Backward::<B, 1>::prepare::<C>(MaxPoolBackward, [x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, places) = B::mentor_max_pool2d_places(x.into_primitive(), options.clone());
                prepared.finish((size, places, options), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::mentor_max_pool2d(x.into_primitive(), options)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{noise, values};

    /// Output and gradient.
    fn results(pool: fn(Tensor<4>, MaxPoolOptions<2>) -> Tensor<4>, options: &MaxPoolOptions<2>) -> [Vec<f32>; 2] {
        // Few different values, so that many windows have several largest pixels.
        let x = (noise([2, 3, 11, 14], "x") * 3.0).round().detach().require_grad();
        let y = pool(x.clone(), options.clone());
        let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
        [values(y), values(x.grad(&grads).unwrap())]
    }

    #[test]
    fn output_and_gradient_are_as_burns() {
        for kernel in [[2, 2], [3, 3], [1, 3], [5, 4]] {
            for stride in [[1, 1], [2, 2], [3, 2], kernel] {
                for padding in [[0, 0], [kernel[0] / 2, kernel[1] / 2]] {
                    for dilation in [1, 2] {
                        let options = MaxPoolOptions::new(kernel)
                            .with_stride(stride)
                            .with_padding(padding)
                            .with_dilation([dilation; 2]);
                        let (ours, burns) = (results(max_pool2d, &options), results(module::max_pool2d, &options));
                        assert_eq!(ours[0], burns[0], "output of {options:?}");
                        crate::test_maps::assert_close(&ours[1], &burns[1], 1e-6, &format!("gradient of {options:?}"));
                    }
                }
            }
        }
    }

    #[test]
    fn a_nan_is_the_largest() {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::from_data([[[[1.0, f32::NAN, 3.0]]]], &device).require_grad();
        let y = max_pool2d(x.clone(), MaxPoolOptions::new([1, 3]));
        assert!(values(y.clone())[0].is_nan());
        let grads = y.sum().backward();
        assert_eq!(values(x.grad(&grads).unwrap()), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_nan_is_the_largest_of_its_tile() {
        let device = Device::flex().autodiff();
        let x = [[[[1.0, f32::NAN, 3.0, 4.0], [2.0, 5.0, 4.0, 1.0]]]];
        let x = Tensor::<4>::from_data(x, &device).require_grad();
        let y = max_pool2d(x.clone(), MaxPoolOptions::new([2, 2]).with_stride([2, 2]));
        let found = values(y.clone());
        assert!(found[0].is_nan() && found[1] == 4.0);
        let grads = y.sum().backward();
        assert_eq!(values(x.grad(&grads).unwrap()), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_plain_device_and_other_types_work() {
        let x = noise([1, 2, 6, 6], "x");
        let options = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
        let expected = values(module::max_pool2d(x.clone(), options.clone()));
        assert_eq!(values(max_pool2d(x.clone().inner(), options.clone())), expected);
        assert_eq!(values(max_pool2d(x.cast(DType::F64), options)), expected);
    }
}
