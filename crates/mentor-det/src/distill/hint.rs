//! `[distill.hint]`: the teacher's features everywhere.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term};
use mentor_ops::mean_all;
use mentor_types::{AdapterSpec, Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::context::Context;
use crate::task::Det;

/// Pulls the student's features towards the teacher's at every place.
///
/// `mean_nchw (A(s) - t)^2`, where `A` is an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 1x1 convolution without bias, brings it to the teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Squares of activations; not negative.
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
/// Chen et al. 2017, *Learning Efficient Object Detection Models with Knowledge Distillation*, equation 6, with its weight of
/// 0.5; the hints of `FitNets` (Romero et al. 2015, arXiv 1412.6550), both `unchecked`. There is no official code of the former.
///
/// # Differs
/// The paper's adapter is there in any case, and compares one layer that guides, of which [`Mimic`](super::Mimic) takes regions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hint {
    /// Factor in the loss. Default 0.5.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Hint {
    fn default() -> Self {
        Self { weight: 0.5, at: Vec::new(), on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Hint {
    fn source(&self) -> &'static str {
        "Chen et al. 2017, eq. 6; Romero et al. 2015, arXiv 1412.6550"
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
        mean_all((student_nchw - teacher_nchw).powi_scalar(2))
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
        of_features(("hint", &Hint::default()), student, teacher, &labelled(&[]))
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("hint", Part::Features, &Hint::default());
    }

    #[test]
    fn two_places_by_hand() {
        let found = values(value(&map([1, 1, 1, 2], |_| 1.0), &map([1, 1, 1, 2], |i| [1.0, 4.0][i])));
        assert_eq!(found, [4.5]);
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, _| value(student, teacher),
            dims: [2, 3, 4, 4],
            rate: 5.0,
            needs_boxes: false,
        });
    }
}
