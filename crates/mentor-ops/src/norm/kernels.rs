//! Batch norm, residual sum and `ReLU` of f32 slices in one go, and their gradients.
//!
//! A channel is one task: its planes stay in the cache between the passes over it.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::cpu::buffer::{filled, planes_by_channel, with_scratch};
use crate::cpu::simd;

/// A map `[n, channels, area]` to be normalised.
#[derive(Clone, Copy)]
pub(crate) struct NormInput<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) channels: usize,
    pub(crate) area: usize,
    pub(crate) gamma: &'a [f32],
    pub(crate) epsilon: f32,
}

impl<'a> NormInput<'a> {
    fn images(&self) -> usize {
        self.x.len() / (self.channels * self.area)
    }

    /// The planes of a channel of a map of this size, image after image.
    fn planes<'b>(&self, map: &'b [f32], channel: usize) -> impl Iterator<Item = &'b [f32]> + use<'b> {
        map.chunks(self.area).skip(channel).step_by(self.channels)
    }

    /// Mean and biased variance of a channel.
    fn statistics(&self, channel: usize) -> (f32, f32) {
        let count = (self.images() * self.area) as f64;
        let mean = (self.planes(self.x, channel).map(simd::sum).sum::<f64>() / count) as f32;
        let squares: f64 = self.planes(self.x, channel).map(|plane| simd::squared_distances(plane, mean)).sum();
        (mean, (squares / count) as f32)
    }

    fn inverse_deviation(&self, variance: f32) -> f32 {
        1.0 / (variance + self.epsilon).sqrt()
    }
}

/// Statistics by channel.
#[derive(Clone, Copy)]
pub(crate) struct Statistics<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) variance: &'a [f32],
}

/// The normalised map, and the mean and biased variance it was normalised with: `fixed`, or those
/// of the map.
pub(crate) fn forward(
    input: NormInput,
    beta: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    fixed: Option<Statistics>,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let compute = |channel: usize, out: Vec<&mut [MaybeUninit<f32>]>| {
        let (mean, variance) = match fixed {
            Some(fixed) => (fixed.mean[channel], fixed.variance[channel]),
            None => input.statistics(channel),
        };
        let scale = input.gamma[channel] * input.inverse_deviation(variance);
        let mut residual = residual.map(|residual| input.planes(residual, channel));
        for (out, x) in out.into_iter().zip(input.planes(input.x, channel)) {
            let residual = residual.as_mut().and_then(Iterator::next);
            simd::affine(out, x, residual, relu, [mean, scale, beta[channel]]);
        }
        (mean, variance)
    };
    let mut statistics = (Vec::new(), Vec::new());
    // SAFETY: every plane of every channel is written in full.
    let y = unsafe {
        filled(input.x.len(), |out| {
            let planes = planes_by_channel(out, input.channels, input.area);
            statistics = planes.into_par_iter().enumerate().map(|(channel, out)| compute(channel, out)).unzip();
        })
    };
    (y, statistics.0, statistics.1)
}

/// The gradients of [`forward`].
pub(crate) struct NormGradients {
    pub(crate) x: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
    /// `grad` where the output is positive; none if it is `grad` itself or nobody asked.
    pub(crate) residual: Option<Vec<f32>>,
}

/// The gradients of [`forward`] for the gradient `grad` of its output.
///
/// `y` is the output if it went through `ReLU`; `fixed` says that the statistics are constants. The
/// gradient of the residual is only made on request, and only behind a `ReLU`: otherwise it is
/// `grad` itself.
pub(crate) fn backward(
    input: NormInput,
    statistics: Statistics,
    fixed: bool,
    y: Option<&[f32]>,
    grad: &[f32],
    with_residual: bool,
) -> NormGradients {
    let size = input.images() * input.area;
    let compute = |channel: usize, out: Vec<&mut [MaybeUninit<f32>]>, residual: Option<Vec<&mut [f32]>>| {
        let grads: Vec<&[f32]> = input.planes(grad, channel).collect();
        let Some(y) = y else { return channel_gradients(input, statistics, fixed, channel, &grads, out) };
        let mask = |planes: Vec<&mut [f32]>| {
            for ((masked, grad), y) in planes.into_iter().zip(&grads).zip(input.planes(y, channel)) {
                simd::masked(masked, grad, y);
            }
        };
        match residual {
            Some(mut planes) => {
                mask(planes.iter_mut().map(|plane| &mut **plane).collect());
                let masked: Vec<&[f32]> = planes.iter().map(|plane| &**plane).collect();
                channel_gradients(input, statistics, fixed, channel, &masked, out)
            }
            None => with_scratch(size, |scratch| {
                mask(scratch.chunks_mut(input.area).collect());
                let masked: Vec<&[f32]> = scratch.chunks(input.area).collect();
                channel_gradients(input, statistics, fixed, channel, &masked, out)
            }),
        }
    };
    let mut residual = (with_residual && y.is_some()).then(|| vec![0.0; input.x.len()]);
    let mut residual_planes: Vec<Option<Vec<&mut [f32]>>> = match &mut residual {
        None => (0..input.channels).map(|_| None).collect(),
        Some(residual) => planes_by_channel(residual, input.channels, input.area).into_iter().map(Some).collect(),
    };
    let (mut gamma, mut beta) = (Vec::new(), Vec::new());
    // SAFETY: every plane of every channel is written in full.
    let x = unsafe {
        filled(input.x.len(), |out| {
            let planes = planes_by_channel(out, input.channels, input.area);
            (gamma, beta) = planes
                .into_par_iter()
                .zip(residual_planes.par_drain(..))
                .enumerate()
                .map(|(channel, (out, residual))| compute(channel, out, residual))
                .unzip();
        })
    };
    drop(residual_planes);
    NormGradients { x, gamma, beta, residual }
}

/// Writes the gradient of one channel of the map to `out`, given that of the normalised map; returns
/// the gradients of gamma and beta.
fn channel_gradients(
    input: NormInput,
    statistics: Statistics,
    fixed: bool,
    channel: usize,
    grads: &[&[f32]],
    out: Vec<&mut [MaybeUninit<f32>]>,
) -> (f32, f32) {
    let mean = statistics.mean[channel];
    let inverse = f64::from(input.inverse_deviation(statistics.variance[channel]));
    let scale = f64::from(input.gamma[channel]) * inverse;
    let (mut plain, mut weighted) = (0.0, 0.0);
    for (grad, x) in grads.iter().zip(input.planes(input.x, channel)) {
        let sums = simd::gradient_sums(grad, x, mean);
        plain += sums.0;
        weighted += sums.1;
    }
    // With statistics of the batch: scale * (grad - mean(grad) - x_hat * mean(grad * x_hat)), where
    // x_hat = (x - mean) * inverse.
    let count = (input.images() * input.area) as f64;
    let x_factor = if fixed { 0.0 } else { -scale * inverse * inverse * weighted / count };
    let shift = if fixed { 0.0 } else { -scale * plain / count };
    for ((out, grad), x) in out.into_iter().zip(grads).zip(input.planes(input.x, channel)) {
        simd::combined(out, grad, x, [scale as f32, x_factor as f32, mean, shift as f32]);
    }
    ((weighted * inverse) as f32, plain as f32)
}
