//! `[distill.pkd]`: the pattern of the teacher's features, whatever their size.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term, standardised};
use mentor_ops::mean_all;
use mentor_types::{AdapterSpec, Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::context::Context;
use crate::task::Det;

/// Pulls the student's features towards a pattern that correlates with the teacher's, channel by channel.
///
/// `mean_nchw (z(A(s)) - z(t))^2 / 2`, where `z` moves and scales each channel to a mean of 0 and a deviation of 1 over the
/// images and places of the batch: 1 less Pearson's correlation of the two sides, averaged over channels.
/// `A` is an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 1x1 convolution without bias, brings it to the teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Without unit, in [0, 2]. Neither the mean nor the spread of a channel matters, so that nets of unlike heads can be compared.
///
/// # Reduction
/// Mean over all channels and places of the level in the batch. It needs no label.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only.
///
/// # Panics
/// If a tap or an adapter is missing.
///
/// # Source
/// Cao et al. 2022, arXiv 2207.02039 (PKD; `unchecked`); the official code in open-mmlab/mmrazor. Official weights: 10 for
/// one-stage detectors, 6 for two-stage ones.
///
/// # Differs
/// The official code compares `p3` to `p6` and has no adapter. Its deviations are those of a sample, of one value less; for `n` values of a
/// channel its value is ours times `(n - 1) / n`. It resizes the smaller map or the larger, as is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pkd {
    /// Factor in the loss. Default 10.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Pkd {
    fn default() -> Self {
        Self { weight: 10.0, at: Vec::new(), on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Pkd {
    fn source(&self) -> &'static str {
        "Cao et al. 2022, arXiv 2207.02039"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { features: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn is_on_levels(&self) -> bool {
        true
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        conv_adapter(column, channels, 1)
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let (student_nchw, teacher_nchw) = context.features(column.place(), &column.name);
        let difference_nchw = standardised(student_nchw) - standardised(teacher_nchw);
        mean_all(difference_nchw.clone() * difference_nchw).div_scalar(2.0)
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_term, of_features};
    use crate::testing::{labelled, map, values};

    fn value(student: &Tensor<4>, teacher: &Tensor<4>) -> Tensor<1> {
        of_features(("pkd", &Pkd::default()), student, teacher, &labelled(&[]))
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("pkd", Part::Features, &Pkd::default());
    }

    #[test]
    fn correlated_and_opposite_channels_by_hand() {
        // Ramps are 0 apart whatever their start and slope, opposite ones 2.
        let student = map([1, 2, 1, 4], |i| [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0][i]);
        let teacher = map([1, 2, 1, 4], |i| [5.0, 7.0, 9.0, 11.0, 4.0, 3.0, 2.0, 1.0][i]);
        let found = values(value(&student, &teacher))[0];
        assert!((found - 1.0).abs() < 1e-5, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, _| value(student, teacher),
            dims: [2, 3, 4, 4],
            rate: 20.0,
            needs_boxes: false,
        });
    }

    #[test]
    fn a_flat_channel_correlates_with_nothing() {
        let found = values(value(&map([2, 1, 1, 1], |_| 3.0), &map([2, 1, 1, 1], |i| i as f32)))[0];
        assert!((found - 0.5).abs() < 1e-5, "{found}");
    }
}
