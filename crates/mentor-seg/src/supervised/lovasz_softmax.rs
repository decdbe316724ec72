//! Lovasz-softmax.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::{softmax, sum_all};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::labels::Labels;
use crate::task::Seg;

/// Lovasz-softmax: the convex extension of one minus the Jaccard index, per class.
///
/// `mean_k sum_i m_(i) (J_i - J_(i-1))` over the classes `k`: `m` are the errors
/// `|t_ik - p_ik|` in falling order, `t` the labels as 0 or 1, `p = softmax(logits)`, and `J_i` the
/// Jaccard loss of a prediction that is wrong at just the first `i` pixels of that order.
///
/// # Shapes
/// Logits `[n, k, h, w]`, labels `[n, h, w]`; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities. The value is from 0 to 1.
///
/// # Reduction
/// Over all pixels of the batch that have a class at once, then the mean over the classes that
/// [`LovaszClasses`] names; with `per_image` this for each image, then the mean over the images that
/// have such a class. With no valid pixel a zero with a zero gradient.
///
/// # Gradient
/// Reaches the logits of pixels that have a class, through the errors; the order and the steps of
/// `J` are constants, which is the gradient of the extension wherever no two errors are equal.
///
/// # Panics
/// If logits and labels differ in shape.
///
/// # Source
/// Berman et al. 2018, arXiv 1705.08790, algorithm 1 (`unchecked`; by the official code, whose
/// defaults these are).
///
/// # Differs
/// The steps of `J` are computed as fractions, not as differences of rounded numbers near 1. An
/// image without a valid pixel is left out. Sorting runs on the host on a CUDA device: the errors
/// are read back once per step, which waits for the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LovaszSoftmax {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// The classes of the mean. Default "present".
    pub classes: LovaszClasses,
    /// Whether each image is judged on its own. Default false: the batch as one.
    pub per_image: bool,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

/// The classes that [`LovaszSoftmax`] is averaged over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LovaszClasses {
    /// Those that a label has.
    #[default]
    Present,
    /// All; one that no label has costs its greatest probability.
    All,
}

impl Default for LovaszSoftmax {
    fn default() -> Self {
        Self { weight: 1.0, classes: LovaszClasses::Present, per_image: false, ramp_steps: 0 }
    }
}

impl Term<Seg> for LovaszSoftmax {
    fn source(&self) -> &'static str {
        "Berman et al. 2018, arXiv 1705.08790"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        self.loss(context.full_size_logits(), context.target())
    }
}

impl LovaszSoftmax {
    pub(crate) fn loss(&self, logits_nkhw: Tensor<4>, target_nhw: Tensor<3, Int>) -> Tensor<1> {
        let [n, classes, height, width] = logits_nkhw.dims();
        let found = target_nhw.dims();
        assert_eq!([n, height, width], found, "logits {:?} for labels {found:?}", logits_nkhw.dims());
        let groups = if self.per_image { n } else { 1 };
        // One row per group and class, one column per pixel.
        let rows = |x_nkhw: Tensor<4>| -> Tensor<2> {
            if self.per_image {
                x_nkhw.reshape([n * classes, height * width])
            } else {
                x_nkhw.swap_dims(0, 1).reshape([classes, n * height * width])
            }
        };
        let labels = Labels::of(target_nhw, classes);
        let truth = rows(labels.one_hot());
        let mask = rows(labels.mask_nhw.unsqueeze_dim::<4>(1).expand([n, classes, height, width]));
        let errors = (truth.clone() - rows(softmax(logits_nkhw, 1))).abs() * mask.clone();

        let steps = steps(errors.clone().inner(), truth.clone(), mask.clone());
        let loss = (errors * steps).sum_dim(1).reshape([groups, classes]);
        let counts = match self.classes {
            LovaszClasses::Present => truth,
            LovaszClasses::All => mask,
        };
        let counts = counts.sum_dim(1).clamp_max(1.0).reshape([groups, classes]);
        let per_group = counts.clone().sum_dim(1);
        let group_counts = per_group.clone().clamp_max(1.0);
        let mean = (loss * counts).sum_dim(1) / per_group.clamp_min(1.0);
        sum_all(mean) / sum_all(group_counts).clamp_min(1.0)
    }
}

/// By how much each pixel's error raises the Jaccard loss of its row, in the order of the pixels.
///
/// With `I` labelled pixels still right and a union `U` after a pixel, the step is `1 / U` if the
/// class is its label, else `I / (U (U - 1))`. A first wrong pixel of an absent class makes it 1.
fn steps(errors: Tensor<2>, truth: Tensor<2>, mask: Tensor<2>) -> Tensor<2> {
    // Pixels without a class come last, behind valid ones without an error.
    let order = (errors - mask.clone().neg().add_scalar(1.0)).argsort_descending(1);
    let total = truth.clone().sum_dim(1);
    let inside = truth.gather(1, order.clone());
    let outside = mask.gather(1, order.clone()) - inside.clone();
    let right = total.clone() - inside.clone().cumsum(1);
    let union = total + outside.clone().cumsum(1);
    let before = union.clone().sub_scalar(1.0);
    let first = before.clone().lower_equal_scalar(0.0).float();
    let union = union.clamp_min(1.0);
    let missed = inside / union.clone();
    let extra = outside * (right / (union * before.clamp_min(1.0)) + first);
    // Every pixel has one place, so what is added is added to a zero.
    let steps = missed + extra;
    steps.zeros_like().scatter(1, order, steps, IndexingUpdateOp::Add)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::testing::{self, Golden, close, leaf, row, target, values};

    fn form(classes: LovaszClasses, per_image: bool) -> LovaszSoftmax {
        LovaszSoftmax { classes, per_image, ..LovaszSoftmax::default() }
    }

    #[test]
    fn agrees_with_pytorch_over_the_batch_and_per_image() {
        let golden = Golden::read();
        golden.assert_case("lovasz", "logits", |x, y| LovaszSoftmax::default().loss(x, y));
        golden.assert_case("lovasz_per_image", "logits", |x, y| form(LovaszClasses::Present, true).loss(x, y));
    }

    #[test]
    fn steps_by_hand() {
        let flat = |x: &[f32]| row(x).reshape([1, x.len()]);
        // In falling order: a miss of two labelled pixels (1/2), an extra pixel (1/2 to 2/3), a miss (to 1).
        let found = steps(flat(&[0.6, 0.9, 0.2, 0.0]), flat(&[0.0, 1.0, 1.0, 0.0]), flat(&[1.0, 1.0, 1.0, 0.0]));
        close(&values(&found), &[1.0 / 6.0, 0.5, 1.0 / 3.0, 0.0], 1e-6);
        // An absent class: all of it at the greatest error.
        let found = steps(flat(&[0.3, 0.7, 0.0]), flat(&[0.0; 3]), flat(&[1.0, 1.0, 0.0]));
        assert_eq!(values(&found), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn an_absent_class_counts_only_among_all() {
        // softmax gives (1/4, 3/4) and (1/2, 1/2); both pixels are of class 1.
        let logits = || leaf(&[0.0, 1.0, 3f32.ln(), 1.0], [1, 2, 1, 2]);
        let value = |classes| values(&form(classes, false).loss(logits(), target(&[1, 1], [1, 1, 2])));
        let present = (0.5 + 0.25) / 2.0;
        close(&value(LovaszClasses::Present), &[present], 1e-6);
        close(&value(LovaszClasses::All), &[(present + 0.5) / 2.0], 1e-6);
    }

    #[test]
    fn an_image_without_a_valid_pixel_is_left_out_of_the_mean() {
        let one = || leaf(&[0.0, 1.0, 3f32.ln(), 1.0], [1, 2, 1, 2]);
        let alone = form(LovaszClasses::All, true).loss(one(), target(&[1, 0], [1, 1, 2]));
        let two = Tensor::cat(vec![one(), one()], 0);
        let both = form(LovaszClasses::All, true).loss(two, target(&[1, 0, 255, 254], [2, 1, 2]));
        close(&values(&both), &values(&alone), 1e-7);
    }

    #[test]
    fn keeps_the_rules_of_every_loss() {
        for classes in [LovaszClasses::Present, LovaszClasses::All] {
            for per_image in [false, true] {
                testing::keeps_the_rules(&|logits, target| form(classes, per_image).loss(logits, target));
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_training_halves_it() {
        for classes in [LovaszClasses::Present, LovaszClasses::All] {
            testing::agrees_with_finite_differences(&|logits, target| form(classes, false).loss(logits, target));
            testing::falls_by_half(&|logits, target| form(classes, false).loss(logits, target));
        }
    }
}
