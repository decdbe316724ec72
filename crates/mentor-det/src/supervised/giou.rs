//! `[supervised.giou]`: the boxes of the places that answer for objects.

use burn::tensor::Tensor;
use mentor_distill::{Column, Reads, Shared, Stream, Term};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::grid::at_all_places;
use crate::overlap::giou;
use crate::task::Det;

use super::positives::{PlaceWeight, mean_of_positives};

/// How far the boxes are from those of the objects: one minus their generalised overlap.
///
/// `sum_i w_i (1 - GIoU(b_i, g_i)) / sum_i w_i` over the places `i` that answer for an object `g_i`; `GIoU` is the overlap less
/// the part of the enclosing box that neither box covers, and `w` is `place_weight`.
///
/// # Shapes
/// Ways to the edges, `[n, 4, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Pixels in; the value lies in `[0, 2)`.
///
/// # Reduction
/// Mean over the places of the batch that answer for an object, by their weights, of which `quality` may sum to less than 1: then
/// the sum. Without any such place a zero with a zero gradient.
///
/// # Gradient
/// Reaches the ways of the places that answer for an object; none goes through the weights.
///
/// # Panics
/// If there are no labels.
///
/// # Source
/// Rezatofighi et al. 2019, arXiv 1902.09630; torchvision's `FCOS`. The authors' codes of FCOS and ATSS weigh by centerness,
/// that of GFL (arXiv 2006.04388) by quality, and twice as much as its other parts.
///
/// # Differs
/// Nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Giou {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// How much each place counts: `equal`, `centerness` or `quality`. Default `equal`.
    pub place_weight: PlaceWeight,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Giou {
    fn default() -> Self {
        Self { weight: 1.0, place_weight: PlaceWeight::Equal, ramp_steps: 0 }
    }
}

impl Term<Det> for Giou {
    fn source(&self) -> &'static str {
        "Rezatofighi et al. 2019, arXiv 1902.09630"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { boxes: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let distances_n4p = at_all_places(context.student, |level| &level.distances);
        let own_n4p = context.labelled().assignment.distances_n4p.clone();
        mean_of_positives(giou(distances_n4p, own_n4p).neg().add_scalar(1.0), self.place_weight, context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, FCOS, GFL, Part, check_part, value};
    use crate::testing::{labelled, map, output, seen};
    use mentor_types::BoxKind;

    #[test]
    fn it_agrees_with_torchvision_and_by_quality_with_the_paper() {
        FCOS.agrees("bbox_regression", Part::Distances, &Giou::default());
        let weighted = Giou { place_weight: PlaceWeight::Quality, ..Giou::default() };
        GFL.agrees("giou", Part::Distances, &weighted);
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        for place_weight in [PlaceWeight::Equal, PlaceWeight::Quality] {
            let term = Giou { place_weight, ..Giou::default() };
            check_part(&Case { term: &term, part: Part::Distances, rate: 100.0, background: false });
        }
    }

    #[test]
    fn one_place_by_hand_and_zero_for_the_box_of_the_object() {
        // The point (4, 4) in the box (2, 2, 6, 6).
        let mut output = output(&[(8, [1, 1])], 1, 1, |_| 0.0);
        let labels = seen(&output, &[labelled(&[([2.0, 2.0, 6.0, 6.0], 0, BoxKind::Object)])]);
        for (edges, expected) in [([2.0; 4], 0.0), ([1.0, 3.0, 1.0, 3.0], 1.0 - 8.0 / 20.0 + 4.0 / 24.0)] {
            output.levels[0].distances = map([1, 4, 1, 1], |edge| edges[edge]).flatten(2, 3);
            let found = value(&Giou::default(), &output, &labels);
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}
