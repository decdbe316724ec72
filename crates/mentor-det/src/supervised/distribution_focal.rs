//! `[supervised.distribution_focal]`: distributions over distances to the edges.

use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{DType, Int, Tensor};
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use mentor_types::BoxCoding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::task::Det;

use super::positives::{PlaceWeight, mean_of_positives};

/// Cross-entropy of the distribution over the distances to each edge with the two whole distances beside the true one.
///
/// `sum_i w_i sum_e -((j + 1 - y) log s_j + (y - j) log s_{j+1}) / (4 sum_i w_i)` over the places `i` that answer for an object
/// and the edges `e`, with `y` the distance to the object's edge in strides, `j = floor(y)`, `s = softmax(logits)` over 0, 1, ..
/// strides, and `w` `place_weight`.
///
/// # Shapes
/// Distributions `[n, 4, bins, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Logits, not probabilities; distances in strides, those beyond the last bin are taken for it. The value is in nats; its least
/// is the mean entropy of the targets, not 0.
///
/// # Reduction
/// Mean over the four edges, and over the places of the batch that answer for an object, by their weights, of which `quality` may
/// sum to less than 1: then the sum. Without any such place a zero with a zero gradient.
///
/// # Gradient
/// Reaches the distributions of the places that answer for an object; none goes through the weights.
///
/// # Panics
/// If there are no labels, or the net does not say distributions.
///
/// # Source
/// Li et al. 2020, arXiv 2006.04388, equation 6; weight and reduction as in the authors' code.
///
/// # Differs
/// The authors' code cuts distances off 0.1 below the last bin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistributionFocal {
    /// Factor of this part. Default 0.25.
    pub weight: f64,
    /// How much each place counts: `equal`, `centerness` or `quality`. Default `quality`.
    pub place_weight: PlaceWeight,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for DistributionFocal {
    fn default() -> Self {
        Self { weight: 0.25, place_weight: PlaceWeight::Quality, ramp_steps: 0 }
    }
}

impl Term<Det> for DistributionFocal {
    fn source(&self) -> &'static str {
        "Li et al. 2020, arXiv 2006.04388, eq. 6"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { edges: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let of_levels = context.student.levels.iter().map(|level| match &level.coding {
            BoxCoding::Distribution(logits) => logits.clone().cast(DType::F32),
            _ => panic!("the net does not say distributions over distances"),
        });
        let logits_n4bp = Tensor::cat(of_levels.collect(), 3);
        let labelled = context.labelled();
        let strides_n4p = labelled.assignment.distances_n4p.clone() / labelled.grid.strides.clone();
        let target_n4bp = two_hot(strides_n4p, logits_n4bp.dims()[2]);
        let [n, edges, _, places] = logits_n4bp.dims();
        let loss_n4p = (target_n4bp * log_softmax(logits_n4bp, 2)).sum_dim(2).neg().reshape([n, edges, places]);
        mean_of_positives(loss_n4p.mean_dim(1), self.place_weight, context)
    }
}

/// `[n, 4, p]` to `[n, 4, bins, p]`: how near each of 0, 1, .. is, from 1 where it is the number to 0 where it is 1 or more away.
pub(super) fn two_hot(distances_n4p: Tensor<3>, bins: usize) -> Tensor<4> {
    let steps = Tensor::<1, Int>::arange(0..bins as i64, &distances_n4p.device()).float().cast(DType::F32);
    let y_n41p = distances_n4p.clamp(0.0, (bins - 1) as f64).unsqueeze_dim::<4>(2);
    relu((y_n41p - steps.reshape([1, 1, bins, 1])).abs().neg().add_scalar(1.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, GFL, Part, check_part, value};
    use crate::testing::{labelled, map, output, rows, seen, values};
    use mentor_types::BoxKind;

    #[test]
    fn it_agrees_with_the_paper() {
        GFL.agrees("distribution_focal", Part::Distribution, &DistributionFocal::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        for place_weight in [PlaceWeight::Equal, PlaceWeight::Quality] {
            let term = DistributionFocal { place_weight, ..DistributionFocal::default() };
            check_part(&Case { term: &term, part: Part::Distribution, rate: 20.0, background: false });
        }
    }

    #[test]
    fn the_two_whole_distances_share_what_lies_between_them() {
        let found = values(two_hot(rows(&[[0.25, 2.0, 9.0, -1.0]]), 3));
        assert_eq!(found, [0.75, 0.0, 0.0, 1.0, 0.25, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn one_place_by_hand() {
        // 2, 8, 12 and 20 pixels: 1/4, 1, 3/2 and, beyond the last, 5/2 strides.
        let mut output = output(&[(8, [1, 1])], 1, 1, |_| 0.0);
        let labels = seen(&output, &[labelled(&[([2.0, -4.0, 16.0, 24.0], 0, BoxKind::Object)])]);
        // Probabilities 1/2, 1/4, 1/4 for each edge.
        let logits = map([1, 4, 3, 1], |i| [2f32.ln(), 0.0, 0.0][i % 3]);
        output.levels[0].coding = BoxCoding::Distribution(logits);
        let term = DistributionFocal { place_weight: PlaceWeight::Equal, ..DistributionFocal::default() };
        let found = value(&term, &output, &labels);
        let (half, quarter) = (2f32.ln(), 4f32.ln());
        let expected = (0.75 * half + 0.25 * quarter + 3.0 * quarter) / 4.0;
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    #[should_panic(expected = "does not say distributions")]
    fn a_net_without_distributions_is_refused() {
        let output = output(&[(8, [1, 1])], 1, 1, |_| 0.0);
        let _ = value(&DistributionFocal::default(), &output, &seen(&output, &[labelled(&[])]));
    }
}
