//! Adaptive training sample selection.

use burn::tensor::{Bool, Tensor};
use mentor_types::{Found, LevelLayout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Assignment, least};
use crate::grid::Grid;
use crate::upload::DetTargets;
use crate::ways::Ways;

/// Farther, squared, than any point from any object.
const TAKEN: f64 = 1e30;
/// The overlap of an anchor with a box that it may not answer for.
const NO_BOX: f64 = -1.0;
/// By how much a sum of equal overlaps may be off.
const ROUNDING: f64 = 1e-5;

/// Of the `nearest` points of each level to the middle of an object, the anchors whose overlap with it is at least the mean of
/// all these overlaps plus their deviation answer for it, where the point lies inside; of several objects, for the one with the
/// larger overlap. In a net without anchors a square of 8 strides about the point stands for one.
///
/// # Source
/// Zhang et al. 2020, arXiv 1912.02424, algorithm 1; its `k` is 9. The deviation is that of a sample, and at each of the points
/// all anchors are looked at, as in the authors' code.
///
/// # Differs
/// Where no anchor whose point lies inside reaches the bound, as happens with few levels, the best of them answer; in the paper
/// none does. An overlap may be lower than the bound by rounding. Of points equally near to the middle of an object the first are taken. A
/// point counts as inside up to the edge; the authors' code leaves 0.01 pixels. Nothing there says what crowds, difficult objects
/// and classes that nobody looked for are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AtssAssign {
    /// How many points of each level are looked at, 1 to 64. Default 9.
    pub nearest: usize,
}

impl Default for AtssAssign {
    fn default() -> Self {
        Self { nearest: 9 }
    }
}

impl AtssAssign {
    pub(super) fn assign(&self, grid: &Grid, targets: &DetTargets, classes: usize) -> Assignment {
        let ways = Ways::of(grid, targets);
        let overlap_nmp = ways.overlap_with_anchors(grid);
        let (near_nmp, count) = self.candidates(grid, &ways);
        let of_near = |values: Tensor<3>| (values * near_nmp.clone().float()).sum_dim(2);
        let mean_nm1 = of_near(overlap_nmp.clone()).div_scalar(count as f64);
        let off_nmp = overlap_nmp.clone() - mean_nm1.clone();
        let deviation_nm1 = of_near(off_nmp.clone() * off_nmp).div_scalar((count - 1).max(1) as f64).sqrt();

        let object = targets.objects_nm.clone().unsqueeze_dim::<3>(2).expand(overlap_nmp.shape()).greater_scalar(0.5);
        let may_answer = near_nmp.bool_and(ways.inside()).bool_and(object);
        let overlap_nmp = overlap_nmp.mask_fill(may_answer.bool_not(), NO_BOX);
        let bound_nm1 = (mean_nm1 + deviation_nm1).min_pair(overlap_nmp.clone().max_dim(2)).mul_scalar(1.0 - ROUNDING);
        let is_low = overlap_nmp.clone().lower(bound_nm1.expand(overlap_nmp.shape()));
        let (most_n1p, box_n1p) = overlap_nmp.mask_fill(is_low, NO_BOX).max_dim_with_indices(1);
        let positive_n1p = most_n1p.greater_scalar(NO_BOX / 2.0).float();
        Assignment::of(&ways, targets, classes, box_n1p, positive_n1p)
    }

    /// Whether a place is at one of the nearest points of its level to the middle of a box, `[n, m, p]`; and at how many places
    /// that is for each box.
    fn candidates(&self, grid: &Grid, ways: &Ways) -> (Tensor<3, Bool>, usize) {
        let [left, top, right, bottom] = ways.edges_nmp.clone();
        let square = |x: Tensor<3>| x.clone() * x;
        let off_nmp = square(left - right) + square(top - bottom);
        let mut count = 0;
        let of_level = |level: &LevelLayout| {
            let off = grid.at_level(level.stride, &off_nmp);
            let [n, m, places] = off.dims();
            let anchors = level.anchors.len();
            let points = places / anchors;
            // All anchors of a point have its distance.
            let off = off.reshape([n, m, points, anchors]).narrow(3, 0, 1).reshape([n, m, points]);
            let taken = self.nearest.min(points);
            count += taken * anchors;
            let near = nearest(off, taken).unsqueeze_dim::<4>(3).expand([n, m, points, anchors]);
            near.reshape([n, m, places])
        };
        let near = grid.levels.iter().map(of_level).collect();
        (Tensor::cat(near, 2), count)
    }

    pub(super) fn check(&self, found: &mut Found) {
        if !(1..=64).contains(&self.nearest) {
            found.push(("nearest".to_owned(), format!("{} points, expected 1 to 64", self.nearest)));
        }
    }
}

/// Whether a value is one of the `count` smallest along the last dimension; of equal ones the first. One after the other: a
/// sort would be done on the host.
fn nearest(mut values_nmp: Tensor<3>, count: usize) -> Tensor<3, Bool> {
    let mut found: Option<Tensor<3, Bool>> = None;
    for _ in 0..count {
        let is_next = least(&values_nmp);
        values_nmp = values_nmp.mask_fill(is_next.clone(), TAKEN);
        found = Some(match found {
            None => is_next,
            Some(before) => before.bool_or(is_next),
        });
    }
    found.expect("a level has a point, and at least one is looked for")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, output, rows, values};
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, IGNORE};

    /// A level of stride 8 with 4x4 places and one of stride 16 with 2x2; their squares have sides of 64 and 128.
    fn assigned(nearest: usize, labels: &[BoxLabels]) -> Assignment {
        let output = output(&[(8, [4, 4]), (16, [2, 2])], labels.len(), 3, |_| 0.0);
        let grid = Grid::of(&output, &Device::flex());
        AtssAssign { nearest }.assign(&grid, &DetTargets::upload(labels, &Device::flex()), 3)
    }

    fn places(mask: Tensor<3>) -> Vec<usize> {
        let values = values(mask.narrow(0, 0, 1));
        values.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(place, _)| place).collect()
    }

    #[test]
    fn the_nearest_are_taken_once_each_and_of_equals_the_first() {
        let values_nmp = rows(&[[3.0, 1.0, 2.0, 1.0, 5.0], [0.0; 5]]);
        for (count, expected) in
            [(1, [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]), (3, [[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]]), (5, [[1; 5], [1; 5]])]
        {
            let found = values(nearest(values_nmp.clone(), count).float());
            assert_eq!(found, expected.concat().into_iter().map(|yes| yes as f32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_level_of_its_size_answers_for_an_object() {
        // (4, 4, 20, 20) lies in all squares of its four nearest points: 256 / 4096 on the fine level, a quarter of that on the
        // coarse one. The mean of eight is 0.039, the deviation 0.025.
        let found = assigned(4, &[labelled(&[([4.0, 4.0, 20.0, 20.0], 1, BoxKind::Object)])]);
        let positive = places(found.positive_n1p.clone());
        assert!(positive.iter().all(|place| *place < 16), "{positive:?}");
        assert_eq!(places(found.classes_nkp.narrow(1, 1, 1)), positive);
    }

    #[test]
    fn equal_overlaps_of_all_candidates_answer() {
        // One level, and an object that holds all of the squares of its nine points.
        let output = output(&[(8, [4, 4])], 1, 3, |_| 0.0);
        let grid = Grid::of(&output, &Device::flex());
        let labels = [labelled(&[([-40.3, -40.3, 72.9, 72.9], 1, BoxKind::Object)])];
        let found = AtssAssign::default().assign(&grid, &DetTargets::upload(&labels, &Device::flex()), 3);
        assert_eq!(places(found.positive_n1p).len(), 9);
    }

    #[test]
    fn every_place_answers_for_one_object_and_lies_inside_of_it() {
        let objects = [
            ([1.0, 2.0, 15.0, 13.0], 0, BoxKind::Object),
            ([3.0, 3.0, 21.0, 19.0], 1, BoxKind::Object),
            ([-60.0, -50.0, 80.0, 75.0], 2, BoxKind::Object),
        ];
        let found = assigned(9, &[labelled(&objects)]);
        assert!(values(found.distances_n4p.clone()).iter().all(|way| *way >= 0.0));
        let classes = values(found.classes_nkp.sum_dim(1));
        assert_eq!(classes, values(found.positive_n1p.clone()));
        assert_eq!(values(found.positives)[0], classes.iter().sum::<f32>());
        assert!(places(found.positive_n1p).len() >= 3);
    }

    #[test]
    fn crowds_difficult_objects_and_classes_that_nobody_looked_for_count_nowhere() {
        let object = ([0.0, 0.0, 16.0, 16.0], 1, BoxKind::Object);
        let alone = places(assigned(9, &[labelled(&[object])]).positive_n1p);
        // All four squares hold the object, and their overlap lies below the bound.
        assert_eq!(alone, [0, 1, 4, 5]);
        for (class, kind, ignored) in
            [(2, BoxKind::Crowd, vec![2]), (0, BoxKind::Difficult, vec![0]), (IGNORE, BoxKind::Crowd, vec![0, 1, 2])]
        {
            let found = assigned(9, &[labelled(&[object, ([0.0, 16.0, 32.0, 32.0], class, kind)])]);
            assert_eq!(places(found.positive_n1p), alone);
            for channel in 0..3 {
                let counted = places(found.counted_nkp.clone().narrow(1, channel, 1));
                // The two lower rows of the fine level, the lower one of the coarse one.
                let inside = |place: &usize| (8..16).contains(place) || *place >= 18;
                let expected: Vec<usize> =
                    (0..20).filter(|place| !ignored.contains(&channel) || !inside(place)).collect();
                assert_eq!(counted, expected, "class {channel} beside {kind:?} of {class}");
            }
        }
        let partly = BoxLabels { looked_for: Some(vec![0]), ..labelled(&[object]) };
        let found = assigned(9, &[partly]);
        assert_eq!(places(found.counted_nkp.clone().narrow(1, 1, 1)), alone);
        assert_eq!(places(found.counted_nkp.narrow(1, 2, 1)), [0; 0]);
        let nothing = assigned(9, &[labelled(&[])]);
        assert_eq!((places(nothing.positive_n1p).len(), places(nothing.counted_nkp).len()), (0, 60));
    }
}
