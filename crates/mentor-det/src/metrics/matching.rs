//! Which of the boxes that were found in an image are right, at every threshold and for every size, as pycocotools
//! decides it.

use mentor_types::BoxKind;

use super::input::{FoundBox, Pair, TruthBox, area, overlap};

/// How many thresholds of overlap there are.
pub(super) const THRESHOLDS: usize = 10;

/// Ranges of area in square pixels, both ends included: all, small, medium, large. A box of exactly 32x32 is small and
/// medium, one of 96x96 medium and large.
pub(super) const SIZES: [[f64; 2]; 4] =
    [[0.0, 1e10], [0.0, 32.0 * 32.0], [32.0 * 32.0, 96.0 * 96.0], [96.0 * 96.0, 1e10]];

/// The thresholds of intersection over union, 0.50 to 0.95 in steps of 0.05, to the last bit as numpy's `linspace`
/// gives them.
pub(super) fn thresholds() -> [f64; THRESHOLDS] {
    let step = (0.95 - 0.5) / 9.0;
    std::array::from_fn(|at| if at == THRESHOLDS - 1 { 0.95 } else { at as f64 * step + 0.5 })
}

/// What a box that was found is worth: for each size, one bit for each threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    pub score: f64,
    /// How many of its class and image are surer.
    pub rank: usize,
    /// It is right.
    pub hit: [u16; SIZES.len()],
    /// It is wrong. What is neither does not count.
    pub miss: [u16; SIZES.len()],
}

/// The verdicts about one class in one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub class: usize,
    /// How many boxes there were to find, of each size.
    pub boxes: [u64; SIZES.len()],
    /// The surest first, no more than the limit.
    pub verdicts: Vec<Verdict>,
    /// Whether more were found than the limit.
    pub over_limit: bool,
}

/// A labelled box while it waits to be found.
struct Wanted<'a> {
    label: &'a TruthBox,
    /// The column of its overlaps.
    at: usize,
    /// Whether it counts neither when found nor when missed.
    ignored: bool,
}

/// Judges the surest `limit` boxes of a class in an image.
pub(super) fn judge(pair: &Pair<'_>, limit: usize, thresholds: &[f64; THRESHOLDS]) -> Judged {
    let found: Vec<&FoundBox> = pair.found.iter().take(limit).map(|(_, found)| *found).collect();
    let verdict = |(rank, found): (usize, &&FoundBox)| Verdict {
        score: found.score,
        rank,
        hit: [0; SIZES.len()],
        miss: [0; SIZES.len()],
    };
    let mut judged = Judged {
        class: pair.class,
        boxes: [0; SIZES.len()],
        verdicts: found.iter().enumerate().map(verdict).collect(),
        over_limit: pair.found.len() > limit,
    };
    let row = |found: &&FoundBox| pair.truth.iter().map(|(_, label)| overlap(found.extent, label)).collect();
    let overlaps: Vec<Vec<f64>> = found.iter().map(row).collect();
    for (size, range) in SIZES.iter().enumerate() {
        let outside = |area: f64| area < range[0] || area > range[1];
        let mut wanted: Vec<Wanted<'_>> = pair
            .truth
            .iter()
            .enumerate()
            .map(|(at, (_, label))| Wanted { label, at, ignored: is_no_object(label) || outside(label.area) })
            .collect();
        wanted.sort_by_key(|wanted| wanted.ignored);
        judged.boxes[size] = wanted.iter().filter(|wanted| !wanted.ignored).count() as u64;
        for (bit, threshold) in thresholds.iter().enumerate() {
            let matches = matched(&wanted, &overlaps, *threshold);
            for ((verdict, found), matched) in judged.verdicts.iter_mut().zip(&found).zip(matches) {
                match matched {
                    Some(at) if wanted[at].ignored => {}
                    Some(_) => verdict.hit[size] |= 1 << bit,
                    None if !pair.is_known || outside(area(found.extent)) => {}
                    None => verdict.miss[size] |= 1 << bit,
                }
            }
        }
    }
    judged
}

/// Whether a box counts neither when found nor when missed, and may be found more than once.
pub(super) fn is_no_object(label: &TruthBox) -> bool {
    label.kind != BoxKind::Object
}

/// Which of the wanted boxes each found one, the surest first, is matched with: the one that it covers best of those that
/// are left, the last of equally good ones; one that counts before one that does not.
fn matched(wanted: &[Wanted<'_>], overlaps: &[Vec<f64>], threshold: f64) -> Vec<Option<usize>> {
    let mut taken = vec![false; wanted.len()];
    let best = |overlaps: &Vec<f64>| {
        let (mut best, mut least): (Option<usize>, f64) = (None, threshold.min(1.0 - 1e-10));
        for (at, candidate) in wanted.iter().enumerate() {
            if taken[at] && !is_no_object(candidate.label) {
                continue;
            }
            if candidate.ignored && best.is_some_and(|best| !wanted[best].ignored) {
                break;
            }
            if overlaps[candidate.at] >= least {
                (best, least) = (Some(at), overlaps[candidate.at]);
            }
        }
        if let Some(best) = best {
            taken[best] = true;
        }
        best
    };
    overlaps.iter().map(best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::input::{Extent, ImageTruth, pairs};

    fn label(extent: Extent, kind: BoxKind) -> TruthBox {
        TruthBox { extent, class: Some(0), kind, area: area(extent) }
    }

    fn judged(boxes: Vec<TruthBox>, looked_for: Option<Vec<usize>>, found: &[(Extent, f64)]) -> Judged {
        let truth = ImageTruth { boxes, looked_for };
        let found: Vec<FoundBox> =
            found.iter().map(|(extent, score)| FoundBox { extent: *extent, class: 0, score: *score }).collect();
        judge(&pairs(&truth, &found, 1)[0], 3, &thresholds())
    }

    /// Hits and misses over all sizes: one bit for each threshold.
    fn bits(judged: &Judged) -> Vec<[u16; 2]> {
        judged.verdicts.iter().map(|verdict| [verdict.hit[0], verdict.miss[0]]).collect()
    }

    const ALL: u16 = 0x3ff;
    const PLACE: Extent = [10.0, 10.0, 20.0, 20.0];

    #[test]
    fn thresholds_are_those_of_numpy() {
        let expected = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
        assert!(thresholds().iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-15));
        assert_eq!(thresholds()[9], 0.95);
    }

    #[test]
    fn a_threshold_that_is_just_reached_is_reached() {
        // 15 of 20 columns: an overlap of exactly 0.75, the sixth threshold.
        let judged = judged(vec![label(PLACE, BoxKind::Object)], None, &[([10.0, 10.0, 15.0, 20.0], 0.5)]);
        assert_eq!(bits(&judged), [[0x3f, ALL ^ 0x3f]]);
    }

    #[test]
    fn an_object_is_found_once_and_by_the_surest() {
        let found = [(PLACE, 0.3), (PLACE, 0.9), (PLACE, 0.5), (PLACE, 0.1)];
        let judged = judged(vec![label(PLACE, BoxKind::Object)], None, &found);
        assert_eq!(bits(&judged), [[ALL, 0], [0, ALL], [0, ALL]]);
        assert_eq!(judged.verdicts.iter().map(|verdict| verdict.score).collect::<Vec<_>>(), [0.9, 0.5, 0.3]);
        assert!(judged.over_limit);
    }

    #[test]
    fn what_is_no_single_object_counts_neither_way_however_often_it_is_found() {
        for kind in [BoxKind::Crowd, BoxKind::Difficult] {
            let judged = judged(vec![label(PLACE, kind)], None, &[(PLACE, 0.9), (PLACE, 0.8)]);
            assert_eq!((bits(&judged), judged.boxes), (vec![[0, 0], [0, 0]], [0; 4]));
        }
        // A small box inside a crowd is no mistake, one in a difficult object is.
        let inside = ([12.0, 12.0, 4.0, 4.0], 0.9);
        assert_eq!(bits(&judged(vec![label(PLACE, BoxKind::Crowd)], None, &[inside])), [[0, 0]]);
        assert_eq!(bits(&judged(vec![label(PLACE, BoxKind::Difficult)], None, &[inside])), [[0, ALL]]);
        // An object is matched before a crowd that covers it, and what is too much falls to the crowd.
        let both = vec![label([0.0, 0.0, 50.0, 50.0], BoxKind::Crowd), label(PLACE, BoxKind::Object)];
        assert_eq!(bits(&judged(both, None, &[(PLACE, 0.9), (PLACE, 0.8)])), [[ALL, 0], [0, 0]]);
    }

    #[test]
    fn a_box_of_the_size_between_two_ranges_is_of_both() {
        for (side, expected) in [(32.0, [1, 1, 1, 0]), (96.0, [1, 0, 1, 1]), (33.0, [1, 0, 1, 0])] {
            let place = [0.0, 0.0, side, side];
            let judged = judged(vec![label(place, BoxKind::Object)], None, &[(place, 0.9)]);
            assert_eq!(judged.boxes, expected);
            assert_eq!(judged.verdicts[0].hit, expected.map(|bit| if bit == 1 { ALL } else { 0 }));
            assert_eq!(judged.verdicts[0].miss, [0; 4], "what is of another size does not count there");
        }
    }

    #[test]
    fn of_a_class_nobody_looked_for_its_boxes_count_and_nothing_else() {
        let elsewhere = [100.0, 100.0, 20.0, 20.0];
        let judged =
            judged(vec![label(PLACE, BoxKind::Object)], Some(vec![]), &[(elsewhere, 0.9), (PLACE, 0.8), (PLACE, 0.7)]);
        assert_eq!((bits(&judged), judged.boxes[0]), (vec![[0, 0], [ALL, 0], [0, 0]], 1));
    }
}
