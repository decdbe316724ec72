//! `[distill.weighted_cross_entropy]`: the teacher's class scores as soft labels, the background's weighing more.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::places::both;
use crate::context::Context;
use crate::task::Det;

/// Cross-entropy of the student's class scores under the teacher's probabilities, with a weight on the background.
///
/// `sum_ic (-q_ic log p_ic - background (1 - q_ic) log (1 - p_ic)) / max(sum_i max_c q_ic, 1)` over the places `i` and classes
/// `c`, with `p = sigmoid(student)` and `q = sigmoid(teacher)`.
///
/// # Shapes
/// Class scores `[n, k, p]` of the levels at which student and teacher have the same places.
///
/// # Units and ranges
/// Logits, not probabilities. The value is in nats; at its least, which is above 0, `p = q / (q + background (1 - q))`.
///
/// # Reduction
/// Sum over all scores, divided by the sum over places of the teacher's highest probability, at least 1: about as many as
/// there are places at which it sees an object. It needs no label, and heeds none.
///
/// # Gradient
/// Reaches the student's logits only.
///
/// # Panics
/// If student and teacher share no level, or their scores differ in shape.
///
/// # Source
/// Chen et al. 2017, *Learning Efficient Object Detection Models with Knowledge Distillation*, equation 4 (`unchecked`), with
/// its weight of 1.5 for the background. There is no official code.
///
/// # Differs
/// The paper has one softmax over the classes and the background, whose cross-entropy has a weight for each; here each class
/// has a sigmoid of its own, and the background's weight is on its not being there. It divides by the regions of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WeightedCrossEntropy {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// Factor of a class not being there. Default 1.5.
    pub background: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for WeightedCrossEntropy {
    fn default() -> Self {
        Self { weight: 1.0, background: 1.5, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for WeightedCrossEntropy {
    fn source(&self) -> &'static str {
        "Chen et al. 2017, eq. 4"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let [student_nkp, teacher_nkp] = both(context, |level| &level.class_logits);
        let q_nkp = sigmoid(teacher_nkp);
        let seen = sum_all(q_nkp.clone().max_dim(1)).clamp_min(1.0);
        let none_nkp = q_nkp.clone().neg().add_scalar(1.0).mul_scalar(self.background);
        let value_nkp = q_nkp * log_sigmoid(student_nkp.clone()) + none_nkp * log_sigmoid(student_nkp.neg());
        sum_all(value_nkp.neg()) / seen
    }

    fn check(&self, found: &mut Found) {
        check_weight("background", self.background, found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_slopes, of_part};
    use crate::testing::{labelled, map, values};

    fn value(student: &Tensor<4>, teacher: &Tensor<4>) -> Tensor<1> {
        let term = WeightedCrossEntropy::default();
        of_part(("weighted_cross_entropy", &term), Part::ClassLogits, student, teacher, &labelled(&[]))
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("weighted_cross_entropy", Part::ClassLogits, &WeightedCrossEntropy::default());
    }

    #[test]
    fn one_score_by_hand() {
        // 1/2 against 3/4: 3/4 log 2 + 3/2 * 1/4 log 2.
        let found = values(value(&map([1, 1, 1, 1], |_| 0.0), &map([1, 1, 1, 1], |_| 3f32.ln())))[0];
        assert!((found - 1.125 * 2f32.ln()).abs() < 1e-6, "{found}");
    }

    #[test]
    fn it_is_least_below_the_teacher_by_the_weight_of_the_background() {
        // q = 3/4: p = 0.75 / (0.75 + 1.5 * 0.25) = 2/3.
        let student = Tensor::from_inner(map([1, 1, 1, 1], |_| 2f32.ln())).require_grad();
        let loss = value(&student, &map([1, 1, 1, 1], |_| 3f32.ln()));
        assert!(values(student.grad(&loss.backward()).unwrap())[0].abs() < 1e-6);
    }

    #[test]
    fn it_passes_the_checks_of_every_term_whose_least_is_not_zero() {
        check_slopes(&Case {
            value: &|student, teacher, _| value(student, teacher),
            dims: [2, 3, 4, 4],
            rate: 0.0,
            needs_boxes: false,
        });
    }
}
