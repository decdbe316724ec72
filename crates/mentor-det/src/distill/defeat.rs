//! `[distill.defeat]`: the teacher's features, objects and background apart.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{AdapterSpec, Found, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::regions::Regions;
use super::{check_levels, conv_adapter};
use crate::context::Context;
use crate::grid::level_of;
use crate::task::Det;

/// Pulls the student's features towards the teacher's in the boxes of objects and, with a weight of its own, outside.
///
/// `foreground / (2 c F) sum_i f_i |A(s_i) - t_i|^2 + background / (2 c B) sum_i b_i |A(s_i) - t_i|^2`, where `f_i` is 1 at the `F`
/// places in boxes, `b_i` is 1 at the `B` places outside; `c` is the number of channels, `A` an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 3x3 convolution without bias, brings it to the teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Squares of activations, averaged over channels; not negative. With `background = 0` features in boxes alone are compared.
///
/// # Reduction
/// Half the mean over the places of each region in the batch; a region without any is a zero with a zero gradient. Crowds and
/// difficult objects are neither; a class that nobody looked for counts as background, as features have no class.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only.
///
/// # Panics
/// If there are no labels, or a tap or an adapter is missing.
///
/// # Source
/// Guo et al. 2021, arXiv 2103.14475, equation 2 (DeFeat; `unchecked`); the official code, ggjy/DeFeat.pytorch, with the factors
/// of its configuration for Pascal VOC.
///
/// # Differs
/// The part on class scores, also apart in and outside of boxes, is left out. The official code averages over the levels, has an
/// adapter in any case, and can let the factors fade to 0 over the training. A box holds the cells that `fgd` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Defeat {
    /// Factor in the loss, on top of those of the regions. Default 1.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// Factor of what lies in boxes. Default 3.
    pub foreground: f64,
    /// Factor of what lies outside. Default 12.
    pub background: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Defeat {
    fn default() -> Self {
        Self { weight: 1.0, at: Vec::new(), foreground: 3.0, background: 12.0, ramp_steps: 0 }
    }
}

impl Term<Det> for Defeat {
    fn source(&self) -> &'static str {
        "Guo et al. 2021, arXiv 2103.14475, eq. 2"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { features: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &self.at }
    }

    fn is_on_levels(&self) -> bool {
        true
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        conv_adapter(column, channels, 3)
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let place = column.place();
        let (student_nchw, teacher_nchw) = context.features(place, &column.name);
        let layout = &level_of(context.student, place.student).layout;
        let Regions { inside, outside, .. } = Regions::of(layout, &context.labelled().targets);
        let square_n1hw = (student_nchw - teacher_nchw).powi_scalar(2).mean_dim(1);
        let mean = |region_n1hw: Tensor<4>, factor: f64| {
            let sum = sum_all(square_n1hw.clone() * region_n1hw.clone());
            sum / sum_all(region_n1hw).clamp_min(1.0).mul_scalar(2.0) * factor
        };
        mean(inside, self.foreground) + mean(outside, self.background)
    }

    fn place_weights(&self, context: &Context<'_>, column: &Column) -> Option<Tensor<4>> {
        let layout = &level_of(context.student, column.place().student).layout;
        let Regions { inside, outside, .. } = Regions::of(layout, &context.labelled().targets);
        let part = |region_n1hw: Tensor<4>, factor: f64| {
            let places = sum_all(region_n1hw.clone()).clamp_min(1.0).reshape([1, 1, 1, 1]);
            (region_n1hw / places).mul_scalar(factor)
        };
        Some(part(inside, self.foreground) + part(outside, self.background))
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        check_weight("foreground", self.foreground, found);
        check_weight("background", self.background, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_place_weights, check_term, of_features};
    use crate::testing::{labelled, map, values};
    use mentor_types::{BoxKind, BoxLabels};

    fn value(term: &Defeat, student: &Tensor<4>, teacher: &Tensor<4>, labels: &BoxLabels) -> Tensor<1> {
        of_features(("defeat", term), student, teacher, labels)
    }

    /// The first two cells of each of the first two rows.
    fn object() -> BoxLabels {
        labelled(&[([1.0, 1.0, 7.0, 7.0], 0, BoxKind::Object)])
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("defeat", Part::Features, &Defeat::default());
    }

    #[test]
    fn regions_by_hand() {
        // |(3, 4)|^2 / 2 in the box, |(1, 0)|^2 / 2 outside.
        let at = |i: usize| usize::from(i % 3 == 2);
        let student = map([1, 2, 2, 3], |i| if i < 6 { [3.0, 1.0][at(i)] } else { [4.0, 0.0][at(i)] });
        let teacher = map([1, 2, 2, 3], |_| 0.0);
        let found = values(value(&Defeat::default(), &student, &teacher, &object()))[0];
        assert!((found - (3.0 * 6.25 + 12.0 * 0.25)).abs() < 1e-4, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term_with_and_without_background() {
        for (background, needs_boxes) in [(12.0, false), (0.0, true)] {
            let term = Defeat { background, ..Defeat::default() };
            check_term(&Case {
                value: &|student, teacher, boxes| {
                    value(&term, student, teacher, &if boxes { object() } else { labelled(&[]) })
                },
                dims: [2, 3, 4, 4],
                rate: 3.0,
                needs_boxes,
            });
        }
    }

    #[test]
    fn the_weights_of_places_are_those_of_the_value() {
        check_place_weights(("defeat", &Defeat::default()), &object());
    }
}
