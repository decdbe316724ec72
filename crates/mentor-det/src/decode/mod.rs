//! From what a detector says to the objects it found.

mod candidates;
mod config;
mod nms;
mod regions;

use burn::tensor::{Tensor, TensorData};
use mentor_types::{DetOutput, Detection, LevelLayout};

use candidates::Level;
pub use config::{EvalConfig, SoftNms};
pub use nms::{suppress, suppress_softly};

use crate::nets::DetNet;

/// The objects in each image, the surest first.
///
/// A class at a place scores `sqrt(sigmoid(class) * sigmoid(centerness))`, or `sigmoid(class)` where the detector says no
/// centerness. Of each level the best `candidates` that score more than `score_threshold` are looked at, all classes together;
/// their boxes end at the edges of the image; of those that overlap by more than `nms_iou` the best of a class is kept, or their
/// scores are lowered; the best `detections` remain. Of equal scores the finer level, the first place and the first class come
/// first.
///
/// What a second stage says of regions takes the part of all levels, where there is some: a class of a region scores its
/// probability.
///
/// The device is read once, and all else is done on the host. Scores and distances that are not numbers find nothing.
///
/// # Units and ranges
/// Edges in pixels of the image that went in, scores in (0, 1].
///
/// # Source
/// torchvision's `FCOS.postprocess_detections`, whose thresholds are 0.2 and 0.6, its `RetinaNet`'s and its `FasterRCNN`'s, 0.05 and 0.5;
/// 0.05 is the papers'.
///
/// # Differs
/// Boxes that have no area within the image are left out. Boxes never suppress those of other classes by rounding.
///
/// # Panics
/// If the levels do not have the same images and classes.
#[must_use]
pub fn detections(output: &DetOutput, config: &EvalConfig) -> Vec<Vec<Detection>> {
    if let Some(regions) = &output.regions {
        let host = regions::Host::read(regions, output.image_size);
        let images = 0..regions.real_nr.dims()[0];
        return images.map(|image| kept(host.best(image, config.score_threshold, config.candidates), config)).collect();
    }
    let host = Host::read(output);
    (0..host.images).map(|image| host.detections(image, output.image_size, config)).collect()
}

/// The objects that a net finds in images, see [`detections`].
///
/// # Shapes
/// `images_nchw` is `[n, 3, h, w]`, normalised, on the plain device; one list for each image.
#[must_use]
pub fn predict(net: &DetNet, images_nchw: Tensor<4>, config: &EvalConfig) -> Vec<Vec<Detection>> {
    detections(&net.forward(images_nchw), config)
}

/// The output on the host, in one piece.
struct Host {
    values: Vec<f32>,
    images: usize,
    classes: usize,
    levels: Vec<Place>,
}

/// Where a level lies in the values: scores, distances, then centerness, each image by image.
struct Place {
    start: usize,
    layout: LevelLayout,
    has_centerness: bool,
}

impl Host {
    fn read(output: &DetOutput) -> Self {
        let [images, classes, ..] = output.levels[0].class_logits.dims();
        let (mut parts, mut levels, mut start) = (Vec::new(), Vec::new(), 0);
        for level in &output.levels {
            let [n, k, _] = level.class_logits.dims();
            assert_eq!([n, k], [images, classes], "images and classes of the level of stride {}", level.layout.stride);
            let has_centerness = level.centerness.is_some();
            levels.push(Place { start, layout: level.layout.clone(), has_centerness });
            for map in
                [Some(&level.class_logits), Some(&level.distances), level.centerness.as_ref()].into_iter().flatten()
            {
                let count = map.shape().num_elements();
                parts.push(map.clone().detach().reshape([count]));
                start += count;
            }
        }
        let data: TensorData = Tensor::<1>::cat(parts, 0).into_data();
        let values = data.convert::<f32>().try_into_vec::<f32>().expect("converted to f32 above");
        Self { values, images, classes, levels }
    }

    fn level<'a>(&'a self, place: &'a Place, image: usize) -> Level<'a> {
        let places = place.layout.places();
        let part = |skipped: usize, rows: usize| {
            let start = place.start + (self.images * skipped + image * rows) * places;
            &self.values[start..start + rows * places]
        };
        let distances = part(self.classes, 4);
        Level {
            layout: &place.layout,
            class_logits: part(0, self.classes),
            distances: [0, 1, 2, 3].map(|edge| &distances[edge * places..(edge + 1) * places]),
            centerness: place.has_centerness.then(|| part(self.classes + 4, 1)),
        }
    }

    fn detections(&self, image: usize, image_size: [usize; 2], config: &EvalConfig) -> Vec<Detection> {
        let best = |place| self.level(place, image).best(config.score_threshold, config.candidates, image_size);
        kept(self.levels.iter().flat_map(best).collect(), config)
    }
}

/// What of the best boxes of an image remains.
fn kept(found: Vec<Detection>, config: &EvalConfig) -> Vec<Detection> {
    let EvalConfig { score_threshold, nms_iou, soft_nms, detections, .. } = *config;
    match soft_nms {
        None => suppress(&found, nms_iou, detections).into_iter().map(|place| found[place]).collect(),
        Some(soft) => suppress_softly(&found, soft, nms_iou, score_threshold, detections),
    }
}

/// What `tests/golden/fcos.py` wrote.
#[cfg(test)]
fn golden() -> std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let path = format!("{}/../../tests/golden/fcos.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("a golden file");
    mentor_weights::from_safetensors(&bytes).expect("a golden file")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::level;
    use burn::tensor::Device;
    use mentor_types::Taps;

    fn map(values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn golden_output(case: &str, levels: &[usize]) -> DetOutput {
        let golden = golden();
        let read = |key: &str, level: usize| {
            let (shape, values) = &golden[&format!("{case}/{key}.p{level}")];
            map(values.clone(), shape.clone().try_into().unwrap())
        };
        let part = |&index: &usize| {
            let [logits, distances, centerness] = ["cls_logits", "distances", "centerness"].map(|key| read(key, index));
            level(1 << index, logits, distances, Some(centerness))
        };
        DetOutput {
            levels: levels.iter().map(part).collect(),
            regions: None,
            taps: Taps::default(),
            image_size: [67, 93],
        }
    }

    #[test]
    fn what_is_found_is_what_torchvision_finds() {
        let golden = golden();
        for (case, levels) in [
            ("resnet18_p3_p7", &[3, 4, 5, 6, 7][..]),
            ("resnet18_p2_p5", &[2, 3, 4, 5]),
            ("resnet50_p3_p7", &[3, 4, 5, 6, 7]),
        ] {
            for (score_threshold, nms_iou, candidates, detections) in [(0.3, 0.6, 40, 1000), (0.05, 0.5, 1000, 20)] {
                let config = EvalConfig { score_threshold, nms_iou, candidates, detections, ..EvalConfig::default() };
                let found = super::detections(&golden_output(case, levels), &config);
                assert_eq!(found.len(), 2);
                for (image, found) in found.iter().enumerate() {
                    let expected = |key| &golden[&format!("{case}/detections_{detections}.{image}.{key}")].1;
                    let (boxes, scores, classes) = (expected("boxes"), expected("scores"), expected("classes"));
                    assert_eq!(found.len(), scores.len(), "{case} {image}");
                    assert!(found.len() >= 20);
                    for (at, one) in found.iter().enumerate() {
                        assert!((one.score - scores[at]).abs() < 1e-6, "{case} {image} {at}: {one:?}");
                        assert_eq!(one.class, classes[at] as u8, "{case} {image} {at}");
                        for (found, expected) in one.edges.iter().zip(&boxes[4 * at..]) {
                            assert!((found - expected).abs() < 1e-4, "{case} {image} {at}: {one:?}");
                        }
                    }
                }
            }
        }
    }

    /// One level of 1 by 2 places of stride 8, two classes.
    fn small(class_logits: [f32; 4], centerness: Option<[f32; 2]>) -> DetOutput {
        let logits = map(class_logits.to_vec(), [1, 2, 1, 2]);
        let distances = map(vec![3.0, 1.0, 2.0, 9.0, 1.0, 1.0, 4.0, 2.0], [1, 4, 1, 2]);
        let level = level(8, logits, distances, centerness.map(|values| map(values.to_vec(), [1, 1, 1, 2])));
        DetOutput { levels: vec![level], regions: None, taps: Taps::default(), image_size: [7, 14] }
    }

    #[test]
    fn boxes_lie_around_their_points_and_end_with_the_image() {
        let found = detections(&small([2.0, -9.0, -9.0, 1.0], None), &EvalConfig::default());
        // Points (4, 4) and (12, 4) of an image 14 wide and 7 high.
        let expected = [([1.0, 2.0, 5.0, 7.0], 0, 2.0f32), ([11.0, 0.0, 13.0, 6.0], 1, 1.0)];
        assert_eq!(found[0].len(), 2);
        for (found, (edges, class, logit)) in found[0].iter().zip(expected) {
            assert_eq!((found.edges, found.class), (edges, class));
            assert!((found.score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
        }
    }

    #[test]
    fn centerness_takes_part_in_the_score() {
        let found = detections(&small([0.0, -9.0, -9.0, 0.0], Some([0.0, -2.0])), &EvalConfig::default());
        let scores: Vec<f32> = found[0].iter().map(|one| one.score).collect();
        let second = (0.5 / (1.0 + 2.0f32.exp())).sqrt();
        assert!(scores.len() == 2 && (scores[0] - 0.5).abs() < 1e-6 && (scores[1] - second).abs() < 1e-6, "{scores:?}");
        // What scores no more than the threshold is dropped, just above and just below it.
        for (offset, expected) in [(-1e-4, 2), (1e-4, 1)] {
            let config = EvalConfig { score_threshold: f64::from(second) + offset, ..EvalConfig::default() };
            assert_eq!(detections(&small([0.0, -9.0, -9.0, 0.0], Some([0.0, -2.0])), &config)[0].len(), expected);
        }
        for (score_threshold, expected) in [(0.0, 4), (0.999, 0), (1.0, 0)] {
            let config = EvalConfig { score_threshold, ..EvalConfig::default() };
            let found = detections(&small([0.0, -9.0, -9.0, 0.0], Some([0.0, -2.0])), &config);
            assert_eq!(found[0].len(), expected, "{score_threshold}");
        }
        let sure = small([90.0, -9.0, -9.0, 90.0], Some([90.0, 90.0]));
        let config = EvalConfig { score_threshold: 0.9999, ..EvalConfig::default() };
        assert_eq!(detections(&sure, &config)[0].len(), 2);
    }

    #[test]
    fn what_is_not_a_number_finds_nothing() {
        let nan = f32::NAN;
        assert!(detections(&small([nan; 4], Some([nan; 2])), &EvalConfig::default())[0].is_empty());
        assert!(detections(&small([0.0; 4], Some([nan; 2])), &EvalConfig::default())[0].is_empty());
        let mut output = small([0.0; 4], None);
        output.levels[0].distances = map(vec![nan; 8], [1, 4, 1, 2]).flatten(2, 3);
        assert!(detections(&output, &EvalConfig::default())[0].is_empty());
        output.levels[0].distances = map(vec![0.0; 8], [1, 4, 1, 2]).flatten(2, 3);
        assert!(detections(&output, &EvalConfig::default())[0].is_empty());
    }

    #[test]
    fn the_best_candidates_of_a_level_are_kept_and_the_first_of_equals() {
        let config = |candidates| EvalConfig { candidates, ..EvalConfig::default() };
        let keys = |candidates| -> Vec<(u8, f32)> {
            let output = small([1.0, 2.0, 1.0, 0.5], None);
            detections(&output, &config(candidates))[0].iter().map(|one| (one.class, one.edges[0])).collect()
        };
        assert_eq!(keys(4), [(0, 11.0), (0, 1.0), (1, 1.0), (1, 11.0)]);
        assert_eq!(keys(3), [(0, 11.0), (0, 1.0), (1, 1.0)]);
        assert_eq!(keys(2), [(0, 11.0), (0, 1.0)]);
    }
}
