//! Average pooling into bins: our own kernel for f32 on the CPU, products of matrices elsewhere.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::cpu::buffer::with_scratch;
use crate::cpu::flex::{dense, is_ours, tensor, values};
use crate::cpu::simd::{Kernel, vectorised};

/// The pixels of a bin along one axis, as in `PyTorch`; bins may overlap.
fn bin(index: usize, input: usize, output: usize) -> Range<usize> {
    index * input / output..((index + 1) * input).div_ceil(output)
}

/// The `[output, input]` matrix that averages bins along one axis.
fn bin_matrix(input: usize, output: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; input * output];
    for (index, row) in matrix.chunks_mut(input).enumerate() {
        let bin = bin(index, input, output);
        row[bin.clone()].fill(1.0 / bin.len() as f32);
    }
    matrix
}

/// Average pooling to `size` (height, width), differentiable on every device: bin `i` covers
/// `floor(i * input / output)..ceil((i + 1) * input / output)`.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, size[0], size[1]]`.
///
/// # Panics
/// If a side is zero.
#[must_use]
pub fn adaptive_avg_pool2d(x_nchw: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = x_nchw.dims();
    assert!(height * width * size[0] * size[1] > 0, "cannot pool {height}x{width} pixels to {size:?}");
    if is_ours(&x_nchw) {
        return Tensor::from_dispatch(Dispatch::mentor_average_bins(x_nchw.into_dispatch(), size));
    }
    crate::resize::resampled(x_nchw, size, bin_matrix)
}

/// Average pooling that is routed by autodiff or not; it only gets f32 on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait AverageBins: Backend {
    fn mentor_average_bins(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self>;
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait AverageBinsGradient: Backend {
    /// The gradient of a map of `dims`.
    fn mentor_average_bins_gradient(grad: FloatTensor<Self>, dims: [usize; 4]) -> FloatTensor<Self>;
}

/// The averages of a plane; `row` has its width.
struct Averages<'a> {
    plane: &'a [f32],
    size: [usize; 2],
    bins: [usize; 2],
    row: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Averages<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { plane, size: [height, width], bins, row, out } = self;
        for (index, out) in out.chunks_exact_mut(bins[1]).enumerate() {
            let rows = bin(index, height, bins[0]);
            row.fill(0.0);
            for x in plane[rows.start * width..rows.end * width].chunks_exact(width) {
                row.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
            for (index, out) in out.iter_mut().enumerate() {
                let columns = bin(index, width, bins[1]);
                let share = 1.0 / (rows.len() * columns.len()) as f32;
                *out = row[columns].iter().sum::<f32>() * share;
            }
        }
    }
}

/// The gradient of [`Averages`]: every pixel gets its share of each bin that it is in.
struct AveragesGradient<'a> {
    grad: &'a [f32],
    size: [usize; 2],
    bins: [usize; 2],
    row: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for AveragesGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { grad, size: [height, width], bins, row, out } = self;
        for (index, grad) in grad.chunks_exact(bins[1]).enumerate() {
            let rows = bin(index, height, bins[0]);
            row.fill(0.0);
            for (index, grad) in grad.iter().enumerate() {
                let columns = bin(index, width, bins[1]);
                let share = 1.0 / (rows.len() * columns.len()) as f32;
                row[columns].iter_mut().for_each(|sum| *sum += grad * share);
            }
            for out in out[rows.start * width..rows.end * width].chunks_exact_mut(width) {
                out.iter_mut().zip(&*row).for_each(|(out, sum)| *out += sum);
            }
        }
    }
}

impl AverageBins for Flex {
    fn mentor_average_bins(x: FlexTensor, bins: [usize; 2]) -> FlexTensor {
        let [images, channels, height, width] = x.shape().dims::<4>();
        let x = x.to_contiguous();
        let mut y = vec![0.0; images * channels * bins[0] * bins[1]];
        let planes = values(&x).par_chunks(height * width);
        y.par_chunks_mut(bins[0] * bins[1]).zip(planes).for_each(|(out, plane)| {
            with_scratch(width, |row| vectorised(Averages { plane, size: [height, width], bins, row, out }));
        });
        tensor(y, [images, channels, bins[0], bins[1]])
    }
}

impl AverageBinsGradient for Flex {
    fn mentor_average_bins_gradient(grad: FlexTensor, dims: [usize; 4]) -> FlexTensor {
        let [.., height, width] = dims;
        let [.., rows, columns] = grad.shape().dims::<4>();
        let (grad, bins) = (dense(&grad), [rows, columns]);
        let mut x = vec![0.0; dims.iter().product()];
        let grads = values(&grad).par_chunks(rows * columns);
        x.par_chunks_mut(height * width).zip(grads).for_each(|(out, grad)| {
            with_scratch(width, |row| vectorised(AveragesGradient { grad, size: [height, width], bins, row, out }));
        });
        tensor(x, dims)
    }
}

/// The backward pass.
#[derive(Debug)]
struct AverageBinsBackward;

impl<B: AverageBinsGradient> Backward<B, 1> for AverageBinsBackward {
    type State = [usize; 4];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::mentor_average_bins_gradient(grad, ops.state));
        }
    }
}

impl<B: AverageBins + AverageBinsGradient, C: CheckpointStrategy> AverageBins for Autodiff<B, C> {
    fn mentor_average_bins(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        let dims = x.shape().dims();
        let prepared = Backward::<B, 1>::prepare::<C>(AverageBinsBackward, [x.node()]);
        let y = B::mentor_average_bins(x.into_primitive(), size);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(dims, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values};
    use burn::tensor::module;

    #[test]
    fn bins_are_those_of_pytorch() {
        let x = Tensor::<4>::from_data([[[[1.0f32, 2.0, 3.0, 4.0, 5.0]]]], &burn::tensor::Device::flex());
        // Five pixels in three bins: 0..2, 1..4, 3..5.
        assert_close(&values(adaptive_avg_pool2d(x, [1, 3])), &[1.5, 3.0, 4.5], 1e-6, "bins");
    }

    #[test]
    fn output_and_gradient_are_as_burns() {
        for size in [[1, 1], [2, 3], [6, 6], [9, 11]] {
            let x = noise([2, 3, 7, 9], "x").require_grad();
            let results = |y: Tensor<4>| {
                let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
                [values(y), values(x.grad(&grads).unwrap())]
            };
            let ours = results(adaptive_avg_pool2d(x.clone(), size));
            let burns = results(module::adaptive_avg_pool2d(x.clone(), size));
            let composed = results(crate::resize::resampled(x.clone(), size, bin_matrix));
            for expected in [burns, composed] {
                assert_close(&ours[0], &expected[0], 1e-5, "output");
                assert_close(&ours[1], &expected[1], 1e-5, "gradient");
            }
        }
    }
}
