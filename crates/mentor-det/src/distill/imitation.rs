//! `[distill.imitation]`: the teacher's features near objects.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{AdapterSpec, Found, LevelLayout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::context::{Context, Labelled};
use crate::grid::{largest_at_points, level_of};
use crate::task::Det;

/// Pulls the student's features towards the teacher's at the places near objects.
///
/// `sum_i m_i |A(s_i) - t_i|^2 / (2 sum_i m_i)`: the squared distance of the features at the places `i`, where `m_i` is 1 if
/// an anchor at the place overlaps an object by more than `threshold` times what the best anchor of all levels overlaps it,
/// and else 0. A net without anchors has squares of 8 strides about its points; `A` is an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 3x3 convolution without bias, brings it to the teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Squares of activations, summed over channels; not negative. `threshold` lies in [0, 1].
///
/// # Reduction
/// Half the mean over the chosen places of the level in the batch; without any a zero with a zero gradient. Crowds and
/// difficult objects choose nothing.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only.
///
/// # Panics
/// If there are no labels, or a tap or an adapter is missing.
///
/// # Source
/// Wang et al. 2019, arXiv 1906.03609, equation 2 (`unchecked`); the official code, twangnh/Distilling-Object-Detectors,
/// with its weight 0.01 and its threshold 0.5.
///
/// # Differs
/// Theirs is for nets with several anchors at each place of one map; 8 strides, for nets without, are the side at which their
/// levels change. The official adapter is there in any case,
/// and the official weight is 0 for the first 400 steps. Ours divides by the places of each level, so
/// that the value at a level does not depend on which others are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Imitation {
    /// Factor in the loss. Default 0.01.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// The part of an object's best overlap above which a place is near it, in [0, 1]. Default 0.5.
    pub threshold: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Imitation {
    fn default() -> Self {
        Self { weight: 0.01, at: Vec::new(), threshold: 0.5, ramp_steps: 0 }
    }
}

impl Term<Det> for Imitation {
    fn source(&self) -> &'static str {
        "Wang et al. 2019, arXiv 1906.03609, eq. 2"
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
        let near_n1hw = self.near(context.labelled(), &level_of(context.student, place.student).layout);
        let distance_n1hw = (student_nchw - teacher_nchw).powi_scalar(2).sum_dim(1);
        sum_all(distance_n1hw * near_n1hw.clone()) / sum_all(near_n1hw).clamp_min(1.0).mul_scalar(2.0)
    }

    fn place_weights(&self, context: &Context<'_>, column: &Column) -> Option<Tensor<4>> {
        let level = &level_of(context.student, column.place().student).layout;
        Some(self.near(context.labelled(), level))
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        mentor_types::check_probability("threshold", self.threshold, found);
    }
}

impl Imitation {
    /// 1 at the points of a level near objects, `[n, 1, h, w]`.
    fn near(&self, labelled: &Labelled, level: &LevelLayout) -> Tensor<4> {
        let overlap_nmp = labelled.overlap_with_anchors();
        let best_nm1 = overlap_nmp.clone().max_dim(2);
        let least_nmp = best_nm1.mul_scalar(self.threshold).expand(overlap_nmp.shape());
        let near_n1p = overlap_nmp.greater(least_nmp).float().max_dim(1);
        largest_at_points(level, labelled.grid.at_level(level.stride, &near_n1p))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, check_place_weights, check_term, value_at_p3};
    use crate::testing::{labelled, map, output, seen, values};
    use mentor_types::{AdapterKind, BoxKind, BoxLabels, Tap};

    fn term() -> Imitation {
        Imitation { at: vec![Place::at(Tap::P3)], ..Imitation::default() }
    }

    fn value(student: &Tensor<4>, teacher: &Tensor<4>, labels: &BoxLabels) -> Tensor<1> {
        value_at_p3(("imitation", &term()), student, teacher, labels, [&|_| 1.0, &|_| 1.0])
    }

    /// 64 pixels, the side of an anchor at stride 8, about the point (28, 28).
    fn object() -> BoxLabels {
        labelled(&[([-4.0, -4.0, 60.0, 60.0], 0, BoxKind::Object)])
    }

    #[test]
    fn places_near_objects_are_those_of_half_the_best_overlap() {
        let output = output(&[(8, [8, 8]), (16, [4, 4])], 1, 1, |_| 0.0);
        let near = |labels: BoxLabels, tap| {
            let level = &level_of(&output, tap).layout;
            values(term().near(&seen(&output, &[labels]), level))
        };
        let fine = near(object(), Tap::P3);
        for (place, found) in fine.iter().enumerate() {
            // The anchor of a place is moved by so many pixels.
            let [x, y] = [place % 8, place / 8].map(|at| 64.0 - (8.0 * at as f32 - 24.0).abs());
            let overlap = x * y / (2.0 * 64.0 * 64.0 - x * y);
            assert_eq!(*found == 1.0, overlap > 0.5, "place {place} overlaps by {overlap}");
        }
        assert!(fine.contains(&1.0) && fine.contains(&0.0));
        // An anchor of 128 pixels covers four times the object at best: a quarter.
        assert_eq!(near(object(), Tap::P4), [0.0; 16]);
        for kind in [BoxKind::Crowd, BoxKind::Difficult] {
            assert_eq!(near(labelled(&[([0.0, 0.0, 60.0, 60.0], 0, kind)]), Tap::P3), [0.0; 64]);
        }
    }

    #[test]
    fn one_place_by_hand() {
        // All places of a map of 1x1 are near: |(1, 2) - (4, 6)|^2 / 2.
        let student = map([1, 2, 1, 1], |i| [1.0, 2.0][i]);
        let teacher = map([1, 2, 1, 1], |i| [4.0, 6.0][i]);
        assert_eq!(values(value(&student, &teacher, &object())), [12.5]);
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, boxes| value(student, teacher, &if boxes { object() } else { labelled(&[]) }),
            dims: [2, 3, 8, 8],
            rate: 5.0,
            needs_boxes: true,
        });
    }

    #[test]
    fn an_adapter_is_asked_for_where_the_channels_differ() {
        let columns = Column::of("imitation", &term().shared());
        assert_eq!(term().adapters(&columns[0], [5, 5]), []);
        let kind = AdapterKind::Conv { kernel: 3 };
        let spec = AdapterSpec { name: "imitation@p3".to_owned(), kind, student_channels: 16, teacher_channels: 64 };
        assert_eq!(term().adapters(&columns[0], [16, 64]), [spec]);
    }

    #[test]
    #[should_panic(expected = "the model has no adapter `imitation@p3`")]
    fn a_missing_adapter_is_named() {
        let _ = value(&map([1, 2, 2, 2], |i| i as f32), &map([1, 3, 2, 2], |i| i as f32), &object());
    }

    #[test]
    fn the_weights_of_places_are_those_of_the_value() {
        let small = labelled(&[([-28.0, -28.0, 36.0, 36.0], 0, BoxKind::Object)]);
        check_place_weights(("imitation", &term()), &small);
    }
}
