//! `[distill.regression_imitation]`: the teacher's features where its boxes are better.

use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Tensor};
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term, standardised};
use mentor_ops::sum_all;
use mentor_types::{AdapterSpec, DetLevel, Found, check_probability, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::context::{Context, Labelled};
use crate::grid::{largest_at_points, level_of};
use crate::overlap::iou;
use crate::task::Det;

/// Pulls the student's features towards the teacher's at places whose box the teacher gives better, the more so the better.
///
/// `sum_i w_i |A(s_i) - t_i|^2 / (c max(sum_i w_i, 1))` with `w_i = max(floor, max(0, IoU(b^T_i, g_i) - IoU(b^S_i, g_i))^power)` at
/// the places `i` that answer for an object with the box `g_i`, where `b` are the boxes that student and teacher give, and 0
/// elsewhere; of several anchors at a point the largest counts; `c` is the number of channels, `A` an adapter where the widths
/// differ; with `standardise`, both sides are moved and scaled channel by channel to a mean of 0 and a deviation of 1 over the images
/// and places of the batch first, as `pkd` does. On unlabelled images the teacher's boxes stand for those of objects: `w_i = q_i max(floor, (1 - IoU(b^S_i,
/// b^T_i))^power)` where the teacher's highest score `q_i` is at least `min_score`, and 0 elsewhere.
///
/// # Shapes
/// Features `[n, c, h, w]` and ways to edges `[n, 4, h, w]` of both at a level of the pyramid. Where the student has another
/// number of channels, an adapter, a learnable 1x1 convolution without bias, brings it to the teacher's.
///
/// # Units and ranges
/// Squares of activations, averaged over channels, or of their deviations with `standardise`; not negative. Zero where the student's boxes are as good as the teacher's, unless
/// there is a floor. `power` is at least 0, and at 0 all places that count do so alike; `floor` and `min_score` lie in [0, 1]. A
/// score is a class probability, or the root of its product with the centerness where the teacher says one, as in decoding.
///
/// # Reduction
/// The mean over places by their weights; where these sum to less than 1, the sum, so that the value fades as the gap closes.
/// Without any place that counts a zero with a zero gradient.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only; the weights are constants.
///
/// # Panics
/// If a tap, a level or an adapter is missing.
///
/// # Source
/// Ours. Chen et al. 2017 (*Learning Efficient Object Detection Models with Knowledge Distillation*) let a teacher's boxes
/// count only where they are better than the student's; Wang et al. 2019 (arXiv 1906.03609) imitate features near objects.
///
/// # Differs
/// From both by joining them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegressionImitation {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// Where features are compared, one log column each: the same level of both pyramids. Default: every level that both
    /// nets have.
    pub at: Vec<Place>,
    /// The power of how much better the teacher's box is. Default 1.
    pub power: f64,
    /// What each place that answers for an object counts at least, so that objects that neither net finds are imitated, too, in
    /// [0, 1]. Default 0.
    pub floor: f64,
    /// Whether the channels of both sides are standardised before they are compared, so that neither the size of the teacher's
    /// features nor the student's first steps set the pace. Default false.
    pub standardise: bool,
    /// The score from which on the teacher's box stands for an object on unlabelled images, in [0, 1]. Default 0.3.
    pub min_score: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for RegressionImitation {
    fn default() -> Self {
        Self {
            weight: 1.0,
            at: Vec::new(),
            power: 1.0,
            floor: 0.0,
            standardise: false,
            min_score: 0.3,
            on: vec![Stream::Labelled],
            ramp_steps: 0,
        }
    }
}

impl Term<Det> for RegressionImitation {
    fn source(&self) -> &'static str {
        "ours, after Chen et al. 2017 and Wang et al. 2019, arXiv 1906.03609"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { features: true, boxes: true, labels: true, ..Reads::default() })
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
        let place = column.place();
        let (student_nchw, teacher_nchw) = context.features(place, &column.name);
        let channels = student_nchw.dims()[1];
        let [student_nchw, teacher_nchw] = [student_nchw, teacher_nchw]
            .map(|features| if self.standardise { standardised(features) } else { features });
        let gap_n1hw = self.gap(context, place);
        let distance_n1hw = (student_nchw - teacher_nchw).powi_scalar(2).sum_dim(1).div_scalar(channels as f64);
        sum_all(distance_n1hw * gap_n1hw.clone()) / sum_all(gap_n1hw).clamp_min(1.0)
    }

    fn place_weights(&self, context: &Context<'_>, column: &Column) -> Option<Tensor<4>> {
        Some(self.gap(context, column.place()))
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        for (index, place) in self.at.iter().enumerate().filter(|(_, place)| place.student != place.teacher) {
            let message =
                format!("boxes are compared at the same level, found {} for {}", place.teacher, place.student);
            found.push((format!("at[{index}].teacher"), message));
        }
        check_weight("power", self.power, found);
        check_probability("floor", self.floor, found);
        check_probability("min_score", self.min_score, found);
    }
}

impl RegressionImitation {
    /// How much the points of one level count, `[n, 1, h, w]`; never negative, off the graph.
    fn gap(&self, context: &Context<'_>, place: &Place) -> Tensor<4> {
        let (student, teacher) = (level_of(context.student, place.student), level_of(context.taught(), place.student));
        assert_eq!(student.layout, teacher.layout, "places of student and teacher at `{}`", place.student);
        let ways = |level: &DetLevel| level.distances.clone().cast(DType::F32).inner();
        let weigh = |gap_n1p: Tensor<3>| gap_n1p.clamp_min(0.0).powf_scalar(self.power).clamp_min(self.floor);
        let gap_n1p = match context.labelled {
            Some(Labelled { grid, assignment, .. }) => {
                let own_n4p = grid.at_level(student.layout.stride, &assignment.distances_n4p);
                let overlap = |level: &DetLevel| iou(ways(level), own_n4p.clone());
                let positive_n1p = grid.at_level(student.layout.stride, &assignment.positive_n1p);
                weigh(overlap(teacher) - overlap(student)) * positive_n1p
            }
            None => {
                let score_n1p = score(teacher);
                let kept_n1p = score_n1p.clone().greater_equal_scalar(self.min_score).float() * score_n1p;
                weigh(iou(ways(student), ways(teacher)).neg().add_scalar(1.0)) * kept_n1p
            }
        };
        largest_at_points(&student.layout, gap_n1p)
    }
}

/// The highest score of each place, `[n, 1, p]`, off the graph.
fn score(level: &DetLevel) -> Tensor<3> {
    let probability = |logits: &Tensor<3>| sigmoid(logits.clone().cast(DType::F32).inner());
    let class_n1p = probability(&level.class_logits).max_dim(1);
    match &level.centerness {
        Some(centerness) => (class_n1p * probability(centerness)).sqrt(),
        None => class_n1p,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, check_place_weights, check_term, value_at_p3};
    use crate::testing::{labelled, map, output, rows, seen, values};
    use mentor_distill::columns;
    use mentor_types::{AdapterKind, BoxKind, BoxLabels, Tap};

    fn term() -> RegressionImitation {
        RegressionImitation { at: vec![Place::at(Tap::P3)], ..RegressionImitation::default() }
    }

    /// The box that only the place about (4, 4) answers for, 4 pixels to each side.
    fn object() -> BoxLabels {
        labelled(&[([0.0, 0.0, 8.0, 8.0], 0, BoxKind::Object)])
    }

    fn of_boxes(student_half: f32, teacher_half: f32, labels: &BoxLabels) -> f32 {
        value_of(&term(), student_half, teacher_half, labels)
    }

    /// The value of features that differ by 3 in one channel of two, for squares of these half sides.
    fn value_of(term: &RegressionImitation, student_half: f32, teacher_half: f32, labels: &BoxLabels) -> f32 {
        let student = map([1, 2, 2, 2], |_| 0.0);
        let teacher = map([1, 2, 2, 2], |i| if i < 4 { 3.0 } else { 0.0 });
        values(value_at_p3(
            ("regression_imitation", term),
            &student,
            &teacher,
            labels,
            [&|_| student_half, &|_| teacher_half],
        ))[0]
    }

    #[test]
    fn one_place_by_hand() {
        // Overlaps of 1 and 1/4: a gap of 3/4 times 9 / 2.
        assert!((of_boxes(2.0, 4.0, &object()) - 0.75 * 4.5).abs() < 1e-5);
    }

    #[test]
    fn a_power_and_a_floor_by_hand() {
        // A gap of 3/4, of 1/16 less than none, and one of no power.
        for (power, floor, student, teacher, expected) in [
            (2.0, 0.0, 2.0, 4.0, 0.5625),
            (0.5, 0.0, 2.0, 4.0, 0.75f32.sqrt()),
            (1.0, 0.8, 2.0, 4.0, 0.8),
            (1.0, 0.25, 4.0, 2.0, 0.25),
            (0.0, 0.0, 4.0, 2.0, 1.0),
        ] {
            let term = RegressionImitation { power, floor, ..term() };
            let found = value_of(&term, student, teacher, &object());
            assert!((found - expected * 4.5).abs() < 1e-4, "{found} at power {power} and floor {floor}");
            assert_eq!(value_of(&term, student, teacher, &labelled(&[])), 0.0);
        }
    }

    #[test]
    fn standardised_features_do_not_mind_the_size_of_the_teachers() {
        let student = map([1, 2, 2, 2], |i| ((i * 5) % 7) as f32);
        let of = |factor: f32, shift: f32| {
            let teacher = map([1, 2, 2, 2], |i| factor * ((i * 3) % 5) as f32 + shift);
            let term = RegressionImitation { standardise: true, ..term() };
            let halves: [&dyn Fn(usize) -> f32; 2] = [&|_| 2.0, &|_| 4.0];
            values(value_at_p3(("regression_imitation", &term), &student, &teacher, &object(), halves))[0]
        };
        // The first place alone answers for the object, with a gap of 3/4; channels (0, 5, 3, 1), (6, 4, 2, 0) against
        // (0, 3, 1, 4), (2, 0, 3, 1).
        let standard = |x: [f32; 4]| {
            let mean = x.iter().sum::<f32>() / 4.0;
            (x[0] - mean) / (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 4.0).sqrt()
        };
        let sides = [([0.0, 5.0, 3.0, 1.0], [0.0, 3.0, 1.0, 4.0]), ([6.0, 4.0, 2.0, 0.0], [2.0, 0.0, 3.0, 1.0])];
        let apart: f32 = sides.map(|(student, teacher)| (standard(student) - standard(teacher)).powi(2)).iter().sum();
        let expected = 0.75 * apart / 2.0;
        for (factor, shift) in [(1.0, 0.0), (30.0, 7.0)] {
            let found = of(factor, shift);
            assert!((found - expected).abs() < 1e-3 && expected > 0.1, "{found} instead of {expected}");
        }
    }

    #[test]
    fn without_labels_the_boxes_that_the_teacher_is_sure_of_stand_for_objects() {
        // Squares of half sides 2 and 4; the teacher is sure of the first place, by the root of 0.9 * 0.4, and not of the others.
        let side = |half: f32, features: f32| {
            let mut output = output(&[(8, [2, 2])], 1, 1, |_| half / 8.0);
            let odds = |p: f32| (p / (1.0 - p)).ln();
            output.levels[0].class_logits = rows(&[[0.9, 0.1, 0.1, 0.1].map(odds)]);
            output.levels[0].centerness = Some(rows(&[[odds(0.4); 4]]));
            output.taps.insert(Tap::P3, map([1, 1, 2, 2], |_| features));
            output
        };
        let (student, teacher) = (side(2.0, 0.0), side(4.0, 3.0));
        let context = Context { teacher: Some(&teacher), ..Context::of(&student, None) };
        let column = columns("regression_imitation", &term(), &[Tap::P3]).swap_remove(0);
        let of = |min_score| values(RegressionImitation { min_score, ..term() }.value(&context, &column))[0];
        assert!((of(0.5) - 9.0 * 0.6 * 0.75).abs() < 1e-4, "{}", of(0.5));
        assert_eq!(of(0.7), 0.0);
    }

    #[test]
    fn it_grows_with_the_gap_and_is_zero_where_the_student_is_as_good() {
        let course: Vec<f32> = [1.0, 2.0, 3.0, 3.5].map(|half| of_boxes(half, 3.8, &object())).to_vec();
        assert!(course.windows(2).all(|pair| pair[0] > pair[1] && pair[1] > 0.0), "{course:?}");
        for (student, teacher) in [(4.0, 4.0), (3.8, 3.0), (4.0, 9.0)] {
            assert_eq!(of_boxes(student, teacher, &object()), 0.0);
        }
        assert_eq!(of_boxes(1.0, 4.0, &labelled(&[])), 0.0);
    }

    #[test]
    fn a_level_is_compared_at_its_own_places() {
        // Too large for the fine level; of the coarse one all four places answer, with squares of 64 and 128.
        let labels = labelled(&[([-60.0, -60.0, 92.0, 92.0], 0, BoxKind::Object)]);
        let side = |factor: f32, level: f32| {
            let mut output = output(&[(8, [4, 4]), (16, [2, 2])], 1, 1, |_| 2.0 * factor);
            output.taps.insert(Tap::P3, map([1, 1, 4, 4], |_| level));
            output.taps.insert(Tap::P4, map([1, 1, 2, 2], |_| level));
            output
        };
        let (student, teacher) = (side(1.0, 0.0), side(2.0, 3.0));
        let seen = seen(&student, &[labels]);
        let context = Context { teacher: Some(&teacher), ..Context::of(&student, Some(&seen)) };
        let term = RegressionImitation { at: vec![Place::at(Tap::P3), Place::at(Tap::P4)], ..term() };
        let columns = Column::of("regression_imitation", &term.shared());
        let [fine, coarse] = [0, 1].map(|index| values(term.value(&context, &columns[index]))[0]);
        // Squares of 64 and 128 about points of a box of 152, whose nearest edge is 68 to 84 away.
        let total = 4.0 * (128.0f32.powi(2) - 64f32.powi(2)) / 152f32.powi(2);
        assert_eq!(fine, 0.0);
        assert!(total > 1.0 && (coarse - 9.0).abs() < 1e-5, "{coarse}");
        let found: f32 = values(term.gap(&context, &Place::at(Tap::P4))).iter().sum();
        assert!((found - total).abs() < 1e-5, "{found} instead of {total}");
    }

    #[test]
    fn many_places_are_averaged_by_their_weights() {
        // Four places answer, each with a gap of its own; their mean is that of one, as all features differ alike.
        let labels = labelled(&[([0.0, 0.0, 16.0, 16.0], 0, BoxKind::Object)]);
        let gap_of_one = {
            // Ways 4, 4, 12, 12 against squares of half side 2 and 8: 16 / 256 and (4 + 8)^2 / (256 + 256 - 144).
            let teacher = 144.0 / (512.0 - 144.0);
            teacher - 16.0 / 256.0
        };
        let found = of_boxes(2.0, 8.0, &labels);
        assert!(4.0 * gap_of_one > 1.0 && (found - 4.5).abs() < 1e-5, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, boxes| {
                let labels = if boxes { object() } else { labelled(&[]) };
                value_at_p3(("regression_imitation", &term()), student, teacher, &labels, [&|_| 2.0, &|_| 4.0])
            },
            dims: [2, 3, 4, 4],
            rate: 2.0,
            needs_boxes: true,
        });
    }

    #[test]
    fn an_adapter_is_asked_for_where_the_channels_differ() {
        let columns = Column::of("regression_imitation", &term().shared());
        assert_eq!(term().adapters(&columns[0], [5, 5]), []);
        let name = "regression_imitation@p3".to_owned();
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = AdapterSpec { name, kind, student_channels: 16, teacher_channels: 64 };
        assert_eq!(term().adapters(&columns[0], [16, 64]), [spec]);
    }

    #[test]
    fn the_weights_of_places_are_those_of_the_value() {
        // Summing to more than 1, they divide the value.
        let term = RegressionImitation { floor: 0.01, power: 0.5, ..term() };
        let large = labelled(&[([1.0, 1.0, 27.0, 23.0], 0, BoxKind::Object)]);
        check_place_weights(("regression_imitation", &term), &large);
    }
}
