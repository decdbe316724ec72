//! `fixmatch`: hard pseudo-labels where the teacher is sure.

use burn::tensor::Tensor;
use mentor_distill::{Column, Needs, Shared, Stream, Term};
use mentor_ops::pixel_cross_entropy;
use mentor_types::{Found, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{mean_over_free, strong_logits_at};
use crate::class_weights;
use crate::context::Context;
use crate::task::Seg;
use crate::views::{Pseudo, PseudoLabels};
use mentor_unlabeled::Teaching;

/// `[unlabelled.fixmatch]`: the student learns on the strong view the most probable class of the weak
/// view, where that is probable enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FixMatch {
    /// Factor of the term. Default 1.
    pub weight: f64,
    /// Lowest probability, in `[0, 1]`, at which a pixel takes its pseudo-label. Default 0.95.
    pub threshold: f64,
    /// One factor per class, at least 0, in the order of the card, for the pixels whose pseudo-label it is. Default all 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f64>>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
    /// Who labels the weak view: `"student"` (default), or `"ema"`, its moving average, which needs an
    /// `[ema]`.
    pub teacher: Teaching,
}

impl Default for FixMatch {
    fn default() -> Self {
        Self { weight: 1.0, threshold: 0.95, class_weights: None, ramp_steps: 0, teacher: Teaching::default() }
    }
}

impl Term<Seg> for FixMatch {
    fn source(&self) -> &'static str {
        "Sohn et al. 2020, arXiv 2001.07685; with CutMix: French et al. 2020, arXiv 1906.01916"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Unlabelled], at: &[] }
    }

    fn needs(&self) -> Needs {
        Needs { average: self.teacher == Teaching::Ema, ..Needs::default() }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        self.loss(context.views().pseudo_labels(self.teacher), context.student.logits.clone())
    }

    fn pseudo(&self, context: &Context<'_>) -> Option<Pseudo> {
        let labels = context.views().pseudo_labels(self.teacher).clone();
        Some(Pseudo { labels, threshold: self.threshold })
    }

    fn check(&self, found: &mut Found) {
        check_probability("threshold", self.threshold, found);
        class_weights::check(self.class_weights.as_deref(), found);
    }

    fn check_classes(&self, classes: usize, found: &mut Found) {
        class_weights::check_count(self.class_weights.as_deref(), classes, found);
    }
}

impl FixMatch {
    /// The cross-entropy of the strong view with the pseudo-labels that are sure enough.
    ///
    /// `sum_{i in F} [c_i >= threshold] w_(y_i) (-log p_i,y_i) / sum_{i in F} w_(y_i)` over the free pixels `F`, with `y` the
    /// pseudo-label, `c` its probability at the teacher, `p` the student's softmax, and the class weights `w` (all 1 without
    /// them).
    ///
    /// # Shapes
    /// `pseudo` `[n, h, w]`; `strong_logits_nkhw` `[n, k, h', w']`, upsampled to `h` x `w` in 32 bits
    /// (bilinear, corners not aligned). One element.
    ///
    /// # Units and ranges
    /// Nats, at least 0. Pseudo-labels are classes below `k`.
    ///
    /// # Reduction
    /// Over the free pixels of the batch (see [`Origin::free_nhw`](crate::views::Origin::free_nhw)), sure or not:
    /// while the teacher is unsure, the term is small. With no free pixel it is a finite zero with a zero
    /// gradient.
    ///
    /// # Gradient
    /// Reaches the strong logits of accepted pixels only.
    ///
    /// # Panics
    /// If the numbers of images differ.
    ///
    /// # Source
    /// Sohn et al., *FixMatch* (arXiv 2001.07685), equation 4 (`unchecked`), per pixel as in the official
    /// code of UniMatch (Yang et al., arXiv 2208.09910), which divides by the pixels that are not ignored;
    /// its threshold is 0.95 for Pascal VOC and 0 for Cityscapes.
    ///
    /// # Differs
    /// Pixels that carry a label take no pseudo-label; a ramp is possible.
    #[must_use]
    pub fn loss(&self, pseudo: &PseudoLabels, strong_logits_nkhw: Tensor<4>) -> Tensor<1> {
        let [images, height, width] = pseudo.classes_nhw.dims();
        let strong = strong_logits_nkhw.dims();
        assert_eq!(strong[0], images, "strong logits {strong:?} for pseudo-labels {:?}", pseudo.classes_nhw.dims());
        let logits_nkhw = strong_logits_at(strong_logits_nkhw, [height, width]);
        let value_nhw = pixel_cross_entropy(logits_nkhw, pseudo.classes_nhw.clone());
        let (accepted_nhw, free_nhw) = (pseudo.accepted(self.threshold), pseudo.free_nhw.clone());
        match &self.class_weights {
            Some(weights) => {
                let weights_nhw = class_weights::per_pixel(weights, strong[1], &pseudo.classes_nhw);
                mean_over_free(value_nhw, accepted_nhw * weights_nhw.clone(), free_nhw * weights_nhw)
            }
            None => mean_over_free(value_nhw, accepted_nhw, free_nhw),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::views::testing::*;
    use crate::views::{Origin, weak_probabilities};
    use burn::tensor::Device;
    use burn::tensor::activation::softmax;
    use mentor_types::{IGNORE, UNKNOWN};

    fn at(threshold: f64) -> FixMatch {
        FixMatch { threshold, ..FixMatch::default() }
    }

    #[test]
    fn value_and_gradient_agree_with_pytorch() {
        let golden = golden();
        let pseudo = PseudoLabels::new(weak_probabilities(map(&golden, "weak"), [7, 8]), &golden_origin(&golden));
        let strong = leaf(map(&golden, "strong"));
        let loss = at(0.7).loss(&pseudo, strong.clone());
        agrees(&golden, "fixmatch", &strong, loss);
    }

    #[test]
    fn a_class_weight_counts_pixels_above_and_below_the_line() {
        // Pseudo-labels 0, 0 and 1, of which the second is unsure; the student says log 2 of each.
        let weak = Tensor::<4>::from_data([[[[0.96f32, 0.6, 0.01]], [[0.04, 0.4, 0.99]]]], &Device::flex());
        let pseudo = PseudoLabels::new(weak, &identity([1, 1, 3]));
        let strong = leaf(Tensor::zeros([1, 2, 1, 3], &Device::flex()));
        let term = FixMatch { class_weights: Some(vec![1.0, 3.0]), ..FixMatch::default() };
        let loss = values(term.loss(&pseudo, strong))[0];
        assert!((loss - std::f32::consts::LN_2 * (1.0 + 3.0) / (1.0 + 1.0 + 3.0)).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn unsure_pixels_add_nothing_but_are_averaged_over() {
        // Four free pixels of which one is sure: a quarter of log 2.
        let weak = Tensor::<4>::from_data([[[[0.96f32, 0.94, 0.5, 0.1]], [[0.04, 0.06, 0.5, 0.9]]]], &Device::flex());
        let pseudo = PseudoLabels::new(weak, &identity([1, 1, 4]));
        let strong = leaf(Tensor::zeros([1, 2, 1, 4], &Device::flex()));
        let loss = FixMatch::default().loss(&pseudo, strong.clone());
        assert_eq!(gradient(&strong, &loss), [-0.125, 0.0, 0.0, 0.0, 0.125, 0.0, 0.0, 0.0]);
        assert!((values(loss)[0] - std::f32::consts::LN_2 / 4.0).abs() < 1e-6);
    }

    #[test]
    fn pixels_without_origin_and_labelled_or_ignored_ones_count_nowhere() {
        let origin = Origin::new(
            ints(&[1, -1, 0, 2], [1, 1, 4]),
            ints(&[3, UNKNOWN.into(), IGNORE.into(), UNKNOWN.into()], [1, 1, 4]),
        );
        let weak = Tensor::<4>::from_data([[[[0.1f32, 0.9, 0.1, 0.1]], [[0.9, 0.1, 0.9, 0.9]]]], &Device::flex());
        let strong = leaf(Tensor::zeros([1, 2, 1, 4], &Device::flex()));
        let loss = at(0.8).loss(&PseudoLabels::new(weak, &origin), strong.clone());
        assert_eq!(gradient(&strong, &loss), [-0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        assert!((values(loss)[0] - std::f32::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn without_a_free_pixel_it_is_a_finite_zero_with_a_gradient() {
        let origin = Origin::new(ints(&[-1; 6], [1, 2, 3]), ints(&[UNKNOWN.into(); 6], [1, 2, 3]));
        let pseudo = PseudoLabels::new(Tensor::full([1, 3, 2, 3], 1.0 / 3.0, &Device::flex()), &origin);
        let strong = leaf(Tensor::ones([1, 3, 2, 3], &Device::flex()));
        let loss = at(0.0).loss(&pseudo, strong.clone());
        assert_eq!(gradient(&strong, &loss), [0.0; 18]);
        assert_eq!(values(loss), [0.0]);
    }

    #[test]
    fn a_pseudo_label_carries_no_gradient() {
        let golden = golden();
        let (weak, strong) = (leaf(map(&golden, "weak")), leaf(map(&golden, "strong")));
        let pseudo = PseudoLabels::new(softmax(weak.clone(), 1), &golden_origin(&golden));
        assert!(!pseudo.confidence_nhw.is_tracked());
        let grads = at(0.5).loss(&pseudo, strong.clone()).backward();
        assert!(weak.grad(&grads).is_none() && strong.grad(&grads).is_some());
    }

    #[test]
    fn the_batch_repeated_twice_keeps_the_mean() {
        let golden = golden();
        let pseudo = PseudoLabels::new(weak_probabilities(map(&golden, "weak"), [7, 8]), &golden_origin(&golden));
        let strong = map(&golden, "strong");
        let twice = PseudoLabels {
            classes_nhw: pseudo.classes_nhw.clone().repeat_dim(0, 2),
            confidence_nhw: pseudo.confidence_nhw.clone().repeat_dim(0, 2),
            free_nhw: pseudo.free_nhw.clone().repeat_dim(0, 2),
        };
        let once = values(at(0.7).loss(&pseudo, strong.clone()))[0];
        let repeated = values(at(0.7).loss(&twice, strong.repeat_dim(0, 2)))[0];
        assert!((once - repeated).abs() < 1e-6 * once, "{once} became {repeated}");
    }

    #[test]
    fn alone_it_falls_by_half() {
        let golden = golden();
        let pseudo = PseudoLabels::new(weak_probabilities(map(&golden, "weak"), [7, 8]), &golden_origin(&golden));
        falls_by_half(map(&golden, "strong"), 20.0, |strong| at(0.7).loss(&pseudo, strong));
    }

    #[test]
    fn small_strong_logits_are_upsampled() {
        let pseudo = PseudoLabels::new(Tensor::full([1, 2, 4, 6], 0.5, &Device::flex()), &identity([1, 4, 6]));
        let loss = at(0.5).loss(&pseudo, leaf(Tensor::ones([1, 2, 2, 3], &Device::flex())));
        assert!((values(loss)[0] - std::f32::consts::LN_2).abs() < 1e-6);
    }
}
