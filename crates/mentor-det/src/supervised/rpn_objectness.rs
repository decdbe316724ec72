//! `[supervised.rpn_objectness]`: whether there is an object, at anchors that are drawn.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::sum_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::cross_entropy::binary_cross_entropy;
use crate::grid::at_all_places;
use crate::task::Det;

/// Cross-entropy of a first stage's only score, at the anchors that were drawn.
///
/// `sum_i -(y_i log p_i + (1 - y_i) log (1 - p_i)) / N` over the `N` anchors drawn, with `p = sigmoid(logits)`, and `y` 1 where the
/// anchor answers for an object of any class. Anchors inside of crowds and difficult objects are not drawn as background, nor
/// is any in an image in which some class was not looked for: an object of it may be there.
///
/// # Shapes
/// Scores `[n, 1, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. The value is in nats, at least 0.
///
/// # Reduction
/// Mean over the anchors drawn in the batch (`[supervised] regions`); without any a zero with a zero gradient.
///
/// # Gradient
/// Reaches the logits of the anchors drawn.
///
/// # Panics
/// If there are no labels, or the student has one stage.
///
/// # Source
/// Ren et al. 2015, arXiv 1506.01497, equation 1; torchvision's `RegionProposalNetwork.compute_loss`.
///
/// # Differs
/// By the anchors that are never drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RpnObjectness {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for RpnObjectness {
    fn default() -> Self {
        Self { weight: 1.0, ramp_steps: 0 }
    }
}

impl Term<Det> for RpnObjectness {
    fn source(&self) -> &'static str {
        "Ren et al. 2015, arXiv 1506.01497, eq. 1"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let (_, labels) = context.second();
        let logits_n1p = at_all_places(context.student, |level| &level.class_logits);
        let positive_n1p = context.labelled().assignment.positive_n1p.clone();
        let loss_n1p = binary_cross_entropy(logits_n1p, positive_n1p) * labels.drawn_n1p.clone();
        sum_all(loss_n1p) / sum_all(labels.drawn_n1p.clone()).clamp_min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::second_checks::{Case, Part, agrees, check_part};

    #[test]
    fn it_agrees_with_torchvision() {
        agrees("rpn_objectness", Part::Objectness, &RpnObjectness::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        check_part(&Case { term: &RpnObjectness::default(), part: Part::Objectness, rate: 20.0, background: true });
    }
}
