//! Group normalisation and `ReLU` in one go, with their gradients: a kernel of our own for f32 on the CPU, burn's operations
//! elsewhere.

use std::mem::MaybeUninit;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::nn::GroupNorm;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use crate::cpu::buffer::{filled, with_scratch};
use crate::cpu::flex::{dense, is_ours, tensor, values};
use crate::cpu::simd;

/// Group norm of `x_nchw`, then `ReLU`: each image's channels are normalised in groups by the mean and the biased variance of
/// their values, and scaled and shifted channel by channel. Maps of bf16 or f16 go through f32.
///
/// # Shapes
/// `[n, c, h, w]` to the same.
///
/// # Source
/// arXiv 1803.08494, section 3.2, as `PyTorch`'s `GroupNorm`.
///
/// # Panics
/// If the layer has no weights, or the map not the layer's channels.
#[must_use]
pub fn group_norm_relu(layer: &GroupNorm, x_nchw: Tensor<4>) -> Tensor<4> {
    let (dims, dtype) = (x_nchw.dims(), x_nchw.dtype());
    let channels = layer.num_channels;
    assert_eq!(dims[1], channels, "a map {dims:?} does not fit a group norm of {channels} channels");
    let (Some(gamma), Some(beta)) = (&layer.gamma, &layer.beta) else { panic!("a group norm without weights") };
    let x = x_nchw.cast(DType::F32);
    if !is_ours(&x) {
        return relu(layer.forward(x)).cast(dtype);
    }
    let [x, gamma, beta] = [x.into_dispatch(), gamma.val().into_dispatch(), beta.val().into_dispatch()];
    let (y, _, _) = Dispatch::mentor_group_norm(x, gamma, beta, layer.num_groups, layer.epsilon);
    Tensor::<4>::from_dispatch(y).cast(dtype)
}

/// The norm that is routed by autodiff or not; it only gets f32 on the CPU. Hands back the output, and mean and inverse
/// deviation of each group of each image.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Groups: Backend {
    fn mentor_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait GroupsGradient: Backend {
    /// The gradients of x, gamma and beta.
    fn mentor_group_norm_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        saved: Saved<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
}

/// What the backward pass needs besides x and gamma, which the graph keeps.
#[derive(Clone, Debug)]
pub(crate) struct Saved<T> {
    y: T,
    mean: T,
    inverse: T,
    groups: usize,
}

/// A map `[n, channels, area]`; a group of an image is one task, and lies in one piece.
struct Map<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    groups: usize,
    area: usize,
}

impl Map<'_> {
    /// Channels of a group.
    fn width(&self) -> usize {
        self.gamma.len() / self.groups
    }

    /// Numbers of a group.
    fn size(&self) -> usize {
        self.width() * self.area
    }

    /// The first channel of a task.
    fn first(&self, task: usize) -> usize {
        task % self.groups * self.width()
    }

    /// Output, means and inverse deviations.
    fn forward(&self, beta: &[f32], epsilon: f64) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (size, area) = (self.size(), self.area);
        let compute = |(task, (out, x)): (usize, (&mut [MaybeUninit<f32>], &[f32]))| {
            let mean = (simd::sum(x) / size as f64) as f32;
            let inverse = (1.0 / (simd::squared_distances(x, mean) / size as f64 + epsilon).sqrt()) as f32;
            for (channel, (out, x)) in (self.first(task)..).zip(out.chunks_mut(area).zip(x.chunks(area))) {
                simd::affine(out, x, None, true, [mean, self.gamma[channel] * inverse, beta[channel]]);
            }
            (mean, inverse)
        };
        let mut statistics = (Vec::new(), Vec::new());
        // SAFETY: every channel of every group is written in full.
        let y = unsafe {
            filled(self.x.len(), |out| {
                let tasks = out.par_chunks_exact_mut(size).zip(self.x.par_chunks_exact(size));
                statistics = tasks.enumerate().map(compute).unzip();
            })
        };
        (y, statistics.0, statistics.1)
    }

    /// The gradients of x, gamma and beta.
    fn backward(&self, [mean, inverse]: [&[f32]; 2], y: &[f32], grad: &[f32]) -> [Vec<f32>; 3] {
        let (size, area) = (self.size(), self.area);
        let compute = |task: usize, out: &mut [MaybeUninit<f32>]| {
            let part = |map| &<[f32]>::as_ref(map)[task * size..(task + 1) * size];
            let (x, mean, inverse) = (part(self.x), mean[task], f64::from(inverse[task]));
            let gamma = &self.gamma[self.first(task)..][..self.width()];
            with_scratch(size, |masked| {
                simd::masked(masked, part(grad), part(y));
                let sums = |(grad, x)| simd::gradient_sums(grad, x, mean);
                let sums: Vec<(f64, f64)> = masked.chunks(area).zip(x.chunks(area)).map(sums).collect();
                let (mut plain, mut weighted) = (0.0, 0.0);
                for (gamma, sums) in gamma.iter().zip(&sums) {
                    plain += f64::from(*gamma) * sums.0;
                    weighted += f64::from(*gamma) * sums.1;
                }
                // inverse * (gamma * grad - mean(gamma * grad) - x_hat * mean(gamma * grad * x_hat)), where
                // x_hat = (x - mean) * inverse.
                let x_factor = -(inverse.powi(3) * weighted / size as f64) as f32;
                let shift = -(inverse * plain / size as f64) as f32;
                let channels = out.chunks_mut(area).zip(masked.chunks(area).zip(x.chunks(area)));
                for (gamma, (out, (grad, x))) in gamma.iter().zip(channels) {
                    let grad_factor = (f64::from(*gamma) * inverse) as f32;
                    simd::combined(out, grad, x, [grad_factor, x_factor, mean, shift]);
                }
                sums.into_iter().map(|(plain, weighted)| [weighted * inverse, plain]).collect::<Vec<_>>()
            })
        };
        let mut sums = Vec::new();
        // SAFETY: every channel of every group is written in full.
        let x = unsafe {
            filled(self.x.len(), |out| {
                let tasks = out.par_chunks_exact_mut(size).enumerate();
                sums = tasks.map(|(task, out)| compute(task, out)).collect();
            })
        };
        let mut by_channel = vec![[0.0f64; 2]; self.gamma.len()];
        for (task, sums) in sums.iter().enumerate() {
            for (total, sum) in by_channel[self.first(task)..].iter_mut().zip(sums) {
                *total = [total[0] + sum[0], total[1] + sum[1]];
            }
        }
        let column = |at: usize| by_channel.iter().map(|sums| sums[at] as f32).collect();
        [x, column(0), column(1)]
    }
}

fn map<'a>(x: &'a FlexTensor, gamma: &'a FlexTensor, groups: usize) -> Map<'a> {
    let [.., height, width] = x.shape().dims::<4>();
    Map { x: values(x), gamma: values(gamma), groups, area: height * width }
}

impl Groups for Flex {
    fn mentor_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        groups: usize,
        epsilon: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (dims, x) = (x.shape().dims::<4>(), x.to_contiguous());
        let (gamma, beta) = (gamma.to_contiguous(), beta.to_contiguous());
        let (y, mean, inverse) = map(&x, &gamma, groups).forward(values(&beta), epsilon);
        let by_group = |values: Vec<f32>| tensor(values, [dims[0] * groups]);
        (tensor(y, dims), by_group(mean), by_group(inverse))
    }
}

impl GroupsGradient for Flex {
    fn mentor_group_norm_gradients(
        x: FlexTensor,
        gamma: FlexTensor,
        saved: Saved<FlexTensor>,
        grad: FlexTensor,
    ) -> [FlexTensor; 3] {
        let (dims, x, gamma, grad) = (x.shape().dims::<4>(), x.to_contiguous(), gamma.to_contiguous(), dense(&grad));
        let statistics = [values(&saved.mean), values(&saved.inverse)];
        let [x, gamma, beta] = map(&x, &gamma, saved.groups).backward(statistics, values(&saved.y), values(&grad));
        let by_channel = |values: Vec<f32>| tensor(values, [dims[1]]);
        [tensor(x, dims), by_channel(gamma), by_channel(beta)]
    }
}

/// The backward pass.
#[derive(Debug)]
struct GroupsBackward;

impl<B: GroupsGradient> Backward<B, 3> for GroupsBackward {
    type State = ([NodeId; 2], Saved<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([x, gamma], saved) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let gamma = checkpointer.retrieve_node_output(gamma);
        let gradients = B::mentor_group_norm_gradients(x, gamma, saved, grad);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Groups + GroupsGradient, C: CheckpointStrategy> Groups for Autodiff<B, C> {
    fn mentor_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let wrap = <Self as AutodiffBackend>::from_inner;
        let nodes = [x.node(), gamma.node(), beta.node()];
        let prepared = Backward::<B, 3>::prepare::<C>(GroupsBackward, nodes).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let kept = [prepared.checkpoint(&x), prepared.checkpoint(&gamma)];
                let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.into_primitive());
                let (y, mean, inverse) = B::mentor_group_norm(x, gamma, beta, groups, epsilon);
                let saved = Saved { y: y.clone(), mean: mean.clone(), inverse: inverse.clone(), groups };
                (prepared.finish((kept, saved), y), wrap(mean), wrap(inverse))
            }
            OpsKind::UnTracked(prepared) => {
                let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.into_primitive());
                let (y, mean, inverse) = B::mentor_group_norm(x, gamma, beta, groups, epsilon);
                (prepared.finish(y), wrap(mean), wrap(inverse))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values as numbers, with_one_and_four_threads};
    use burn::module::Param;
    use burn::nn::GroupNormConfig;
    use burn::tensor::Device;

    fn layer(groups: usize, channels: usize) -> GroupNorm {
        let mut layer = GroupNormConfig::new(groups, channels).init(&Device::flex().autodiff());
        layer.gamma = Some(Param::from_tensor(noise([channels], "gamma") + 0.5));
        layer.beta = Some(Param::from_tensor(noise([channels], "beta")));
        layer
    }

    /// Output, and the gradients of x, gamma and beta.
    fn results(layer: &GroupNorm, x: &Tensor<4>, forward: impl Fn(Tensor<4>) -> Tensor<4>) -> [Vec<f32>; 4] {
        let x = x.clone().detach().require_grad();
        let y = forward(x.clone());
        let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
        let [gamma, beta] =
            [&layer.gamma, &layer.beta].map(|weight| weight.as_ref().unwrap().val().grad(&grads).unwrap());
        [numbers(y), numbers(x.grad(&grads).unwrap()), numbers(gamma), numbers(beta)]
    }

    #[test]
    fn output_and_gradients_are_those_of_burns_norm_and_relu() {
        for (groups, dims) in
            [(2, [3, 6, 5, 7]), (1, [2, 4, 3, 3]), (4, [2, 4, 9, 2]), (3, [1, 24, 1, 1]), (8, [2, 64, 16, 16])]
        {
            let (layer, x) = (layer(groups, dims[1]), noise(dims, "x") * 2.0 + 3.0);
            let ours = results(&layer, &x, |x| group_norm_relu(&layer, x));
            let expected = results(&layer, &x, |x| relu(layer.forward(x)));
            for (part, (ours, expected)) in ["output", "x", "gamma", "beta"].iter().zip(ours.iter().zip(&expected)) {
                assert_close(ours, expected, 2e-5, &format!("{dims:?} in {groups}: {part}"));
            }
        }
    }

    #[test]
    fn a_view_is_normalised_as_what_it_shows_and_half_width_goes_through_f32() {
        let layer = layer(2, 4);
        let view = noise([2, 9, 6, 4], "x").permute([0, 3, 1, 2]);
        let copy = Tensor::<4>::from_data(view.clone().into_data(), &view.device());
        assert_eq!(numbers(group_norm_relu(&layer, view)), numbers(group_norm_relu(&layer, copy.clone())));
        let half = group_norm_relu(&layer, copy.clone().cast(DType::BF16));
        assert_eq!(half.dtype(), DType::BF16);
        assert_close(&numbers(half.cast(DType::F32)), &numbers(group_norm_relu(&layer, copy)), 2e-2, "half width");
    }

    #[test]
    fn only_what_is_asked_for_gets_a_gradient_and_none_is_needed() {
        let layer = layer(2, 4);
        let x = noise([1, 4, 3, 3], "x");
        let grads = group_norm_relu(&layer, x.clone()).sum().backward();
        assert!(x.grad(&grads).is_none() && layer.beta.as_ref().unwrap().val().grad(&grads).is_some());
        let frozen = burn::module::Module::valid(&layer);
        let plain = group_norm_relu(&frozen, x.clone().inner());
        assert!(!plain.is_autodiff());
        assert_eq!(numbers(plain), numbers(group_norm_relu(&layer, x)));
    }

    #[test]
    fn threads_change_no_bit() {
        let [one, four] = with_one_and_four_threads(|| {
            let layer = layer(4, 16);
            results(&layer, &noise([3, 16, 9, 11], "x"), |x| group_norm_relu(&layer, x))
        });
        assert_eq!(one, four);
    }
}
