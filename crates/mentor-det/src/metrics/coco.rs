//! Average precision and recall as COCO defines them, over images that are pushed one by one.

use rayon::prelude::*;

use super::DetMetrics;
use super::input::{FoundBox, ImageTruth, pairs, surest_first};
use super::matching::{Judged, SIZES, THRESHOLDS, Verdict, judge, thresholds};

/// How many recalls the precision is read at: 0, 0.01, ..., 1.
pub const RECALLS: usize = 101;

/// The limits at which recall is shown beside the full one.
const FEW: [usize; 3] = [1, 10, 100];

/// Counts what was found in images, and makes average precision and recall of it.
///
/// The numbers are those of pycocotools: ten thresholds of intersection over union from 0.50 to 0.95, the precision read at
/// 101 recalls, sizes by area with both limits (32x32 and 96x96) on both sides, at most `limit` boxes of each class and
/// image, crowds by intersection over the found box. Equal scores keep the order of images, and in an image the order
/// in which they were given.
///
/// # Source
/// `COCOeval` of pycocotools 2.0.11, with which `tests/golden/coco_ap.py` compares.
///
/// # Differs
/// An annotation with the id 0 counts as any other (pycocotools takes it for a miss). What could not be computed is
/// `None`, not -1. Difficult boxes and classes that nobody looked for, which COCO does not have, count neither way.
#[derive(Clone, Debug)]
pub struct CocoScores {
    limit: usize,
    classes: Vec<OfClass>,
    over_limit: u64,
}

/// What was counted of one class.
#[derive(Clone, Debug, Default)]
struct OfClass {
    boxes: [u64; SIZES.len()],
    verdicts: Vec<Verdict>,
}

/// Average precision of a class by size and threshold, and its recall; nothing for a size of which there is no box.
struct ClassScores {
    precision: [Option<[f64; THRESHOLDS]>; SIZES.len()],
    recall: [Option<[f64; THRESHOLDS]>; SIZES.len()],
    /// Recall of the first few in each image, of all sizes.
    of_few: [Option<[f64; THRESHOLDS]>; FEW.len()],
}

impl CocoScores {
    /// The limit of COCO: boxes of one class in one image that count, the surest of them.
    pub const LIMIT: usize = 100;

    /// Nothing counted yet. `limit` is the number of boxes of one class in one image that count.
    #[must_use]
    pub fn new(classes: usize, limit: usize) -> Self {
        Self { limit, classes: vec![OfClass::default(); classes], over_limit: 0 }
    }

    /// Counts an image.
    ///
    /// # Panics
    /// Where a class is not one of those that there are.
    pub fn push(&mut self, truth: &ImageTruth, found: &[FoundBox]) {
        let judged = self.judge(truth, found);
        self.add(judged);
    }

    /// Counts images as [`Self::push`] does one after the other, on all threads.
    ///
    /// # Panics
    /// Where a class is not one of those that there are.
    pub fn push_all(&mut self, images: &[(ImageTruth, Vec<FoundBox>)]) {
        let judged: Vec<Vec<Judged>> = images.par_iter().map(|(truth, found)| self.judge(truth, found)).collect();
        judged.into_iter().for_each(|judged| self.add(judged));
    }

    fn judge(&self, truth: &ImageTruth, found: &[FoundBox]) -> Vec<Judged> {
        let thresholds = thresholds();
        pairs(truth, found, self.classes.len()).iter().map(|pair| judge(pair, self.limit, &thresholds)).collect()
    }

    fn add(&mut self, judged: Vec<Judged>) {
        for judged in judged {
            let of_class = &mut self.classes[judged.class];
            of_class.boxes.iter_mut().zip(judged.boxes).for_each(|(sum, boxes)| *sum += boxes);
            of_class.verdicts.extend(judged.verdicts);
            self.over_limit += u64::from(judged.over_limit);
        }
    }

    /// All scores of what was counted so far.
    #[must_use]
    pub fn scores(&self) -> DetMetrics {
        let classes: Vec<ClassScores> = self.classes.par_iter().map(|class| class.scores(self.limit)).collect();
        let precision = |size: usize, thresholds: std::ops::Range<usize>| {
            mean(
                classes.iter().filter_map(|class| class.precision[size]).flat_map(|at| at[thresholds.clone()].to_vec()),
            )
        };
        let recall = |size: usize| mean(classes.iter().filter_map(|class| class.recall[size]).flatten());
        let of_few = |few: usize| mean(classes.iter().filter_map(|class| class.of_few[few]).flatten());
        DetMetrics {
            ap: precision(0, 0..THRESHOLDS),
            ap50: precision(0, 0..1),
            ap75: precision(0, 5..6),
            ap_small: precision(1, 0..THRESHOLDS),
            ap_medium: precision(2, 0..THRESHOLDS),
            ap_large: precision(3, 0..THRESHOLDS),
            ar1: of_few(0),
            ar10: of_few(1),
            ar100: of_few(2),
            ar_small: recall(1),
            ar_medium: recall(2),
            ar_large: recall(3),
            per_class: classes.iter().map(|class| mean(class.precision[0].into_iter().flatten())).collect(),
            boxes: self.classes.iter().map(|class| class.boxes[0]).sum(),
            limit: self.limit,
            over_limit: self.over_limit,
        }
    }

    /// The precision of a class at 101 recalls (0, 0.01, ..., 1), each the best that is had at that recall or a larger one, 0
    /// where the recall is not reached; at a threshold of overlap of `0.5 + 0.05 * threshold`. `None` where the class has no box.
    ///
    /// # Panics
    /// Where there is no such class or threshold.
    #[must_use]
    pub fn curve(&self, class: usize, threshold: usize) -> Option<[f64; RECALLS]> {
        assert!(threshold < THRESHOLDS, "threshold {threshold} of {THRESHOLDS}");
        let of_class = &self.classes[class];
        (of_class.boxes[0] > 0).then(|| of_class.curve(&of_class.order(), 0, threshold))
    }
}

impl OfClass {
    /// The verdicts in the order of their scores; equally sure ones as they were pushed.
    fn order(&self) -> Vec<&Verdict> {
        let mut order: Vec<&Verdict> = self.verdicts.iter().collect();
        order.sort_by(|a, b| surest_first(a.score, b.score));
        order
    }

    fn scores(&self, limit: usize) -> ClassScores {
        let order = self.order();
        let by_size = |of: &dyn Fn(usize, usize) -> f64| {
            std::array::from_fn(|size| (self.boxes[size] > 0).then(|| std::array::from_fn(|bit| of(size, bit))))
        };
        let few = |few: usize| (self.boxes[0] > 0).then(|| std::array::from_fn(|bit| self.recall(0, bit, few)));
        ClassScores {
            precision: by_size(&|size, bit| self.curve(&order, size, bit).iter().sum::<f64>() / RECALLS as f64),
            recall: by_size(&|size, bit| self.recall(size, bit, limit)),
            of_few: FEW.map(few),
        }
    }

    /// The share of boxes that are found by the surest `few` of each image.
    fn recall(&self, size: usize, bit: usize, few: usize) -> f64 {
        let hits = self.verdicts.iter().filter(|verdict| verdict.rank < few && verdict.hit[size] >> bit & 1 == 1);
        hits.count() as f64 / self.boxes[size] as f64
    }

    fn curve(&self, order: &[&Verdict], size: usize, bit: usize) -> [f64; RECALLS] {
        // Precision only rises with a hit: the best from some point on is had at one.
        let (mut precisions, mut misses) = (Vec::new(), 0_u64);
        for verdict in order {
            misses += u64::from(verdict.miss[size] >> bit & 1);
            if verdict.hit[size] >> bit & 1 == 1 {
                let hits = precisions.len() as f64 + 1.0;
                precisions.push(hits / (hits + misses as f64));
            }
        }
        let mut best = 0.0_f64;
        for precision in precisions.iter_mut().rev() {
            best = best.max(*precision);
            *precision = best;
        }
        let (mut hit, boxes) = (0, self.boxes[size] as f64);
        std::array::from_fn(|at| {
            while hit < precisions.len() && (hit as f64 + 1.0) / boxes < recall_at(at) {
                hit += 1;
            }
            precisions.get(hit).copied().unwrap_or(0.0)
        })
    }
}

/// The recalls that the precision is read at, as numpy's `linspace` gives them.
pub(super) fn recall_at(at: usize) -> f64 {
    if at == RECALLS - 1 { 1.0 } else { at as f64 * (1.0 / (RECALLS - 1) as f64) }
}

/// The mean; `None` of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}
