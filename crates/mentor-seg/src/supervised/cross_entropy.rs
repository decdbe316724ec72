//! Cross-entropy per pixel.

use burn::tensor::{Int, Tensor};
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::{pixel_cross_entropy, sum_all};
use mentor_types::{Found, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Ohem;
use crate::class_weights;
use crate::context::Context;
use crate::labels::Labels;
use crate::task::Seg;

/// Cross-entropy of the net's class probabilities with the labels.
///
/// `sum_i w_(y_i) * (-log p_i,(y_i)) / sum_i w_(y_i)` over the pixels `i` that count, with
/// `p = softmax(logits)` and the class weights `w` (all 1 without them).
///
/// # Shapes
/// Logits `[n, k, h, w]`, labels `[n, h, w]`; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. The value is in nats, at least 0; `log k` for equal probabilities.
///
/// # Reduction
/// The weighted mean over all pixels of the batch that have a class; with [`Ohem`] over those that
/// it keeps. If there is none, a zero with a zero gradient.
///
/// # Gradient
/// Reaches the logits: `w_(y_i) * (p_i - onehot(y_i)) / sum w`. Pixels that do not count get none.
///
/// # Panics
/// If logits and labels differ in shape, or the number of class weights is not that of the classes.
///
/// # Source
/// The maximum likelihood of a categorical distribution; the weighted mean is that of `PyTorch`'s
/// `cross_entropy`, which gives not-a-number where no pixel counts.
///
/// # Differs
/// By the zero where no pixel counts. An unknown pixel is treated as an ignored one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CrossEntropy {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// One factor per class, at least 0, in the order of the card. Default all 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f64>>,
    /// Averages over hard pixels only. Default over all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ohem: Option<Ohem>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { weight: 1.0, class_weights: None, ohem: None, ramp_steps: 0 }
    }
}

impl Term<Seg> for CrossEntropy {
    fn source(&self) -> &'static str {
        "with class weights; with ohem: Shrivastava et al. 2016, arXiv 1604.03540"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        self.loss(context.full_size_logits(), context.target())
    }

    fn check(&self, found: &mut Found) {
        class_weights::check(self.class_weights.as_deref(), found);
        if let Some(ohem) = &self.ohem {
            check_probability("ohem.threshold", ohem.threshold, found);
        }
    }

    fn check_classes(&self, classes: usize, found: &mut Found) {
        class_weights::check_count(self.class_weights.as_deref(), classes, found);
    }
}

impl CrossEntropy {
    pub(crate) fn loss(&self, logits_nkhw: Tensor<4>, target_nhw: Tensor<3, Int>) -> Tensor<1> {
        let classes = logits_nkhw.dims()[1];
        let labels = Labels::of(target_nhw, classes);
        let weights = self.class_weights.as_ref();
        let weights = weights.map(|weights| class_weights::per_pixel(weights, classes, &labels.classes_nhw));
        let value_nhw = pixel_cross_entropy(logits_nkhw, labels.classes_nhw);
        let counts = match &self.ohem {
            Some(ohem) => ohem.keep(value_nhw.clone().inner().neg().exp(), labels.mask_nhw),
            None => labels.mask_nhw,
        };
        let counts = match weights {
            Some(weights) => counts * weights,
            None => counts,
        };
        // A small floor turns 0 / 0 into 0 and leaves every other quotient as it is.
        sum_all(value_nhw * counts.clone()) / sum_all(counts).clamp_min(1e-12)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::testing::{self, Golden, close, leaf, row, target, values};

    fn weighted(weights: &[f64]) -> CrossEntropy {
        CrossEntropy { class_weights: Some(weights.to_vec()), ..CrossEntropy::default() }
    }

    #[test]
    fn agrees_with_pytorch_with_and_without_class_weights() {
        let golden = Golden::read();
        golden.assert_case("cross_entropy", "logits", |x, y| CrossEntropy::default().loss(x, y));
        golden.assert_case("cross_entropy_weighted", "logits", |x, y| weighted(&[0.5, 2.0, 1.0, 0.25, 3.0]).loss(x, y));
    }

    #[test]
    fn two_pixels_by_hand() {
        // softmax gives (1/4, 3/4) at the first pixel and (1/2, 1/2) at the second.
        let logits = || leaf(&[0.0, 1.0, 3f32.ln(), 1.0], [1, 2, 1, 2]);
        let labels = || target(&[1, 0], [1, 1, 2]);
        let (first, second) = ((4.0f32 / 3.0).ln(), 2f32.ln());
        close(&values(&CrossEntropy::default().loss(logits(), labels())), &[(first + second) / 2.0], 1e-6);
        close(&values(&weighted(&[3.0, 1.0]).loss(logits(), labels())), &[(first + 3.0 * second) / 4.0], 1e-6);
        close(&values(&pixel_cross_entropy(logits(), labels())), &[first, second], 1e-6);
    }

    #[test]
    fn keeps_the_rules_of_every_loss() {
        let weights = weighted(&[0.5, 2.0, 1.0, 0.25, 3.0]);
        let mined = CrossEntropy { ohem: Some(Ohem { threshold: 0.4, min_kept: 0 }), ..CrossEntropy::default() };
        for part in [CrossEntropy::default(), weights, mined] {
            testing::keeps_the_rules(&|logits, target| part.loss(logits, target));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_training_halves_it() {
        for part in [CrossEntropy::default(), weighted(&[0.5, 2.0, 1.0])] {
            testing::agrees_with_finite_differences(&|logits, target| part.loss(logits, target));
            testing::falls_by_half(&|logits, target| part.loss(logits, target));
        }
        // Mining follows the hardest pixels, so only its course is tested: differences would cross its threshold.
        let mined = CrossEntropy { ohem: Some(Ohem { threshold: 0.7, min_kept: 4 }), ..CrossEntropy::default() };
        testing::falls_by_half(&|logits, target| mined.loss(logits, target));
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let logits = leaf(&[1e4, -1e4], [1, 2, 1, 1]);
        let value = CrossEntropy::default().loss(logits.clone(), target(&[1], [1, 1, 1]));
        assert_eq!(values(&value), [2e4]);
        assert_eq!(values(&logits.grad(&value.backward()).unwrap()), [1.0, -1.0]);
    }

    #[test]
    fn a_class_of_weight_zero_trains_nothing() {
        let logits = leaf(&[0.3, -0.2], [1, 2, 1, 1]);
        let value = weighted(&[1.0, 0.0]).loss(logits.clone(), target(&[1], [1, 1, 1]));
        assert_eq!(values(&value), [0.0]);
        assert_eq!(values(&logits.grad(&value.backward()).unwrap()), [0.0, 0.0]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let ohem = Some(Ohem { threshold: 1.5, min_kept: 0 });
        let part = CrossEntropy { class_weights: Some(vec![1.0, f64::NAN]), ohem, ..CrossEntropy::default() };
        let mut problems = Vec::new();
        part.check(&mut problems);
        weighted(&[0.0, 0.0]).check(&mut problems);
        let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["class_weights[1]", "ohem.threshold", "class_weights"]);
    }

    #[test]
    #[should_panic(expected = "for labels")]
    fn labels_of_another_size_are_refused() {
        let labels = Labels::of(target(&[0, 0], [1, 1, 2]), 1);
        let _ = pixel_cross_entropy(row(&[0.0]).unsqueeze_dim::<4>(1), labels.classes_nhw);
    }
}
