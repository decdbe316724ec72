//! `[distill.adaptive]`: the teacher's class scores, most where they are hard to say or to mimic.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::places::both;
use crate::context::Context;
use crate::cross_entropy::binary_cross_entropy;
use crate::task::Det;

/// Pulls the student's class probabilities towards the teacher's, more where they are far apart or the teacher unsure.
///
/// `sum_ic (1 - exp(-KL_ic - beta H_ic))^gamma KL_ic / max(sum_ic q_ic^theta, 1)` over the places `i` and classes `c`, where
/// `KL = q log (q / p) + (1 - q) log ((1 - q) / (1 - p))` and `H = -q log q - (1 - q) log (1 - q)`, with `p = sigmoid(student)`
/// and `q = sigmoid(teacher)`.
///
/// # Shapes
/// Class scores `[n, k, p]` of the levels at which student and teacher have the same places.
///
/// # Units and ranges
/// Logits, not probabilities. `gamma`, `beta` and `theta` are at least 0. The value is in nats, at least 0; 0 where both agree.
///
/// # Reduction
/// Sum over all scores, divided by the sum of the teacher's probabilities to the power `theta`, at least 1. It needs no label,
/// and heeds none.
///
/// # Gradient
/// Reaches the student's logits only, through the factor, too.
///
/// # Panics
/// If student and teacher share no level, or their scores differ in shape.
///
/// # Source
/// Tang et al. 2019, arXiv 1901.00366 (ADL; `unchecked`); the official code, Tangshitao/Semi-supervised-Adaptive-Distillation,
/// with its `gamma` 2 and `theta` 1.8. Its own `beta`, 0, is our 1.
///
/// # Differs
/// The official code multiplies the factor with cross-entropies, not divergences, of which the part of the class has a weight
/// `alpha` and the other `1 - alpha`, both 0.5: the gradient is half of ours but for that through the factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Adaptive {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// How much less a score counts that is easy; 0 for all alike. Default 2.
    pub gamma: f64,
    /// How much a teacher that is unsure makes a score hard. Default 1.
    pub beta: f64,
    /// The power of the teacher's probabilities in the divisor. Default 1.8.
    pub theta: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { weight: 1.0, gamma: 2.0, beta: 1.0, theta: 1.8, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Adaptive {
    fn source(&self) -> &'static str {
        "Tang et al. 2019, arXiv 1901.00366"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let [student_nkp, teacher_nkp] = both(context, |level| &level.class_logits);
        let q_nkp = sigmoid(teacher_nkp.clone());
        let entropy_nkp = binary_cross_entropy(teacher_nkp, q_nkp.clone());
        let divergence_nkp = binary_cross_entropy(student_nkp, q_nkp.clone()) - entropy_nkp.clone();
        let seen = sum_all(q_nkp.clamp_min(1e-12).powf_scalar(self.theta)).clamp_min(1.0);
        let value_nkp = match self.gamma {
            0.0 => divergence_nkp,
            // At 0 a power below 1 has no slope, and one of 0 none that is a number.
            gamma => {
                let hard_nkp = (divergence_nkp.clone() + entropy_nkp.mul_scalar(self.beta)).neg().exp();
                hard_nkp.neg().add_scalar(1.0).clamp_min(1e-12).powf_scalar(gamma) * divergence_nkp
            }
        };
        sum_all(value_nkp) / seen
    }

    fn check(&self, found: &mut Found) {
        for (key, value) in [("gamma", self.gamma), ("beta", self.beta), ("theta", self.theta)] {
            check_weight(key, value, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_term, of_part};
    use crate::testing::{labelled, map, values};

    fn value(term: &Adaptive, student: &Tensor<4>, teacher: &Tensor<4>) -> Tensor<1> {
        of_part(("adaptive", term), Part::ClassLogits, student, teacher, &labelled(&[]))
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("adaptive", Part::ClassLogits, &Adaptive::default());
    }

    #[test]
    fn one_score_by_hand() {
        // 1/2 against 3/4: a cross-entropy of log 2, of which the teacher's own part is its entropy.
        let divergence = 2f32.ln() + 0.75 * 0.75f32.ln() + 0.25 * 0.25f32.ln();
        let (student, teacher) = (map([1, 1, 1, 1], |_| 0.0), map([1, 1, 1, 1], |_| 3f32.ln()));
        for (gamma, factor) in [(2.0, 0.25), (0.0, 1.0)] {
            let found = values(value(&Adaptive { gamma, ..Adaptive::default() }, &student, &teacher))[0];
            assert!((found - factor * divergence).abs() < 1e-6, "{found} at gamma {gamma}");
        }
        let sure = Adaptive { beta: 0.0, gamma: 1.0, ..Adaptive::default() };
        let found = values(value(&sure, &student, &teacher))[0];
        assert!((found - (1.0 - (-divergence).exp()) * divergence).abs() < 1e-6, "{found}");
    }

    #[test]
    fn many_sure_scores_divide() {
        let logits = |value: f32| map([1, 1, 2, 4], |_| value);
        let found = values(value(&Adaptive::default(), &logits(0.0), &logits(30.0)))[0];
        assert!((found - 0.25 * 2f32.ln()).abs() < 1e-5, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, _| value(&Adaptive::default(), student, teacher),
            dims: [2, 3, 4, 4],
            rate: 4.0,
            needs_boxes: false,
        });
    }
}
