//! Which mistakes a detector made.

use mentor_types::BoxKind;
use serde::{Deserialize, Serialize};

use super::input::{FoundBox, ImageTruth, TruthBox, overlap, surest_first};

/// The overlap from which a box is right.
const RIGHT: f64 = 0.5;
/// The overlap up to which a box lies on the background.
const BACKGROUND: f64 = 0.1;

/// How many of the found boxes are right, and why the others are wrong: each wrong box is counted once, as the first of these
/// that holds.
///
/// # Source
/// TIDE (Bolya et al. 2020, arXiv 2008.08115), section 2.2, in the order in which its code, tidecv 1.0.1, asks; counts are
/// compared with it by `tests/golden/coco_ap.py`.
///
/// # Differs
/// Wrong boxes in crowds, on difficult objects and of classes that nobody looked for are not counted (tidecv counts those in
/// crowds as mistakes of some kind, though its average precision leaves them out). What average precision would gain
/// without each mistake is not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistakes {
    /// Right: an overlap of at least 0.5 with an object of its class that no surer box took.
    pub right: u64,
    /// Near an object of its class, but not near enough: an overlap of 0.1 to 0.5.
    pub localisation: u64,
    /// On an object of another class, with an overlap of at least 0.5.
    pub classification: u64,
    /// On an object that a surer box took.
    pub duplicate: u64,
    /// On nothing: an overlap of at most 0.1 with every object.
    pub background: u64,
    /// Near an object of another class, but not near enough.
    pub both: u64,
    /// Objects that no box found, nor would have, if its place or class were right.
    pub missed: u64,
}

impl Mistakes {
    /// The surest boxes of an image that count, as in tidecv, of all classes.
    pub const LIMIT: usize = 100;

    /// Counts an image.
    pub fn push(&mut self, truth: &ImageTruth, found: &[FoundBox]) {
        let (objects, others): (Vec<&TruthBox>, Vec<&TruthBox>) =
            truth.boxes.iter().partition(|label| label.kind == BoxKind::Object);
        let mut found: Vec<&FoundBox> = found.iter().collect();
        found.sort_by(|a, b| surest_first(a.score, b.score));
        found.truncate(Self::LIMIT);
        let overlaps: Vec<Vec<f64>> =
            found.iter().map(|found| objects.iter().map(|label| overlap(found.extent, label)).collect()).collect();
        let is_of = |found: &FoundBox, at: usize| objects[at].class == Some(found.class);

        let mut taken = vec![false; objects.len()];
        let mut wrong = Vec::new();
        for (found, overlaps) in found.iter().zip(&overlaps) {
            let free = (0..objects.len()).filter(|at| is_of(found, *at) && !taken[*at]);
            match first_best(free.map(|at| (at, overlaps[at]))).filter(|(_, most)| *most >= RIGHT) {
                Some((at, _)) => {
                    taken[at] = true;
                    self.right += 1;
                }
                None => wrong.push((*found, overlaps)),
            }
        }
        let counts = |found: &FoundBox| {
            truth.is_known(found.class)
                && !others.iter().any(|label| {
                    label.class.is_none_or(|class| class == found.class) && overlap(found.extent, label) > RIGHT
                })
        };
        let mut would_do = vec![false; objects.len()];
        for (found, overlaps) in wrong.into_iter().filter(|(found, _)| counts(found)) {
            let best = |keep: &dyn Fn(usize) -> bool| {
                first_best((0..objects.len()).filter(|at| keep(*at)).map(|at| (at, overlaps[at]))).unwrap_or((0, 0.0))
            };
            let (own, other) = (best(&|at| is_of(found, at)), best(&|at| !is_of(found, at)));
            if (BACKGROUND..=RIGHT).contains(&own.1) {
                self.localisation += 1;
                would_do[own.0] = true;
            } else if other.1 >= RIGHT {
                self.classification += 1;
                would_do[other.0] = true;
            } else if best(&|at| is_of(found, at) && taken[at]).1 >= RIGHT {
                self.duplicate += 1;
            } else if own.1.max(other.1) <= BACKGROUND {
                self.background += 1;
            } else {
                self.both += 1;
            }
        }
        self.missed += taken.iter().zip(would_do).filter(|(taken, would_do)| !**taken && !would_do).count() as u64;
    }
}

/// The largest of some values with its place, the first of equal ones.
fn first_best(values: impl Iterator<Item = (usize, f64)>) -> Option<(usize, f64)> {
    values.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Extent;

    const PLACE: Extent = [10.0, 10.0, 20.0, 20.0];

    fn label(class: usize, extent: Extent, kind: BoxKind) -> TruthBox {
        TruthBox { extent, class: Some(class), kind, area: 400.0 }
    }

    fn found(class: usize, extent: Extent, score: f64) -> FoundBox {
        FoundBox { extent, class, score }
    }

    fn counted(labels: Vec<TruthBox>, looked_for: Option<Vec<usize>>, found: &[FoundBox]) -> Mistakes {
        let mut mistakes = Mistakes::default();
        mistakes.push(&ImageTruth { boxes: labels, looked_for }, found);
        mistakes
    }

    #[test]
    fn every_kind_of_mistake_is_told_from_the_others() {
        let object = || vec![label(0, PLACE, BoxKind::Object)];
        // An overlap of 0.25 with the object.
        let near = [10.0, 10.0, 20.0, 5.0];
        let none = Mistakes::default();
        for (all, expected) in [
            (vec![found(0, PLACE, 0.5)], Mistakes { right: 1, ..none }),
            (vec![found(0, PLACE, 0.5), found(0, PLACE, 0.4)], Mistakes { right: 1, duplicate: 1, ..none }),
            (vec![found(0, near, 0.5)], Mistakes { localisation: 1, ..none }),
            (vec![found(1, PLACE, 0.5)], Mistakes { classification: 1, ..none }),
            (vec![found(1, near, 0.5)], Mistakes { both: 1, missed: 1, ..none }),
            (vec![found(0, [90.0, 90.0, 5.0, 5.0], 0.5)], Mistakes { background: 1, missed: 1, ..none }),
            (vec![], Mistakes { missed: 1, ..none }),
        ] {
            assert_eq!(counted(object(), None, &all), expected, "{all:?}");
        }
        assert_eq!(counted(vec![], None, &[found(0, PLACE, 0.5)]), Mistakes { background: 1, ..none });
    }

    #[test]
    fn what_counts_nowhere_is_no_mistake() {
        let none = Mistakes::default();
        for kind in [BoxKind::Crowd, BoxKind::Difficult] {
            assert_eq!(counted(vec![label(0, PLACE, kind)], None, &[found(0, PLACE, 0.5)]), none);
            let other = counted(vec![label(0, PLACE, kind)], None, &[found(1, PLACE, 0.5)]);
            assert_eq!(other, Mistakes { background: 1, ..none });
        }
        assert_eq!(counted(vec![], Some(vec![1]), &[found(0, PLACE, 0.5)]), none);
    }
}
