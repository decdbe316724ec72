//! `[distill.cwd]`: where in the map each channel is active.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term, channel_divergence};
use mentor_types::{AdapterSpec, Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, check_temperature, conv_adapter};
use crate::context::Context;
use crate::task::Det;

/// Pulls each channel of the student's features, as a distribution over the places, towards the teacher's.
///
/// `T^2 / (N C) sum_nc sum_i phi(t_nc)_i log(phi(t_nc)_i / phi(A(s)_nc)_i)`, where `phi` is the softmax of `x / T` over the places
/// `i` of one channel of one image; `A` is an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 1x1 convolution without bias, brings it to the teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Activations in, nats times `T^2` out; not negative. `temperature` is above 0.
///
/// # Reduction
/// Mean over channels and images. It needs no label.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only.
///
/// # Panics
/// If a tap or an adapter is missing.
///
/// # Source
/// Shu et al. 2021, arXiv 2011.13256 (`unchecked`); the official code for segmentation, irfanICMLL/TorchDistiller. Weight and
/// temperature are those of open-mmlab/mmrazor for the pyramids of detectors.
///
/// # Differs
/// The official adapter has a batch norm and an activation behind the convolution, and is there in any case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cwd {
    /// Factor in the loss. Default 10.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// Softens the distributions of both sides; above 0. Default 1.
    pub temperature: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Cwd {
    fn default() -> Self {
        Self { weight: 10.0, at: Vec::new(), temperature: 1.0, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Cwd {
    fn source(&self) -> &'static str {
        "Shu et al. 2021, arXiv 2011.13256"
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
        channel_divergence(student_nchw, teacher_nchw, None, self.temperature)
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        check_temperature(self.temperature, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, check_term, of_features};
    use crate::testing::{labelled, map, values};

    fn value(term: &Cwd, student: &Tensor<4>, teacher: &Tensor<4>) -> Tensor<1> {
        of_features(("cwd", term), student, teacher, &labelled(&[]))
    }

    #[test]
    fn one_channel_by_hand() {
        // At temperature 2 the teacher has (3/4, 1/4), the student (1/2, 1/2).
        let teacher = map([1, 1, 1, 2], |i| [2.0 * 3f32.ln(), 0.0][i]);
        let term = Cwd { temperature: 2.0, ..Cwd::default() };
        let found = values(value(&term, &map([1, 1, 1, 2], |_| 1.0), &teacher))[0];
        assert!((found - 4.0 * (0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln())).abs() < 1e-5, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, _| value(&Cwd::default(), student, teacher),
            dims: [2, 3, 4, 4],
            rate: 5.0,
            needs_boxes: false,
        });
    }
}
