//! Average precision as Pascal VOC defines it.

use mentor_types::BoxKind;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::coco::mean;
use super::input::{FoundBox, ImageTruth, Pair, TruthBox, overlap, pairs, surest_first};

/// The overlap from which a box is right.
const THRESHOLD: f64 = 0.5;

/// Counts what was found in images, and makes the average precision of Pascal VOC of it.
///
/// A found box belongs to the labelled one of its class that it covers best, the first of equally good ones. It is right from
/// an overlap of 0.5 on if it is the surest that belongs there, and wrong if another was surer; where that box is difficult (or
/// a crowd) it counts neither way. Equal scores keep the order of images. There is no limit of boxes.
///
/// # Source
/// `VOCevaldet.m` of the VOC2012 development kit, and the eleven points of VOC2007.
///
/// # Differs
/// The kit adds a pixel to width and height, since its corners are pixels; here boxes are edges, as the reader of VOC makes
/// them of corners, so that both are the same number. A class that was not looked for in an image is left out there.
#[derive(Clone, Debug)]
pub struct VocScores(Vec<OfClass>);

#[derive(Clone, Debug, Default)]
struct OfClass {
    boxes: u64,
    /// Score, and whether it is right.
    verdicts: Vec<(f64, bool)>,
}

/// Average precision at an overlap of 0.5, in `[0, 1]`, of each class and as the mean of those that have boxes to find.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VocMetrics {
    /// The mean area under the curve of precision over recall (VOC2010 and later); `None` where there is no box.
    pub area: Option<f64>,
    /// The area of each class; `None` where it has no box.
    pub area_per_class: Vec<Option<f64>>,
    /// The mean of the precision at recalls 0, 0.1, ..., 1 (VOC2007).
    pub eleven_points: Option<f64>,
    /// That of each class.
    pub eleven_points_per_class: Vec<Option<f64>>,
}

impl VocScores {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self(vec![OfClass::default(); classes])
    }

    /// Counts an image.
    ///
    /// # Panics
    /// Where a class is not one of those that there are.
    pub fn push(&mut self, truth: &ImageTruth, found: &[FoundBox]) {
        for pair in pairs(truth, found, self.0.len()) {
            let of_class = &mut self.0[pair.class];
            of_class.boxes += pair.truth.iter().filter(|(_, label)| label.kind == BoxKind::Object).count() as u64;
            of_class.verdicts.extend(verdicts(&pair));
        }
    }

    /// The scores of what was counted so far.
    #[must_use]
    pub fn scores(&self) -> VocMetrics {
        let both: Vec<Option<[f64; 2]>> = self.0.par_iter().map(OfClass::scores).collect();
        let [area, eleven] = [0, 1].map(|which| both.iter().map(|of| of.map(|of| of[which])).collect::<Vec<_>>());
        VocMetrics {
            area: mean(area.iter().flatten().copied()),
            eleven_points: mean(eleven.iter().flatten().copied()),
            area_per_class: area,
            eleven_points_per_class: eleven,
        }
    }
}

/// The scores of what counts, and whether each is right.
fn verdicts(pair: &Pair<'_>) -> Vec<(f64, bool)> {
    let mut taken = vec![false; pair.truth.len()];
    let verdict = |found: &FoundBox| {
        let (mut best, mut most): (Option<(usize, &TruthBox)>, f64) = (None, 0.0);
        for (at, &(_, label)) in pair.truth.iter().enumerate() {
            let covered = overlap(found.extent, label);
            if covered > most {
                (best, most) = (Some((at, label)), covered);
            }
        }
        match best.filter(|_| most >= THRESHOLD) {
            Some((_, label)) if label.kind != BoxKind::Object => None,
            Some((at, _)) => Some((found.score, !std::mem::replace(&mut taken[at], true))),
            None => pair.is_known.then_some((found.score, false)),
        }
    };
    pair.found.iter().map(|(_, found)| *found).filter_map(verdict).collect()
}

impl OfClass {
    /// The area under the curve and the mean of eleven points.
    fn scores(&self) -> Option<[f64; 2]> {
        let mut order = self.verdicts.clone();
        order.sort_by(|a, b| surest_first(a.0, b.0));
        // The precision at each hit, and then the best from there on.
        let (mut precisions, mut misses) = (Vec::new(), 0_u64);
        for (_, is_right) in order {
            if is_right {
                let hits = precisions.len() as f64 + 1.0;
                precisions.push(hits / (hits + misses as f64));
            } else {
                misses += 1;
            }
        }
        let mut best = 0.0_f64;
        for precision in precisions.iter_mut().rev() {
            best = best.max(*precision);
            *precision = best;
        }
        let boxes = self.boxes as f64;
        let at_recall = |recall: f64| (0..precisions.len()).find(|hit| (*hit as f64 + 1.0) / boxes >= recall);
        let points = (0..=10).map(|at| at_recall(f64::from(at) / 10.0).map_or(0.0, |hit| precisions[hit]));
        (self.boxes > 0).then(|| [precisions.iter().sum::<f64>() / boxes, points.sum::<f64>() / 11.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Extent;

    const PLACE: Extent = [10.0, 10.0, 20.0, 20.0];
    const OTHER: Extent = [60.0, 10.0, 20.0, 20.0];

    type Compared = (Vec<(Extent, BoxKind)>, Vec<(Extent, f64)>);

    fn scored(images: &[Compared]) -> VocMetrics {
        let mut scores = VocScores::new(2);
        for (labels, found) in images {
            let label = |(extent, kind): &(Extent, BoxKind)| TruthBox {
                extent: *extent,
                class: Some(0),
                kind: *kind,
                area: 400.0,
            };
            let found: Vec<FoundBox> =
                found.iter().map(|(extent, score)| FoundBox { extent: *extent, class: 0, score: *score }).collect();
            scores.push(&ImageTruth { boxes: labels.iter().map(label).collect(), looked_for: None }, &found);
        }
        scores.scores()
    }

    #[test]
    fn both_averages_by_hand() {
        // Right, wrong, right, and one of three is missed: precision 1 to a recall of 1/3, 2/3 to 2/3.
        let labels =
            vec![(PLACE, BoxKind::Object), (OTHER, BoxKind::Object), ([200.0, 0.0, 9.0, 9.0], BoxKind::Object)];
        let found = vec![(OTHER, 0.3), (PLACE, 0.9), ([100.0, 100.0, 9.0, 9.0], 0.5)];
        let metrics = scored(&[(labels, found)]);
        let near = |found: Option<f64>, expected: f64| {
            assert!(found.is_some_and(|found| (found - expected).abs() < 1e-12), "{found:?} instead of {expected}");
        };
        near(metrics.area, (1.0 + 2.0 / 3.0) / 3.0);
        near(metrics.eleven_points, (4.0 + 3.0 * 2.0 / 3.0) / 11.0);
        assert_eq!((metrics.area_per_class[1], metrics.eleven_points_per_class[1]), (None, None));
    }

    #[test]
    fn a_second_box_on_an_object_is_wrong_even_where_another_object_is_free() {
        // COCO would give it the object that is left; VOC does not.
        let near = [14.0, 10.0, 20.0, 20.0];
        let labels = vec![(PLACE, BoxKind::Object), (near, BoxKind::Object)];
        let closer_to_the_first = [11.0, 10.0, 20.0, 20.0];
        let metrics = scored(&[(labels, vec![(PLACE, 0.9), (closer_to_the_first, 0.8)])]);
        assert_eq!(metrics.area, Some(0.5));
    }

    #[test]
    fn difficult_objects_count_neither_way() {
        let difficult = (PLACE, BoxKind::Difficult);
        let found = vec![(PLACE, 0.9), (PLACE, 0.8), (OTHER, 0.1)];
        assert_eq!(scored(&[(vec![difficult, (OTHER, BoxKind::Object)], found)]).area, Some(1.0));
        assert_eq!(scored(&[(vec![difficult], vec![(PLACE, 0.9)])]).area, None, "there is nothing to find");
    }

    #[test]
    fn half_an_overlap_is_enough_and_empty_images_count() {
        let labels = vec![(PLACE, BoxKind::Object)];
        let half = [10.0, 10.0, 20.0, 10.0];
        assert_eq!(scored(&[(labels.clone(), vec![(half, 0.5)])]).area, Some(1.0));
        assert_eq!(scored(&[(vec![], vec![(half, 0.9)]), (labels, vec![(half, 0.5)])]).area, Some(0.5));
    }
}
