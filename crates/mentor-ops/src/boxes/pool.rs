//! Regions of maps by two matrices each: our own kernel for f32 on the CPU, which skips zeros, products of matrices elsewhere.

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

/// How many values products of matrices may have between the two: so many regions are computed at a time.
const BETWEEN: usize = 1 << 24;

/// `sum_hw rows[n, r, i, h] columns[n, r, j, w] x[n, c, h, w]`, `[n, r, c, i, j]`.
///
/// # Shapes
/// Maps `[n, c, h, w]` in f32, rows `[n, r, bins, h]`, columns `[n, r, bins, w]`, on the plain device.
///
/// # Gradient
/// Reaches the maps alone.
pub(super) fn pool_regions(x_nchw: Tensor<4>, rows_nrih: Tensor<4>, columns_nrjw: Tensor<4>) -> Tensor<5> {
    let is_empty = rows_nrih.shape().num_elements() == 0;
    if is_empty || !is_ours(&x_nchw) {
        return by_products(x_nchw, rows_nrih, columns_nrjw);
    }
    let matched = |weights: Tensor<4>| if x_nchw.is_autodiff() { weights.autodiff() } else { weights };
    let [rows, columns] = [rows_nrih, columns_nrjw].map(|weights| matched(weights).into_dispatch());
    Tensor::from_dispatch(Dispatch::mentor_pool_regions(x_nchw.into_dispatch(), rows, columns))
}

/// The same by products of matrices. What lies between the two products is not kept: the gradient needs the matrices alone.
fn by_products(x_nchw: Tensor<4>, rows_nrih: Tensor<4>, columns_nrjw: Tensor<4>) -> Tensor<5> {
    let [n, channels, height, width] = x_nchw.dims();
    let [_, regions, bins, _] = rows_nrih.dims();
    if regions == 0 {
        return Tensor::zeros([n, 0, channels, bins, bins], &x_nchw.device());
    }
    let x_nhq: Tensor<3> = x_nchw.swap_dims(1, 2).reshape([n, height, channels * width]);
    let block = (BETWEEN / (n * bins * channels * width)).clamp(1, regions);
    let pooled = (0..regions).step_by(block).map(|start| {
        let count = block.min(regions - start);
        let part = |weights: &Tensor<4>| weights.clone().narrow(1, start, count);
        let rows_nqh = part(&rows_nrih).reshape([n, count * bins, height]);
        let between = rows_nqh.matmul(x_nhq.clone()).reshape([n * count, bins * channels, width]);
        let columns_qwj = part(&columns_nrjw).reshape([n * count, bins, width]).swap_dims(1, 2);
        between.matmul(columns_qwj).reshape([n, count, bins, channels, bins]).swap_dims(2, 3)
    });
    Tensor::cat(pooled.collect(), 1)
}

/// Pooling of regions that is routed by autodiff or not; it only gets f32 on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PoolRegions: Backend {
    fn mentor_pool_regions(
        x: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        columns: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait PoolRegionsGradient: Backend {
    /// The gradient of the maps.
    fn mentor_pool_regions_gradient(
        grad: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        columns: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The weights of a region along an axis: for each bin one for each value, of which only some are not 0.
struct Strips<'a> {
    weights: &'a [f32],
    len: usize,
    /// Where those of a bin are that are not 0.
    bins: Vec<Range<usize>>,
}

impl<'a> Strips<'a> {
    fn of(weights: &'a [f32], len: usize) -> Self {
        let range = |weights: &[f32]| {
            let first = weights.iter().position(|weight| *weight != 0.0);
            let last = weights.iter().rposition(|weight| *weight != 0.0);
            first.zip(last).map_or(0..0, |(first, last)| first..last + 1)
        };
        Self { weights, len, bins: weights.chunks_exact(len).map(range).collect() }
    }

    /// Of many regions.
    fn of_all(weights: &'a FlexTensor) -> Vec<Self> {
        let [_, _, bins, len] = weights.shape().dims::<4>();
        values(weights).chunks_exact(bins * len).map(|of_region| Self::of(of_region, len)).collect()
    }

    /// The values that a bin looks at, and how much each counts.
    fn bin(&self, index: usize) -> (Range<usize>, &'a [f32]) {
        let range = self.bins[index].clone();
        let start = index * self.len;
        (range.clone(), &self.weights[start + range.start..start + range.end])
    }

    /// From the first value that any bin looks at to the last.
    fn span(&self) -> Range<usize> {
        let used = || self.bins.iter().filter(|bin| !bin.is_empty());
        let (start, end) = (used().map(|bin| bin.start).min(), used().map(|bin| bin.end).max());
        start.zip(end).map_or(0..0, |(start, end)| start..end)
    }
}

/// A region of a plane; `row` has the plane's width.
struct Pooled<'a> {
    plane: &'a [f32],
    rows: &'a Strips<'a>,
    columns: &'a Strips<'a>,
    row: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Pooled<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { plane, rows, columns, row, out } = self;
        let span = columns.span();
        for (index, out) in out.chunks_exact_mut(columns.bins.len()).enumerate() {
            let (at, weights) = rows.bin(index);
            let row = &mut row[span.clone()];
            row.fill(0.0);
            for (line, weight) in at.zip(weights) {
                let line = &plane[line * columns.len..][span.clone()];
                row.iter_mut().zip(line).for_each(|(sum, x)| *sum += weight * x);
            }
            for (index, out) in out.iter_mut().enumerate() {
                let (at, weights) = columns.bin(index);
                let own = row.iter().skip(at.start.saturating_sub(span.start));
                *out = own.zip(weights).map(|(x, weight)| x * weight).sum();
            }
        }
    }
}

/// The gradient of [`Pooled`], added to what is there.
struct PooledGradient<'a> {
    grad: &'a [f32],
    rows: &'a Strips<'a>,
    columns: &'a Strips<'a>,
    row: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for PooledGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { grad, rows, columns, row, out } = self;
        let span = columns.span();
        for (index, grad) in grad.chunks_exact(columns.bins.len()).enumerate() {
            let (at, weights) = rows.bin(index);
            let row = &mut row[span.clone()];
            row.fill(0.0);
            for (index, grad) in grad.iter().enumerate() {
                let (at, weights) = columns.bin(index);
                let own = row.iter_mut().skip(at.start.saturating_sub(span.start));
                own.zip(weights).for_each(|(sum, weight)| *sum += grad * weight);
            }
            for (line, weight) in at.zip(weights) {
                let line = &mut out[line * columns.len..][span.clone()];
                line.iter_mut().zip(&*row).for_each(|(sum, x)| *sum += weight * x);
            }
        }
    }
}

impl PoolRegions for Flex {
    fn mentor_pool_regions(x: FlexTensor, rows: FlexTensor, columns: FlexTensor) -> FlexTensor {
        let [images, channels, height, width] = x.shape().dims::<4>();
        let [_, regions, bins, _] = rows.shape().dims::<4>();
        let (x, rows, columns) = (x.to_contiguous(), rows.to_contiguous(), columns.to_contiguous());
        let (rows, columns) = (Strips::of_all(&rows), Strips::of_all(&columns));
        let (area, cells) = (height * width, bins * bins);
        let mut y = vec![0.0; images * regions * channels * cells];
        let x = values(&x);
        y.par_chunks_mut(channels * cells).enumerate().for_each(|(region, out)| {
            let planes = x[region / regions * channels * area..].chunks_exact(area);
            let (rows, columns) = (&rows[region], &columns[region]);
            with_scratch(width, |row| {
                for (out, plane) in out.chunks_exact_mut(cells).zip(planes) {
                    vectorised(Pooled { plane, rows, columns, row, out });
                }
            });
        });
        tensor(y, [images, regions, channels, bins, bins])
    }
}

impl PoolRegionsGradient for Flex {
    fn mentor_pool_regions_gradient(grad: FlexTensor, rows: FlexTensor, columns: FlexTensor) -> FlexTensor {
        let [images, regions, channels, bins, _] = grad.shape().dims::<5>();
        let [.., height] = rows.shape().dims::<4>();
        let [.., width] = columns.shape().dims::<4>();
        let (grad, rows, columns) = (dense(&grad), rows.to_contiguous(), columns.to_contiguous());
        let (rows, columns) = (Strips::of_all(&rows), Strips::of_all(&columns));
        let cells = bins * bins;
        let mut x = vec![0.0; images * channels * height * width];
        let grad = values(&grad);
        x.par_chunks_mut(height * width).enumerate().for_each(|(plane, out)| {
            let (image, channel) = (plane / channels, plane % channels);
            with_scratch(width, |row| {
                for region in image * regions..(image + 1) * regions {
                    let grad = &grad[(region * channels + channel) * cells..][..cells];
                    let (rows, columns) = (&rows[region], &columns[region]);
                    vectorised(PooledGradient { grad, rows, columns, row, out });
                }
            });
        });
        tensor(x, [images, channels, height, width])
    }
}

/// The backward pass. The graph keeps the matrices.
#[derive(Debug)]
struct PoolRegionsBackward;

impl<B: PoolRegionsGradient> Backward<B, 1> for PoolRegionsBackward {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [rows, columns] = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::mentor_pool_regions_gradient(grad, rows, columns));
        }
    }
}

impl<B: PoolRegions + PoolRegionsGradient, C: CheckpointStrategy> PoolRegions for Autodiff<B, C> {
    fn mentor_pool_regions(
        x: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        columns: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let prepared = Backward::<B, 1>::prepare::<C>(PoolRegionsBackward, [x.node()]);
        let (rows, columns) = (rows.into_primitive(), columns.into_primitive());
        let y = B::mentor_pool_regions(x.into_primitive(), rows.clone(), columns.clone());
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish([rows, columns], y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};
    use burn::tensor::{Device, TensorData};

    /// Weights that are 0 but for a band of each bin, or everywhere.
    fn weights(dims: [usize; 4], name: &str) -> Tensor<4> {
        let [.., bins, len] = dims;
        let noisy = values(noise(dims, name));
        let band = |(index, value): (usize, f32)| {
            let (region, bin, at) = (index / (bins * len), index / len % bins, index % len);
            let from = (region + bin) % len;
            if region % 4 != 3 && (from..from + 2).contains(&at) { value } else { 0.0 }
        };
        let values: Vec<f32> = noisy.into_iter().enumerate().map(band).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    /// Output and gradient.
    fn results(x: &Tensor<4>, y: Tensor<5>) -> [Vec<f32>; 2] {
        let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
        [values(y), values(x.grad(&grads).unwrap())]
    }

    #[test]
    fn output_and_gradient_are_those_of_the_products_of_matrices() {
        for ([n, channels, height, width], regions, bins) in
            [([2, 3, 5, 7], 9, 3), ([1, 2, 1, 9], 4, 1), ([2, 1, 6, 4], 1, 7)]
        {
            let x = noise([n, channels, height, width], "x").require_grad();
            let rows = weights([n, regions, bins, height], "rows");
            let columns = weights([n, regions, bins, width], "columns");
            let ours = results(&x, pool_regions(x.clone(), rows.clone(), columns.clone()));
            let expected = results(&x, by_products(x.clone(), rows, columns));
            assert_close(&ours[0], &expected[0], 1e-5, "output");
            assert_close(&ours[1], &expected[1], 1e-5, "gradient");
            assert!(ours.iter().all(|values| values.iter().any(|value| *value != 0.0)));
        }
    }

    #[test]
    fn without_a_region_there_is_nothing() {
        let x = noise([2, 3, 4, 5], "x");
        let none = |len| Tensor::zeros([2, 0, 7, len], &Device::flex());
        assert_eq!(pool_regions(x, none(4), none(5)).dims(), [2, 0, 3, 7, 7]);
    }

    #[test]
    fn threads_change_no_bit() {
        let [one, four] = with_one_and_four_threads(|| {
            let x = noise([2, 5, 9, 11], "x").require_grad();
            let [rows, columns] = [9, 11].map(|len| weights([2, 20, 3, len], "weights"));
            results(&x, pool_regions(x.clone(), rows, columns))
        });
        assert_eq!(one, four);
    }
}
