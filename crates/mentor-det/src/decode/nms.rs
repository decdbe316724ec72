//! Non-maximum suppression, class by class.

use mentor_types::{Detection, Edges};

use super::config::SoftNms;

/// Boxes of one class side by side, so that a loop over them is vectorised.
#[derive(Default)]
struct Columns {
    edges: [Vec<f32>; 4],
    area: Vec<f32>,
}

impl Columns {
    fn of(boxes: impl Iterator<Item = Edges>) -> Self {
        let mut columns = Self::default();
        for edges in boxes {
            columns.edges.iter_mut().zip(edges).for_each(|(column, edge)| column.push(edge));
            columns.area.push((edges[2] - edges[0]) * (edges[3] - edges[1]));
        }
        columns
    }

    fn len(&self) -> usize {
        self.area.len()
    }

    /// For each box from `from` on, `visit(place, intersection over union with the box at `at`)`.
    ///
    /// The order of the operations is torchvision's, so that equal boxes are suppressed alike.
    fn overlaps<T>(&self, at: usize, from: usize, out: &mut [T], visit: impl Fn(&mut T, f32)) {
        let [left, top, right, bottom] = self.edges.each_ref().map(|column| column[at]);
        let area = self.area[at];
        let [lefts, tops, rights, bottoms] = self.edges.each_ref().map(|column| &column[from..]);
        let others = lefts.iter().zip(tops).zip(rights.iter().zip(bottoms)).zip(&self.area[from..]);
        for (out, (((l, t), (r, b)), other)) in out[from..].iter_mut().zip(others) {
            let width = (right.min(*r) - left.max(*l)).max(0.0);
            let height = (bottom.min(*b) - top.max(*t)).max(0.0);
            let inter = width * height;
            visit(out, inter / (area + other - inter));
        }
    }
}

/// The places of `found` that are not suppressed by one of a better score and the same class, the best first, at most `limit`.
/// A box is suppressed by a kept one with which its intersection over union is more than `iou`. Of equal scores the first in
/// `found` is better. Boxes without area suppress nothing.
///
/// Takes `O(n log n)` and, for each box that is kept, a pass over the worse ones of its class.
///
/// # Source
/// torchvision's `batched_nms`, to which the result is equal (with each class by itself, as it takes many boxes; it moves the
/// classes of few boxes apart instead, which rounds their edges).
///
/// # Panics
/// If a score is not a number.
#[must_use]
pub fn suppress(found: &[Detection], iou: f64, limit: usize) -> Vec<usize> {
    let threshold = at_most(iou);
    let mut kept = Vec::new();
    for places in by_class(found) {
        let columns = Columns::of(places.iter().map(|place| found[*place].edges));
        let mut suppressed = vec![0u8; columns.len()];
        let before = kept.len();
        for (at, place) in places.iter().enumerate() {
            if suppressed[at] != 0 {
                continue;
            }
            kept.push(*place);
            // Better ones of its class alone fill all places.
            if kept.len() - before == limit {
                break;
            }
            columns.overlaps(at, at + 1, &mut suppressed, |out, overlap| *out |= u8::from(overlap > threshold));
        }
    }
    kept.sort_by(|a, b| better(found, *a, *b));
    kept.truncate(limit);
    kept
}

/// `found` with each score lowered for the better boxes of its class that overlap with it, the best first, at most `limit`, and
/// none that no longer scores more than `score_threshold`. Scores are lowered in turn, by the best that is left each time.
///
/// # Source
/// arXiv 1704.04503, figure 2 and section 3 (`unchecked` against the authors' code): for `linear`, `1 - iou` where it is at least
/// the threshold there, more than it here; for `gaussian`, `exp(-iou^2 / sigma)`.
///
/// # Panics
/// If a score is not a number.
#[must_use]
pub fn suppress_softly(
    found: &[Detection],
    soft: SoftNms,
    iou: f64,
    score_threshold: f64,
    limit: usize,
) -> Vec<Detection> {
    let threshold = at_most(iou);
    let mut kept: Vec<(usize, Detection)> = Vec::new();
    for places in by_class(found) {
        let columns = Columns::of(places.iter().map(|place| found[*place].edges));
        let mut scores: Vec<f32> = places.iter().map(|place| found[*place].score).collect();
        for _ in 0..places.len().min(limit) {
            // The first of the largest; those that were taken are negative.
            let best = (0..scores.len()).reduce(|best, at| if scores[at] > scores[best] { at } else { best });
            let Some(best) = best.filter(|best| f64::from(scores[*best]) > score_threshold) else { break };
            kept.push((places[best], Detection { score: scores[best], ..found[places[best]] }));
            scores[best] = -1.0;
            columns.overlaps(best, 0, &mut scores, |score, overlap| {
                *score *= match soft {
                    SoftNms::Linear {} => {
                        if overlap > threshold {
                            1.0 - overlap
                        } else {
                            1.0
                        }
                    }
                    // A box without area overlaps with nothing, itself included.
                    SoftNms::Gaussian { .. } if overlap.is_nan() => 1.0,
                    SoftNms::Gaussian { sigma } => (-f64::from(overlap * overlap) / sigma).exp() as f32,
                }
            });
            // Its overlap with itself would have made that zero.
            scores[best] = -1.0;
        }
    }
    kept.sort_by(|(a, left), (b, right)| right.score.total_cmp(&left.score).then(a.cmp(b)));
    kept.truncate(limit);
    kept.into_iter().map(|(_, detection)| detection).collect()
}

/// The places of each class, the best first.
fn by_class(found: &[Detection]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..found.len()).collect();
    assert!(found.iter().all(|detection| !detection.score.is_nan()), "a score that is not a number");
    order.sort_by(|a, b| better(found, *a, *b));
    let mut classes = vec![Vec::new(); 1 + usize::from(u8::MAX)];
    for place in order {
        classes[usize::from(found[place].class)].push(place);
    }
    classes.retain(|places| !places.is_empty());
    classes
}

/// The order of two places: by score, of equal ones the first.
fn better(found: &[Detection], a: usize, b: usize) -> std::cmp::Ordering {
    found[b].score.total_cmp(&found[a].score).then(a.cmp(&b))
}

/// The largest f32 that is no more than `value`: more than the one is more than the other.
fn at_most(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::golden;
    use super::*;

    fn found(edges: Edges, class: u8, score: f32) -> Detection {
        Detection { edges, class, score }
    }

    fn numbers(name: &str) -> Vec<f32> {
        golden()[name].1.clone()
    }

    #[test]
    fn what_is_kept_is_what_torchvision_keeps() {
        let (boxes, scores, classes) = (numbers("nms/boxes"), numbers("nms/scores"), numbers("nms/classes"));
        let all: Vec<Detection> = boxes
            .as_chunks()
            .0
            .iter()
            .zip(scores.iter().zip(&classes))
            .map(|(edges, (score, class))| found(*edges, *class as u8, *score))
            .collect();
        let alike: Vec<Detection> = all.iter().map(|one| Detection { class: 0, ..*one }).collect();
        assert_eq!(all.len(), 400);
        for iou in [0.3, 0.5, 0.6] {
            for (name, found) in [("one_class", &alike), ("by_class", &all)] {
                let expected: Vec<usize> =
                    numbers(&format!("nms/{name}.{iou}")).iter().map(|at| *at as usize).collect();
                assert!(expected.len() > 100 && expected.len() < 390);
                assert_eq!(suppress(found, iou, usize::MAX), expected, "{name} {iou}");
                assert_eq!(suppress(found, iou, 25), expected[..25], "{name} {iou}");
            }
        }
    }

    #[test]
    fn a_box_at_the_threshold_stays_and_one_above_it_goes() {
        let boxes = [found([0.0, 0.0, 4.0, 4.0], 1, 0.9), found([0.0, 0.0, 4.0, 2.0], 1, 0.8)];
        assert_eq!(suppress(&boxes, 0.5, 10), [0, 1]);
        assert_eq!(suppress(&boxes, 0.49, 10), [0]);
        let other = [boxes[0], Detection { class: 2, ..boxes[1] }];
        assert_eq!(suppress(&other, 0.0, 10), [0, 1]);
        // 0.6 is less in f64 than in f32, where 3 / 5 is the latter.
        let boxes = [found([0.0, 0.0, 5.0, 1.0], 1, 0.9), found([0.0, 0.0, 3.0, 1.0], 1, 0.8)];
        assert_eq!(suppress(&boxes, 0.6, 10), [0]);
    }

    #[test]
    fn a_suppressed_box_suppresses_nothing_and_the_first_of_equal_scores_wins() {
        let row = |x: f32| [x, 0.0, x + 4.0, 4.0];
        let chain = [found(row(0.0), 0, 0.9), found(row(1.0), 0, 0.8), found(row(2.0), 0, 0.7)];
        assert_eq!(suppress(&chain, 0.5, 10), [0, 2]);
        let equal = [found(row(1.0), 0, 0.5), found(row(0.0), 0, 0.5), found(row(9.0), 0, 0.6)];
        assert_eq!(suppress(&equal, 0.5, 10), [2, 0]);
        assert_eq!(suppress(&[], 0.5, 10), [0usize; 0]);
    }

    #[test]
    fn soft_suppression_lowers_scores_by_hand_computed_factors() {
        // Overlaps: of the first two 3 / 5, of the first and the third 1 / 7, of the second and the third 1 / 3.
        let row = |x: f32| [x, 0.0, x + 4.0, 1.0];
        let boxes =
            [found(row(0.0), 0, 0.9), found(row(1.0), 0, 0.8), found(row(3.0), 0, 0.7), found(row(0.0), 1, 0.3)];
        let scores = |soft, iou| -> Vec<f32> {
            suppress_softly(&boxes, soft, iou, 0.05, 10).iter().map(|one| one.score).collect()
        };
        let close = |found: Vec<f32>, expected: [f64; 4]| {
            assert!(
                found.len() == 4 && found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6),
                "{found:?}, expected {expected:?}"
            );
        };
        close(scores(SoftNms::Linear {}, 0.5), [0.9, 0.7, 0.8 * 0.4, 0.3]);
        // The third is second now, and lowers the one that was better before.
        close(scores(SoftNms::Linear {}, 0.1), [0.9, 0.7 * 6.0 / 7.0, 0.3, 0.8 * 0.4 * 2.0 / 3.0]);
        let factor = |overlap: f64| (-overlap * overlap / 0.5).exp();
        let expected = [0.9, 0.7 * factor(1.0 / 7.0), 0.8 * factor(0.6) * factor(1.0 / 3.0), 0.3];
        close(scores(SoftNms::Gaussian { sigma: 0.5 }, 1.0), expected);
        assert_eq!(suppress_softly(&boxes, SoftNms::Linear {}, 0.5, 0.5, 10).len(), 2);
        assert_eq!(suppress_softly(&boxes, SoftNms::Linear {}, 0.5, 0.05, 1).len(), 1);
    }
}
