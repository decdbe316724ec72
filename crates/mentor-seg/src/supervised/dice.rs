//! Soft Dice.

use burn::tensor::{Int, Tensor};
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::{mean_all, softmax, sum_all};
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::labels::Labels;
use crate::task::Seg;

/// Soft Dice: how little the regions of each class overlap.
///
/// `mean_k (1 - (2 sum_i p_ik t_ik + s) / max(sum_i p_ik + sum_i t_ik + s, 1e-7))` over the classes
/// `k`, with `p = softmax(logits)`, the labels `t` as 0 or 1, the pixels `i` of the whole batch and
/// `s = smooth`; with `squares` the sums below are those of `p^2` and `t^2`.
///
/// # Shapes
/// Logits `[n, k, h, w]`, labels `[n, h, w]`; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities; `smooth` is in pixels. The value is from 0 to 1.
///
/// # Reduction
/// Sums over all pixels of the batch that have a class, then the mean over all classes: a class
/// absent from the labels stays in the mean (see [`AbsentClass`]). With no valid pixel a zero with a
/// zero gradient.
///
/// # Gradient
/// Reaches the logits of pixels that have a class, through the softmax. With [`AbsentClass::Free`]
/// an absent class sends none.
///
/// # Panics
/// If logits and labels differ in shape.
///
/// # Source
/// Milletari et al. 2016, arXiv 1606.04797 (`unchecked`), for two classes and with squares. The
/// defaults are those of the package `segmentation_models_pytorch`, multiclass; UniMatch's medical
/// form is `squares = true`, `smooth = 1e-5`, `absent = "charged"`.
///
/// # Differs
/// From the paper by the classes. With `smooth` the value changes a little when the batch is
/// repeated, as it does in both official codes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dice {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Pixels added above and below the fraction. Default 0.
    pub smooth: f64,
    /// Whether the sums below the fraction are those of squares. Default false.
    pub squares: bool,
    /// What a class costs that no label of the batch has. Default "free".
    pub absent: AbsentClass,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

/// What a class adds to [`Dice`] when no label of the batch has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AbsentClass {
    /// 0.
    #[default]
    Free,
    /// What the formula gives: nearly 1 wherever the net sees the class at all.
    Charged,
}

impl Default for Dice {
    fn default() -> Self {
        Self { weight: 1.0, smooth: 0.0, squares: false, absent: AbsentClass::Free, ramp_steps: 0 }
    }
}

impl Term<Seg> for Dice {
    fn source(&self) -> &'static str {
        "Milletari et al. 2016, arXiv 1606.04797"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        self.loss(context.full_size_logits(), context.target())
    }

    fn check(&self, found: &mut Found) {
        if !self.smooth.is_finite() || self.smooth < 0.0 {
            found.push(("smooth".into(), format!("a number of pixels of at least 0, found {}", self.smooth)));
        }
    }
}

impl Dice {
    pub(crate) fn loss(&self, logits_nkhw: Tensor<4>, target_nhw: Tensor<3, Int>) -> Tensor<1> {
        let [n, classes, height, width] = logits_nkhw.dims();
        let found = target_nhw.dims();
        assert_eq!([n, height, width], found, "logits {:?} for labels {found:?}", logits_nkhw.dims());
        let labels = Labels::of(target_nhw, classes);
        let truth = labels.one_hot();
        let p = softmax(logits_nkhw, 1) * labels.mask_nhw.clone().unsqueeze_dim::<4>(1);

        let pixels = per_class(truth.clone());
        let overlap = per_class(p.clone() * truth);
        let area = per_class(if self.squares { p.clone() * p } else { p }) + pixels.clone();
        let score = overlap.mul_scalar(2.0).add_scalar(self.smooth) / area.add_scalar(self.smooth).clamp_min(1e-7);
        let counts = match self.absent {
            AbsentClass::Free => pixels.greater_scalar(0.0).float(),
            AbsentClass::Charged => pixels.ones_like(),
        };
        let any = sum_all(labels.mask_nhw).clamp_max(1.0);
        mean_all(score.neg().add_scalar(1.0) * counts) * any
    }
}

/// Sums over images and pixels, one dimension after the other: `[n, k, h, w]` to `[k]`.
fn per_class(x_nkhw: Tensor<4>) -> Tensor<1> {
    let classes = x_nkhw.dims()[1];
    x_nkhw.sum_dim(3).sum_dim(2).sum_dim(0).reshape([classes])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::testing::{self, Golden, close, leaf, target, values};

    fn medical() -> Dice {
        Dice { smooth: 1e-5, squares: true, absent: AbsentClass::Charged, ..Dice::default() }
    }

    #[test]
    fn agrees_with_pytorch_in_both_forms() {
        let golden = Golden::read();
        golden.assert_case("dice", "logits", |x, y| Dice::default().loss(x, y));
        golden.assert_case("dice_squares", "logits", |x, y| medical().loss(x, y));
    }

    #[test]
    fn two_pixels_by_hand() {
        // softmax gives (1/4, 3/4) at the first pixel, of class 1, and (1/2, 1/2) at the second, of class 0.
        let logits = || leaf(&[0.0, 1.0, 3f32.ln(), 1.0], [1, 2, 1, 2]);
        let labels = || target(&[1, 0], [1, 1, 2]);
        let sums = 1.0 - (2.0 * 0.5 / (0.75 + 1.0) + 2.0 * 0.75 / (1.25 + 1.0)) / 2.0;
        close(&values(&Dice::default().loss(logits(), labels())), &[sums], 1e-6);
        let squares = 1.0 - (2.0 * 0.5 / (0.3125 + 1.0) + 2.0 * 0.75 / (0.8125 + 1.0)) / 2.0;
        close(&values(&Dice { squares: true, ..Dice::default() }.loss(logits(), labels())), &[squares], 1e-6);
        let smooth = 1.0 - ((1.0 + 1.0) / (1.75 + 1.0) + (1.5 + 1.0) / (2.25 + 1.0)) / 2.0;
        close(&values(&Dice { smooth: 1.0, ..Dice::default() }.loss(logits(), labels())), &[smooth], 1e-6);
    }

    #[test]
    fn an_absent_class_is_free_or_charged_and_stays_in_the_mean() {
        // One sure pixel of class 0, and two classes that no label has.
        let logits = || leaf(&[9.0, 0.0, 0.0], [1, 3, 1, 1]);
        let value = |absent| values(&Dice { absent, ..Dice::default() }.loss(logits(), target(&[0], [1, 1, 1])))[0];
        let p = 1.0 / (1.0 + 2.0 * (-9f32).exp());
        let own = 1.0 - 2.0 * p / (p + 1.0);
        close(&[value(AbsentClass::Free)], &[own / 3.0], 1e-6);
        close(&[value(AbsentClass::Charged)], &[(own + 2.0) / 3.0], 1e-6);
    }

    #[test]
    fn keeps_the_rules_of_every_loss() {
        for part in [Dice::default(), medical(), Dice { absent: AbsentClass::Charged, ..Dice::default() }] {
            testing::keeps_the_rules(&|logits, target| part.loss(logits, target));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_training_halves_it() {
        for part in [Dice::default(), medical()] {
            testing::agrees_with_finite_differences(&|logits, target| part.loss(logits, target));
            testing::falls_by_half(&|logits, target| part.loss(logits, target));
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let mut problems = Vec::new();
        Dice { smooth: -1.0, ..Dice::default() }.check(&mut problems);
        let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["smooth"]);
    }
}
