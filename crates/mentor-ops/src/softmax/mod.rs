//! Softmax over the channels of a map: our own kernels for f32 on the CPU, burn's operations elsewhere.

mod cross_entropy;
mod kernels;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, activation};

use crate::cpu::flex::{dense, is_ours, tensor, values};
use crate::softmax::kernels::Size;

pub use cross_entropy::pixel_cross_entropy;

/// Softmax, as burn's operation of this name but faster on the CPU where pixels lie side by side.
///
/// # Shapes
/// Any, with what is summed over in dimension `dim`; the result has the same.
#[must_use]
pub fn softmax<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    if takes(&x, dim) { run(x, dim, false) } else { activation::softmax(x, dim) }
}

/// The logarithm of [`softmax`], as burn's operation of this name.
///
/// # Shapes
/// As [`softmax`].
#[must_use]
pub fn log_softmax<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    if takes(&x, dim) { run(x, dim, true) } else { activation::log_softmax(x, dim) }
}

/// Whether our kernel computes the softmax: numbers that lie side by side are summed over by burn's.
fn takes<const D: usize>(x: &Tensor<D>, dim: usize) -> bool {
    is_ours(x) && x.dims()[dim + 1..].iter().product::<usize>() > 1
}

fn run<const D: usize>(x: Tensor<D>, dim: usize, log: bool) -> Tensor<D> {
    let dims = x.dims();
    let area = dims[dim + 1..].iter().product();
    let x = x.reshape([dims[..dim].iter().product(), dims[dim], area]);
    Tensor::<3>::from_dispatch(Dispatch::mentor_softmax(x.into_dispatch(), log)).reshape(dims)
}

/// Softmax of `[n, k, area]` over `k`, routed by autodiff or not; it only gets f32 on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Softmax: Backend {
    fn mentor_softmax(x: FloatTensor<Self>, log: bool) -> FloatTensor<Self>;
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait SoftmaxGradient: Backend {
    /// The gradient of what `y` is the softmax of.
    fn mentor_softmax_gradient(y: FloatTensor<Self>, grad: FloatTensor<Self>, log: bool) -> FloatTensor<Self>;
}

fn size(dims: [usize; 3]) -> Size {
    Size { images: dims[0], channels: dims[1], area: dims[2] }
}

impl Softmax for Flex {
    fn mentor_softmax(x: FlexTensor, log: bool) -> FlexTensor {
        let dims = x.shape().dims();
        tensor(kernels::softmax(size(dims), values(&x.to_contiguous()), log), dims)
    }
}

impl SoftmaxGradient for Flex {
    fn mentor_softmax_gradient(y: FlexTensor, grad: FlexTensor, log: bool) -> FlexTensor {
        let dims = y.shape().dims();
        tensor(kernels::softmax_gradient(size(dims), values(&y), values(&dense(&grad)), log), dims)
    }
}

/// The backward pass.
#[derive(Debug)]
struct SoftmaxBackward;

impl<B: SoftmaxGradient> Backward<B, 1> for SoftmaxBackward {
    type State = (FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (y, log) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::mentor_softmax_gradient(y, grad, log));
        }
    }
}

impl<B: Softmax + SoftmaxGradient, C: CheckpointStrategy> Softmax for Autodiff<B, C> {
    fn mentor_softmax(x: FloatTensor<Self>, log: bool) -> FloatTensor<Self> {
        let prepared = Backward::<B, 1>::prepare::<C>(SoftmaxBackward, [x.node()]);
        let y = B::mentor_softmax(x.clone().into_primitive(), log);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((y.clone(), log), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};
    use burn::tensor::{DType, Device};

    /// Output and gradient.
    fn results<const D: usize>(dims: [usize; D], form: impl Fn(Tensor<D>) -> Tensor<D>) -> [Vec<f32>; 2] {
        let x = (noise(dims, "x") * 3.0).detach().require_grad();
        let y = form(x.clone());
        let grads = (y.clone() * noise(dims, "grad")).sum().backward();
        [values(y), values(x.grad(&grads).unwrap())]
    }

    fn assert_same(found: [Vec<f32>; 2], expected: [Vec<f32>; 2], what: &str) {
        assert_close(&found[0], &expected[0], 1e-6, &format!("{what}: output"));
        assert_close(&found[1], &expected[1], 1e-5, &format!("{what}: gradient"));
    }

    #[test]
    fn output_and_gradient_are_as_burns() {
        for dims in [[2, 5, 7, 9], [1, 1, 3, 4], [3, 21, 40, 31], [1, 150, 13, 17], [2, 2, 1, 1]] {
            for dim in 0..4 {
                let what = format!("{dims:?} over {dim}");
                let ours = results(dims, |x| softmax(x, dim));
                assert_same(ours, results(dims, |x| activation::softmax(x, dim)), &what);
                let ours = results(dims, |x| log_softmax(x, dim));
                assert_same(ours, results(dims, |x| activation::log_softmax(x, dim)), &what);
            }
        }
        let rows = |form: fn(Tensor<2>, usize) -> Tensor<2>| results([6, 5], |x| form(x, 0));
        assert_same(rows(softmax), rows(activation::softmax), "two dimensions");
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        for form in [softmax::<4>, log_softmax::<4>] {
            let [one, four] = with_one_and_four_threads(|| results([3, 21, 40, 31], |x| form(x, 1)));
            assert_eq!(one, four);
        }
    }

    #[test]
    fn extreme_numbers_are_probability_zero_and_nan_stays() {
        let x = [[[[1e4, f32::NAN, 3.0]], [[-1e4, 0.0, f32::NEG_INFINITY]]]];
        let x = Tensor::<4>::from_data(x, &Device::flex());
        let (plain, log) = (values(softmax(x.clone(), 1)), values(log_softmax(x, 1)));
        assert_eq!([plain[0], plain[3], plain[2], plain[5]], [1.0, 0.0, 1.0, 0.0]);
        assert_eq!([log[0], log[3], log[2], log[5]], [0.0, -2e4, 0.0, f32::NEG_INFINITY]);
        assert!(plain[1].is_nan() && plain[4].is_nan() && log[1].is_nan() && log[4].is_nan());
    }

    #[test]
    fn views_a_plain_device_and_other_types_work() {
        let x = noise([2, 6, 4, 5], "x");
        let expected = values(activation::softmax(x.clone().permute([0, 3, 1, 2]), 1));
        assert_close(&values(softmax(x.clone().permute([0, 3, 1, 2]), 1)), &expected, 1e-6, "view");
        let plain = softmax(x.clone().inner().permute([0, 3, 1, 2]), 1);
        assert!(!plain.device().is_autodiff());
        assert_close(&values(plain), &expected, 1e-6, "plain");
        assert_close(&values(softmax(x.cast(DType::F64).permute([0, 3, 1, 2]), 1)), &expected, 1e-6, "f64");
    }
}
