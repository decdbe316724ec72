//! `mean_teacher`: consistency with the moving average of the student.

use burn::tensor::Tensor;
use mentor_distill::{Column, Needs, Shared, Stream, Term};
use mentor_ops::{log_softmax, softmax};
use mentor_types::{Found, check_probability};
use mentor_unlabeled::confident;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{mean_over_free, strong_logits_at};
use crate::context::Context;
use crate::task::Seg;
use crate::views::{Origin, Pseudo};
use mentor_unlabeled::Teaching;

/// `[unlabelled.mean_teacher]`: the student's probabilities on the strong view follow those of its
/// moving average on the weak view. Needs an `[ema]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MeanTeacher {
    /// Factor of the term. Default 100, which suits `mse`; `cross_entropy` wants about 1.
    pub weight: f64,
    /// How probabilities are compared: `"mse"` (default) or `"cross_entropy"`.
    pub loss: Consistency,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
    /// Pixels whose highest probability at the teacher is lower than this add nothing. Default: all add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f64>,
}

/// How the student's probabilities `p` of one pixel are compared with the teacher's `q`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// `1/k sum_c (p_c - q_c)^2`.
    #[default]
    Mse,
    /// `-sum_c q_c log p_c`.
    CrossEntropy,
}

impl Default for MeanTeacher {
    fn default() -> Self {
        Self { weight: 100.0, loss: Consistency::Mse, ramp_steps: 0, min_confidence: None }
    }
}

impl Term<Seg> for MeanTeacher {
    fn source(&self) -> &'static str {
        "Tarvainen & Valpola 2017, arXiv 1703.01780"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Unlabelled], at: &[] }
    }

    fn needs(&self) -> Needs {
        Needs { average: true, ..Needs::default() }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let views = context.views();
        self.loss(views.origin(), views.weak_probabilities(Teaching::Ema), context.student.logits.clone())
    }

    fn pseudo(&self, context: &Context<'_>) -> Option<Pseudo> {
        let labels = context.views().pseudo_labels(Teaching::Ema).clone();
        Some(Pseudo { labels, threshold: self.min_confidence.unwrap_or(0.0) })
    }

    fn check(&self, found: &mut Found) {
        if let Some(least) = self.min_confidence {
            check_probability("min_confidence", least, found);
        }
    }
}

impl MeanTeacher {
    /// The mean distance of the student's probabilities on the strong view from the teacher's on the
    /// weak one.
    ///
    /// `1/|F| sum_{i in F} d(p_i, q_i)` over the free pixels `F`, with `p` the student's softmax, `q`
    /// the teacher's probabilities of the same spot, and `d` a [`Consistency`]; with `min_confidence`
    /// pixels with `max_c q_ic < min_confidence` add 0.
    ///
    /// # Shapes
    /// `weak_probabilities_nkhw` `[n, k, h, w]` of the size of the views; `strong_logits_nkhw`
    /// `[n, k, h', w']`, upsampled to that size in 32 bits (bilinear, corners not aligned). One element.
    ///
    /// # Units and ranges
    /// `mse` lies between 0 and `2 / k`; `cross_entropy` is in nats and at least the teacher's entropy.
    ///
    /// # Reduction
    /// Over the free pixels of the batch (see [`Origin::free_nhw`]), those below `min_confidence`
    /// included; with no free pixel it is a finite zero with a zero gradient.
    ///
    /// # Gradient
    /// Reaches the strong logits only.
    ///
    /// # Panics
    /// If the weak probabilities are of another size than the views, or the numbers of images or
    /// classes differ.
    ///
    /// # Source
    /// Tarvainen & Valpola, *Mean teachers are better role models* (arXiv 1703.01780), section 2
    /// (`unchecked`); its official code for the squared difference over the number of classes, the
    /// weight 100 and the ramp.
    ///
    /// # Differs
    /// Pixels take the place of images. `cross_entropy` and `min_confidence` are not in the paper.
    #[must_use]
    pub fn loss(
        &self,
        origin: &Origin,
        weak_probabilities_nkhw: Tensor<4>,
        strong_logits_nkhw: Tensor<4>,
    ) -> Tensor<1> {
        let q_nkhw = origin.carry(weak_probabilities_nkhw.inner());
        let strong_nkhw = strong_logits_at(strong_logits_nkhw, origin.view_size());
        let (strong, weak) = (strong_nkhw.dims(), q_nkhw.dims());
        assert_eq!(strong, weak, "strong logits {strong:?} for weak probabilities {weak:?}");
        let free_nhw = origin.free_nhw.clone();
        let counted_nhw = match self.min_confidence {
            None => free_nhw.clone(),
            Some(least) => confident(q_nkhw.clone().max_dim(1).squeeze_dim(1), least) * free_nhw.clone(),
        };
        let distance_n1hw = match self.loss {
            Consistency::Mse => {
                let difference = softmax(strong_nkhw, 1) - q_nkhw;
                (difference.clone() * difference).mean_dim(1)
            }
            Consistency::CrossEntropy => (log_softmax(strong_nkhw, 1) * q_nkhw).sum_dim(1).neg(),
        };
        mean_over_free(distance_n1hw.squeeze_dim(1), counted_nhw, free_nhw)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Consistency, MeanTeacher};
    use crate::views::testing::*;
    use crate::views::{Origin, weak_probabilities};
    use burn::tensor::activation::softmax;
    use burn::tensor::{Device, Tensor};
    use mentor_types::{IGNORE, UNKNOWN};

    const LOSSES: [Consistency; 2] = [Consistency::Mse, Consistency::CrossEntropy];

    fn term(loss: Consistency, min_confidence: Option<f64>) -> MeanTeacher {
        MeanTeacher { loss, min_confidence, ..MeanTeacher::default() }
    }

    #[test]
    fn values_and_gradients_agree_with_pytorch() {
        let golden = golden();
        let weak = weak_probabilities(map(&golden, "weak"), [7, 8]);
        for (name, term) in [
            ("mean_teacher_mse", term(Consistency::Mse, None)),
            ("mean_teacher_mse_confident", term(Consistency::Mse, Some(0.7))),
            ("mean_teacher_cross_entropy", term(Consistency::CrossEntropy, None)),
        ] {
            let strong = leaf(map(&golden, "strong"));
            let loss = term.loss(&golden_origin(&golden), weak.clone(), strong.clone());
            agrees(&golden, name, &strong, loss);
        }
    }

    #[test]
    fn one_pixel_by_hand() {
        // p = (0.5, 0.5), q = (0.9, 0.1).
        let weak = Tensor::<4>::from_data([[[[0.9f32]], [[0.1]]]], &Device::flex());
        let strong = Tensor::<4>::zeros([1, 2, 1, 1], &Device::flex());
        for (loss, expected) in LOSSES.into_iter().zip([0.16f32, std::f32::consts::LN_2]) {
            let value = values(term(loss, None).loss(&identity([1, 1, 1]), weak.clone(), strong.clone()))[0];
            assert!((value - expected).abs() < 1e-6, "{loss:?}: {value}");
        }
    }

    #[test]
    fn a_student_that_agrees_with_its_teacher_has_no_loss_and_no_gradient() {
        let logits = map(&golden(), "strong");
        let strong = leaf(logits.clone());
        let weak = weak_probabilities(logits, [7, 8]);
        let loss = term(Consistency::Mse, None).loss(&identity([2, 7, 8]), weak, strong.clone());
        assert!(gradient(&strong, &loss).iter().all(|g| g.abs() < 1e-9));
        assert!(values(loss)[0] < 1e-12);
    }

    #[test]
    fn pixels_without_origin_and_labelled_or_ignored_ones_count_nowhere() {
        // Only the first pixel is free: the others show nothing, a labelled pixel and an ignored one.
        let origin = Origin::new(
            ints(&[1, -1, 0, 2], [1, 1, 4]),
            ints(&[3, UNKNOWN.into(), IGNORE.into(), UNKNOWN.into()], [1, 1, 4]),
        );
        let weak = Tensor::<4>::from_data([[[[0.1f32, 0.9, 0.1, 0.1]], [[0.9, 0.1, 0.9, 0.9]]]], &Device::flex());
        for (loss, expected) in LOSSES.into_iter().zip([0.16f32, std::f32::consts::LN_2]) {
            let strong = leaf(Tensor::zeros([1, 2, 1, 4], &Device::flex()));
            let value = term(loss, None).loss(&origin, weak.clone(), strong.clone());
            let gradient = gradient(&strong, &value);
            for (pixel, g) in gradient.iter().enumerate() {
                assert_eq!(*g != 0.0, pixel % 4 == 0, "{loss:?}: {gradient:?}");
            }
            assert!((values(value)[0] - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn without_a_free_pixel_it_is_a_finite_zero_with_a_gradient() {
        let origin = Origin::new(ints(&[-1; 6], [1, 2, 3]), ints(&[UNKNOWN.into(); 6], [1, 2, 3]));
        let weak = Tensor::<4>::full([1, 3, 2, 3], 1.0 / 3.0, &Device::flex());
        for (loss, least) in LOSSES.into_iter().zip([Some(0.5), None]) {
            let strong = leaf(Tensor::ones([1, 3, 2, 3], &Device::flex()));
            let value = term(loss, least).loss(&origin, weak.clone(), strong.clone());
            assert_eq!(gradient(&strong, &value), [0.0; 18]);
            assert_eq!(values(value), [0.0]);
        }
    }

    #[test]
    fn no_gradient_reaches_the_teacher() {
        let golden = golden();
        let (weak, strong) = (leaf(map(&golden, "weak")), leaf(map(&golden, "strong")));
        for loss in LOSSES {
            let probabilities = softmax(weak.clone(), 1);
            let value = term(loss, Some(0.5)).loss(&golden_origin(&golden), probabilities, strong.clone());
            let grads = value.backward();
            assert!(weak.grad(&grads).is_none() && strong.grad(&grads).is_some());
        }
    }

    #[test]
    fn the_batch_repeated_twice_keeps_the_mean() {
        let golden = golden();
        let twice = |x: Tensor<4>| Tensor::cat(vec![x.clone(), x], 0);
        let (weak, strong) = (weak_probabilities(map(&golden, "weak"), [7, 8]), map(&golden, "strong"));
        let (origin, target) = (labels(&golden, "origin"), labels(&golden, "weak_target"));
        let shown = origin.clone().greater_equal_elem(0).int();
        let second = origin.clone() + shown * 112;
        let both = Origin::new(Tensor::cat(vec![origin, second], 0), Tensor::cat(vec![target.clone(), target], 0));
        for loss in LOSSES {
            let term = term(loss, Some(0.7));
            let once = values(term.loss(&golden_origin(&golden), weak.clone(), strong.clone()))[0];
            let repeated = values(term.loss(&both, twice(weak.clone()), twice(strong.clone())))[0];
            assert!((once - repeated).abs() < 1e-6 * once, "{once} became {repeated}");
        }
    }

    #[test]
    fn alone_it_falls_by_half() {
        let golden = golden();
        let weak = weak_probabilities(map(&golden, "weak"), [7, 8]);
        let origin = golden_origin(&golden);
        let term = term(Consistency::Mse, None);
        falls_by_half(map(&golden, "strong"), 400.0, |strong| term.loss(&origin, weak.clone(), strong));
    }

    #[test]
    fn small_strong_logits_are_upsampled() {
        let weak = Tensor::<4>::full([1, 2, 4, 6], 0.5, &Device::flex());
        let strong = leaf(Tensor::ones([1, 2, 2, 3], &Device::flex()));
        let value = term(Consistency::CrossEntropy, None).loss(&identity([1, 4, 6]), weak, strong);
        assert!((values(value)[0] - std::f32::consts::LN_2).abs() < 1e-6);
    }
}
