//! `[supervised.region_boxes]`: how boxes differ from the regions that are drawn.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::task::Det;

use super::smooth_l1::smooth;

/// How far what a second stage says of the difference between box and region is from what the object asks for.
///
/// `sum_rj f(d_rj - g_rj) / N` over the drawn regions `r` that hold an object and the four numbers `j`, of the object's class: the
/// shifts of the middle in tenths of the region's sides, the logarithms of the ratios of sides in fifths. `N` counts all regions
/// drawn, background, too. `f(x) = x^2 / (2 beta)` where `|x| < beta`, else `|x| - beta / 2`.
///
/// # Shapes
/// Deltas `[n, r, k, 4]` of the regions; the value has one element.
///
/// # Units and ranges
/// Tenths of sides, and fifths of logarithms of their ratios. `beta` is at least 0; the value, too.
///
/// # Reduction
/// Sum over the drawn regions of the batch that hold an object, divided by all drawn, at least 1; without any a zero with a zero
/// gradient.
///
/// # Gradient
/// Reaches the deltas of the object's class of the drawn regions that hold one; none the regions.
///
/// # Panics
/// If there are no labels, or the student has one stage.
///
/// # Source
/// Girshick 2015, arXiv 1504.08083, equations 1 to 3; torchvision's `fastrcnn_loss`, with its `beta`.
///
/// # Differs
/// An object without an extent is taken for one of a millionth of the region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegionBoxes {
    /// Factor of this part. Default 1.
    pub weight: f64,
    /// Below which difference the square counts; 0 for the absolute difference. Default 1/9, as torchvision has it.
    pub beta: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for RegionBoxes {
    fn default() -> Self {
        Self { weight: 1.0, beta: 1.0 / 9.0, ramp_steps: 0 }
    }
}

impl Term<Det> for RegionBoxes {
    fn source(&self) -> &'static str {
        "Girshick 2015, arXiv 1504.08083, eq. 1"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let (regions, labels) = context.second();
        let own_nr14: Tensor<4> = labels.regions.deltas_nr4.clone().unsqueeze_dim(2);
        let learnt_nrk = labels.regions.classes_nrk.clone() * labels.regions.drawn_nr.clone().unsqueeze_dim::<3>(2);
        let loss_nrk1 = smooth(regions.deltas.clone() - own_nr14, self.beta).sum_dim(3);
        let loss_nrk = loss_nrk1.squeeze_dim::<3>(3) * learnt_nrk;
        sum_all(loss_nrk) / sum_all(labels.regions.drawn_nr.clone()).clamp_min(1.0)
    }

    fn check(&self, found: &mut Found) {
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            found.push(("beta".to_owned(), format!("must be at least 0, found {}", self.beta)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::second_checks::{Case, Part, agrees, check_part};

    #[test]
    fn it_agrees_with_torchvision() {
        agrees("region_boxes", Part::RegionDeltas, &RegionBoxes::default());
    }

    #[test]
    fn it_passes_the_checks_of_every_part() {
        check_part(&Case { term: &RegionBoxes::default(), part: Part::RegionDeltas, rate: 2.0, background: false });
    }
}
