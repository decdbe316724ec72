//! `[supervised.centerness]`: how central the places are that answer for objects.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::sum_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assign::Assignment;
use crate::context::Context;
use crate::cross_entropy::binary_cross_entropy;
use crate::grid::at_all_places;
use crate::task::Det;

/// Cross-entropy of what the net says of how central a point is in its object, with how central it is.
///
/// `sum_i (-c_i log p_i - (1 - c_i) log (1 - p_i)) / N` over the `N` places `i` that answer for an object, with
/// `p = sigmoid(logits)` and `c = sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))`.
///
/// # Shapes
/// Logits `[n, 1, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. The value is in nats; its least is the mean entropy of the targets, not 0.
///
/// # Reduction
/// Mean over the places of the batch that answer for an object; without any a zero with a zero gradient.
///
/// # Gradient
/// Reaches the logits of the places that answer for an object.
///
/// # Panics
/// If there are no labels, or the net does not say how central its places are.
///
/// # Source
/// Tian et al. 2019, arXiv 1904.01355, equation 3; torchvision's `FCOS`.
///
/// # Differs
/// Nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Centerness {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Centerness {
    fn default() -> Self {
        Self { weight: 1.0, ramp_steps: 0 }
    }
}

impl Term<Det> for Centerness {
    fn source(&self) -> &'static str {
        "Tian et al. 2019, arXiv 1904.01355, eq. 3"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let logits_n1p = at_all_places(context.student, |level| {
            level.centerness.as_ref().expect("the net does not say how central its places are")
        });
        let Assignment { positive_n1p, positives, centerness_n1p, .. } = context.labelled().assignment.clone();
        sum_all(binary_cross_entropy(logits_n1p, centerness_n1p) * positive_n1p) / positives
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, FCOS, Part, check_part, value};
    use crate::testing::{labelled, output, seen};
    use mentor_types::BoxKind;

    #[test]
    fn it_agrees_with_torchvision() {
        FCOS.agrees("bbox_ctrness", Part::Centerness, &Centerness::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        check_part(&Case { term: &Centerness::default(), part: Part::Centerness, rate: 100.0, background: false });
    }

    #[test]
    fn one_place_by_hand() {
        // The point (4, 4) lies in the middle of (2, 2, 6, 6), and at a quarter of (2, 2, 10, 6): sqrt(1/3).
        let output = output(&[(8, [1, 1])], 1, 1, |_| 3f32.ln());
        let of =
            |edges| value(&Centerness::default(), &output, &seen(&output, &[labelled(&[(edges, 0, BoxKind::Object)])]));
        let (yes, no) = ((4.0f32 / 3.0).ln(), 4f32.ln());
        let central = (1.0f32 / 3.0).sqrt();
        assert!((of([2.0, 2.0, 6.0, 6.0]) - yes).abs() < 1e-6);
        assert!((of([2.0, 2.0, 10.0, 6.0]) - (central * yes + (1.0 - central) * no)).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "does not say how central")]
    fn a_net_without_centerness_is_refused() {
        let mut output = output(&[(8, [1, 1])], 1, 1, |_| 0.0);
        output.levels[0].centerness = None;
        let _ = value(&Centerness::default(), &output, &seen(&output, &[labelled(&[])]));
    }
}
