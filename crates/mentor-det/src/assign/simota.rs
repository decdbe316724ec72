//! Assignment by what the student says already.

use burn::tensor::activation::softplus;
use burn::tensor::{Bool, Tensor};
use mentor_types::{DetOutput, Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Assignment, least};
use crate::grid::{Grid, at_all_places};
use crate::upload::DetTargets;
use crate::ways::Ways;

/// More than any place costs.
const MUCH: f64 = 1e9;
/// What a place costs more that lies outside of the box, or far from its middle.
const FAR: f64 = 1e5;
/// Keeps the logarithm of no overlap finite.
const NOTHING: f64 = 1e-8;

/// The places that answer for an object are those at which the student's own answer costs least: the cross-entropy of all class
/// scores, and `iou_weight` times `-log` of the overlap of box and object. Only places inside of the object, or within `radius`
/// strides of its middle along both axes, may answer, and those that are not both only where there are too few others. How many do
/// is the sum of the object's `most` largest overlaps with their boxes, rounded down, at least 1. A place that several objects
/// want answers for the one for which it costs least.
///
/// Off the graph: nothing here has a gradient.
///
/// # Source
/// Ge et al. 2021, arXiv 2107.08430, section 2.1, `SimOTA`; the authors' code: 10 overlaps, a radius of 2.5 strides, a weight of 3.
///
/// # Differs
/// The class scores of the authors' net are multiplied by its objectness. There a place of one object may answer for
/// another that it lies far from. Nothing there says what crowds, difficult objects and classes that nobody looked for are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimotaAssign {
    /// How far from the middle of an object places may answer for it, in strides. Default 2.5.
    pub radius: f64,
    /// How many places may answer for an object at most, 1 to 64. Default 10.
    pub most: usize,
    /// Factor of the boxes beside the classes. Default 3.
    pub iou_weight: f64,
}

impl Default for SimotaAssign {
    fn default() -> Self {
        Self { radius: 2.5, most: 10, iou_weight: 3.0 }
    }
}

impl SimotaAssign {
    pub(super) fn assign(&self, grid: &Grid, targets: &DetTargets, output: &DetOutput, classes: usize) -> Assignment {
        let ways = Ways::of(grid, targets);
        let off_middle = ways.off_middle();
        let shape = off_middle.shape();
        let is_near = off_middle.lower(grid.strides.clone().mul_scalar(self.radius).expand(shape.clone()));
        let is_inside = ways.inside();
        let object = targets.objects_nm.clone().unsqueeze_dim::<3>(2).expand(shape).greater_scalar(0.5);
        let may_answer = is_inside.clone().bool_or(is_near.clone()).bool_and(object);

        let distances_n4p = at_all_places(output, |level| &level.distances).inner();
        let overlap_nmp = ways.overlap_with_boxes(&distances_n4p).mask_fill(may_answer.clone().bool_not(), 0.0);
        let wanted_nm1 = self.wanted(overlap_nmp.clone());
        let logits_nkp = at_all_places(output, |level| &level.class_logits).inner();
        let scores_nmp = targets.one_hot(classes).matmul(logits_nkp.clone());
        let classes_nmp = softplus(logits_nkp, 1.0).sum_dim(1) - scores_nmp;
        let boxes_nmp = overlap_nmp.add_scalar(NOTHING).log().mul_scalar(-self.iou_weight);
        let far_nmp = is_inside.bool_and(is_near).bool_not().float().mul_scalar(FAR);
        let cost_nmp = (classes_nmp + boxes_nmp + far_nmp).mask_fill(may_answer.clone().bool_not(), MUCH);

        let chosen = self.cheapest(cost_nmp.clone(), &wanted_nm1).bool_and(may_answer);
        let (cost_n1p, box_n1p) = cost_nmp.mask_fill(chosen.bool_not(), MUCH).min_dim_with_indices(1);
        let positive_n1p = cost_n1p.lower_scalar(MUCH / 2.0).float();
        Assignment::of(&ways, targets, classes, box_n1p, positive_n1p)
    }

    /// How many places are to answer for each object, `[n, m, 1]`.
    fn wanted(&self, mut overlap_nmp: Tensor<3>) -> Tensor<3> {
        let [n, m, places] = overlap_nmp.dims();
        let mut sum_nm1 = Tensor::zeros([n, m, 1], &overlap_nmp.device());
        for _ in 0..self.most.min(places) {
            sum_nm1 = sum_nm1 + overlap_nmp.clone().max_dim(2);
            let is_most = least(&overlap_nmp.clone().neg());
            overlap_nmp = overlap_nmp.mask_fill(is_most, 0.0);
        }
        sum_nm1.floor().clamp_min(1.0)
    }

    /// The places of least cost, as many as are wanted.
    fn cheapest(&self, mut cost_nmp: Tensor<3>, wanted_nm1: &Tensor<3>) -> Tensor<3, Bool> {
        let (shape, places) = (cost_nmp.shape(), cost_nmp.dims()[2]);
        // At least one is wanted.
        let mut is_next = least(&cost_nmp);
        let mut chosen = is_next.clone();
        for index in 1..self.most.min(places) {
            cost_nmp = cost_nmp.mask_fill(is_next, MUCH);
            is_next = least(&cost_nmp);
            let is_wanted = wanted_nm1.clone().greater_scalar(index as f64 + 0.5).expand(shape.clone());
            chosen = chosen.bool_or(is_next.clone().bool_and(is_wanted));
        }
        chosen
    }

    pub(super) fn check(&self, found: &mut Found) {
        for (key, value) in [("radius", self.radius), ("iou_weight", self.iou_weight)] {
            if !(value.is_finite() && value > 0.0) {
                found.push((key.to_owned(), format!("must be above 0, found {value}")));
            }
        }
        if !(1..=64).contains(&self.most) {
            found.push(("most".to_owned(), format!("{} places, expected 1 to 64", self.most)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, level, map, output, values};
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, Taps};

    fn places(mask: Tensor<3>) -> Vec<usize> {
        let values = values(mask);
        values.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(place, _)| place).collect()
    }

    /// A level of stride 8 with 1x4 places, whose boxes are as told and whose scores are 0.
    fn told(ways: [[f32; 4]; 4]) -> DetOutput {
        let distances = map([1, 4, 1, 4], |i| ways[i % 4][i / 4]);
        let level = level(8, map([1, 2, 1, 4], |_| 0.0), distances, None);
        DetOutput { levels: vec![level], regions: None, taps: Taps::default(), image_size: [8, 32] }
    }

    fn assigned(term: &SimotaAssign, output: &DetOutput, labels: &[BoxLabels]) -> Assignment {
        let grid = Grid::of(output, &Device::flex());
        term.assign(&grid, &DetTargets::upload(labels, &Device::flex()), output, 2)
    }

    #[test]
    fn as_many_of_the_best_boxes_answer_as_overlaps_sum_to() {
        // The object (0, 0, 32, 8) is said by the second and third place, half of it by the others.
        let right = |x: f32| [x, 4.0, 32.0 - x, 4.0];
        let half = |x: f32| [x, 4.0, 16.0 - x, 4.0];
        let output = told([half(4.0), right(12.0), right(20.0), [12.0, 4.0, 4.0, 4.0]]);
        let labels = [labelled(&[([0.0, 0.0, 32.0, 8.0], 1, BoxKind::Object)])];
        // 1 + 1 + 1/2 + 1/2 are three; of the two halves the first is taken.
        let found = assigned(&SimotaAssign::default(), &output, &labels);
        assert_eq!(places(found.positive_n1p), [0, 1, 2]);
        assert_eq!(places(found.classes_nkp), [4, 5, 6]);
        let found = assigned(&SimotaAssign { most: 1, ..SimotaAssign::default() }, &output, &labels);
        assert_eq!(places(found.positive_n1p), [1]);
    }

    #[test]
    fn a_place_that_two_objects_want_answers_for_the_cheaper_one() {
        let own = [4.0, 4.0, 4.0, 4.0];
        let mut output = told([own; 4]);
        // The second class is the surer one at the first place.
        output.levels[0].class_logits = map([1, 2, 1, 4], |i| if i == 4 { 3.0 } else { 0.0 }).flatten(2, 3);
        let object = |class| ([0.0, 0.0, 8.0, 8.0], class, BoxKind::Object);
        let found = assigned(&SimotaAssign::default(), &output, &[labelled(&[object(0), object(1)])]);
        assert_eq!(places(found.positive_n1p), [0]);
        assert_eq!(places(found.classes_nkp), [4]);
    }

    #[test]
    fn a_small_object_between_the_points_is_answered_for_by_one_near_it() {
        let output = output(&[(8, [4, 4]), (16, [2, 2])], 1, 3, |i| (i % 5) as f32 / 5.0);
        let grid = Grid::of(&output, &Device::flex());
        let assigned = |labels: BoxLabels| {
            SimotaAssign::default().assign(&grid, &DetTargets::upload(&[labels], &Device::flex()), &output, 3)
        };
        let found = assigned(labelled(&[([7.0, 7.0, 9.0, 9.0], 1, BoxKind::Object)]));
        assert_eq!(places(found.positive_n1p).len(), 1);
        assert!(values(found.centerness_n1p).iter().all(|share| share.is_finite()));
        let nothing = assigned(labelled(&[]));
        assert_eq!((places(nothing.positive_n1p).len(), places(nothing.counted_nkp).len()), (0, 60));
        let crowd = assigned(labelled(&[([0.0, 0.0, 32.0, 16.0], 2, BoxKind::Crowd)]));
        assert_eq!((places(crowd.positive_n1p).len(), places(crowd.counted_nkp).len()), (0, 50));
    }

    #[test]
    fn nothing_of_it_is_on_the_graph() {
        let mut output = told([[4.0; 4]; 4]);
        let level = &mut output.levels[0];
        level.class_logits = Tensor::from_inner(level.class_logits.clone()).require_grad();
        level.distances = Tensor::from_inner(level.distances.clone()).require_grad();
        let labels = [labelled(&[([0.0, 0.0, 32.0, 8.0], 1, BoxKind::Object)])];
        assert!(!assigned(&SimotaAssign::default(), &output, &labels).positive_n1p.is_autodiff());
    }
}
