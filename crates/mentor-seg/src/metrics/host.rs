//! Counting label masks on the host.

use mentor_types::{IGNORE, LabelMask, UNKNOWN};
use serde::{Deserialize, Serialize};

use super::{MetricsError, SegMetrics, boundary_reach, labelled_table, mean_of_known};

/// As [`boundary_on_device`](super::device::boundary_on_device), for one map in row order.
pub(super) fn boundary_on_host(labels: &[u8], width: usize, height: usize, reach: usize) -> Vec<bool> {
    let mut uniform: Vec<Option<u8>> = labels.iter().copied().map(Some).collect();
    for y in 0..height {
        keep_uniform(&mut uniform, (0..width).map(|x| y * width + x), reach);
    }
    for x in 0..width {
        keep_uniform(&mut uniform, (0..height).map(|y| y * width + x), reach);
    }
    uniform.iter().map(Option::is_none).collect()
}

/// Clears every value of a line that is nearer than `reach` to another value or to the line's end.
fn keep_uniform(values: &mut [Option<u8>], line: impl Iterator<Item = usize>, reach: usize) {
    let places: Vec<usize> = line.collect();
    let before: Vec<Option<u8>> = places.iter().map(|place| values[*place]).collect();
    let mut start = 0;
    for run in before.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        for place in start..end {
            if place - start < reach || end - 1 - place < reach {
                values[places[place]] = None;
            }
        }
        start = end;
    }
}

/// Counts of (truth, prediction), and of boundaries, over all images seen so far, on the host.
///
/// Predictions of a class that was not labelled in an image are counted under "another class":
/// they miss the truth's class but are no false positive of their own, because nobody looked for
/// that class in that image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// Number of classes, `k`.
    pub classes: usize,
    /// `[k, k + 1]` pixels: row the truth, column the prediction; the last column is "another class".
    pub counts: Vec<u64>,
    /// `[3, k]` pixels within reach of an edge: of both maps with the same class, of the truth, of the prediction.
    pub boundary: Vec<u64>,
}

impl ConfusionMatrix {
    /// No pixel counted yet.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * (classes + 1)], boundary: vec![0; 3 * classes] }
    }

    /// The counts of one image from its masks, by the rules of [`Confusion::update`](super::Confusion::update).
    ///
    /// # Errors
    /// If the sizes differ, the truth has a value that is neither a class nor unknown nor ignored,
    /// or the prediction has one that is no class at a pixel that counts.
    pub fn from_masks(
        prediction: &LabelMask,
        truth: &LabelMask,
        classes: usize,
        labelled_classes: Option<&[u8]>,
    ) -> Result<Self, MetricsError> {
        let (width, height) = (truth.width(), truth.height());
        if (prediction.width(), prediction.height()) != (width, height) {
            let prediction = (prediction.width(), prediction.height());
            return Err(MetricsError::Size { prediction, truth: (width, height) });
        }
        let no_class =
            |mask, value, pixel| MetricsError::Value { mask, value, x: pixel % width, y: pixel / width, classes };
        let labelled = labelled_table(classes, labelled_classes);
        let reach = boundary_reach(height, width);
        let unlabelled = |value: u8| value == UNKNOWN || value == IGNORE;
        let pairs = prediction.labels().iter().zip(truth.labels());
        let stamped: Vec<u8> = pairs.clone().map(|(p, t)| if unlabelled(*t) { *t } else { *p }).collect();
        let truth_boundary = boundary_on_host(truth.labels(), width, height, reach);
        let prediction_boundary = boundary_on_host(&stamped, width, height, reach);

        let mut matrix = Self::new(classes);
        for (pixel, (&p, &t)) in pairs.enumerate() {
            if unlabelled(t) {
                continue;
            }
            let (row, column) = (usize::from(t), usize::from(p));
            if !*labelled.get(row).ok_or_else(|| no_class("truth", t, pixel))? {
                continue;
            }
            let looked_for = *labelled.get(column).ok_or_else(|| no_class("prediction", p, pixel))?;
            matrix.counts[row * (classes + 1) + if looked_for { column } else { classes }] += 1;
            let (in_truth, in_prediction) = (truth_boundary[pixel], prediction_boundary[pixel] && looked_for);
            matrix.boundary[row] += u64::from(in_truth && in_prediction && row == column);
            matrix.boundary[classes + row] += u64::from(in_truth);
            if in_prediction {
                matrix.boundary[2 * classes + column] += 1;
            }
        }
        Ok(matrix)
    }

    /// Adds the counts of other images.
    ///
    /// # Panics
    /// If the numbers of classes differ.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.classes, other.classes, "counts of {} and {} classes", self.classes, other.classes);
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        for (sum, count) in self.boundary.iter_mut().zip(&other.boundary) {
            *sum += count;
        }
    }

    /// Pixels of class `truth` that were predicted as `prediction` (`classes` for another class).
    ///
    /// # Panics
    /// If an index is no class.
    #[must_use]
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        assert!(
            truth < self.classes && prediction <= self.classes,
            "({truth}, {prediction}) of {} classes",
            self.classes
        );
        self.counts[truth * (self.classes + 1) + prediction]
    }

    /// The metrics, or `None` where no pixel counted.
    #[must_use]
    pub fn metrics(&self) -> Option<SegMetrics> {
        let classes = 0..self.classes;
        let right: Vec<u64> = classes.clone().map(|c| self.count(c, c)).collect();
        let shown: Vec<u64> = classes.clone().map(|c| (0..=self.classes).map(|p| self.count(c, p)).sum()).collect();
        let predicted: Vec<u64> = classes.clone().map(|c| classes.clone().map(|t| self.count(t, c)).sum()).collect();
        let pixels: u64 = shown.iter().sum();
        if pixels == 0 {
            return None;
        }
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let overlap = |class: usize| [right[class], shown[class] + predicted[class] - right[class]];
        let overlaps: Vec<[u64; 2]> = classes.clone().map(overlap).collect();
        let per_class: Vec<Option<f64>> = overlaps.iter().map(|[both, any]| share(*both, *any)).collect();
        let accuracy: Vec<Option<f64>> = classes.clone().map(|c| share(right[c], shown[c])).collect();
        let weighted = classes.clone().filter_map(|c| Some(shown[c] as f64 / pixels as f64 * per_class[c]?));
        let boundary = |kind: usize, class: usize| self.boundary[kind * self.classes + class];
        let boundary_iou = |c: usize| share(boundary(0, c), boundary(1, c) + boundary(2, c) - boundary(0, c));
        let boundary_iou_per_class: Vec<Option<f64>> = classes.map(boundary_iou).collect();
        Some(SegMetrics {
            miou: mean_of_known(&per_class)?,
            pixel_accuracy: right.iter().sum::<u64>() as f64 / pixels as f64,
            mean_accuracy: mean_of_known(&accuracy)?,
            fw_iou: weighted.sum(),
            boundary_iou: mean_of_known(&boundary_iou_per_class),
            per_class,
            overlaps,
            boundary_iou_per_class,
            pixels,
        })
    }
}
