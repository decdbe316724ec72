//! `[distill.mimic]`: the teacher's features of regions.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{AdapterSpec, Found, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::context::Context;
use crate::found::FoundBoxes;
use crate::pooling;
use crate::task::Det;

/// Pulls the student's features of regions towards the teacher's: of the boxes that the student is surest of, and of the
/// labelled objects.
///
/// `sum_r mean_cij (A(s_r) - t_r)^2 / (2 N)` over the `N` regions `r`, where `s_r` and `t_r` are the features of a level inside
/// of the region's box, pooled by `RoIAlign` to `bins` by `bins`, and `A` is an adapter where the widths differ. The student's
/// boxes are those of its places, each with its most probable class (of a detector with two stages those of the first), of
/// which none overlaps a surer one of the class by more than `nms_iou`.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid, and `most` boxes of each image besides the labelled ones: all of them
/// at every level. Where the student has another number of channels, an adapter, a learnable 1x1 convolution without bias,
/// brings the pooled features to the teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Squares of activations; not negative. `nms_iou` lies in [0, 1].
///
/// # Reduction
/// Mean over the channels and bins of a region, half the mean over the regions of the batch; without any a zero with a zero
/// gradient. It needs no label. Crowds and difficult objects are no regions.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only; none the boxes.
///
/// # Panics
/// If a tap or an adapter is missing.
///
/// # Source
/// Li et al. 2017, *Mimicking Very Efficient Network for Object Detection*, CVPR, equation 4 (`unchecked`). There is no official
/// code.
///
/// # Differs
/// Theirs are the proposals of Faster R-CNN on one map; the boxes of any dense head take their part here, at every level that is
/// compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mimic {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// How many of the student's surest boxes are regions in each image, 1 to 256. Default 32.
    pub most: usize,
    /// Of two boxes of a class that overlap by more than this the surer one is kept, in [0, 1]. Default 0.7, as for proposals.
    pub nms_iou: f64,
    /// Bins along each side of a region, 1 to 32. Default 7.
    pub bins: usize,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Mimic {
    fn default() -> Self {
        let (most, nms_iou, bins) = (32, 0.7, 7);
        Self { weight: 1.0, at: Vec::new(), most, nms_iou, bins, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Mimic {
    fn source(&self) -> &'static str {
        "Li et al. 2017, Mimicking Very Efficient Network for Object Detection, eq. 4"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn is_on_levels(&self) -> bool {
        true
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { features: true, own_places: true, ..Reads::default() })
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        conv_adapter(column, channels, 1)
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let place = column.place();
        let [student_nchw, teacher_nchw] = context.unadapted_features(place);
        let (edges_nr4, real_nr) = self.regions(context);
        let pooled = |features_nchw: Tensor<4>| -> Tensor<4> {
            pooling::at_level(place.student, features_nchw, &edges_nr4, self.bins).flatten(0, 1)
        };
        let (student, teacher) = (pooled(student_nchw), pooled(teacher_nchw));
        let same_width = student.dims()[1] == teacher.dims()[1];
        let student = if same_width { student } else { context.adapted(&column.name, student) };
        let apart = (student - teacher).powi_scalar(2).flatten::<2>(1, 3).mean_dim(1);
        let real: Tensor<2> = real_nr.flatten::<1>(0, 1).unsqueeze_dim(1);
        sum_all(apart * real.clone()) / sum_all(real).clamp_min(1.0).mul_scalar(2.0)
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        check_probability("nms_iou", self.nms_iou, found);
        for (key, value, limit) in [("most", self.most, 256), ("bins", self.bins, 32)] {
            if !(1..=limit).contains(&value) {
                found.push((key.to_owned(), format!("found {value}, expected 1 to {limit}")));
            }
        }
    }
}

impl Mimic {
    /// The boxes of regions, `[n, r, 4]`, and 1 where there is one, `[n, r]`.
    fn regions(&self, context: &Context<'_>) -> (Tensor<3>, Tensor<2>) {
        let found = FoundBoxes::of_places(context.student, self.nms_iou, self.most);
        let real_nr = found.scores_nm.greater_scalar(0.0).float();
        match context.labelled {
            None => (found.edges_nm4, real_nr),
            Some(labelled) => {
                let targets = &labelled.targets;
                let edges_nr4 = Tensor::cat(vec![found.edges_nm4, targets.edges_nm4.clone()], 1);
                (edges_nr4, Tensor::cat(vec![real_nr, targets.objects_nm.clone()], 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_term, value_at_p3};
    use crate::testing::{labelled, map, values};
    use mentor_types::{BoxKind, BoxLabels};

    fn object() -> BoxLabels {
        labelled(&[([4.0, 2.0, 21.0, 27.0], 0, BoxKind::Object), ([0.0, 0.0, 9.0, 9.0], 0, BoxKind::Crowd)])
    }

    /// The value where the student's own boxes have this reach about their points.
    fn value(student: &Tensor<4>, teacher: &Tensor<4>, labels: &BoxLabels, reach: f32) -> Tensor<1> {
        let term = Mimic { bins: 2, most: 3, ..Mimic::default() };
        value_at_p3(("mimic", &term), student, teacher, labels, [&|_| reach, &|_| 1.0])
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("mimic", Part::Features, &Mimic { most: 5, nms_iou: 0.3, bins: 3, ..Mimic::default() });
    }

    #[test]
    fn a_region_by_hand() {
        // Student and teacher are even: 2 and 5 in the one channel, equal in the other, whatever the region.
        let side = |value: f32| map([1, 2, 4, 4], move |i| if i < 16 { value } else { 1.0 });
        let found = values(value(&side(2.0), &side(5.0), &object(), 6.0))[0];
        assert!((found - 9.0 / 2.0 / 2.0).abs() < 1e-5, "{found}");
    }

    #[test]
    fn boxes_of_less_than_a_pixel_and_crowds_are_no_regions() {
        let (student, teacher) = (map([1, 1, 4, 4], |i| i as f32), map([1, 1, 4, 4], |_| 0.0));
        let none = values(value(&student, &teacher, &labelled(&[]), 0.1))[0];
        assert_eq!(none, 0.0);
        let of_student = values(value(&student, &teacher, &labelled(&[]), 6.0))[0];
        let labelled = values(value(&student, &teacher, &object(), 0.1))[0];
        assert!(of_student > 0.0 && labelled > 0.0 && of_student != labelled);
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, boxes| {
                value(student, teacher, &if boxes { object() } else { labelled(&[]) }, if boxes { 6.0 } else { 0.1 })
            },
            dims: [2, 3, 4, 4],
            rate: 5.0,
            needs_boxes: true,
        });
    }

    #[test]
    fn values_out_of_range_are_named() {
        let mut found = Found::new();
        Mimic { nms_iou: 2.0, most: 0, bins: 33, ..Mimic::default() }.check(&mut found);
        assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["nms_iou", "most", "bins"]);
    }
}
