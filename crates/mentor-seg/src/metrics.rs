//! How well label maps agree with the truth: one confusion matrix, and every metric out of it.
//!
//! [`Confusion`] counts on the device and is read once; [`ConfusionMatrix`] counts the same on the
//! host. Counts are whole numbers, so neither the order of images nor how they were batched matters.

use burn::tensor::ops::PadMode;
use burn::tensor::{DType, Device, FloatDType, Int, IntDType, Tensor, TensorData};
use mentor_types::{IGNORE, LabelMask, UNKNOWN};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Pixels counted by one matrix product: few enough that 32-bit floats count exactly (below 2^24)
/// and that the indicator matrices stay small.
const PIXELS_AT_ONCE: usize = 1 << 17;

/// A label that no map has, for what lies outside the image.
const OUTSIDE: f32 = 1000.0;

/// Why two masks cannot be compared.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MetricsError {
    /// The masks differ in size.
    #[error("the prediction is {} pixels, the truth {}; both must have one size", pixels(prediction), pixels(truth))]
    Size {
        /// Width and height of the prediction.
        prediction: (usize, usize),
        /// Width and height of the truth.
        truth: (usize, usize),
    },
    /// A pixel has a value that is no class.
    #[error("the {mask} has {value} at column {x}, row {y}; expected a class below {classes}")]
    Value {
        /// Which mask.
        mask: &'static str,
        /// What was found.
        value: u8,
        /// Column of the first such pixel.
        x: usize,
        /// Row of the first such pixel.
        y: usize,
        /// Number of classes.
        classes: usize,
    },
}

fn pixels((width, height): &(usize, usize)) -> String {
    format!("{width}x{height}")
}

/// What is reported about segmentation; every share lies in `[0, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegMetrics {
    /// Mean of `per_class` over the classes that occur in the truth or the prediction.
    pub miou: f64,
    /// Intersection over union of each class; `None` where neither truth nor prediction has it.
    pub per_class: Vec<Option<f64>>,
    /// Share of pixels that are right.
    pub pixel_accuracy: f64,
    /// Share of each class's pixels that are right, averaged over the classes of the truth.
    pub mean_accuracy: f64,
    /// Intersection over union of the classes, weighted by their share of the truth.
    pub fw_iou: f64,
    /// Mean of `boundary_iou_per_class` over the classes that have a boundary; `None` where none has.
    pub boundary_iou: Option<f64>,
    /// Intersection over union of each class's boundary; `None` where neither map has one.
    pub boundary_iou_per_class: Vec<Option<f64>>,
    /// Pixels that counted.
    pub pixels: u64,
}

/// Counts over label maps on the device, read once at the end.
#[derive(Clone, Debug)]
pub struct Confusion {
    classes: usize,
    device: Device,
    // `[k + 1, k + 3]` of 64 bits. Above: for each class of the truth its predictions, then "both
    // boundaries" and "boundary of the truth". Last row: for each prediction its boundary.
    counts: Tensor<2, Int>,
}

impl Confusion {
    /// No pixel counted yet.
    #[must_use]
    pub fn new(classes: usize, device: &Device) -> Self {
        let counts = Tensor::zeros([classes + 1, classes + 3], (device, DType::I64));
        Self { classes, device: device.clone(), counts }
    }

    /// Counts images in which `labelled_classes` were labelled (all classes where `None`).
    ///
    /// A pixel counts where the truth is a class that was labelled. A prediction of a class that was
    /// not labelled counts as "another class". The boundary of a map are its pixels with another
    /// label, or the end of the image, within `max(1, round(0.02 * diagonal))` pixels in either
    /// direction; where the truth is ignored or unknown the prediction is made so too before boundaries
    /// are taken, so that the edge of such a region is the same in both maps.
    ///
    /// # Shapes
    /// Both `[n, h, w]`. Predictions are classes; the truth is a class, unknown or ignored.
    ///
    /// # Panics
    /// If the shapes differ.
    ///
    /// # Source
    /// Boundary IoU: Cheng et al., *Boundary IoU: Improving Object-Centric Image Segmentation
    /// Evaluation* (arXiv 2103.16562), section 4 and the 0.02 of its official code (`unchecked`).
    ///
    /// # Differs
    /// The paper judges binary masks of objects; here each class of a map is one mask, and pixels
    /// without a truth count nowhere.
    pub fn update(
        &mut self,
        prediction_nhw: Tensor<3, Int>,
        target_nhw: Tensor<3, Int>,
        labelled_classes: Option<&[u8]>,
    ) {
        let size = target_nhw.dims();
        assert_eq!(prediction_nhw.dims(), size, "a prediction {:?} for a truth {size:?}", prediction_nhw.dims());
        let pixels = size.iter().product();
        if pixels == 0 {
            return;
        }
        let unlabelled = target_nhw.clone().greater_equal_elem(i64::from(UNKNOWN));
        let target_map = target_nhw.clone().cast(FloatDType::F32);
        let prediction_map = prediction_nhw.clone().cast(FloatDType::F32);
        let stamped = prediction_map.mask_where(unlabelled, target_map.clone());
        let reach = boundary_reach(size[1], size[2]);
        let in_target = boundary_on_device(target_map, reach).reshape([pixels]);
        let in_prediction = boundary_on_device(stamped, reach).reshape([pixels]);

        let (rows, columns) = self.tables(labelled_classes);
        let row = rows.select(0, table_index(target_nhw));
        let column = columns.select(0, table_index(prediction_nhw));
        let in_prediction = in_prediction * row.clone().greater_equal_elem(0.0).float();
        let both = in_target.clone() * in_prediction.clone() * row.clone().equal(column.clone()).float();
        for start in (0..pixels).step_by(PIXELS_AT_ONCE) {
            let end = (start + PIXELS_AT_ONCE).min(pixels);
            let part = |values: &Tensor<1>| values.clone().narrow(0, start, end - start);
            let left = [self.indicator(part(&row), self.classes), part(&in_prediction).unsqueeze_dim(0)];
            let right = [
                self.indicator(part(&column), self.classes + 1),
                part(&both).unsqueeze_dim(0),
                part(&in_target).unsqueeze_dim(0),
            ];
            let counted = Tensor::cat(left.into(), 0).matmul(Tensor::cat(right.into(), 0).transpose());
            self.counts = self.counts.clone() + counted.cast(IntDType::I64);
        }
    }

    /// For each of the 256 labels its row (-1 where it does not count) and its column.
    fn tables(&self, labelled_classes: Option<&[u8]>) -> (Tensor<1>, Tensor<1>) {
        let labelled = labelled_table(self.classes, labelled_classes);
        let table = |without: f32| {
            let of = |class| if labelled.get(class) == Some(&true) { class as f32 } else { without };
            Tensor::from_data(TensorData::new((0..256).map(of).collect::<Vec<f32>>(), [256]), &self.device)
        };
        (table(-1.0), table(self.classes as f32))
    }

    /// 1 where a pixel has the index of the row: `[pixels]` to `[indices, pixels]`.
    fn indicator(&self, index: Tensor<1>, indices: usize) -> Tensor<2> {
        let pixels = index.dims()[0];
        let all = Tensor::<1, Int>::arange(0..indices as i64, &self.device).cast(FloatDType::F32);
        let index = index.unsqueeze_dim::<2>(0).expand([indices, pixels]);
        index.equal(all.unsqueeze_dim::<2>(1).expand([indices, pixels])).float()
    }

    /// What was counted so far, on the host; waits for the device.
    ///
    /// # Panics
    /// If the device cannot be read.
    #[must_use]
    pub fn read(&self) -> ConfusionMatrix {
        let counts = self.counts.clone().into_data().convert::<i64>();
        let counts: Vec<i64> = counts.try_into_vec().expect("converted to i64 above");
        let at = |row: usize, column: usize| counts[row * (self.classes + 3) + column].unsigned_abs();
        let k = self.classes;
        let boundary = |row: usize| (0..k).map(move |c| if row == 2 { (k, c) } else { (c, k + 1 + row) });
        ConfusionMatrix {
            classes: k,
            counts: (0..k).flat_map(|t| (0..=k).map(move |p| (t, p))).map(|(t, p)| at(t, p)).collect(),
            boundary: (0..3).flat_map(boundary).map(|(row, column)| at(row, column)).collect(),
        }
    }

    /// The metrics, or `None` where no pixel counted; see [`Confusion::read`].
    #[must_use]
    pub fn metrics(&self) -> Option<SegMetrics> {
        self.read().metrics()
    }
}

/// Labels as indices that no table of 256 entries refuses.
fn table_index(labels_nhw: Tensor<3, Int>) -> Tensor<1, Int> {
    labels_nhw.clamp(0, i64::from(IGNORE)).reshape([-1])
}

/// Whether each class was labelled.
fn labelled_table(classes: usize, labelled_classes: Option<&[u8]>) -> Vec<bool> {
    (0..classes)
        .map(|class| labelled_classes.is_none_or(|labelled| labelled.iter().any(|c| usize::from(*c) == class)))
        .collect()
}

/// How far from an edge a boundary reaches, in pixels.
fn boundary_reach(height: usize, width: usize) -> usize {
    let diagonal = (height as f64).hypot(width as f64);
    ((0.02 * diagonal).round_ties_even() as usize).max(1)
}

/// 1 where another label, or the end of the image, lies within `reach` of a pixel; `[n, h, w]`.
fn boundary_on_device(labels_nhw: Tensor<3>, reach: usize) -> Tensor<3> {
    let [n, height, width] = labels_nhw.dims();
    let map = labels_nhw.pad([(reach, reach), (reach, reach)], PadMode::Constant(OUTSIDE));
    let side = 2 * reach + 1;
    let largest = |x| largest_along(1, side, largest_along(2, side, x));
    // A window of one label has one value; one that leaves the image has the value from outside too.
    let differs = largest(map.clone()).not_equal(largest(map.neg()).neg());
    differs.float().reshape([n, height, width])
}

/// The largest value of every window of `side` pixels along an axis; windows of two pixels, then four,
/// then eight, so that a long one takes few passes.
fn largest_along(axis: usize, side: usize, mut map: Tensor<3>) -> Tensor<3> {
    let mut covered = 1;
    while covered < side {
        let further = covered.min(side - covered);
        let left = map.dims()[axis] - further;
        map = map.clone().narrow(axis, 0, left).max_pair(map.narrow(axis, further, left));
        covered += further;
    }
    map
}

/// As [`boundary_on_device`], for one map in row order.
fn boundary_on_host(labels: &[u8], width: usize, height: usize, reach: usize) -> Vec<bool> {
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

    /// The counts of one image from its masks, by the rules of [`Confusion::update`].
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
        let iou = |class: usize| share(right[class], shown[class] + predicted[class] - right[class]);
        let per_class: Vec<Option<f64>> = classes.clone().map(iou).collect();
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
            boundary_iou_per_class,
            pixels,
        })
    }
}

/// The mean of the values that there are.
fn mean_of_known(values: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_types::Key;
    use mentor_weights::{NamedTensors, from_safetensors};
    use rand::RngExt;

    fn on_device(masks: &[&LabelMask]) -> Tensor<3, Int> {
        let labels: Vec<u8> = masks.iter().flat_map(|mask| mask.labels()).copied().collect();
        let shape = [masks.len(), masks[0].height(), masks[0].width()];
        Tensor::from_data(TensorData::new(labels, shape), &Device::flex())
    }

    fn device_counts(pairs: &[(&LabelMask, &LabelMask)], k: usize, labelled: Option<&[u8]>) -> ConfusionMatrix {
        let mut confusion = Confusion::new(k, &Device::flex());
        let (predictions, truths): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        confusion.update(on_device(&predictions), on_device(&truths), labelled);
        confusion.read()
    }

    fn host_counts(prediction: &LabelMask, truth: &LabelMask, k: usize, labelled: Option<&[u8]>) -> ConfusionMatrix {
        ConfusionMatrix::from_masks(prediction, truth, k, labelled).unwrap()
    }

    /// Rectangles of random classes; with `holes`, some ignored and some unknown.
    fn rectangles(key: Key, width: usize, height: usize, k: u8, holes: bool) -> LabelMask {
        let mut rng = key.rng();
        let mut mask = LabelMask::filled(width, height, rng.random_range(0..k));
        for _ in 0..10 {
            let (left, top) = (rng.random_range(0..width), rng.random_range(0..height));
            let (right, bottom) = (rng.random_range(left..width), rng.random_range(top..height));
            let label = match rng.random_range(0..5) {
                0 if holes => IGNORE,
                1 if holes => UNKNOWN,
                _ => rng.random_range(0..k),
            };
            for y in top..=bottom {
                mask.labels_mut()[y * width + left..=y * width + right].fill(label);
            }
        }
        mask
    }

    fn golden() -> NamedTensors {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/metrics.safetensors");
        from_safetensors(&std::fs::read(path).unwrap()).unwrap()
    }

    fn golden_mask(golden: &NamedTensors, name: &str) -> LabelMask {
        let (shape, values) = &golden[name];
        LabelMask::new(shape[1], shape[0], values.iter().map(|value| *value as u8).collect())
    }

    fn assert_near(name: &str, found: &[f64], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - f64::from(*expected)).abs() < 1e-6, "{name}: {found} instead of {expected}");
        }
    }

    #[test]
    fn counts_and_metrics_agree_with_numpy_on_host_and_device() {
        let golden = golden();
        let (mut on_host, mut from_device) = (ConfusionMatrix::new(4), Confusion::new(4, &Device::flex()));
        for index in 0..3 {
            let prediction = golden_mask(&golden, &format!("prediction.{index}"));
            let truth = golden_mask(&golden, &format!("truth.{index}"));
            on_host.add(&host_counts(&prediction, &truth, 4, None));
            from_device.update(on_device(&[&prediction]), on_device(&[&truth]), None);
        }
        assert_eq!(from_device.read(), on_host);
        let confusion: Vec<f64> =
            (0..4).flat_map(|t| (0..4).map(move |p| (t, p))).map(|(t, p)| on_host.count(t, p) as f64).collect();
        assert_near("confusion", &confusion, &golden["confusion"].1);
        let metrics = from_device.metrics().unwrap();
        let all = |values: &[Option<f64>]| values.iter().map(|value| value.unwrap()).collect::<Vec<f64>>();
        for (name, found) in [
            ("iou", all(&metrics.per_class)),
            ("miou", vec![metrics.miou]),
            ("pixel_accuracy", vec![metrics.pixel_accuracy]),
            ("mean_accuracy", vec![metrics.mean_accuracy]),
            ("fw_iou", vec![metrics.fw_iou]),
            ("boundary_iou_per_class", all(&metrics.boundary_iou_per_class)),
            ("boundary_iou", vec![metrics.boundary_iou.unwrap()]),
        ] {
            assert_near(name, &found, &golden[name].1);
        }
        assert_eq!(metrics.pixels as f64, confusion.iter().sum::<f64>());
    }

    #[test]
    fn host_and_device_count_alike_on_random_masks() {
        let sizes = [(1, 1), (2, 7), (40, 3), (61, 47), (160, 130)];
        for (number, (width, height)) in (0..).zip(sizes) {
            let key = Key::new(3).at("masks", number);
            for labelled in [None, Some([0u8, 2, 3].as_slice()), Some([].as_slice())] {
                let mask = |name, i, holes| rectangles(key.at(name, i), width, height, 5, holes);
                let (first, second) = (mask("prediction", 0, false), mask("prediction", 1, false));
                let (truth, other) = (mask("truth", 0, true), mask("truth", 1, true));
                let mut sum = host_counts(&first, &truth, 5, labelled);
                sum.add(&host_counts(&second, &other, 5, labelled));
                assert_eq!(device_counts(&[(&first, &truth), (&second, &other)], 5, labelled), sum);
            }
        }
    }

    #[test]
    fn more_pixels_than_one_product_counts_are_counted() {
        let (width, height) = (600, 500);
        assert!(width * height > 2 * PIXELS_AT_ONCE);
        let key = Key::new(4);
        let prediction = rectangles(key.at("prediction", 0), width, height, 3, false);
        let truth = rectangles(key.at("truth", 0), width, height, 3, true);
        assert_eq!(device_counts(&[(&prediction, &truth)], 3, None), host_counts(&prediction, &truth, 3, None));
    }

    #[test]
    fn large_counts_stay_exact() {
        let mut confusion = Confusion::new(2, &Device::flex());
        confusion.counts = confusion.counts.clone() + (1i64 << 40);
        let mask = LabelMask::new(1, 1, vec![1]);
        confusion.update(on_device(&[&mask]), on_device(&[&mask]), None);
        let matrix = confusion.read();
        assert_eq!((matrix.count(1, 1), matrix.count(0, 0)), ((1 << 40) + 1, 1 << 40));
    }

    #[test]
    fn the_boundary_is_where_a_window_holds_another_label_or_leaves_the_image() {
        for (number, (width, height, reach)) in (0..).zip([(9, 7, 1), (30, 20, 2), (25, 33, 3), (3, 3, 2)]) {
            let mask = rectangles(Key::new(5).at("mask", number), width, height, 3, true);
            let by_definition: Vec<bool> = (0..height)
                .flat_map(|y| (0..width).map(move |x| (x, y)))
                .map(|(x, y)| {
                    let leaves = x < reach || y < reach || x + reach >= width || y + reach >= height;
                    leaves
                        || (y - reach..=y + reach)
                            .flat_map(|v| (x - reach..=x + reach).map(move |u| (u, v)))
                            .any(|(u, v)| mask.at(u, v) != mask.at(x, y))
                })
                .collect();
            assert!(by_definition.contains(&true));
            assert_eq!(boundary_on_host(mask.labels(), width, height, reach), by_definition);
            let map = on_device(&[&mask]).cast(FloatDType::F32);
            let on_device = boundary_on_device(map, reach).into_data().try_into_vec_as::<f32>().unwrap();
            assert_eq!(on_device.iter().map(|value| *value == 1.0).collect::<Vec<_>>(), by_definition);
        }
    }

    #[test]
    fn the_reach_is_two_hundredths_of_the_diagonal_and_at_least_one_pixel() {
        assert_eq!([(1, 1), (60, 83), (300, 400), (1024, 2048)].map(|(h, w)| boundary_reach(h, w)), [1, 2, 10, 46]);
    }

    #[test]
    fn a_class_nobody_labelled_is_a_miss_but_no_false_positive() {
        // Class 2 was not labelled: the first two pixels are missed, the third is right, and the
        // truth of the fourth does not count.
        let truth = LabelMask::new(4, 1, vec![0, 1, 1, 2]);
        let prediction = LabelMask::new(4, 1, vec![2, 2, 1, 2]);
        let labelled: Option<&[u8]> = Some(&[0, 1]);
        let matrix = host_counts(&prediction, &truth, 3, labelled);
        assert_eq!(matrix.counts, [[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]].concat());
        assert_eq!(matrix.boundary, [[0, 1, 0], [1, 2, 0], [0, 1, 0]].concat());
        assert_eq!(device_counts(&[(&prediction, &truth)], 3, labelled), matrix);
        let metrics = matrix.metrics().unwrap();
        assert_eq!(metrics.per_class, [Some(0.0), Some(0.5), None]);
        assert_eq!((metrics.miou, metrics.pixel_accuracy, metrics.pixels), (0.25, 1.0 / 3.0, 3));
    }

    #[test]
    fn metrics_by_hand() {
        let truth = LabelMask::new(5, 1, vec![0, 0, 0, 1, IGNORE]);
        let prediction = LabelMask::new(5, 1, vec![0, 0, 1, 1, 0]);
        let metrics = host_counts(&prediction, &truth, 3, None).metrics().unwrap();
        assert_eq!(metrics.per_class, [Some(2.0 / 3.0), Some(0.5), None]);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} instead of {b}");
        near(metrics.miou, (2.0 / 3.0 + 0.5) / 2.0);
        near(metrics.pixel_accuracy, 0.75);
        near(metrics.mean_accuracy, (2.0 / 3.0 + 1.0) / 2.0);
        near(metrics.fw_iou, 0.75 * 2.0 / 3.0 + 0.25 * 0.5);
        assert_eq!(metrics.pixels, 4);
    }

    #[test]
    fn a_perfect_prediction_scores_one_everywhere() {
        let truth = rectangles(Key::new(6), 70, 50, 4, true);
        let known = |label: &u8| if *label < UNKNOWN { *label } else { 0 };
        let prediction = LabelMask::new(70, 50, truth.labels().iter().map(known).collect());
        let metrics = device_counts(&[(&prediction, &truth)], 4, None).metrics().unwrap();
        let shares = [metrics.miou, metrics.pixel_accuracy, metrics.mean_accuracy, metrics.boundary_iou.unwrap()];
        assert_eq!(shares, [1.0; 4]);
        assert!((metrics.fw_iou - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_ignored_or_unknown_pixel_changes_nothing() {
        let key = Key::new(7);
        let truth = rectangles(key.at("truth", 0), 60, 50, 4, true);
        let prediction = rectangles(key.at("prediction", 0), 60, 50, 4, false);
        let mut other = prediction.clone();
        let mut changed = 0;
        for (label, truth) in other.labels_mut().iter_mut().zip(truth.labels()) {
            if *truth >= UNKNOWN {
                *label = (*label + 1) % 4;
                changed += 1;
            }
        }
        assert!(changed > 0);
        assert_eq!(host_counts(&prediction, &truth, 4, None), host_counts(&other, &truth, 4, None));
        assert_eq!(device_counts(&[(&prediction, &truth)], 4, None), device_counts(&[(&other, &truth)], 4, None));
    }

    #[test]
    fn an_image_counted_twice_changes_no_metric() {
        let key = Key::new(8);
        let truth = rectangles(key.at("truth", 0), 50, 40, 4, true);
        let prediction = rectangles(key.at("prediction", 0), 50, 40, 4, false);
        let once = device_counts(&[(&prediction, &truth)], 4, None);
        let twice = device_counts(&[(&prediction, &truth); 2], 4, None);
        assert_eq!(twice.counts, once.counts.iter().map(|count| 2 * count).collect::<Vec<u64>>());
        let (once, twice) = (once.metrics().unwrap(), twice.metrics().unwrap());
        assert_eq!(twice, SegMetrics { pixels: 2 * once.pixels, ..once });
    }

    #[test]
    fn without_a_counted_pixel_there_are_no_metrics() {
        let (truth, prediction) = (LabelMask::filled(4, 3, IGNORE), LabelMask::filled(4, 3, 1));
        assert_eq!(host_counts(&prediction, &truth, 2, None).metrics(), None);
        assert_eq!(device_counts(&[(&prediction, &truth)], 2, None).metrics(), None);
        assert_eq!(Confusion::new(2, &Device::flex()).metrics(), None);
    }

    #[test]
    fn masks_that_cannot_be_compared_say_why() {
        let message = |prediction: &LabelMask, truth: &LabelMask| {
            ConfusionMatrix::from_masks(prediction, truth, 3, None).unwrap_err().to_string()
        };
        let truth = LabelMask::new(2, 2, vec![0, 1, 2, IGNORE]);
        let small = LabelMask::filled(2, 1, 0);
        assert_eq!(message(&small, &truth), "the prediction is 2x1 pixels, the truth 2x2; both must have one size");
        let foreign = LabelMask::new(2, 2, vec![0, 0, 7, 0]);
        assert_eq!(message(&foreign, &truth), "the prediction has 7 at column 0, row 1; expected a class below 3");
        assert_eq!(message(&truth, &foreign), "the truth has 7 at column 0, row 1; expected a class below 3");
        let beside = LabelMask::new(2, 2, vec![0, 0, 0, 99]);
        assert!(ConfusionMatrix::from_masks(&beside, &truth, 3, None).is_ok(), "an ignored pixel may hold anything");
    }
}
