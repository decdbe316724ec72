//! The assignment of `RetinaNet`.

use mentor_types::{Found, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Assignment;
use crate::grid::Grid;
use crate::upload::DetTargets;
use crate::ways::Ways;

/// The overlap of an anchor with a box that holds no object.
const NO_OBJECT: f64 = -1.0;

/// A place answers for the object that its anchor overlaps with most, where that is at least `high`; with `low_quality` also
/// where no other anchor overlaps more with some object, so that every object is answered for. Where the largest overlap lies
/// from `low` up to `high`, no class is learnt; below it background is.
///
/// # Source
/// Lin et al. 2017, arXiv 1708.02002, section 4.1; torchvision's `Matcher` as `RetinaNet` uses it.
///
/// # Differs
/// An object that no anchor overlaps with at all is answered for by none; in torchvision by every anchor that does not overlap
/// with it. It knows neither crowds nor difficult objects nor classes that nobody looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MaxIouAssign {
    /// From which overlap on a place answers for an object: intersection over union, in [0, 1]. Default 0.5.
    pub high: f64,
    /// Below which overlap a place is background, at most `high`. Default 0.4.
    pub low: f64,
    /// Whether the anchors that overlap with an object most answer, however little. Default true.
    pub low_quality: bool,
}

impl Default for MaxIouAssign {
    fn default() -> Self {
        Self { high: 0.5, low: 0.4, low_quality: true }
    }
}

impl MaxIouAssign {
    pub(super) fn assign(&self, grid: &Grid, targets: &DetTargets, classes: usize) -> Assignment {
        let ways = Ways::of(grid, targets);
        let overlap = ways.overlap_with_anchors(grid);
        let is_none = targets.objects_nm.clone().unsqueeze_dim::<3>(2).expand(overlap.shape()).lower_scalar(0.5);
        let overlap_nmp = overlap.mask_fill(is_none, NO_OBJECT);
        let (most_n1p, box_n1p) = overlap_nmp.clone().max_dim_with_indices(1);
        let is_high_n1p = most_n1p.clone().greater_equal_scalar(self.high);
        // An overlap of 0 answers for nothing, whatever `high` is.
        let touches_n1p = most_n1p.clone().greater_scalar(0.0);
        let answers_n1p = if self.low_quality {
            let best_nm1 = overlap_nmp.clone().max_dim(2);
            let is_best_nmp = overlap_nmp.clone().equal(best_nm1.expand(overlap_nmp.shape()));
            let touching = overlap_nmp.greater_scalar(0.0);
            let is_some_best_n1p = is_best_nmp.bool_and(touching).float().max_dim(1).greater_scalar(0.5);
            is_high_n1p.bool_or(is_some_best_n1p)
        } else {
            is_high_n1p
        };
        let positive_n1p = answers_n1p.bool_and(touches_n1p).float();
        let background_n1p = most_n1p.lower_scalar(self.low).float();
        let mut assignment = Assignment::of(&ways, targets, classes, box_n1p, positive_n1p.clone());
        assignment.counted_nkp = assignment.counted_nkp * positive_n1p.max_pair(background_n1p);
        assignment
    }

    pub(super) fn check(&self, found: &mut Found) {
        check_probability("high", self.high, found);
        check_probability("low", self.low, found);
        if self.low > self.high {
            found.push(("low".to_owned(), format!("must be at most `high`, {}, found {}", self.high, self.low)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, output, values};
    use burn::tensor::{Device, Tensor};
    use mentor_types::{BoxKind, BoxLabels, IGNORE};

    /// A level of stride 8 with 1x4 points, each with anchors of 8 by 8 and of 16 by 16.
    fn assigned(term: &MaxIouAssign, labels: &[BoxLabels]) -> Assignment {
        let mut output = output(&[(8, [1, 4])], labels.len(), 3, |_| 0.0);
        output.levels[0].layout.anchors = vec![[8.0; 2], [16.0; 2]];
        let grid = Grid::of(&output, &Device::flex());
        term.assign(&grid, &DetTargets::upload(labels, &Device::flex()), 3)
    }

    fn places(mask: Tensor<3>) -> Vec<usize> {
        let values = values(mask);
        values.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(place, _)| place).collect()
    }

    #[test]
    fn overlaps_above_between_and_below_by_hand() {
        // Of anchor 0, (0, 0, 8, 8), 3 quarters; of anchor 1, (-4, -4, 12, 12), 48 of 256; of the next point nothing.
        let labels = [labelled(&[([0.0, 0.0, 6.0, 8.0], 1, BoxKind::Object)])];
        let found = assigned(&MaxIouAssign::default(), &labels);
        assert_eq!(places(found.positive_n1p), [0]);
        assert_eq!(places(found.classes_nkp), [8]);
        assert_eq!(places(found.counted_nkp.narrow(1, 0, 1)), (0..8).collect::<Vec<_>>());
        // 0.75 is now neither, unless it is the best there is.
        for (low_quality, positive, counted) in
            [(false, vec![], (1..8).collect()), (true, vec![0], Vec::from_iter(0..8))]
        {
            let found = assigned(&MaxIouAssign { high: 0.8, low: 0.7, low_quality }, &labels);
            assert_eq!(places(found.positive_n1p), positive);
            assert_eq!(places(found.counted_nkp.narrow(1, 1, 1)), counted);
        }
    }

    #[test]
    fn an_object_that_overlaps_little_is_answered_for_by_its_best_anchors_alone() {
        // A box of 2 by 2 inside anchors 0 and 1: 4 / 64 and 4 / 256; and one far outside of all.
        let tiny = ([3.0, 3.0, 5.0, 5.0], 2, BoxKind::Object);
        let outside = ([500.0, 500.0, 600.0, 600.0], 0, BoxKind::Object);
        let found = assigned(&MaxIouAssign::default(), &[labelled(&[tiny, outside])]);
        assert_eq!(places(found.positive_n1p.clone()), [0]);
        assert_eq!(values(found.distances_n4p.narrow(2, 0, 1)), [1.0; 4]);
        let without = assigned(&MaxIouAssign { low_quality: false, ..MaxIouAssign::default() }, &[labelled(&[tiny])]);
        assert_eq!(places(without.positive_n1p), [0; 0]);
    }

    #[test]
    fn points_outside_of_an_object_have_no_centerness_and_ways_below_zero() {
        // Anchor 3 is (4, -4, 20, 12): its point (12, 4) lies left of the object.
        let found = assigned(&MaxIouAssign::default(), &[labelled(&[([13.0, -4.0, 22.0, 12.0], 0, BoxKind::Object)])]);
        assert!(values(found.centerness_n1p.clone()).iter().all(|share| share.is_finite()));
        let positive = places(found.positive_n1p);
        assert!(!positive.is_empty());
        assert!(values(found.distances_n4p).iter().all(|way| way.is_finite()));
    }

    #[test]
    fn crowds_difficult_objects_and_classes_that_nobody_looked_for_count_nowhere() {
        let object = ([0.0, 0.0, 8.0, 8.0], 1, BoxKind::Object);
        for (class, kind, ignored) in
            [(2, BoxKind::Crowd, vec![2]), (0, BoxKind::Difficult, vec![0]), (IGNORE, BoxKind::Crowd, vec![0, 1, 2])]
        {
            let found =
                assigned(&MaxIouAssign::default(), &[labelled(&[object, ([16.0, 0.0, 32.0, 8.0], class, kind)])]);
            assert_eq!(places(found.positive_n1p), [0]);
            for channel in 0..3 {
                let expected: Vec<usize> = if ignored.contains(&channel) { (0..4).collect() } else { (0..8).collect() };
                assert_eq!(places(found.counted_nkp.clone().narrow(1, channel, 1)), expected, "{channel} by {kind:?}");
            }
        }
        let partly = BoxLabels { looked_for: Some(vec![0]), ..labelled(&[object]) };
        let found = assigned(&MaxIouAssign::default(), &[partly]);
        assert_eq!([0, 1, 2].map(|k| places(found.counted_nkp.clone().narrow(1, k, 1)).len()), [8, 1, 0]);
        let nothing = assigned(&MaxIouAssign::default(), &[labelled(&[])]);
        assert_eq!((places(nothing.positive_n1p).len(), places(nothing.counted_nkp).len()), (0, 24));
    }
}
