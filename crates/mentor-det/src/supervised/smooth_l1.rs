//! `[supervised.smooth_l1]`: how boxes differ from anchors.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_types::{BoxCoding, Found, check_at_least_0};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::deltas::encoded;
use crate::grid::at_all_places;
use crate::task::Det;

use super::positives::{PlaceWeight, mean_of_positives};

/// How far what the net says of the difference between box and anchor is from what the object asks for.
///
/// `sum_ij f(d_ij - g_ij) / N` over the `N` places `i` that answer for an object and the four numbers `j`: the shifts of the
/// middle in sides of the anchor, the logarithms of the ratios of sides. `f(x) = x^2 / (2 beta)` where `|x| < beta`, else
/// `|x| - beta / 2`.
///
/// # Shapes
/// Deltas `[n, 4, p]` of every level; the value has one element.
///
/// # Units and ranges
/// Sides of anchors, and logarithms of their ratios. `beta` is at least 0; the value, too.
///
/// # Reduction
/// Mean over the places of the batch that answer for an object, of the sum of the four; without any a zero with a zero gradient.
///
/// # Gradient
/// Reaches the deltas of the places that answer for an object.
///
/// # Panics
/// If there are no labels, or the net does not say deltas.
///
/// # Source
/// Girshick 2015, arXiv 1504.08083, equation 3, with `beta`; torchvision's `RetinaNet`, whose `beta` is 0.
///
/// # Differs
/// torchvision divides the sum of each image by its own places, and takes the mean over images. An object without an extent is
/// taken for one of a millionth of the anchor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothL1 {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Below which difference the square counts; 0 for the absolute difference. Default 0.
    pub beta: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for SmoothL1 {
    fn default() -> Self {
        Self { weight: 1.0, beta: 0.0, ramp_steps: 0 }
    }
}

impl Term<Det> for SmoothL1 {
    fn source(&self) -> &'static str {
        "Girshick 2015, arXiv 1504.08083, eq. 3"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let deltas_n4p = at_all_places(context.student, |level| match &level.coding {
            BoxCoding::Deltas(deltas) => deltas,
            _ => panic!("the net does not say how boxes differ from anchors"),
        });
        let labelled = context.labelled();
        let own_n4p = encoded(&labelled.assignment.distances_n4p, &labelled.grid.anchors);
        let loss_n4p = smooth(deltas_n4p - own_n4p, self.beta);
        mean_of_positives(loss_n4p.sum_dim(1), PlaceWeight::Equal, context)
    }

    fn check(&self, found: &mut Found) {
        check_at_least_0("beta", self.beta, found);
    }
}

/// `x^2 / (2 beta)` where `|x| < beta`, else `|x| - beta / 2`.
pub(super) fn smooth<const D: usize>(x: Tensor<D>, beta: f64) -> Tensor<D> {
    let off = x.abs();
    if beta == 0.0 {
        return off;
    }
    let least = off.clone().clamp_max(beta);
    (off - least.clone().div_scalar(2.0)) * least.div_scalar(beta)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervised::checks::{Case, Part, RETINANET, check_part, value};
    use crate::testing::{labelled, map, output, seen};
    use mentor_types::BoxKind;

    #[test]
    fn it_agrees_with_torchvision() {
        RETINANET.agrees("l1", Part::Deltas, &SmoothL1::default());
        RETINANET.agrees("smooth_l1", Part::Deltas, &SmoothL1 { beta: 0.5, ..SmoothL1::default() });
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        for (beta, rate) in [(0.0, 0.1), (0.5, 2.0)] {
            let term = SmoothL1 { beta, ..SmoothL1::default() };
            check_part(&Case { term: &term, part: Part::Deltas, rate, background: false });
        }
    }

    #[test]
    fn one_place_by_hand() {
        // An anchor of 64 by 64 about (4, 4); the object is 8 by 16, its middle at (4, 8).
        let mut output = output(&[(8, [1, 1])], 1, 1, |_| 0.0);
        let labels = seen(&output, &[labelled(&[([0.0, 0.0, 8.0, 16.0], 0, BoxKind::Object)])]);
        let own = [0.0, 4.0 / 64.0, (8.0f32 / 64.0).ln(), (16.0f32 / 64.0).ln()];
        let off = [0.1, -0.2, 0.5, -2.0];
        output.levels[0].coding = BoxCoding::Deltas(map([1, 4, 1, 1], |i| own[i] + off[i]).flatten(2, 3));
        let plain = value(&SmoothL1::default(), &output, &labels);
        assert!((plain - 2.8).abs() < 1e-5, "{plain}");
        let smooth = value(&SmoothL1 { beta: 1.0, ..SmoothL1::default() }, &output, &labels);
        assert!((smooth - (0.005 + 0.02 + 0.125 + 1.5)).abs() < 1e-5, "{smooth}");
    }

    #[test]
    #[should_panic(expected = "differ from anchors")]
    fn a_net_without_deltas_is_refused() {
        let output = output(&[(8, [1, 1])], 1, 1, |_| 0.0);
        let _ = value(&SmoothL1::default(), &output, &seen(&output, &[labelled(&[])]));
    }
}
