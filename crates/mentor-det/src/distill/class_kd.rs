//! `[distill.class_kd]`: the teacher's class scores at every place.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_at_least_0};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::places::both;
use crate::context::Context;
use crate::cross_entropy::quality_focal;
use crate::task::Det;

/// Pulls the student's class probabilities towards the teacher's, the more so the farther they are apart.
///
/// `sum_ic |p_ic - q_ic|^gamma (-q_ic log p_ic - (1 - q_ic) log (1 - p_ic)) / max(sum_i max_c q_ic, 1)` over the places `i` and
/// classes `c`, with `p = sigmoid(student)` and `q = sigmoid(teacher)`.
///
/// # Shapes
/// Class scores `[n, k, p]` of the levels at which student and teacher have the same places.
///
/// # Units and ranges
/// Logits, not probabilities. `gamma` is at least 0. The value is in nats, at least 0; 0 where both agree, unless `gamma` is 0.
///
/// # Reduction
/// Sum over all scores, divided by the sum over places of the teacher's highest probability, at least 1: about as many as
/// there are places at which it sees an object. It needs no label, and heeds none: crowds and classes that nobody looked for
/// count like any other.
///
/// # Gradient
/// Reaches the student's logits only, through the factor, too.
///
/// # Panics
/// If student and teacher share no level, or their scores differ in shape.
///
/// # Source
/// The quality focal loss (Li et al. 2020, arXiv 2006.04388, equation 3, `unchecked`) as CrossKD uses it between scores of
/// student and teacher (Wang et al. 2024, arXiv 2306.11369; official code jbwang1997/CrossKD, weight 1, gamma 1).
///
/// # Differs
/// `CrossKD` compares what the teacher's head makes of the student's features; this is its form for the student's own scores.
/// It divides by the places that answer for objects, which unlabelled images lack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassKd {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// How much less a score counts that is near the teacher's; 0 for plain cross-entropy. Default 1.
    pub gamma: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for ClassKd {
    fn default() -> Self {
        Self { weight: 1.0, gamma: 1.0, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for ClassKd {
    fn source(&self) -> &'static str {
        "Wang et al. 2024, arXiv 2306.11369; Li et al. 2020, arXiv 2006.04388, eq. 3"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let [student_nkp, teacher_nkp] = both(context, |level| &level.class_logits);
        self.loss(student_nkp, teacher_nkp)
    }

    fn check(&self, found: &mut Found) {
        check_at_least_0("gamma", self.gamma, found);
    }
}

impl ClassKd {
    fn loss(&self, student_nkp: Tensor<3>, teacher_nkp: Tensor<3>) -> Tensor<1> {
        assert_eq!(student_nkp.dims(), teacher_nkp.dims(), "class scores of student and teacher differ in shape");
        let q_nkp = sigmoid(teacher_nkp);
        let seen = sum_all(q_nkp.clone().max_dim(1)).clamp_min(1.0);
        sum_all(quality_focal(student_nkp, q_nkp, self.gamma)) / seen
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_term};
    use crate::testing::{output, values};
    use mentor_types::DetOutput;

    fn with_logits(logits: &Tensor<4>) -> DetOutput {
        let [n, classes, height, width] = logits.dims();
        let mut output = output(&[(8, [height, width])], n, classes, |_| 0.0);
        output.levels[0].class_logits = logits.clone().flatten(2, 3);
        output
    }

    fn value_of(term: &ClassKd, student: &DetOutput, teacher: &DetOutput) -> Tensor<1> {
        let column = Column::of("class_kd", &term.shared()).swap_remove(0);
        let context = Context { teacher: Some(teacher), ..Context::of(student, None) };
        term.value(&context, &column)
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("class_kd", Part::ClassLogits, &ClassKd::default());
    }

    #[test]
    fn one_place_by_hand() {
        // Probabilities 1/2 against 3/4, and two that agree.
        let student = Tensor::<4>::from_data([[[[0.0f32]], [[1.0]]]], &burn::tensor::Device::flex());
        let teacher = Tensor::<4>::from_data([[[[3f32.ln()]], [[1.0]]]], &burn::tensor::Device::flex());
        let (student, teacher) = (with_logits(&student), with_logits(&teacher));
        for (gamma, factor) in [(1.0, 0.25), (2.0, 0.0625)] {
            let found = values(value_of(&ClassKd { gamma, ..ClassKd::default() }, &student, &teacher))[0];
            assert!((found - factor * 2f32.ln()).abs() < 1e-6, "{found} at gamma {gamma}");
        }
    }

    #[test]
    fn many_places_of_a_sure_teacher_divide() {
        let logits = |value: f32| with_logits(&Tensor::full([1, 1, 2, 4], value, &burn::tensor::Device::flex()));
        let found = values(value_of(&ClassKd::default(), &logits(0.0), &logits(30.0)))[0];
        assert!((found - 0.5 * 2f32.ln()).abs() < 1e-6, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        for gamma in [1.0, 2.0] {
            let term = ClassKd { gamma, ..ClassKd::default() };
            check_term(&Case {
                value: &|student, teacher, _| value_of(&term, &with_logits(student), &with_logits(teacher)),
                dims: [2, 3, 4, 4],
                rate: 4.0,
                needs_boxes: false,
            });
        }
    }

    #[test]
    fn levels_that_only_one_side_has_do_not_count() {
        let student = output(&[(8, [2, 2]), (16, [1, 1])], 1, 2, |i| i as f32);
        let teacher = output(&[(4, [4, 4]), (8, [2, 2])], 1, 2, |i| -(i as f32));
        let [one, other] = [&student.levels[0], &teacher.levels[1]]
            .map(|level| with_logits(&level.class_logits.clone().reshape([1, 2, 2, 2])));
        let term = ClassKd::default();
        assert_eq!(values(value_of(&term, &student, &teacher)), values(value_of(&term, &one, &other)));
    }

    #[test]
    #[should_panic(expected = "no level of the same places")]
    fn nets_without_a_common_level_are_refused() {
        let _ = value_of(
            &ClassKd::default(),
            &output(&[(8, [2, 2])], 1, 2, |_| 0.0),
            &output(&[(16, [1, 1])], 1, 2, |_| 0.0),
        );
    }
}
