//! `[supervised.giou]`: the boxes of the places that answer for objects.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::sum_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::assign::Assignment;
use crate::context::Context;
use crate::grid::at_all_places;
use crate::overlap::giou;
use crate::task::Det;

/// How far the boxes are from those of the objects: one minus their generalised overlap.
///
/// `sum_i (1 - GIoU(b_i, g_i)) / N` over the `N` places `i` that answer for an object `g_i`; `GIoU` is the overlap less the
/// part of the enclosing box that neither box covers.
///
/// # Shapes
/// Ways to the edges, `[n, 4, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Pixels in; the value lies in `[0, 2)`.
///
/// # Reduction
/// Mean over the places of the batch that answer for an object; without any a zero with a zero gradient. All places count
/// alike, whatever their centerness.
///
/// # Gradient
/// Reaches the ways of the places that answer for an object.
///
/// # Panics
/// If there are no labels.
///
/// # Source
/// Rezatofighi et al. 2019, arXiv 1902.09630; torchvision's `FCOS`.
///
/// # Differs
/// The authors' code of FCOS weighs each place by its centerness; torchvision's does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Giou {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Giou {
    fn default() -> Self {
        Self { weight: 1.0, ramp_steps: 0 }
    }
}

impl Term<Det> for Giou {
    fn source(&self) -> &'static str {
        "Rezatofighi et al. 2019, arXiv 1902.09630"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let distances_n4p = at_all_places(context.student, |level| &level.distances);
        let Assignment { positive_n1p, positives, distances_n4p: own_n4p, .. } = context.labelled().assignment.clone();
        let loss_n1p = giou(distances_n4p, own_n4p).neg().add_scalar(1.0);
        sum_all(loss_n1p * positive_n1p) / positives
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, Part, agrees_with_torchvision, check_part, value};
    use crate::testing::{labelled, map, output, seen};
    use mentor_types::BoxKind;

    #[test]
    fn it_agrees_with_torchvision() {
        agrees_with_torchvision("bbox_regression", Part::Distances, &Giou::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        check_part(&Case { term: &Giou::default(), part: Part::Distances, rate: 100.0, background: false });
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
