//! `[supervised.quality_focal]`: class scores that say how well the box fits.

use burn::tensor::Tensor;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_at_least_0};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assign::Assignment;
use crate::context::Context;
use crate::cross_entropy::quality_focal;
use crate::grid::at_all_places;
use crate::overlap::iou;
use crate::task::Det;

/// Cross-entropy of each class score at each place with the overlap of the student's own box and the object, the more so the
/// farther they are apart.
///
/// `sum_ic w_ic |y_ic - p_ic|^beta (-y_ic log p_ic - (1 - y_ic) log (1 - p_ic)) / N` over the places `i` and classes `c`, with
/// `p = sigmoid(logits)`; `y` is the overlap of the place's box with the object that it answers for at the object's class, 0
/// elsewhere; `N` places answer for an object. `w` is 0 for classes that nobody looked for and inside crowds and difficult
/// objects, see [`Assignment`].
///
/// # Shapes
/// Class scores `[n, k, p]` and ways to edges `[n, 4, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. `beta` is at least 0. The value is in nats, at least 0; with `beta` above 0 its least is 0.
///
/// # Reduction
/// Sum over all scores of the batch, divided by the number of places that answer for an object, at least 1: without any box
/// background is still learnt, as if there were one such place.
///
/// # Gradient
/// Reaches the logits, through the factor, too; none where `w` is 0. None reaches the boxes.
///
/// # Panics
/// If there are no labels.
///
/// # Source
/// Li et al. 2020, arXiv 2006.04388, equation 3; its `beta` is 2.
///
/// # Differs
/// By the scores that count nowhere. The authors' code counts an image without such places as one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QualityFocal {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// How much less a score counts that is near the overlap; 0 for plain cross-entropy. Default 2.
    pub beta: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for QualityFocal {
    fn default() -> Self {
        Self { weight: 1.0, beta: 2.0, ramp_steps: 0 }
    }
}

impl Term<Det> for QualityFocal {
    fn source(&self) -> &'static str {
        "Li et al. 2020, arXiv 2006.04388, eq. 3"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, boxes: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let logits_nkp = at_all_places(context.student, |level| &level.class_logits);
        let distances_n4p = at_all_places(context.student, |level| &level.distances).detach();
        let Assignment { classes_nkp, counted_nkp, distances_n4p: own_n4p, positives, .. } =
            context.labelled().assignment.clone();
        let y_nkp = classes_nkp * iou(distances_n4p, own_n4p);
        sum_all(quality_focal(logits_nkp, y_nkp, self.beta) * counted_nkp) / positives
    }

    fn check(&self, found: &mut Found) {
        check_at_least_0("beta", self.beta, found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, GFL, Part, check_part, value};
    use crate::testing::{labelled, map, output, seen};
    use mentor_types::BoxKind;

    #[test]
    fn it_agrees_with_the_paper() {
        GFL.agrees("quality_focal", Part::ClassLogits, &QualityFocal::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        for beta in [1.0, 2.0] {
            let term = QualityFocal { beta, ..QualityFocal::default() };
            check_part(&Case { term: &term, part: Part::ClassLogits, rate: 5.0, background: true });
        }
    }

    #[test]
    fn one_place_by_hand_and_no_gradient_to_the_box() {
        // Probabilities of 3/4 for the class, whose box overlaps by a half, and 1/2 for another.
        let mut output = output(&[(8, [1, 1])], 1, 2, |i| [3f32.ln(), 0.0][i % 2]);
        let labels = seen(&output, &[labelled(&[([2.0, 2.0, 6.0, 6.0], 0, BoxKind::Object)])]);
        let ways =
            Tensor::from_inner(map([1, 4, 1, 1], |edge| [2.0, 2.0, 2.0, 0.0][edge]).flatten::<3>(2, 3)).require_grad();
        output.levels[0].distances = ways.clone();
        let entropy = 0.5 * (4f32 / 3.0).ln() + 0.5 * 4f32.ln();
        let expected = 0.0625 * entropy + 0.25 * 2f32.ln();
        let found = value(&QualityFocal::default(), &output, &labels);
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        let logits = Tensor::from_inner(output.levels[0].class_logits.clone()).require_grad();
        output.levels[0].class_logits = logits.clone();
        let column = Column::of("quality_focal", &QualityFocal::default().shared()).swap_remove(0);
        let value = QualityFocal::default().value(&Context::of(&output, Some(&labels)), &column);
        let gradients = value.backward();
        assert!(ways.grad(&gradients).is_none() && logits.grad(&gradients).is_some());
    }
}
