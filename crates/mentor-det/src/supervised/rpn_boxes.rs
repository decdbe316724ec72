//! `[supervised.rpn_boxes]`: how boxes differ from the anchors that are drawn.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{BoxCoding, Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::deltas::encoded;
use crate::grid::at_all_places;
use crate::task::Det;

use super::smooth_l1::smooth;

/// How far what a first stage says of the difference between box and anchor is from what the object asks for.
///
/// `sum_ij f(d_ij - g_ij) / N` over the drawn anchors `i` that answer for an object and the four numbers `j`: the shifts of the
/// middle in sides of the anchor, the logarithms of the ratios of sides. `N` counts all anchors drawn, background, too.
/// `f(x) = x^2 / (2 beta)` where `|x| < beta`, else `|x| - beta / 2`.
///
/// # Shapes
/// Deltas `[n, 4, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Sides of anchors, and logarithms of their ratios. `beta` is at least 0; the value, too.
///
/// # Reduction
/// Sum over the drawn anchors of the batch that answer for an object, divided by all drawn, at least 1; without any a zero with a
/// zero gradient.
///
/// # Gradient
/// Reaches the deltas of the drawn anchors that answer for an object.
///
/// # Panics
/// If there are no labels, or the student has one stage.
///
/// # Source
/// Ren et al. 2015, arXiv 1506.01497, equation 1; torchvision's `RegionProposalNetwork.compute_loss`, with its `beta`.
///
/// # Differs
/// An object without an extent is taken for one of a millionth of the anchor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RpnBoxes {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Below which difference the square counts; 0 for the absolute difference. Default 1/9, as torchvision has it.
    pub beta: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for RpnBoxes {
    fn default() -> Self {
        Self { weight: 1.0, beta: 1.0 / 9.0, ramp_steps: 0 }
    }
}

impl Term<Det> for RpnBoxes {
    fn source(&self) -> &'static str {
        "Ren et al. 2015, arXiv 1506.01497, eq. 1"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let (_, labels) = context.second();
        let deltas_n4p = at_all_places(context.student, |level| match &level.coding {
            BoxCoding::Deltas(deltas) => deltas,
            _ => panic!("the net does not say how boxes differ from anchors"),
        });
        let labelled = context.labelled();
        let own_n4p = encoded(&labelled.assignment.distances_n4p, &labelled.grid.anchors);
        let learnt_n1p = labels.drawn_n1p.clone() * labelled.assignment.positive_n1p.clone();
        let loss_n1p = smooth(deltas_n4p - own_n4p, self.beta).sum_dim(1) * learnt_n1p;
        sum_all(loss_n1p) / sum_all(labels.drawn_n1p.clone()).clamp_min(1.0)
    }

    fn check(&self, found: &mut Found) {
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            found.push(("beta".to_owned(), format!("must be at least 0, found {}", self.beta)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::second_checks::{Case, Part, agrees, check_part};

    #[test]
    fn it_agrees_with_torchvision() {
        agrees("rpn_boxes", Part::AnchorDeltas, &RpnBoxes::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        check_part(&Case { term: &RpnBoxes::default(), part: Part::AnchorDeltas, rate: 2.0, background: false });
    }
}
