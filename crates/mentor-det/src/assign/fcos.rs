//! The assignment of FCOS.

use burn::tensor::{Tensor, TensorData};
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Assignment;
use crate::grid::Grid;
use crate::upload::DetTargets;
use crate::ways::Ways;

/// Farther than any edge of a box in an image.
const NO_END: f32 = 1e8;
/// Larger than the area of any box: of a box that a place may not answer for.
const NO_BOX: f64 = 1e12;

/// A place answers for an object where its point lies inside of it and within `radius` strides of its middle along both axes,
/// and where the way to its farthest edge lies between 4 and 8 strides of the level (no matter how short on the finest level,
/// how long on the coarsest); of several objects, for the smallest. All anchors of a point answer alike.
///
/// # Source
/// Tian et al. 2019, arXiv 1904.01355, section 3, with the sampling of centres of the authors' later code, as torchvision's
/// `FCOS.compute_loss` does it.
///
/// # Differs
/// torchvision compares areas as `1e8 - area` in 32 bits, so that areas less than 8 square pixels apart are equal to it. It
/// knows neither crowds nor difficult objects nor classes that nobody looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FcosAssign {
    /// How far from the middle of an object points answer for it, in strides. Default 1.5.
    pub radius: f64,
}

impl Default for FcosAssign {
    fn default() -> Self {
        Self { radius: 1.5 }
    }
}

impl FcosAssign {
    pub(super) fn assign(&self, grid: &Grid, targets: &DetTargets, classes: usize) -> Assignment {
        let ways = Ways::of(grid, targets);
        let farthest = ways.farthest();
        let [from, to] = ranges(grid).map(|range| range.expand(farthest.shape()));
        let in_range = farthest.clone().greater(from).bool_and(farthest.lower(to));
        let off_middle = ways.off_middle();
        let near = grid.strides.clone().mul_scalar(self.radius).expand(off_middle.shape());
        let central = off_middle.lower(near);
        let object = targets.objects_nm.clone().unsqueeze_dim::<3>(2).expand(central.shape()).greater_scalar(0.5);
        let answers = ways.inside().bool_and(central).bool_and(in_range).bool_and(object);

        let areas: Tensor<3> = ways.area().mask_fill(answers.bool_not(), NO_BOX);
        let (smallest_n1p, box_n1p) = areas.min_dim_with_indices(1);
        let positive_n1p = smallest_n1p.lower_scalar(NO_BOX / 2.0).float();
        Assignment::of(&ways, targets, classes, box_n1p, positive_n1p)
    }

    pub(super) fn check(&self, found: &mut Found) {
        if !(self.radius.is_finite() && self.radius > 0.0) {
            found.push(("radius".to_owned(), format!("must be above 0, found {}", self.radius)));
        }
    }
}

/// The shortest and the longest way, in pixels, from a point to the farthest edge of a box that the place may answer for, each
/// `[1, 1, p]`: from 4 to 8 strides, but from 0 on the finest level and without an end on the coarsest.
fn ranges(grid: &Grid) -> [Tensor<3>; 2] {
    let strides = || grid.levels.iter().map(|level| level.stride as f32);
    let (mut from, mut to): (Vec<f32>, Vec<f32>) = strides().map(|stride| (4.0 * stride, 8.0 * stride)).unzip();
    from[0] = 0.0;
    to[grid.levels.len() - 1] = NO_END;
    [from, to].map(|of_levels| {
        let of_places = of_levels.into_iter().zip(grid.counts()).flat_map(|(value, places)| vec![value; places]);
        let values: Vec<f32> = of_places.collect();
        Tensor::from_data(TensorData::new(values, grid.strides.dims()), &grid.strides.device())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, output, values};
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, IGNORE};

    /// A level of stride 8 with 4x4 places and one of stride 16 with 2x2, for an image of 32x32.
    fn assigned(labels: &[BoxLabels]) -> Assignment {
        let output = output(&[(8, [4, 4]), (16, [2, 2])], labels.len(), 3, |_| 0.0);
        let grid = Grid::of(&output, &Device::flex());
        FcosAssign::default().assign(&grid, &DetTargets::upload(labels, &Device::flex()), 3)
    }

    /// The places of the first image where `mask` is not 0.
    fn places(mask: Tensor<3>) -> Vec<usize> {
        let values = values(mask.narrow(0, 0, 1));
        values.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(place, _)| place).collect()
    }

    const OBJECT: ([f32; 4], u8, BoxKind) = ([0.0, 0.0, 16.0, 16.0], 1, BoxKind::Object);

    #[test]
    fn a_small_object_is_answered_for_by_the_places_about_its_middle() {
        let found = assigned(&[labelled(&[OBJECT])]);
        // The points (4, 4), (12, 4), (4, 12), (12, 12) lie inside, at most 12 pixels from the middle.
        assert_eq!(places(found.positive_n1p.clone()), [0, 1, 4, 5]);
        assert_eq!(places(found.classes_nkp.clone().narrow(1, 1, 1)), [0, 1, 4, 5]);
        assert_eq!(values(found.classes_nkp).iter().sum::<f32>(), 4.0);
        assert_eq!(values(found.positives), [4.0]);
        let at_first = |x: Tensor<3>| values(x.narrow(2, 0, 1));
        assert_eq!(at_first(found.distances_n4p.clone()), [4.0, 4.0, 12.0, 12.0]);
        assert!((at_first(found.centerness_n1p)[0] - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(values(found.distances_n4p.narrow(2, 2, 1)), [0.0; 4]);
    }

    #[test]
    fn only_places_near_the_middle_and_levels_of_its_size_answer() {
        let found = assigned(&[labelled(&[([-50.0, -50.0, 70.0, 70.0], 0, BoxKind::Object)])]);
        let expected = expected_for_large();
        assert!(expected.iter().any(|place| *place < 16) && expected.iter().any(|place| *place >= 16), "{expected:?}");
        assert_eq!(places(found.positive_n1p), expected);
        // A long flat box: its places lie within 12 pixels of its middle at (16, 4).
        let flat = assigned(&[labelled(&[([0.0, 0.0, 32.0, 8.0], 0, BoxKind::Object)])]);
        assert_eq!(places(flat.positive_n1p), [1, 2]);
    }

    /// The middle is (10, 10): within 12 pixels at stride 8 with all edges nearer than 64, within 24 at stride 16 with one
    /// farther.
    fn expected_for_large() -> Vec<usize> {
        let mut found = Vec::new();
        for (first, stride, side, range) in [(0, 8.0, 4, 0.0..64.0), (16, 16.0, 2, 64.0..1e9)] {
            for place in 0..side * side {
                let point = [(place % side) as f32, (place / side) as f32].map(|at| (at + 0.5) * stride);
                let farthest = point.iter().map(|at| (at + 50.0).max(70.0 - at)).fold(0.0, f32::max);
                let near = point.iter().all(|at| (at - 10.0).abs() < 1.5 * stride);
                if near && farthest > range.start && farthest < range.end {
                    found.push(first + place);
                }
            }
        }
        found
    }

    #[test]
    fn the_smallest_object_wins_whatever_the_order() {
        let small = ([4.0, 4.0, 14.0, 14.0], 2, BoxKind::Object);
        for boxes in [[OBJECT, small], [small, OBJECT]] {
            let found = assigned(&[labelled(&boxes)]);
            assert_eq!(places(found.classes_nkp.clone().narrow(1, 2, 1)), [5]);
            assert_eq!(places(found.classes_nkp.narrow(1, 1, 1)), [0, 1, 4]);
            assert_eq!(values(found.distances_n4p.narrow(2, 5, 1)), [8.0, 8.0, 2.0, 2.0]);
        }
    }

    #[test]
    fn crowds_and_difficult_objects_count_nowhere_for_their_class() {
        let region = |class, kind| ([0.0, 0.0, 32.0, 16.0], class, kind);
        for (class, kind, ignored) in
            [(2, BoxKind::Crowd, vec![2]), (0, BoxKind::Difficult, vec![0]), (IGNORE, BoxKind::Crowd, vec![0, 1, 2])]
        {
            let found = assigned(&[labelled(&[OBJECT, region(class, kind)])]);
            assert_eq!(places(found.positive_n1p), [0, 1, 4, 5]);
            for channel in 0..3 {
                let counted = places(found.counted_nkp.clone().narrow(1, channel, 1));
                // The right half of the two upper rows, and the upper two places of the coarse level.
                let inside = [2, 3, 6, 7, 16, 17];
                let expected: Vec<usize> =
                    (0..20).filter(|place| !ignored.contains(&channel) || !inside.contains(place)).collect();
                assert_eq!(counted, expected, "class {channel} beside {kind:?} of {class}");
            }
        }
    }

    #[test]
    fn a_class_that_nobody_looked_for_counts_at_its_objects_alone() {
        let labels = BoxLabels { looked_for: Some(vec![0]), ..labelled(&[OBJECT]) };
        let found = assigned(&[labels, labelled(&[])]);
        let counted = |channel| places(found.counted_nkp.clone().narrow(1, channel, 1));
        assert_eq!(counted(0), (0..20).collect::<Vec<_>>());
        assert_eq!(counted(1), [0, 1, 4, 5]);
        assert_eq!(counted(2), Vec::<usize>::new());
        let other = values(found.counted_nkp.narrow(0, 1, 1));
        assert_eq!(other, vec![1.0; 60]);
    }

    #[test]
    fn images_without_boxes_have_no_positive_and_all_background() {
        let found = assigned(&[labelled(&[])]);
        assert_eq!(values(found.positive_n1p), vec![0.0; 20]);
        assert_eq!(values(found.positives), [1.0]);
        assert_eq!(values(found.counted_nkp), vec![1.0; 60]);
        assert_eq!(values(found.centerness_n1p), vec![0.0; 20]);
    }
}
