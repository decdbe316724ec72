//! `[distill.box_kd]`: the teacher's boxes at every place where it sees something.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::places::both;
use crate::context::Context;
use crate::overlap::giou;
use crate::task::Det;

/// Pulls the student's boxes towards the teacher's, the more so the surer the teacher is that there is an object.
///
/// `sum_i q_i (1 - GIoU(b_i, b^T_i)) / max(sum_i q_i, 1)` over the places `i`, with the boxes `b` of the student and `b^T` of the
/// teacher, and the teacher's highest class probability `q_i`, or 0 where that is below `min_score`.
///
/// # Shapes
/// Ways to edges `[n, 4, p]` and class scores `[n, k, p]` of the levels at which student and teacher have the same places.
///
/// # Units and ranges
/// Pixels and logits in; the value lies in `[0, 2)`. `min_score` lies in [0, 1].
///
/// # Reduction
/// The mean over places by their weights; where these sum to less than 1, the sum. A place at which the teacher's box has no area
/// does not count. It needs no label, and heeds none.
///
/// # Gradient
/// Reaches the student's boxes only.
///
/// # Panics
/// If student and teacher share no level.
///
/// # Source
/// The prediction mimicking that `CrossKD` is compared with (Wang et al. 2024, arXiv 2306.11369, `unchecked`), with `GIoU`
/// (Rezatofighi et al. 2019, arXiv 1902.09630) between boxes.
///
/// # Differs
/// There, places that answer for objects count alike; these need labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BoxKd {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// The class probability of the teacher below which its box does not count, in [0, 1]. Default 0.1.
    pub min_score: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for BoxKd {
    fn default() -> Self {
        Self { weight: 1.0, min_score: 0.1, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for BoxKd {
    fn source(&self) -> &'static str {
        "Wang et al. 2024, arXiv 2306.11369; Rezatofighi et al. 2019, arXiv 1902.09630"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, boxes: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let [boxes_n4p, taught_n4p] = both(context, |level| &level.distances);
        let [_, taught_nkp] = both(context, |level| &level.class_logits);
        let sure_n1p = sigmoid(taught_nkp).max_dim(1);
        let side = |edge: usize| taught_n4p.clone().narrow(1, edge, 1) + taught_n4p.clone().narrow(1, edge + 2, 1);
        let counts =
            sure_n1p.clone().greater_equal_scalar(self.min_score).bool_and((side(0) * side(1)).greater_scalar(0.0));
        let weight_n1p = sure_n1p * counts.float();
        let apart_n1p = giou(boxes_n4p, taught_n4p.clone()).neg().add_scalar(1.0);
        sum_all(apart_n1p * weight_n1p.clone()) / sum_all(weight_n1p).clamp_min(1.0)
    }

    fn check(&self, found: &mut Found) {
        check_probability("min_score", self.min_score, found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, check_term};
    use crate::testing::{map, output, values};
    use mentor_types::DetOutput;

    /// One level of ways to edges; all places of a probability of 3/4, or, where they are odd and `unsure`, of 1/20.
    fn with_ways(ways: &Tensor<4>, unsure: bool) -> DetOutput {
        let [n, _, height, width] = ways.dims();
        let mut output = output(&[(8, [height, width])], n, 2, |_| -20.0);
        let logit = |i: usize| if unsure && i % 2 == 1 { (1f32 / 19.0).ln() } else { 3f32.ln() };
        output.levels[0].class_logits = map([n, 2, height, width], logit).flatten(2, 3);
        output.levels[0].distances = ways.clone().flatten(2, 3);
        output
    }

    fn value_of(student: &DetOutput, teacher: &DetOutput) -> Tensor<1> {
        let term = BoxKd::default();
        let column = Column::of("box_kd", &term.shared()).swap_remove(0);
        term.value(&Context { teacher: Some(teacher), ..Context::of(student, None) }, &column)
    }

    #[test]
    fn two_places_by_hand() {
        // Squares of half sides 2 and 4 about one point, a quarter; two of 4, one.
        let student = map([1, 4, 1, 2], |i| if i % 2 == 0 { 2.0 } else { 4.0 });
        let teacher = map([1, 4, 1, 2], |_| 4.0);
        let both = values(value_of(&with_ways(&student, false), &with_ways(&teacher, false)))[0];
        assert!((both - 0.75 / 2.0).abs() < 1e-5, "{both}");
        // The second does not count, and the sum of weights is below 1.
        let one = values(value_of(&with_ways(&student, false), &with_ways(&teacher, true)))[0];
        assert!((one - 0.75 * 0.75).abs() < 1e-5, "{one}");
    }

    #[test]
    fn a_box_without_an_area_does_not_count() {
        let student = map([1, 4, 1, 1], |_| 2.0);
        let empty = map([1, 4, 1, 1], |i| if i % 2 == 0 { 0.0 } else { 3.0 });
        assert_eq!(values(value_of(&with_ways(&student, false), &with_ways(&empty, false))), [0.0]);
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        let positive = |map: &Tensor<4>| map.clone().add_scalar(4.0);
        check_term(&Case {
            value: &|student, teacher, _| {
                value_of(&with_ways(&positive(student), false), &with_ways(&positive(teacher), false))
            },
            dims: [2, 4, 4, 4],
            rate: 20.0,
            needs_boxes: false,
        });
    }
}
