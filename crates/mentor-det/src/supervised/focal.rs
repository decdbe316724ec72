//! `[supervised.focal]`: the class scores of every place.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_at_least_0, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assign::Assignment;
use crate::context::Context;
use crate::cross_entropy::binary_cross_entropy;
use crate::grid::at_all_places;
use crate::task::Det;

/// Cross-entropy of each class score at each place, less where the net is right already.
///
/// `sum_ic w_ic a_ic (1 - q_ic)^gamma (-log q_ic) / N` over the places `i` and classes `c`, with `p = sigmoid(logits)`,
/// `q = p` and `a = alpha` where the place answers for an object of the class, `q = 1 - p` and `a = 1 - alpha` elsewhere, and
/// `N` places that answer for an object. `w` is 0 for classes that nobody looked for and inside crowds and difficult objects,
/// see [`Assignment`].
///
/// # Shapes
/// Class scores `[n, k, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. `alpha` lies in [0, 1], `gamma` is at least 0. The value is in nats, at least 0.
///
/// # Reduction
/// Sum over all scores of the batch, divided by the number of places that answer for an object, at least 1: without any box
/// background is still learnt, as if there were one such place.
///
/// # Gradient
/// Reaches the logits; none where `w` is 0.
///
/// # Panics
/// If there are no labels.
///
/// # Source
/// Lin et al. 2017, arXiv 1708.02002, equation 5; alpha 0.25 and gamma 2 are its best and FCOS's. torchvision's
/// `sigmoid_focal_loss` as `FCOS` divides it.
///
/// # Differs
/// By the scores that count nowhere. torchvision's `FCOS` divides by the places of the images of one device, as we do, its
/// `RetinaNet` each image by its own; the authors' code of FCOS by the mean over devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Focal {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// The factor of objects; that of background is `1 - alpha`. Default 0.25.
    pub alpha: f64,
    /// How much less a score counts that is right already; 0 for plain cross-entropy. Default 2.
    pub gamma: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Focal {
    fn default() -> Self {
        Self { weight: 1.0, alpha: 0.25, gamma: 2.0, ramp_steps: 0 }
    }
}

impl Term<Det> for Focal {
    fn source(&self) -> &'static str {
        "Lin et al. 2017, arXiv 1708.02002, eq. 5"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let logits_nkp = at_all_places(context.student, |level| &level.class_logits);
        self.loss(logits_nkp, &context.labelled().assignment)
    }

    fn check(&self, found: &mut Found) {
        check_probability("alpha", self.alpha, found);
        check_at_least_0("gamma", self.gamma, found);
    }
}

impl Focal {
    fn loss(&self, logits_nkp: Tensor<3>, assignment: &Assignment) -> Tensor<1> {
        let y_nkp = assignment.classes_nkp.clone();
        let p_nkp = sigmoid(logits_nkp.clone());
        // |y - p|, the probability of the wrong answer.
        let wrong_nkp = p_nkp.clone() + y_nkp.clone() - (p_nkp * y_nkp.clone()).mul_scalar(2.0);
        // y * alpha + (1 - y) * (1 - alpha)
        let balance_nkp = y_nkp.clone().mul_scalar(2.0 * self.alpha - 1.0).add_scalar(1.0 - self.alpha);
        let value_nkp = binary_cross_entropy(logits_nkp, y_nkp) * balance_nkp * assignment.counted_nkp.clone();
        // At 0 a power below 1 has no slope, and one of 0 none that is a number.
        let value_nkp = match self.gamma {
            0.0 => value_nkp,
            gamma => value_nkp * wrong_nkp.clamp_min(1e-12).powf_scalar(gamma),
        };
        sum_all(value_nkp) / assignment.positives.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, FCOS, Part, RETINANET, check_part, value};
    use crate::testing::{labelled, output, seen, values};
    use mentor_types::BoxLabels;

    #[test]
    fn it_agrees_with_torchvision() {
        FCOS.agrees("classification", Part::ClassLogits, &Focal::default());
        RETINANET.agrees("classification", Part::ClassLogits, &Focal::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        for gamma in [0.0, 0.5, 2.0] {
            let term = Focal { gamma, ..Focal::default() };
            check_part(&Case { term: &term, part: Part::ClassLogits, rate: 5.0, background: true });
        }
    }

    #[test]
    fn even_scores_of_background_by_hand() {
        // 5 places of 2 classes, all of probability 1/2: each costs 0.75 / 4 * log 2.
        let output = output(&[(8, [2, 2]), (16, [1, 1])], 1, 2, |_| 0.0);
        let labels = seen(&output, &[labelled(&[])]);
        let found = value(&Focal::default(), &output, &labels);
        assert!((found - 10.0 * 0.75 / 4.0 * 2f32.ln()).abs() < 1e-5, "{found}");
        let plain = value(&Focal { gamma: 0.0, alpha: 0.5, ..Focal::default() }, &output, &labels);
        assert!((plain - 10.0 * 0.5 * 2f32.ln()).abs() < 1e-5, "{plain}");
    }

    #[test]
    fn classes_that_nobody_looked_for_get_no_gradient() {
        let mut output = output(&[(8, [2, 2])], 1, 2, |i| i as f32 / 8.0);
        let logits = Tensor::from_inner(output.levels[0].class_logits.clone()).require_grad();
        output.levels[0].class_logits = logits.clone();
        let partly = BoxLabels { looked_for: Some(vec![1]), boxes: Vec::new() };
        let labels = seen(&output, &[partly]);
        let context = Context::of(&output, Some(&labels));
        let loss = Focal::default()
            .loss(at_all_places(context.student, |level| &level.class_logits), &context.labelled().assignment);
        let gradient = values(logits.grad(&loss.backward()).unwrap());
        assert_eq!(gradient[..4], [0.0; 4]);
        assert!(gradient[4..].iter().all(|slope| *slope > 0.0));
    }

    #[test]
    fn sure_scores_stay_finite() {
        for sure in [500.0, -500.0] {
            for gamma in [0.5, 2.0] {
                let mut output = output(&[(8, [2, 2])], 1, 1, |_| sure);
                let logits = Tensor::from_inner(output.levels[0].class_logits.clone()).require_grad();
                output.levels[0].class_logits = logits.clone();
                let labels = seen(&output, &[labelled(&[([0.0, 0.0, 9.0, 9.0], 0, mentor_types::BoxKind::Object)])]);
                let term = Focal { gamma, ..Focal::default() };
                let loss = term.loss(at_all_places(&output, |level| &level.class_logits), &labels.assignment);
                let gradient = values(logits.grad(&loss.backward()).unwrap());
                assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
            }
        }
    }
}
