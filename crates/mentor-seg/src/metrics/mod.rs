//! How well label maps agree with the truth: one confusion matrix, and every metric out of it.
//!
//! [`Confusion`] counts on the device and is read once; [`ConfusionMatrix`] counts the same on the
//! host. Counts are whole numbers, so neither the order of images nor how they were batched matters.

mod device;
mod host;

use mentor_types::{ClassScore, ScoreNames, ScoreRecord, ScoreRow, Scores};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

pub use device::Confusion;
pub use host::ConfusionMatrix;

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
    /// Of each class the pixels on which truth and prediction say it, and those on which at least one does.
    pub overlaps: Vec<[u64; 2]>,
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

impl Scores for SegMetrics {
    const NAMES: ScoreNames = ScoreNames {
        main: ["miou", "mIoU"],
        rows: &[
            row("miou", "mIoU", "mean IoU: IoU averaged over the classes"),
            row("pixel_accuracy", "pixel accuracy", "share of all pixels with the right class"),
            row("mean_accuracy", "mean accuracy", "share of right pixels, averaged over the classes"),
            row("fw_iou", "frequency-weighted IoU", "IoU weighted by how many pixels a class has"),
            row("boundary_iou", "boundary IoU", "IoU within a thin band along the edges"),
        ],
        by_class: ClassScore { key: "per_class", column: "iou", name: "IoU" },
        counted: "pixels",
        reading: "IoU is the overlap of prediction and truth: the pixels on which both say the class, divided by those \
                  on which at least one does. A dash means that the class occurs neither in the truth nor in a \
                  prediction.",
    };

    fn main(&self) -> f64 {
        self.miou
    }

    fn shares(&self) -> Vec<[u64; 2]> {
        self.overlaps.clone()
    }

    fn record(&self, classes: &[String]) -> ScoreRecord {
        let named = |values: &[Option<f64>]| -> Value {
            classes
                .iter()
                .cloned()
                .zip(values.iter().map(|value| json!(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        ScoreRecord::from_iter([
            ("miou", json!(self.miou)),
            ("pixel_accuracy", json!(self.pixel_accuracy)),
            ("mean_accuracy", json!(self.mean_accuracy)),
            ("fw_iou", json!(self.fw_iou)),
            ("boundary_iou", json!(self.boundary_iou)),
            ("per_class", named(&self.per_class)),
            ("boundary_per_class", named(&self.boundary_iou_per_class)),
            ("pixels", json!(self.pixels)),
        ])
    }
}

const fn row(key: &'static str, name: &'static str, meaning: &'static str) -> ScoreRow {
    ScoreRow { key, name, meaning }
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

/// The mean of the values that there are.
fn mean_of_known(values: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::device::{PIXELS_AT_ONCE, boundary_on_device};
    use super::host::boundary_on_host;
    use super::*;
    use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
    use mentor_types::{IGNORE, Key, LabelMask, UNKNOWN};
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
        let overlaps = once.overlaps.iter().map(|overlap| overlap.map(|pixels| 2 * pixels)).collect();
        assert_eq!(twice, SegMetrics { pixels: 2 * once.pixels, overlaps, ..once });
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

    #[test]
    fn the_record_holds_every_score_under_its_key() {
        let truth = LabelMask::new(5, 1, vec![0, 0, 0, 1, IGNORE]);
        let prediction = LabelMask::new(5, 1, vec![0, 0, 1, 1, 0]);
        let metrics = host_counts(&prediction, &truth, 3, None).metrics().unwrap();
        let record = metrics.record(&["a", "b", "c"].map(str::to_owned));
        let names = SegMetrics::NAMES;
        assert_eq!(record.get(names.main[0]), Some(metrics.main()));
        for row in names.rows {
            assert!(record.get(row.key).is_some_and(|share| (0.0..=1.0).contains(&share)), "{}", row.key);
        }
        let of = |class| record.of_class(names.by_class, class);
        assert_eq!([of("a"), of("b"), of("c")], [Some(2.0 / 3.0), Some(0.5), None]);
        assert_eq!(record.get(names.counted), Some(4.0));
    }
}
