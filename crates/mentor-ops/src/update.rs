//! Updates of weights from what an optimizer or an average remembers: on the CPU one pass over each
//! tensor, in place where nobody else holds it; burn's operations elsewhere.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::cpu::simd::{Kernel, vectorised};

/// Elements of a task. A tensor of fewer is not worth a second thread.
const CHUNK: usize = 32 * 1024;

/// The numbers of a step of stochastic gradient descent with momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// What stays of the velocity.
    pub momentum: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Whether the step looks ahead by the new velocity.
    pub nesterov: bool,
}

/// The numbers of a step of Adam with decoupled weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwStep {
    /// Learning rate.
    pub lr: f64,
    /// What stays of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
    /// Which step of this weight it is, from 1.
    pub time: u64,
}

/// One step of stochastic gradient descent with momentum, as `torch.optim.SGD`: the new weight and
/// velocity. The velocity before the first step is zero.
///
/// # Shapes
/// All of one shape.
#[must_use]
pub fn sgd_update<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    velocity: Tensor<D>,
    step: SgdStep,
) -> (Tensor<D>, Tensor<D>) {
    if are_ours([&weight, &grad, &velocity]) {
        let [weight, grad, velocity] = [weight, grad, velocity].map(Tensor::into_dispatch);
        let (weight, velocity) = Dispatch::mentor_sgd(weight, grad, velocity, step);
        return (Tensor::from_dispatch(weight), Tensor::from_dispatch(velocity));
    }
    let grad = if step.weight_decay == 0.0 { grad } else { grad + weight.clone().mul_scalar(step.weight_decay) };
    let velocity = velocity.mul_scalar(step.momentum) + grad.clone();
    let ahead = if step.nesterov { grad + velocity.clone().mul_scalar(step.momentum) } else { velocity.clone() };
    (weight - ahead.mul_scalar(step.lr), velocity)
}

/// One step of Adam, as `torch.optim.AdamW`: the new weight, and the new moments of the gradient,
/// which are zero before the first step.
///
/// # Shapes
/// All of one shape.
#[must_use]
pub fn adamw_update<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    [mean, square]: [Tensor<D>; 2],
    step: AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    if are_ours([&weight, &grad, &mean, &square]) {
        let [weight, grad, mean, square] = [weight, grad, mean, square].map(Tensor::into_dispatch);
        let (weight, mean, square) = Dispatch::mentor_adamw(weight, grad, mean, square, step);
        return (Tensor::from_dispatch(weight), [mean, square].map(Tensor::from_dispatch));
    }
    let [beta_1, beta_2] = step.betas;
    let mean = mean.mul_scalar(beta_1) + grad.clone().mul_scalar(1.0 - beta_1);
    let square = square.mul_scalar(beta_2) + grad.clone().mul(grad).mul_scalar(1.0 - beta_2);
    let [shrink, rate, correction] = step.factors();
    let root = square.clone().sqrt().div_scalar(correction).add_scalar(step.epsilon);
    (weight.mul_scalar(shrink) - mean.clone().div(root).mul_scalar(rate), [mean, square])
}

/// `decay * average + (1 - decay) * value`.
///
/// # Shapes
/// Both of one shape.
#[must_use]
pub fn moved_average<const D: usize>(average: Tensor<D>, value: Tensor<D>, decay: f64) -> Tensor<D> {
    if are_ours([&average, &value]) {
        let moved = Dispatch::mentor_moved_average(average.into_dispatch(), value.into_dispatch(), decay);
        return Tensor::from_dispatch(moved);
    }
    average * decay + value * (1.0 - decay)
}

/// Whether our kernels take these: f32 on the CPU, off the graph.
fn are_ours<const D: usize, const N: usize>(tensors: [&Tensor<D>; N]) -> bool {
    let shape = tensors[0].shape();
    assert!(tensors.iter().all(|tensor| tensor.shape() == shape), "a weight and what belongs to it differ in shape");
    tensors.iter().all(|tensor| tensor.device() == Device::flex() && tensor.dtype() == DType::F32)
}

impl AdamwStep {
    /// The factor of the weight, that of the step, and what the root of the second moment is divided by.
    fn factors(&self) -> [f64; 3] {
        let [correction_1, correction_2] = self.betas.map(|beta| 1.0 - beta.powf(self.time as f64));
        [1.0 - self.lr * self.weight_decay, self.lr / correction_1, correction_2.sqrt()]
    }
}

/// The updates that are routed by device; they only get f32 on the CPU.
#[backend_extension(Flex)]
pub(crate) trait Update: Backend {
    fn mentor_sgd(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    fn mentor_adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn mentor_moved_average(average: FloatTensor<Self>, value: FloatTensor<Self>, decay: f64) -> FloatTensor<Self>;
}

/// A tensor whose storage holds its values in row order and nothing else: itself where it can be, so
/// that it is changed in place if nobody else holds it.
fn whole(tensor: FlexTensor) -> FlexTensor {
    let values = tensor.as_slice::<f32>().map(<[f32]>::len);
    if values == Some(tensor.storage::<f32>().len()) { tensor } else { tensor.to_contiguous() }
}

/// Runs `update` on chunks of tensors of one length, of which the first `N` change.
fn in_chunks<const N: usize, const M: usize>(
    changing: [&mut [f32]; N],
    fixed: [&[f32]; M],
    update: impl Fn([&mut [f32]; N], [&[f32]; M]) + Send + Sync,
) {
    let len = fixed[0].len();
    if len <= CHUNK {
        return update(changing, fixed);
    }
    let mut rest = changing.map(|values| values.chunks_mut(CHUNK));
    let chunks: Vec<_> = (0..len.div_ceil(CHUNK))
        .map(|chunk| {
            let range = chunk * CHUNK..len.min((chunk + 1) * CHUNK);
            let changing = rest.each_mut().map(|chunks| chunks.next().expect("as many as there are"));
            (changing, fixed.map(|values| &values[range.clone()]))
        })
        .collect();
    chunks.into_par_iter().for_each(|(changing, fixed)| update(changing, fixed));
}

/// A chunk of [`sgd_update`].
struct Sgd<'a> {
    weight: &'a mut [f32],
    velocity: &'a mut [f32],
    grad: &'a [f32],
    step: SgdStep,
}

impl Kernel for Sgd<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { weight, velocity, grad, step } = self;
        let [lr, momentum, decay] = [step.lr, step.momentum, step.weight_decay].map(|number| number as f32);
        for ((weight, velocity), grad) in weight.iter_mut().zip(velocity).zip(grad) {
            let grad = grad + *weight * decay;
            *velocity = *velocity * momentum + grad;
            let ahead = if step.nesterov { grad + *velocity * momentum } else { *velocity };
            *weight -= ahead * lr;
        }
    }
}

/// A chunk of [`adamw_update`].
struct Adamw<'a> {
    weight: &'a mut [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
    grad: &'a [f32],
    step: AdamwStep,
}

impl Kernel for Adamw<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { weight, mean, square, grad, step } = self;
        let [beta_1, beta_2] = step.betas.map(|beta| beta as f32);
        let [rest_1, rest_2] = step.betas.map(|beta| (1.0 - beta) as f32);
        let [shrink, rate, correction] = step.factors().map(|factor| factor as f32);
        let epsilon = step.epsilon as f32;
        for ((weight, grad), (mean, square)) in weight.iter_mut().zip(grad).zip(mean.iter_mut().zip(square)) {
            *mean = *mean * beta_1 + grad * rest_1;
            *square = *square * beta_2 + grad * grad * rest_2;
            let root = square.sqrt() / correction + epsilon;
            *weight = *weight * shrink - *mean / root * rate;
        }
    }
}

/// A chunk of [`moved_average`].
struct Moved<'a>(&'a mut [f32], &'a [f32], [f32; 2]);

impl Kernel for Moved<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(average, value, [kept, taken]) = self;
        for (average, value) in average.iter_mut().zip(value) {
            *average = *average * kept + value * taken;
        }
    }
}

impl Update for Flex {
    fn mentor_sgd(
        weight: FlexTensor,
        grad: FlexTensor,
        velocity: FlexTensor,
        step: SgdStep,
    ) -> (FlexTensor, FlexTensor) {
        let [mut weight, grad, mut velocity] = [weight, grad, velocity].map(whole);
        in_chunks([weight.storage_mut(), velocity.storage_mut()], [grad.storage()], |[weight, velocity], [grad]| {
            vectorised(Sgd { weight, velocity, grad, step })
        });
        (weight, velocity)
    }

    fn mentor_adamw(
        weight: FlexTensor,
        grad: FlexTensor,
        mean: FlexTensor,
        square: FlexTensor,
        step: AdamwStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [mut weight, grad, mut mean, mut square] = [weight, grad, mean, square].map(whole);
        in_chunks(
            [weight.storage_mut(), mean.storage_mut(), square.storage_mut()],
            [grad.storage()],
            |[weight, mean, square], [grad]| vectorised(Adamw { weight, mean, square, grad, step }),
        );
        (weight, mean, square)
    }

    fn mentor_moved_average(average: FlexTensor, value: FlexTensor, decay: f64) -> FlexTensor {
        let [mut average, value] = [average, value].map(whole);
        let factors = [decay, 1.0 - decay].map(|factor| factor as f32);
        in_chunks([average.storage_mut()], [value.storage()], |[average], [value]| {
            vectorised(Moved(average, value, factors));
        });
        average
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};

    fn tensor<const D: usize>(dims: [usize; D], name: &str) -> Tensor<D> {
        noise(dims, name).inner()
    }

    /// The same in 64 bits, which burn's operations compute.
    fn wide<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
        x.clone().cast(DType::F64)
    }

    const SGD: SgdStep = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov: false };
    const ADAMW: AdamwStep = AdamwStep { lr: 0.1, betas: [0.9, 0.99], epsilon: 1e-8, weight_decay: 0.05, time: 3 };

    #[test]
    fn updates_are_as_burns_operations() {
        for len in [1, 7, CHUNK, 2 * CHUNK + 3] {
            let [w, g, v] = ["weight", "grad", "velocity"].map(|name| tensor([len], name));
            for step in [SGD, SgdStep { nesterov: true, ..SGD }, SgdStep { weight_decay: 0.0, ..SGD }] {
                let (weight, velocity) = sgd_update(w.clone(), g.clone(), v.clone(), step);
                let (expected, expected_velocity) = sgd_update(wide(&w), wide(&g), wide(&v), step);
                assert_close(&values(weight), &values(expected), 1e-6, "weight");
                assert_close(&values(velocity), &values(expected_velocity), 1e-6, "velocity");
            }
            let moments = [v.clone(), v.clone().abs()];
            let (weight, found) = adamw_update(w.clone(), g.clone(), moments.clone(), ADAMW);
            let (expected, [mean, square]) = adamw_update(wide(&w), wide(&g), moments.each_ref().map(wide), ADAMW);
            assert_close(&values(weight), &values(expected), 1e-5, "weight");
            let [found_mean, found_square] = found.map(values);
            assert_close(&found_mean, &values(mean), 1e-6, "mean");
            assert_close(&found_square, &values(square), 1e-6, "square");
            let moved = moved_average(w.clone(), g.clone(), 0.75);
            assert_close(&values(moved), &values(moved_average(wide(&w), wide(&g), 0.75)), 1e-6, "average");
        }
    }

    #[test]
    fn others_who_hold_a_tensor_see_no_change() {
        let [w, g, v] = ["weight", "grad", "velocity"].map(|name| tensor([2, 50], name));
        let before = [&w, &g, &v].map(|tensor| values(tensor.clone()));
        let _ = sgd_update(w.clone(), g.clone(), v.clone(), SGD);
        let _ = adamw_update(w.clone(), g.clone(), [v.clone(), v.clone()], ADAMW);
        let _ = moved_average(w.clone(), g.clone(), 0.5);
        assert_eq!([&w, &g, &v].map(|tensor| values(tensor.clone())), before);
    }

    #[test]
    fn views_work() {
        let [w, g, v] = ["weight", "grad", "velocity"].map(|name| tensor([40, 50], name));
        let view = |tensor: &Tensor<2>| tensor.clone().slice(3..20).transpose();
        let copied = |tensor: &Tensor<2>| Tensor::<2>::from_data(view(tensor).into_data(), &tensor.device());
        let (found, _) = sgd_update(view(&w), view(&g), view(&v), SGD);
        let (expected, _) = sgd_update(copied(&w), copied(&g), copied(&v), SGD);
        assert_eq!(values(found), values(expected));
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let [one, four] = with_one_and_four_threads(|| {
            let [w, g, v] = ["weight", "grad", "velocity"].map(|name| tensor([3 * CHUNK + 5], name));
            values(sgd_update(w, g, v, SGD).0)
        });
        assert_eq!(one, four);
    }
}
