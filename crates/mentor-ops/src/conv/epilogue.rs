//! What becomes of the sums of a convolution on their way to memory.

use std::borrow::Cow;

use crate::cpu::simd;

/// The last thing that happens to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// Negative values become zero.
    Relu,
    /// As `Relu`, and values above 6 become 6.
    Relu6,
}

impl Activation {
    /// The least and the largest value that it lets through.
    pub(crate) fn bounds(self) -> [f32; 2] {
        match self {
            Self::Identity => [f32::NEG_INFINITY, f32::INFINITY],
            Self::Relu => [0.0, f32::INFINITY],
            Self::Relu6 => [0.0, 6.0],
        }
    }
}

/// `activation(scale * sums + bias + residual)`, where scale and bias are by output channel, and the
/// residual is laid out as the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    pub(crate) scale: Option<&'a [f32]>,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) activation: Activation,
}

impl<'a> Epilogue<'a> {
    /// Of a plain convolution.
    pub(crate) fn bias(bias: Option<&'a [f32]>) -> Self {
        Self { scale: None, bias, residual: None, activation: Activation::Identity }
    }

    /// The factors of the weights of `channels` channels of `depth` weights each, in the weights.
    pub(crate) fn scaled<'w>(&self, weight: &'w [f32], depth: usize) -> Cow<'w, [f32]> {
        let Some(scale) = self.scale else { return Cow::Borrowed(weight) };
        let channels = weight.chunks(depth).zip(scale);
        Cow::Owned(channels.flat_map(|(weights, scale)| weights.iter().map(move |weight| weight * scale)).collect())
    }

    /// The residual from element `start` on.
    pub(crate) fn residual_from(&self, start: usize) -> Option<&'a [f32]> {
        self.residual.map(|residual| &residual[start..])
    }

    /// Whether nothing is left to do to sums that hold the bias already.
    pub(crate) fn is_bias_only(&self) -> bool {
        self.residual.is_none() && self.activation == Activation::Identity
    }

    /// Adds the residual and applies the activation to `sums`, which begin at element `start` of the
    /// output and hold scale and bias already.
    pub(crate) fn finish(&self, start: usize, sums: &mut [f32]) {
        if let Some(residual) = self.residual {
            simd::add(sums, &residual[start..start + sums.len()]);
        }
        if self.activation != Activation::Identity {
            simd::clamp(sums, self.activation.bounds());
        }
    }
}
