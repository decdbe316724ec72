//! `[supervised.region_classes]`: the class of each region that is drawn.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::sum_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::task::Det;

/// The logarithm of what is as good as impossible.
const NEVER: f64 = 1e4;

/// Cross-entropy of what a second stage says is in a region, at the regions that were drawn.
///
/// `sum_r -log sum_(c allowed) p_rc / N` over the `N` regions drawn, with `p = softmax(logits)` over background and the classes.
/// A region that holds an object may say its class alone. One that holds none may say background, or any class that nobody
/// looked for in the image, since there may be such an object. Regions half of which lie in a crowd or a difficult object are
/// not drawn, unless they hold an object.
///
/// # Shapes
/// Scores `[n, r, 1 + k]` of the regions; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. The value is in nats, at least 0.
///
/// # Reduction
/// Mean over the regions drawn in the batch (`[supervised] regions`); without any a zero with a zero gradient.
///
/// # Gradient
/// Reaches the logits of the regions drawn.
///
/// # Panics
/// If there are no labels, or the student has one stage.
///
/// # Source
/// Girshick 2015, arXiv 1504.08083, equation 1; torchvision's `fastrcnn_loss`.
///
/// # Differs
/// By the regions that are not drawn, and by the classes that nobody looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegionClasses {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for RegionClasses {
    fn default() -> Self {
        Self { weight: 1.0, ramp_steps: 0 }
    }
}

impl Term<Det> for RegionClasses {
    fn source(&self) -> &'static str {
        "Girshick 2015, arXiv 1504.08083, eq. 1"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let (regions, labels) = context.second();
        let log_nrk = log_softmax(regions.class_logits.clone(), 2);
        // What is not allowed has no share in the sum.
        let allowed_nrk = log_nrk + labels.regions.allowed_nrk.clone().sub_scalar(1.0).mul_scalar(NEVER);
        let most_nr1 = allowed_nrk.clone().detach().max_dim(2);
        let sum_nr1 = (allowed_nrk - most_nr1.clone()).exp().sum_dim(2);
        let loss_nr: Tensor<2> = (sum_nr1.log() + most_nr1).neg().squeeze_dim(2);
        let drawn_nr = labels.regions.drawn_nr.clone();
        sum_all(loss_nr * drawn_nr.clone()) / sum_all(drawn_nr).clamp_min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::second_checks::{Case, Part, agrees, check_part};

    #[test]
    fn it_agrees_with_torchvision() {
        agrees("region_classes", Part::RegionLogits, &RegionClasses::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        check_part(&Case { term: &RegionClasses::default(), part: Part::RegionLogits, rate: 10.0, background: true });
    }
}
