//! `[distill.bounded_regression]`: the student's boxes, as long as the teacher's are better.

use burn::tensor::Tensor;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{Found, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::places::{both, shared};
use crate::context::{Context, Labelled};
use crate::task::Det;

/// Pulls the student's boxes towards those of the objects, unless they are already better than the teacher's.
///
/// `sum_i e^S_i [e^S_i + margin > e^T_i] / max(N, 1)` over the `N` places `i` that answer for an object, where `e` is the
/// squared distance of a box from that of the object: the sum over the four edges of `((d - g) / a)^2`, with the ways `d` and `g`
/// to the edges of the two boxes, and the width or the height `a` of the place's anchor.
///
/// # Shapes
/// Ways to edges `[n, 4, p]` of the levels at which student and teacher have the same places.
///
/// # Units and ranges
/// Pixels in; parts of anchors, squared, out; not negative. A net without anchors has squares of 8 strides. `margin` is in the
/// unit of the value.
///
/// # Reduction
/// Mean over the places of the batch that answer for an object; without any a zero with a zero gradient.
///
/// # Gradient
/// Reaches the student's boxes; whether they count is a constant. None goes to the teacher.
///
/// # Panics
/// If there are no labels, or student and teacher share no level.
///
/// # Source
/// Chen et al. 2017, *Learning Efficient Object Detection Models with Knowledge Distillation*, equation 5 (`unchecked`), with
/// its weight of 0.5. There is no official code.
///
/// # Differs
/// The paper's boxes are coded by shifts and logarithms of ratios from the region that they refine; ours by the ways to their
/// edges, whose unit is chosen to be alike. Its `margin` was not found; ours is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BoundedRegression {
    /// Factor in the loss. Default 0.5.
    pub weight: f64,
    /// By how much the student's error is to be smaller than the teacher's, so that it no longer counts. Default 0.
    pub margin: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for BoundedRegression {
    fn default() -> Self {
        Self { weight: 0.5, margin: 0.0, ramp_steps: 0 }
    }
}

impl Term<Det> for BoundedRegression {
    fn source(&self) -> &'static str {
        "Chen et al. 2017, eq. 5"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { boxes: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let Labelled { grid, assignment, .. } = context.labelled();
        let [width, height] = grid.anchors.clone();
        let sides_14p = shared(context, &Tensor::cat(vec![width.clone(), height.clone(), width, height], 1));
        let own_n4p = shared(context, &assignment.distances_n4p);
        let positive_n1p = shared(context, &assignment.positive_n1p);
        let error = |distances_n4p: Tensor<3>| {
            ((distances_n4p - own_n4p.clone()) / sides_14p.clone()).powi_scalar(2).sum_dim(1)
        };
        let [student_n1p, teacher_n1p] = both(context, |level| &level.distances).map(error);
        let gap_n1p = student_n1p.clone().inner().add_scalar(self.margin) - teacher_n1p;
        let counts_n1p = gap_n1p.greater_scalar(0.0).float() * positive_n1p.clone();
        sum_all(student_n1p * counts_n1p) / sum_all(positive_n1p).clamp_min(1.0)
    }

    fn check(&self, found: &mut Found) {
        check_weight("margin", self.margin, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{
        Case, Part, agrees, check_slopes, it_halves_on_a_fixed_batch, nothing_is_compared_without_a_box, of_part,
    };
    use crate::testing::{labelled, map, values};
    use mentor_types::{BoxKind, BoxLabels};

    /// The box that only the place about (4, 4) answers for, 4 pixels to each side.
    fn object() -> BoxLabels {
        labelled(&[([0.0, 0.0, 8.0, 8.0], 0, BoxKind::Object)])
    }

    fn value(term: &BoundedRegression, student: &Tensor<4>, teacher: &Tensor<4>, labels: &BoxLabels) -> Tensor<1> {
        of_part(("bounded_regression", term), Part::Distances, student, teacher, labels)
    }

    #[test]
    fn it_agrees_with_pytorch() {
        let term = BoundedRegression { margin: 0.01, ..BoundedRegression::default() };
        agrees("bounded_regression", Part::Distances, &term);
    }

    #[test]
    fn one_place_by_hand_counts_until_it_is_better_by_the_margin() {
        // Half sides of 20 and of 36 pixels: errors of 4 * (16 / 64)^2 and of 4 * (32 / 64)^2.
        let half = |half: f32| map([1, 4, 2, 2], |_| half);
        for (margin, student, teacher, expected) in
            [(0.0, 20.0, 4.0, 0.25), (0.0, 20.0, 36.0, 0.0), (0.5, 20.0, 36.0, 0.0), (0.8, 20.0, 36.0, 0.25)]
        {
            let term = BoundedRegression { margin, ..BoundedRegression::default() };
            let found = values(value(&term, &half(student), &half(teacher), &object()))[0];
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected} at margin {margin}");
        }
    }

    #[test]
    fn it_passes_the_checks_of_a_term_that_compares_with_labels() {
        let term = BoundedRegression { margin: 100.0, ..BoundedRegression::default() };
        let case = Case {
            value: &|student, teacher, boxes| {
                value(&term, student, teacher, &if boxes { object() } else { labelled(&[]) })
            },
            dims: [2, 4, 4, 4],
            rate: 500.0,
            needs_boxes: true,
        };
        check_slopes(&case);
        it_halves_on_a_fixed_batch(&case);
        nothing_is_compared_without_a_box(&case);
    }
}
