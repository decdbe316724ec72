//! Means over the places that answer for objects.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_ops::sum_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assign::Assignment;
use crate::context::Context;
use crate::grid::at_all_places;

/// Keeps the mean finite where all weights are 0.
const NOTHING: f64 = 1e-6;

/// How much a place counts that answers for an object; a constant, without a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlaceWeight {
    /// All alike.
    #[default]
    Equal,
    /// By how central its point lies in the object.
    Centerness,
    /// By the highest of the student's own class probabilities there.
    Quality,
}

/// The mean of a loss `[n, 1, p]` over the places that answer for an object, by their weights; where the weights by `quality`
/// sum to less than 1, the sum. Without such a place a zero with a zero gradient.
pub(super) fn mean_of_positives(loss_n1p: Tensor<3>, weight: PlaceWeight, context: &Context<'_>) -> Tensor<1> {
    let Assignment { positive_n1p, positives, centerness_n1p, .. } = context.labelled().assignment.clone();
    match weight {
        PlaceWeight::Equal => sum_all(loss_n1p * positive_n1p) / positives,
        PlaceWeight::Centerness => {
            sum_all(loss_n1p * centerness_n1p.clone()) / sum_all(centerness_n1p).clamp_min(NOTHING)
        }
        PlaceWeight::Quality => {
            let logits_nkp = at_all_places(context.student, |level| &level.class_logits).detach();
            let quality_n1p = sigmoid(logits_nkp).max_dim(1) * positive_n1p;
            sum_all(loss_n1p * quality_n1p.clone()) / sum_all(quality_n1p).clamp_min(1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, output, seen, values};
    use mentor_types::BoxKind;

    #[test]
    fn places_count_as_asked_for() {
        // One of four points answers, and the loss is 3 there; its centerness is sqrt(1/3).
        let output = output(&[(8, [2, 2])], 1, 2, |i| [-1.0, 0.0, 1.0, 2.0, 0.5, 0.5, 0.5, 0.5][i % 8]);
        let labels = seen(&output, &[labelled(&[([2.0, 2.0, 10.0, 6.0], 0, BoxKind::Object)])]);
        assert_eq!(values(labels.assignment.positive_n1p.clone()), [1.0, 0.0, 0.0, 0.0]);
        let loss = crate::testing::rows(&[[3.0, 7.0, 7.0, 7.0]]);
        let context = Context::of(&output, Some(&labels));
        let quality = 1.0 / (1.0 + (-0.5f32).exp());
        for (weight, expected) in
            [(PlaceWeight::Equal, 3.0), (PlaceWeight::Centerness, 3.0), (PlaceWeight::Quality, 3.0 * quality)]
        {
            let found = values(mean_of_positives(loss.clone(), weight, &context))[0];
            assert!((found - expected).abs() < 1e-5, "{found} by {weight:?}");
        }
    }
}
