//! A second path through a feature pyramid, from its finest level up.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConvSpec, Cost, Fresh, Init, conv};

/// Which way a pyramid is gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PyramidKind {
    /// From the coarsest level down, as the feature pyramid was published (arXiv 1612.03144).
    #[default]
    Fpn,
    /// Down, and from the finest level up again, as the path aggregation network was published (arXiv 1803.01534).
    Pafpn,
}

/// The way from one level to the next coarser one: a 3x3 convolution of stride 2 on the finer level, the sum with the coarser
/// one, and a 3x3 convolution on the sum, with a `ReLU` after each convolution.
///
/// # Source
/// arXiv 1803.01534, section 3.1: its `N2` is `P2`, and `N5` the last. Weights start as torchvision's pyramid starts its own.
///
/// # Differs
/// mmdetection's `PAFPN` leaves the `ReLU`s out, goes up through all sums first, and makes its maps of them after that.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct StepUp {
    pub down: Conv2d,
    pub out: Conv2d,
}

impl StepUp {
    pub(crate) fn new(channels: usize, fresh: &Fresh) -> Self {
        let build = |stride| {
            ConvSpec::new(channels, channels, 3).stride(stride).start(Init::UnitVariance).bias(Init::Constant(0.0))
        };
        Self { down: build(2).build(fresh), out: build(1).build(fresh) }
    }

    /// What becomes of a coarser map, `[n, c, h, w]`, of which the finer one is `[n, c, 2 h, 2 w]`, or a row or column less.
    pub(crate) fn forward(&self, finer_nchw: Tensor<4>, coarser_nchw: Tensor<4>) -> Tensor<4> {
        relu(conv(&self.out, coarser_nchw + relu(conv(&self.down, finer_nchw))))
    }

    /// Adds its multiply-adds, from the size of the finer map to that of the coarser one.
    pub(crate) fn count(&self, cost: &mut Cost) {
        cost.conv(&self.down);
        cost.conv(&self.out);
    }
}
