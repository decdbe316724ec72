//! Online hard example mining: which pixels the cross-entropy is averaged over.

use burn::tensor::Tensor;
use mentor_ops::sum_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often the interval of thresholds is halved: finer than a step of `f32` just below 1.
const BISECTIONS: usize = 30;

/// Online hard example mining: keeps the pixels whose true class the net finds improbable.
///
/// A pixel counts if `p <= max(threshold, p_(min_kept))`, where `p` is the probability of its true
/// class and `p_(m)` the `m`-th smallest of them among the valid pixels of the batch.
///
/// # Shapes
/// Probabilities and masks are `[n, h, w]`.
///
/// # Units and ranges
/// `threshold` is a probability from 0 to 1; `min_kept` counts pixels of the whole batch of one
/// forward pass. With `min_kept` 0 the threshold alone decides; with more than there are valid
/// pixels all of them count.
///
/// # Reduction
/// None: it only chooses pixels. The `min_kept`-th smallest value is found by 30 halvings of the
/// interval from `threshold` to 1, each a comparison and a sum on the device: no sort, nothing read
/// back. It is met from above to within 1e-9 (never closer than `f32` can tell), so pixels that close
/// to it count too, as equal ones do.
///
/// # Gradient
/// None: the choice is a constant.
///
/// # Source
/// Shrivastava et al. 2016, arXiv 1604.03540 (`unchecked`), for detection; with a threshold per
/// pixel as the official codes of semi-supervised segmentation have it (threshold 0.7; `min_kept`
/// goes with the crop and has no default).
///
/// # Differs
/// In official code `min_kept` 0 switches mining off; here it switches off only the minimum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ohem {
    /// Probability of the true class up to which a pixel is hard, from 0 to 1 (default 0.7).
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Number of pixels of the batch to keep at least, the hardest first; 0 leaves it to the threshold.
    pub min_kept: usize,
}

fn threshold() -> f64 {
    0.7
}

impl Ohem {
    /// The mask of the pixels that count, from the probabilities of their true class off the graph.
    pub(crate) fn keep(&self, probability_nhw: Tensor<3>, mask_nhw: Tensor<3>) -> Tensor<3> {
        // A pixel without a class lies above every threshold.
        let no_class = mask_nhw.equal_scalar(0.0);
        let probability = probability_nhw.clamp_max(1.0).mask_fill(no_class, 2.0);
        let kept = |reach: &Tensor<1>| {
            let reach = reach.clone().reshape([1, 1, 1]).expand(probability.dims());
            probability.clone().lower_equal(reach).float()
        };
        let enough = |reach: &Tensor<1>| sum_all(kept(reach)).greater_equal_scalar(self.min_kept as f64);

        let mut low = Tensor::<1>::full([1], self.threshold, &probability.device());
        // Where the threshold keeps enough pixels, the interval is empty from the start.
        let mut high = low.ones_like().mask_where(enough(&low), low.clone());
        for _ in 0..BISECTIONS {
            let middle = (low.clone() + high.clone()).mul_scalar(0.5);
            let lower = enough(&middle);
            high = high.mask_where(lower.clone(), middle.clone());
            low = middle.mask_where(lower, low);
        }
        kept(&high)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::testing::{Golden, close, values};
    use crate::supervised::{CrossEntropy, testing::row};

    fn kept(threshold: f64, min_kept: usize, probabilities: &[f32], mask: &[f32]) -> Vec<f32> {
        values(&Ohem { threshold, min_kept }.keep(row(probabilities), row(mask)))
    }

    #[test]
    fn the_threshold_or_the_minimum_reaches_further() {
        let p = [0.9, 0.2, 0.5, 0.7, 0.1];
        assert_eq!(kept(0.5, 2, &p, &[1.0; 5]), [0.0, 1.0, 1.0, 0.0, 1.0]);
        assert_eq!(kept(0.05, 2, &p, &[1.0; 5]), [0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(kept(0.5, 4, &p, &[1.0; 5]), [0.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(kept(0.5, 0, &p, &[1.0; 5]), [0.0, 1.0, 1.0, 0.0, 1.0]);
        assert_eq!(kept(0.05, 0, &p, &[1.0; 5]), [0.0; 5]);
    }

    #[test]
    fn a_pixel_without_a_class_is_neither_kept_nor_counted() {
        assert_eq!(kept(0.0, 2, &[0.9, 0.2, 0.5, 0.7, 0.1], &[1.0, 1.0, 1.0, 1.0, 0.0]), [0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_minimum_above_all_pixels_keeps_the_valid_ones() {
        assert_eq!(kept(0.3, 9, &[1.0, 0.2, 0.5], &[1.0, 1.0, 0.0]), [1.0, 1.0, 0.0]);
        assert_eq!(kept(0.3, 1, &[0.1, 0.2, 0.5], &[0.0; 3]), [0.0; 3]);
    }

    #[test]
    fn the_minimum_is_met_exactly_among_many_values() {
        let p: Vec<f32> = (0..1000).map(|i| (i * 389 % 1000) as f32 / 1000.0).collect();
        for min_kept in [1, 2, 77, 500, 999, 1000] {
            let sum: f32 = kept(0.0, min_kept, &p, &[1.0; 1000]).iter().sum();
            assert_eq!(sum, min_kept as f32);
        }
    }

    #[test]
    fn mined_cross_entropy_agrees_with_pytorch() {
        let golden = Golden::read();
        for (case, threshold, min_kept) in [("threshold", 0.3, 10), ("min_kept", 0.05, 90), ("all", 0.05, 10_000)] {
            let part = CrossEntropy { ohem: Some(Ohem { threshold, min_kept }), ..CrossEntropy::default() };
            golden.assert_case(&format!("ohem_{case}"), "logits", |logits, target| part.loss(logits, target));
        }
    }

    #[test]
    fn all_pixels_kept_is_plain_cross_entropy() {
        let golden = Golden::read();
        let value = |ohem| {
            let part = CrossEntropy { ohem, ..CrossEntropy::default() };
            values(&part.loss(golden.tensor("logits"), golden.target()))
        };
        close(&value(Some(Ohem { threshold: 1.0, min_kept: 0 })), &value(None), 0.0);
    }
}
