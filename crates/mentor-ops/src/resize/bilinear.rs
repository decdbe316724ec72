//! Bilinear resizing of f32 maps on the CPU: first along the rows, then between them.

use std::mem::MaybeUninit;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use rayon::prelude::*;

use crate::cpu::buffer::{filled, with_scratch};
use crate::cpu::flex::{dense, tensor, values};
use crate::cpu::simd::{Kernel, add_scaled, vectorised};

/// The two input pixels that an output pixel lies between along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Between {
    pub(crate) low: usize,
    /// The next, or `low` again at the end.
    pub(crate) high: usize,
    /// What `high` contributes; `low` contributes the rest.
    pub(crate) share: f32,
}

/// Where the pixels of one axis lie, in `PyTorch`'s meaning (no antialiasing).
///
/// # Panics
/// If either length is zero.
pub(crate) fn places(input: usize, output: usize, align_corners: bool) -> Vec<Between> {
    assert!(input > 0 && output > 0, "cannot resize {input} to {output} pixels");
    let place = |index: usize| {
        let source = if align_corners {
            if output > 1 { index as f32 * ((input - 1) as f32 / (output - 1) as f32) } else { 0.0 }
        } else {
            ((index as f32 + 0.5) * (input as f32 / output as f32) - 0.5).max(0.0)
        };
        let low = (source.floor() as usize).min(input - 1);
        Between { low, high: (low + 1).min(input - 1), share: source - low as f32 }
    };
    (0..output).map(place).collect()
}

/// Bilinear resizing that is routed by autodiff or not; it only gets f32 on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Bilinear: Backend {
    fn mentor_bilinear(x: FloatTensor<Self>, size: [usize; 2], align_corners: bool) -> FloatTensor<Self>;
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait BilinearGradient: Backend {
    /// The gradient of a map of `dims`.
    fn mentor_bilinear_gradient(grad: FloatTensor<Self>, dims: [usize; 4], align_corners: bool) -> FloatTensor<Self>;
}

/// Where the rows and the columns of a map lie.
struct Grid {
    rows: Vec<Between>,
    columns: Vec<Between>,
    /// Height and width of what is resized.
    from: [usize; 2],
}

impl Grid {
    fn new(from: [usize; 2], to: [usize; 2], align_corners: bool) -> Self {
        let [rows, columns] = [0, 1].map(|axis| places(from[axis], to[axis], align_corners));
        Self { rows, columns, from }
    }

    /// Pixels of the resized plane.
    fn area(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Floats of a plane that is resized along its rows only.
    fn half_way(&self) -> usize {
        self.from[0] * self.columns.len()
    }
}

/// Resizes the rows of a plane.
struct Widen<'a>(&'a Grid, &'a [f32], &'a mut [f32]);

impl Kernel for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(grid, plane, out) = self;
        for (x, out) in plane.chunks_exact(grid.from[1]).zip(out.chunks_exact_mut(grid.columns.len())) {
            for (out, place) in out.iter_mut().zip(&grid.columns) {
                *out = x[place.low] * (1.0 - place.share) + x[place.high] * place.share;
            }
        }
    }
}

/// One row of the result from the two rows that it lies between.
struct Blend<'a>([&'a [f32]; 2], f32, &'a mut [MaybeUninit<f32>]);

impl Kernel for Blend<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self([low, high], share, out) = self;
        for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
            out.write(low * (1.0 - share) + high * share);
        }
    }
}

impl Bilinear for Flex {
    fn mentor_bilinear(x: FlexTensor, size: [usize; 2], align_corners: bool) -> FlexTensor {
        let [images, channels, height, width] = x.shape().dims::<4>();
        let (grid, x) = (Grid::new([height, width], size, align_corners), x.to_contiguous());
        let x = values(&x);
        let resize = |(out, plane): (&mut [MaybeUninit<f32>], &[f32])| {
            with_scratch(grid.half_way(), |wide| {
                vectorised(Widen(&grid, plane, &mut *wide));
                let row = |index: usize| &wide[index * size[1]..][..size[1]];
                for (out, place) in out.chunks_exact_mut(size[1]).zip(&grid.rows) {
                    vectorised(Blend([row(place.low), row(place.high)], place.share, out));
                }
            });
        };
        // SAFETY: every row of every plane is written.
        let y = unsafe {
            filled(images * channels * grid.area(), |out| {
                out.par_chunks_exact_mut(grid.area()).zip(x.par_chunks_exact(height * width)).for_each(resize);
            })
        };
        tensor(y, [images, channels, size[0], size[1]])
    }
}

impl BilinearGradient for Flex {
    fn mentor_bilinear_gradient(grad: FlexTensor, dims: [usize; 4], align_corners: bool) -> FlexTensor {
        let [.., height, width] = dims;
        let [.., rows, columns] = grad.shape().dims::<4>();
        let (grid, grad) = (Grid::new([height, width], [rows, columns], align_corners), dense(&grad));
        let mut x = vec![0.0; dims.iter().product()];
        let grads = values(&grad).par_chunks_exact(grid.area());
        x.par_chunks_exact_mut(height * width).zip(grads).for_each(|(x, grad)| {
            with_scratch(grid.half_way(), |wide| {
                wide.fill(0.0);
                for (grad, place) in grad.chunks_exact(columns).zip(&grid.rows) {
                    add_scaled(&mut wide[place.low * columns..][..columns], 1.0 - place.share, grad);
                    add_scaled(&mut wide[place.high * columns..][..columns], place.share, grad);
                }
                for (x, wide) in x.chunks_exact_mut(width).zip(wide.chunks_exact(columns)) {
                    for (wide, place) in wide.iter().zip(&grid.columns) {
                        x[place.low] += wide * (1.0 - place.share);
                        x[place.high] += wide * place.share;
                    }
                }
            });
        });
        tensor(x, dims)
    }
}

/// The backward pass.
#[derive(Debug)]
struct BilinearBackward;

impl<B: BilinearGradient> Backward<B, 1> for BilinearBackward {
    type State = ([usize; 4], bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (dims, align_corners) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::mentor_bilinear_gradient(grad, dims, align_corners));
        }
    }
}

impl<B: Bilinear + BilinearGradient, C: CheckpointStrategy> Bilinear for Autodiff<B, C> {
    fn mentor_bilinear(x: FloatTensor<Self>, size: [usize; 2], align_corners: bool) -> FloatTensor<Self> {
        let dims = x.shape().dims();
        let prepared = Backward::<B, 1>::prepare::<C>(BilinearBackward, [x.node()]);
        let y = B::mentor_bilinear(x.into_primitive(), size, align_corners);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((dims, align_corners), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::resize::{bilinear_matrix, resampled, resize_bilinear};
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};
    use burn::tensor::Tensor;

    /// Output and gradient.
    fn results(x: &Tensor<4>, y: Tensor<4>) -> [Vec<f32>; 2] {
        let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
        [values(y), values(x.grad(&grads).unwrap())]
    }

    #[test]
    fn output_and_gradient_are_those_of_the_products_of_matrices() {
        for dims in [[2, 3, 5, 7], [1, 1, 1, 1], [1, 2, 1, 9], [3, 4, 33, 17]] {
            for size in [[1, 1], [5, 7], [10, 14], [3, 2], [40, 1], [7, 65]] {
                for align in [false, true] {
                    let x = noise(dims, "x").require_grad();
                    let ours = results(&x, resize_bilinear(x.clone(), size, align) * 1.0);
                    let matrix = |input, output| bilinear_matrix(input, output, align);
                    let expected = results(&x, resampled(x.clone(), size, matrix));
                    let what = format!("{dims:?} to {size:?}, align {align}");
                    assert_close(&ours[0], &expected[0], 1e-6, &format!("{what}: output"));
                    assert_close(&ours[1], &expected[1], 1e-5, &format!("{what}: gradient"));
                }
            }
        }
    }

    #[test]
    fn a_view_is_resized_as_what_it_shows() {
        let x = noise([2, 3, 8, 6], "x");
        let view = x.clone().swap_dims(2, 3).slice([0..2, 1..3, 1..5, 0..8]);
        let copy = Tensor::<4>::from_data(view.clone().into_data(), &view.device());
        let [view, copy] = [view, copy].map(|x| values(resize_bilinear(x, [9, 5], false)));
        assert_eq!(view, copy);
    }

    #[test]
    fn threads_change_no_bit() {
        let [one, four] = with_one_and_four_threads(|| {
            let x = noise([2, 5, 9, 11], "x").require_grad();
            results(&x, resize_bilinear(x.clone(), [72, 88], false))
        });
        assert_eq!(one, four);
    }
}
