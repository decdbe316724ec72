//! `[distill.dist]`: how the teacher's class scores stand to each other.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_distill::{Column, Reads, Shared, Stream, Term, correlation, weighted_mean};
use mentor_ops::mean_all;
use mentor_types::{Found, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::places::both;
use crate::context::Context;
use crate::task::Det;

/// Pulls the student's class probabilities towards ones that correlate with the teacher's, over the classes at each place and
/// over the places for each class.
///
/// `inter (1 - mean_i r(p_i, q_i)) + intra (1 - mean_c r(p_c, q_c))`, where `r` is Pearson's correlation, over the classes at
/// place `i`, over the places of the batch for class `c`, of `p = sigmoid(student)` and `q = sigmoid(teacher)`. Places are
/// averaged by the teacher's highest probability there.
///
/// # Shapes
/// Class scores `[n, k, p]` of the levels at which student and teacher have the same places.
///
/// # Units and ranges
/// Logits, not probabilities. The value is without unit, in `[0, 2 (inter + intra)]`.
///
/// # Reduction
/// As the formula says. With a single class there is nothing to compare at a place, and the first part is 0. It needs no label,
/// and heeds none.
///
/// # Gradient
/// Reaches the student's logits only.
///
/// # Panics
/// If student and teacher share no level, or their scores differ in shape.
///
/// # Source
/// Huang et al. 2022, arXiv 2205.10536 (DIST; `unchecked`); the official code for segmentation, hunto/DIST_KD, both factors 1.
///
/// # Differs
/// There scores are a softmax, and all rows count alike; here most places are background, where no class stands out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dist {
    /// Factor in the loss, on top of those of its parts. Default 1.
    pub weight: f64,
    /// Factor of the relations of classes at each place. Default 1.
    pub inter: f64,
    /// Factor of the relations of places for each class. Default 1.
    pub intra: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Dist {
    fn default() -> Self {
        Self { weight: 1.0, inter: 1.0, intra: 1.0, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Dist {
    fn source(&self) -> &'static str {
        "Huang et al. 2022, arXiv 2205.10536"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { logits: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let [student_nkp, teacher_nkp] = both(context, |level| &level.class_logits).map(sigmoid);
        let [n, classes, places] = student_nkp.dims();
        let of_classes = |x_nkp: Tensor<3>| -> Tensor<2> { x_nkp.swap_dims(0, 1).reshape([classes, n * places]) };
        let apart = |x: Tensor<1>, factor: f64| x.neg().add_scalar(1.0).mul_scalar(factor);
        let across = correlation(of_classes(student_nkp.clone()), of_classes(teacher_nkp.clone()), 1);
        let intra = apart(mean_all(across), self.intra);
        if classes == 1 {
            return intra;
        }
        let seen_n1p = teacher_nkp.clone().max_dim(1);
        intra + apart(weighted_mean(correlation(student_nkp, teacher_nkp, 1), seen_n1p), self.inter)
    }

    fn check(&self, found: &mut Found) {
        check_weight("inter", self.inter, found);
        check_weight("intra", self.intra, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_term, of_part};
    use crate::testing::{labelled, map, values};

    fn value(term: &Dist, student: &Tensor<4>, teacher: &Tensor<4>) -> Tensor<1> {
        of_part(("dist", term), Part::ClassLogits, student, teacher, &labelled(&[]))
    }

    fn odds(p: f32) -> f32 {
        (p / (1.0 - p)).ln()
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("dist", Part::ClassLogits, &Dist::default());
    }

    #[test]
    fn two_places_by_hand() {
        // Classes are in the same order at the first place, where the teacher says 3/4 at most, in the other at the second,
        // where it says 1/4; both sides rise over the places for the first class, and fall for the second, apart in the last.
        let student = map([1, 2, 1, 2], |i| odds([0.5, 0.6, 0.25, 0.1][i]));
        let teacher = map([1, 2, 1, 2], |i| odds([0.75, 0.2, 0.2, 0.25][i]));
        let inter = Dist { intra: 0.0, ..Dist::default() };
        let found = values(value(&inter, &student, &teacher))[0];
        assert!((found - (1.0 - (0.75 - 0.25))).abs() < 1e-5, "{found}");
        let intra = Dist { inter: 0.0, ..Dist::default() };
        let found = values(value(&intra, &student, &teacher))[0];
        assert!((found - 2.0).abs() < 1e-5, "{found}");
    }

    #[test]
    fn a_single_class_is_compared_over_places_alone() {
        let student = map([1, 1, 1, 3], |i| i as f32);
        let found = values(value(&Dist::default(), &student, &student))[0];
        assert!(found.abs() < 1e-6, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, _| value(&Dist::default(), student, teacher),
            dims: [2, 3, 4, 4],
            rate: 20.0,
            needs_boxes: false,
        });
    }
}
