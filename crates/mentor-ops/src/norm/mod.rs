//! Batch normalisation fused with what follows it in a network: the sum with a residual and `ReLU`.

mod composed;
mod group;
mod kernels;
pub(crate) mod options;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::nn::BatchNorm;
use burn::tensor::{DType, Device, Tensor};

pub use group::group_norm_relu;

use crate::cpu::flex::{dense, tensor, values};
use crate::norm::composed::{composed_batch_norm, composed_frozen_norm, composed_gradients};
use crate::norm::kernels::{NormInput, Statistics};
use crate::norm::options::{NormOptions, Normalised, Saved};
use crate::optional::Optional;

/// Batch norm of `x_nchw` by the layer's own mode: batch statistics (and an update of the running
/// ones) while it trains on an autodiff device, running statistics otherwise.
///
/// As in `PyTorch`, the running variance follows the unbiased variance of the batch (burn's layer
/// takes the biased one). Statistics of a map of bf16 or f16 are taken, and the map is normalised, in
/// f32. A batch of one value per channel has no unbiased variance; its biased
/// one, zero, is taken.
///
/// # Shapes
/// `[n, c, h, w]` to the same.
///
/// # Panics
/// If the map does not have the layer's channels.
#[must_use]
pub fn batch_norm(layer: &BatchNorm, x_nchw: Tensor<4>) -> Tensor<4> {
    normalised(layer, x_nchw, None, false)
}

/// Batch norm as [`batch_norm`], then an optional `residual` is added, then `ReLU`; one pass over
/// memory where burn would make three.
///
/// # Shapes
/// All `[n, c, h, w]`.
///
/// # Panics
/// If the map does not have the layer's channels, or the residual has another shape than it.
#[must_use]
pub fn batch_norm_relu(layer: &BatchNorm, x_nchw: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
    normalised(layer, x_nchw, residual, true)
}

fn normalised(layer: &BatchNorm, x_nchw: Tensor<4>, residual: Option<Tensor<4>>, relu: bool) -> Tensor<4> {
    let (dims, device) = (x_nchw.dims(), x_nchw.device());
    let [channels] = layer.gamma.shape().dims();
    assert_eq!(dims[1], channels, "a map {dims:?} does not fit a batch norm of {channels} channels");
    if let Some(residual) = &residual {
        assert_eq!(residual.dims(), dims, "the residual has another shape than the map");
    }
    let residual = Optional::from(residual.map(Tensor::into_dispatch));
    let (gamma, beta) = (layer.gamma.val().into_dispatch(), layer.beta.val().into_dispatch());
    let options = NormOptions { epsilon: layer.epsilon, relu };
    if device.is_autodiff() && layer.training.is_enabled() {
        let (y, mean, variance) = Dispatch::mentor_batch_norm(x_nchw.into_dispatch(), gamma, beta, residual, options);
        let count = (dims[0] * dims[2] * dims[3]) as f64;
        let variance = Tensor::<1>::from_dispatch(variance).mul_scalar(count / (count - 1.0).max(1.0));
        update_running(layer, Tensor::from_dispatch(mean), variance);
        Tensor::from_dispatch(y)
    } else {
        let [mean, variance] = running_statistics(layer, &device).map(Tensor::into_dispatch);
        let x = x_nchw.into_dispatch();
        Tensor::from_dispatch(Dispatch::mentor_frozen_norm(x, gamma, beta, mean, variance, residual, options))
    }
}

/// Running mean and variance of a layer.
pub(crate) fn running_statistics(layer: &BatchNorm, device: &Device) -> [Tensor<1>; 2] {
    [&layer.running_mean, &layer.running_var].map(|state| state.value().to_device(device))
}

fn update_running(layer: &BatchNorm, mean: Tensor<1>, variance: Tensor<1>) {
    for (state, batch) in [(&layer.running_mean, mean), (&layer.running_var, variance)] {
        let old = state.value_sync().to_device(&batch.device());
        let new = old.mul_scalar(1.0 - layer.momentum) + batch.detach().mul_scalar(layer.momentum);
        state.update(new.detach());
    }
}

/// The two norms that are routed by device.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait Norm: Backend {
    fn mentor_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        #[extension_type] residual: Optional<Self>,
        options: NormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed_batch_norm::<Self>(x, gamma, beta, residual.into_option(), options)
    }

    fn mentor_frozen_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        #[extension_type] residual: Optional<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        composed_frozen_norm::<Self>([x, gamma, beta, mean, variance], residual.into_option(), options)
    }
}

/// The gradients of x, gamma, beta and the residual, which are called on the backend below autodiff
/// only. The last one is left out if nobody asks for it.
pub(crate) trait NormGradients: Backend {
    fn mentor_norm_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        saved: Saved<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
        with_residual: bool,
    ) -> Vec<FloatTensor<Self>> {
        let _ = with_residual;
        composed_gradients::<Self>(x, gamma, saved, grad)
    }
}

#[cfg(feature = "cube")]
impl Norm for burn::backend::Cube {}
#[cfg(feature = "cube")]
impl NormGradients for burn::backend::Cube {}

/// Runs our kernel, or says that burn's operations have to do it.
fn flex_forward(
    [x, gamma, beta]: [&FlexTensor; 3],
    residual: Option<&FlexTensor>,
    fixed: Option<[&FlexTensor; 2]>,
    options: NormOptions,
) -> Option<[FlexTensor; 3]> {
    let dims = x.shape().dims::<4>();
    let all = [x, gamma, beta].into_iter().chain(residual).chain(fixed.into_iter().flatten());
    if all.into_iter().any(|tensor| tensor.dtype() != DType::F32) || dims.contains(&0) {
        return None;
    }
    let (x, gamma, beta) = (x.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous());
    let residual = residual.map(FlexTensor::to_contiguous);
    let fixed = fixed.map(|fixed| fixed.map(FlexTensor::to_contiguous));
    let fixed = fixed.as_ref().map(|[mean, variance]| Statistics { mean: values(mean), variance: values(variance) });
    let input = norm_input(&x, &gamma, options.epsilon);
    let residual = residual.as_ref().map(values);
    let (y, mean, variance) = kernels::forward(input, values(&beta), residual, options.relu, fixed);
    Some([tensor(y, dims), tensor(mean, [dims[1]]), tensor(variance, [dims[1]])])
}

fn norm_input<'a>(x: &'a FlexTensor, gamma: &'a FlexTensor, epsilon: f64) -> NormInput<'a> {
    let [_, channels, height, width] = x.shape().dims::<4>();
    NormInput { x: values(x), channels, area: height * width, gamma: values(gamma), epsilon: epsilon as f32 }
}

impl Norm for Flex {
    fn mentor_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: Optional<Self>,
        options: NormOptions,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let residual = residual.into_option();
        match flex_forward([&x, &gamma, &beta], residual.as_ref(), None, options) {
            Some([y, mean, variance]) => (y, mean, variance),
            None => composed_batch_norm::<Flex>(x, gamma, beta, residual, options),
        }
    }

    fn mentor_frozen_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        residual: Optional<Self>,
        options: NormOptions,
    ) -> FlexTensor {
        let residual = residual.into_option();
        match flex_forward([&x, &gamma, &beta], residual.as_ref(), Some([&mean, &variance]), options) {
            Some([y, _, _]) => y,
            None => composed_frozen_norm::<Flex>([x, gamma, beta, mean, variance], residual, options),
        }
    }
}

impl NormGradients for Flex {
    fn mentor_norm_gradients(
        x: FlexTensor,
        gamma: FlexTensor,
        saved: Saved<FlexTensor>,
        grad: FlexTensor,
        with_residual: bool,
    ) -> Vec<FlexTensor> {
        let dims = x.shape().dims::<4>();
        if [&x, &gamma, &saved.mean, &grad].iter().any(|tensor| tensor.dtype() != DType::F32) || dims.contains(&0) {
            return composed_gradients::<Flex>(x, gamma, saved, grad);
        }
        let (x, gamma, grad) = (x.to_contiguous(), gamma.to_contiguous(), dense(&grad));
        let (mean, variance) = (saved.mean.to_contiguous(), saved.variance.to_contiguous());
        let y = saved.y.map(|y| y.to_contiguous());
        let gradients = kernels::backward(
            norm_input(&x, &gamma, saved.epsilon),
            Statistics { mean: values(&mean), variance: values(&variance) },
            saved.fixed,
            y.as_ref().map(values),
            values(&grad),
            with_residual,
        );
        let residual = gradients.residual.map_or(grad, |masked| tensor(masked, dims));
        let by_channel = |values: Vec<f32>| tensor(values, [dims[1]]);
        vec![tensor(gradients.x, dims), by_channel(gradients.gamma), by_channel(gradients.beta), residual]
    }
}

/// The backward pass: of x, gamma and beta, and of the residual where there is one.
#[derive(Debug)]
struct NormBackward;

impl<B: NormGradients, const N: usize> Backward<B, N> for NormBackward {
    type State = ([NodeId; 2], Saved<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([x, gamma], saved) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let gamma = checkpointer.retrieve_node_output(gamma);
        let with_residual = ops.parents.get(3).is_some_and(Option::is_some);
        let gradients = B::mentor_norm_gradients(x, gamma, saved, grad, with_residual);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// A norm of a backend: the statistics to normalise with, or none for those of the batch.
struct Call<B: Backend> {
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    fixed: Option<[FloatTensor<B>; 2]>,
    residual: Option<FloatTensor<B>>,
    options: NormOptions,
}

impl<B: Norm + NormGradients, C: CheckpointStrategy> Call<Autodiff<B, C>> {
    /// Computes output, mean and variance, and registers the backward pass if a gradient is asked of
    /// any input but the statistics.
    fn tracked<const N: usize>(self, nodes: [NodeGuard; N]) -> Normalised<Autodiff<B, C>> {
        let wrap = <Autodiff<B, C> as AutodiffBackend>::from_inner;
        match Backward::<B, N>::prepare::<C>(NormBackward, nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let kept = [prepared.checkpoint(&self.x), prepared.checkpoint(&self.gamma)];
                let (fixed, NormOptions { epsilon, relu }) = (self.fixed.is_some(), self.options);
                let (y, mean, variance) = self.inner();
                let saved = Saved {
                    mean: mean.clone(),
                    variance: variance.clone(),
                    y: relu.then(|| y.clone()),
                    fixed,
                    epsilon,
                };
                (prepared.finish((kept, saved), y), wrap(mean), wrap(variance))
            }
            OpsKind::UnTracked(prepared) => {
                let (y, mean, variance) = self.inner();
                (prepared.finish(y), wrap(mean), wrap(variance))
            }
        }
    }

    fn run(self) -> Normalised<Autodiff<B, C>> {
        let nodes = [self.x.node(), self.gamma.node(), self.beta.node()];
        match &self.residual {
            None => self.tracked(nodes),
            Some(residual) => {
                let [x, gamma, beta] = nodes;
                let residual = residual.node();
                self.tracked([x, gamma, beta, residual])
            }
        }
    }

    /// The same call on the backend below.
    fn inner(self) -> Normalised<B> {
        let plain = |tensor: FloatTensor<Autodiff<B, C>>| tensor.into_primitive();
        let (x, gamma, beta) = (plain(self.x), plain(self.gamma), plain(self.beta));
        let residual = Optional::from(self.residual.map(plain));
        match self.fixed.map(|fixed| fixed.map(plain)) {
            None => B::mentor_batch_norm(x, gamma, beta, residual, self.options),
            Some([mean, variance]) => {
                let (kept_mean, kept_variance) = (mean.clone(), variance.clone());
                let y = B::mentor_frozen_norm(x, gamma, beta, mean, variance, residual, self.options);
                (y, kept_mean, kept_variance)
            }
        }
    }
}

impl<B: Norm + NormGradients, C: CheckpointStrategy> Norm for Autodiff<B, C> {
    fn mentor_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Optional<Self>,
        options: NormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        Call::<Self> { x, gamma, beta, fixed: None, residual: residual.into_option(), options }.run()
    }

    fn mentor_frozen_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        residual: Optional<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        Call::<Self> { x, gamma, beta, fixed: Some([mean, variance]), residual: residual.into_option(), options }
            .run()
            .0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, with_one_and_four_threads};
    use burn::module::{Module, Param};
    use burn::nn::BatchNormConfig;
    use burn::tensor::{TensorData, activation};

    const SHAPE: [usize; 4] = [3, 5, 7, 9];

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        crate::test_maps::values(x)
    }

    fn layer() -> BatchNorm {
        let mut layer = BatchNormConfig::new(SHAPE[1]).init(&Device::flex().autodiff());
        layer.gamma = Param::from_tensor(noise([SHAPE[1]], "gamma") + 1.5);
        layer.beta = Param::from_tensor(noise([SHAPE[1]], "beta"));
        layer
    }

    /// Output, and the gradients of x, gamma, beta and the residual.
    fn results(forward: impl Fn(&BatchNorm, Tensor<4>, Tensor<4>) -> Tensor<4>, layer: &BatchNorm) -> [Vec<f32>; 5] {
        let x = (noise(SHAPE, "x") * 2.0 + 3.0).detach().require_grad();
        let residual = noise(SHAPE, "residual").require_grad();
        let y = forward(layer, x.clone(), residual.clone());
        let grads = (y.clone() * noise(SHAPE, "grad").cast(y.dtype())).sum().backward();
        [
            numbers(y),
            numbers(x.grad(&grads).unwrap()),
            numbers(layer.gamma.val().grad(&grads).unwrap()),
            numbers(layer.beta.val().grad(&grads).unwrap()),
            residual.grad(&grads).map_or_else(Vec::new, numbers),
        ]
    }

    /// The definition, in burn's elementary operations.
    fn composed(layer: &BatchNorm, x: Tensor<4>, fixed: bool) -> Tensor<4> {
        let by_channel = |values: Tensor<1>| values.reshape([1, SHAPE[1], 1, 1]);
        let mean_of = |map: Tensor<4>| map.mean_dim(0).mean_dim(2).mean_dim(3);
        let (mean, variance) = if fixed {
            (by_channel(layer.running_mean.value()), by_channel(layer.running_var.value()))
        } else {
            let mean = mean_of(x.clone());
            (mean.clone(), mean_of((x.clone() - mean).powi_scalar(2)))
        };
        let normed = (x - mean) / (variance + layer.epsilon).sqrt();
        normed * by_channel(layer.gamma.val()) + by_channel(layer.beta.val())
    }

    fn assert_same(ours: &[Vec<f32>; 5], expected: &[Vec<f32>; 5]) {
        for (part, (ours, expected)) in
            ["output", "x", "gamma", "beta", "residual"].iter().zip(ours.iter().zip(expected))
        {
            assert_close(ours, expected, 2e-5, part);
        }
    }

    fn check_all(layer: &BatchNorm, fixed: bool) {
        let plain = results(|layer, x, _| batch_norm(layer, x), layer);
        assert_same(&plain, &results(|layer, x, _| composed(layer, x, fixed), layer));
        let relu = results(|layer, x, _| batch_norm_relu(layer, x, None), layer);
        assert_same(&relu, &results(|layer, x, _| activation::relu(composed(layer, x, fixed)), layer));
        let both = results(|layer, x, residual| batch_norm_relu(layer, x, Some(residual)), layer);
        let expected = |layer: &BatchNorm, x, residual| activation::relu(composed(layer, x, fixed) + residual);
        assert_same(&both, &results(expected, layer));
    }

    #[test]
    fn training_follows_the_definition_with_all_gradients() {
        check_all(&layer(), false);
    }

    #[test]
    fn a_frozen_layer_follows_the_definition_with_all_gradients() {
        let layer = layer();
        let _ = batch_norm(&layer, noise(SHAPE, "earlier") * 2.0 + 1.0);
        let _ = layer.running_mean.value_sync();
        let _ = layer.running_var.value_sync();
        let mut layer = layer;
        layer.training = Param::from_bool(false);
        check_all(&layer, true);
    }

    #[test]
    fn the_composition_for_other_backends_has_the_same_gradients() {
        let device = Device::flex().autodiff();
        let in_f64 = |layer: &BatchNorm| {
            let mut layer = layer.clone();
            layer.gamma = Param::from_tensor(layer.gamma.val().inner().cast(DType::F64).autodiff());
            layer.beta = Param::from_tensor(layer.beta.val().inner().cast(DType::F64).autodiff());
            layer.running_mean = burn::module::RunningState::new(Tensor::zeros([SHAPE[1]], (&device, DType::F64)));
            layer.running_var = burn::module::RunningState::new(Tensor::ones([SHAPE[1]], (&device, DType::F64)));
            layer
        };
        for training in [true, false] {
            let mut layer = layer();
            layer.training = Param::from_bool(training);
            let ours = results(|layer, x, residual| batch_norm_relu(layer, x, Some(residual)), &layer);
            let wide = results(
                |layer, x, residual| batch_norm_relu(layer, x.cast(DType::F64), Some(residual.cast(DType::F64))),
                &in_f64(&layer),
            );
            assert_same(&ours, &wide);
        }
    }

    #[test]
    fn running_statistics_follow_the_unbiased_variance() {
        let device = Device::flex().autodiff();
        let layer = BatchNormConfig::new(1).init(&device);
        let x = Tensor::<4>::from_data([[[[1.0f32, 3.0]]], [[[5.0, 7.0]]]], &device);
        let _ = batch_norm(&layer, x);
        // Mean 4, unbiased variance 20 / 3.
        assert_close(&numbers(layer.running_mean.value_sync()), &[0.4], 1e-6, "mean");
        assert_close(&numbers(layer.running_var.value_sync()), &[0.9 + 2.0 / 3.0], 1e-6, "variance");
    }

    #[test]
    fn one_value_per_channel_gives_beta_and_finite_statistics() {
        let layer = layer();
        let y = batch_norm(&layer, noise([1, SHAPE[1], 1, 1], "x"));
        assert_eq!(numbers(y), numbers(layer.beta.val()));
        assert_close(&numbers(layer.running_var.value_sync()), &[0.9; SHAPE[1]], 1e-6, "variance");
    }

    #[test]
    fn a_plain_device_takes_running_statistics_and_leaves_them() {
        let layer = layer().valid();
        let x = noise(SHAPE, "x").inner();
        let y = batch_norm_relu(&layer, x.clone(), None);
        assert_close(&numbers(y), &numbers(activation::relu(layer.forward(x))), 1e-5, "output");
        assert_eq!(numbers(layer.running_var.value_sync()), [1.0; SHAPE[1]]);
    }

    #[test]
    fn one_and_four_threads_give_the_same_bits() {
        let layer = layer();
        let run = || results(|layer, x, residual| batch_norm_relu(layer, x, Some(residual)), &layer);
        let [one, four] = with_one_and_four_threads(run);
        assert_eq!(one, four);
    }

    #[test]
    fn only_a_tracked_gamma_gets_a_gradient() {
        let layer = layer();
        let x = noise(SHAPE, "x");
        let grads = batch_norm_relu(&layer, x.clone(), Some(x.clone())).sum().backward();
        assert!(layer.gamma.val().grad(&grads).is_some() && x.grad(&grads).is_none());
    }

    #[test]
    fn a_nan_is_not_hidden() {
        let device = Device::flex();
        let layer = BatchNormConfig::new(1).init(&device);
        let x = Tensor::<4>::from_data(TensorData::from([[[[f32::NAN]]]]), &device);
        assert!(numbers(batch_norm_relu(&layer, x, None))[0].is_nan());
    }

    #[test]
    fn maps_of_bf16_are_normalised_in_f32_and_come_back_as_bf16() {
        let layer = BatchNormConfig::new(3).init(&Device::flex().autodiff());
        let x = (noise([2, 3, 5, 4], "x") * 0.01 + 7.0).require_grad();
        let wide = batch_norm_relu(&layer, x.clone().cast(DType::BF16).cast(DType::F32), None);
        let y = batch_norm_relu(&layer, x.clone().cast(DType::BF16), None);
        assert_eq!(y.dtype(), DType::BF16);
        let grads = y.clone().cast(DType::F32).sum().backward();
        assert_eq!(x.grad(&grads).unwrap().dtype(), DType::F32);
        assert!(layer.gamma.grad(&grads).is_some_and(|gradient| gradient.dtype() == DType::F32));
        assert_close(&numbers(y.cast(DType::F32)), &numbers(wide), 1e-2, "output");
    }
}
