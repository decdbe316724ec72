//! `[distill.pixel_wise]`: every pixel's class probabilities.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term, kl_divergence, soft_cross_entropy, weighted_mean};
use mentor_ops::{mean_all, softmax};
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::class_weights;
use crate::context::Context;
use crate::task::Seg;

/// Pulls the student's class probabilities at every pixel towards the teacher's.
///
/// `T^2 * mean_i KL(softmax(z^T_i / T) || softmax(z^S_i / T))` over the pixels `i` that count; with class weights `w` the mean
/// is weighted by `sum_c p_i,c w_c` with `p = softmax(z^T)`, the weight to be expected of the pixel's class.
///
/// # Shapes
/// Logits `[n, k, h, w]` of both, at the resolution of the student's head.
///
/// # Units and ranges
/// Logits in, nats out; not negative. With `soft_cross_entropy` the teacher's entropy is part of the
/// value.
///
/// # Reduction
/// Mean over the counted pixels of the batch. A pixel whose label is ignored does not count (labels
/// are resized to the logits by nearest neighbour); an unknown one does. With no pixel that counts
/// the value is a finite zero with a zero gradient.
///
/// # Gradient
/// Reaches the student's logits only.
///
/// # Panics
/// If the two have different numbers of classes, or the number of class weights is another.
///
/// # Source
/// Liu et al. 2019, arXiv 1903.04197, equation 1; Hinton et al. 2015, arXiv 1503.02531. Official
/// defaults: weight 10, temperature 1, soft cross-entropy.
///
/// # Differs
/// The official code of Liu et al. divides by `h * w` and not by the number of images, so its value
/// grows with the batch, takes the cross-entropy, and knows no ignored pixel; ours is the mean, of
/// the divergence by default, which has the same gradient. A teacher with logits of another size is
/// resized bilinearly to the student's. Class weights are ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PixelWise {
    /// Factor in the loss. Default 10.
    pub weight: f64,
    /// Softens the probabilities of both sides; above 0. Default 1.
    pub temperature: f64,
    /// One factor per class, at least 0, in the order of the card, for pixels of which the teacher says it. Default all 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f64>>,
    /// What is minimised. Default `"kl"`.
    pub form: Form,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

/// How two distributions over the classes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The Kullback-Leibler divergence: zero where both agree.
    Kl,
    /// The cross-entropy under the teacher's probabilities: the divergence plus a constant.
    SoftCrossEntropy,
}

impl Default for PixelWise {
    fn default() -> Self {
        Self {
            weight: 10.0,
            temperature: 1.0,
            class_weights: None,
            form: Form::Kl,
            on: vec![Stream::Labelled],
            ramp_steps: 0,
        }
    }
}

impl Term<Seg> for PixelWise {
    fn source(&self) -> &'static str {
        "Liu et al. 2019, arXiv 1903.04197, eq. 1"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let student_nkhw = context.student.logits.clone();
        let [_, _, height, width] = student_nkhw.dims();
        let formula = match self.form {
            Form::Kl => kl_divergence::<4>,
            Form::SoftCrossEntropy => soft_cross_entropy::<4>,
        };
        let teacher_nkhw = context.teacher_logits();
        let weights = self.class_weights.as_ref();
        let weights_n1hw = weights.map(|weights| class_weights::expected(weights, softmax(teacher_nkhw.clone(), 1)));
        let each_n1hw = formula(student_nkhw, teacher_nkhw, 1, self.temperature);
        let mean = match (context.counted([height, width]), weights_n1hw) {
            (Some(counted_n1hw), Some(weights_n1hw)) => weighted_mean(each_n1hw, counted_n1hw * weights_n1hw),
            (Some(counts_n1hw), None) | (None, Some(counts_n1hw)) => weighted_mean(each_n1hw, counts_n1hw),
            (None, None) => mean_all(each_n1hw),
        };
        mean.mul_scalar(self.temperature * self.temperature)
    }

    fn check(&self, found: &mut Found) {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            found.push(("temperature".to_owned(), format!("must be above 0, found {}", self.temperature)));
        }
        class_weights::check(self.class_weights.as_deref(), found);
    }

    fn check_classes(&self, classes: usize, found: &mut Found) {
        class_weights::check_count(self.class_weights.as_deref(), classes, found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, agrees, check_term, column, golden, map, output, target, values, with_context};

    fn value(term: &PixelWise, student: &Tensor<4>, teacher: &Tensor<4>, labels: Option<&[i64]>) -> Tensor<1> {
        let [n, _, height, width] = student.dims();
        let target = labels.map(|labels| target([n, 2 * height, 2 * width], labels));
        let student = output(student.clone(), None);
        let teacher = output(teacher.clone(), None);
        with_context(&student, &teacher, target.as_ref(), |context| term.value(&context, &column("pixel_wise", term)))
    }

    #[test]
    fn two_pixels_by_hand() {
        // One pixel agrees, the other has the teacher at (3/4, 1/4) and the student at (1/2, 1/2).
        let student = map([1, 2, 1, 2], |_| 0.0);
        let teacher = map([1, 2, 1, 2], |i| if i == 1 { 3.0f32.ln() } else { 0.0 });
        let divergence = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
        let found = values(value(&PixelWise::default(), &student, &teacher, None))[0];
        assert!((found - divergence / 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_pixel_counts_by_the_class_that_the_teacher_says() {
        // As above, beside a pixel of which the teacher is sure that it is class 1, where the student is unsure.
        let student = map([1, 2, 1, 2], |_| 0.0);
        let teacher = map([1, 2, 1, 2], |i| [0.0, 3.0f32.ln(), 100.0, 0.0][i]);
        let divergences = [2.0f32.ln(), 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln()];
        let weights = [5.0, 0.75 * 1.0 + 0.25 * 5.0];
        let expected = (weights[0] * divergences[0] + weights[1] * divergences[1]) / (weights[0] + weights[1]);
        let term = PixelWise { class_weights: Some(vec![1.0, 5.0]), ..PixelWise::default() };
        let found = values(value(&term, &student, &teacher, None))[0];
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        // Of two pixels that do not count the one is left.
        let found = values(value(&term, &student, &teacher, Some(&[255, 255, 0, 0, 255, 255, 0, 0])))[0];
        assert!((found - divergences[1]).abs() < 1e-6, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        for form in [Form::Kl, Form::SoftCrossEntropy] {
            for (temperature, class_weights) in [(1.0, None), (4.0, None), (1.0, Some(vec![1.0, 0.5, 3.0]))] {
                let term = PixelWise { form, temperature, class_weights, ..PixelWise::default() };
                // The teacher is sure, so that its own entropy leaves room to halve the cross-entropy.
                check_term(&Case {
                    value: &|student, teacher, labels| value(&term, student, teacher, labels),
                    student: map([2, 3, 4, 6], |i| ((i * 37) % 11) as f32 / 3.0 - 1.5),
                    teacher: map([2, 3, 4, 6], |i| if (i / 24) % 3 == (i * 7) % 3 { 12.0 } else { -12.0 }),
                    zero_at_equality: form == Form::Kl,
                    rate: 20.0,
                });
            }
        }
    }

    #[test]
    fn it_agrees_with_pytorch_with_ignored_and_unknown_pixels() {
        let golden = golden();
        let read = |name: &str| {
            let (shape, values) = golden[name].clone();
            map(shape.try_into().unwrap(), |i| values[i])
        };
        let labels: Vec<i64> = golden["pixel.target"].1.iter().map(|label| *label as i64).collect();
        let student = Tensor::from_inner(read("pixel.student")).require_grad();
        let term = PixelWise { temperature: 2.0, ..PixelWise::default() };
        let loss = value(&term, &student, &read("pixel.teacher"), Some(&labels));
        agrees(&golden, "pixel.masked", &student, loss);
    }

    #[test]
    fn a_larger_teacher_is_averaged_down_to_the_student() {
        let student = map([1, 2, 2, 3], |i| i as f32);
        // Every pixel of the student four times, so the average is the pixel itself.
        let teacher = map([1, 2, 4, 6], |i| {
            let (class, row, column) = (i / 24, i / 6 % 4, i % 6);
            (class * 6 + row / 2 * 3 + column / 2) as f32
        });
        assert!(values(value(&PixelWise::default(), &student, &teacher, None))[0].abs() < 1e-6);
    }
}
