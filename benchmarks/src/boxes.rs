//! Work on boxes alone, on the host: COCO's scores against pycocotools and faster-coco-eval, and the suppression of boxes
//! that overlap with better ones.
//!
//! Scores are made of boxes that both sides hold in memory, indexed as each wants them: reading files is not measured.

use anyhow::Result;
use burn::tensor::Device;
use mentor_det::metrics::{CocoScores, DetMetrics, FoundBox, ImageTruth, TruthBox};
use mentor_det::suppress;
use mentor_types::{BoxKind, Detection};
use mentor_weights::NamedTensors;
use serde_json::json;

use crate::work::{Built, Case, Sizes, Tolerance, Work, noise};

/// Classes of COCO, and objects in one of its images.
const CLASSES: usize = 80;
const OBJECTS: usize = 7;

/// Found in each image: as many as COCO counts.
const FOUND: usize = 100;

/// The overlap from which a worse box is suppressed.
const NMS_IOU: f64 = 0.5;

/// The rows of this group.
pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let (images, boxes) = if sizes.quick { (50, 1000) } else { (5000, 10_000) };
    vec![
        scores(images, "pycocotools"),
        scores(images, "faster_coco_eval"),
        suppression(boxes, 1),
        suppression(boxes, CLASSES),
    ]
}

fn scores(images: usize, package: &str) -> Case {
    Case {
        name: format!("boxes/coco-{images}x{FOUND}-{package}"),
        spec: json!({ "kind": "coco", "package": package, "images": images, "classes": CLASSES }),
        // Ours are f64 there and back, all but for the way between the two.
        tolerance: Tolerance::Largest(1e-6),
        images: Some(images),
        fresh: false,
        build: Box::new(move |_: &Device| -> Result<Built> { Ok(scoring(images)) }),
    }
}

/// Uniform numbers in [0, 1) that are a function of the name.
fn shares(name: &str, len: usize) -> Vec<f32> {
    noise(name, len).into_iter().map(|value| (value + 1.0) / 2.0).collect()
}

/// Objects of all sizes; of what is found three boxes of ten lie near an object of their class, some of them twice.
fn scoring(count: usize) -> Built {
    let (mut tensors, mut images) = (NamedTensors::new(), Vec::new());
    let (mut truths, mut founds) = (Vec::new(), Vec::new());
    for image in 0..count {
        let truth: Vec<[f32; 6]> = shares(&format!("truth {image}"), 5 * OBJECTS).chunks_exact(5).map(object).collect();
        let found: Vec<[f32; 6]> = shares(&format!("found {image}"), 7 * FOUND)
            .chunks_exact(7)
            .enumerate()
            .map(|(index, shares)| if index % 10 < 3 { near(truth[index % OBJECTS], shares) } else { object(shares) })
            .collect();
        for (rows, boxes) in [(&mut truths, &truth), (&mut founds, &found)] {
            rows.extend(boxes.iter().flat_map(|row| [image as f32].into_iter().chain(*row)));
        }
        images.push((of_truth(&truth), of_found(&found)));
    }
    tensors.insert("truth".to_owned(), (vec![count * OBJECTS, 7], truths));
    tensors.insert("found".to_owned(), (vec![count * FOUND, 7], founds));
    Built { tensors, work: Box::new(Scoring { images }) }
}

/// Class, left edge, upper edge, width, height, score, of an object anywhere in an image of 640 by 480.
fn object(shares: &[f32]) -> [f32; 6] {
    let class = (shares[0] * CLASSES as f32).floor().min(CLASSES as f32 - 1.0);
    let [width, height] = [shares[1], shares[2]].map(|share| 8.0 + 300.0 * share * share);
    let [left, top] = [(640.0 - width) * shares[3], (480.0 - height) * shares[4]];
    [class, left, top, width, height, shares.last().copied().unwrap_or(0.0)]
}

/// A box up to a tenth of its sides off an object.
fn near([class, left, top, width, height, _]: [f32; 6], shares: &[f32]) -> [f32; 6] {
    let off = |side: f32, share: f32| side * 0.2 * (share - 0.5);
    let score = 0.2 + 0.8 * shares[6];
    let [width_off, height_off] = [off(width, shares[2]), off(height, shares[3])];
    [class, left + off(width, shares[0]), top + off(height, shares[1]), width + width_off, height + height_off, score]
}

fn of_truth(rows: &[[f32; 6]]) -> ImageTruth {
    let of = |row: &[f32; 6]| {
        let [class, left, top, width, height, _] = row.map(f64::from);
        let extent = [left, top, width, height];
        TruthBox { extent, class: Some(class as usize), kind: BoxKind::Object, area: width * height }
    };
    ImageTruth { boxes: rows.iter().map(of).collect(), looked_for: None }
}

fn of_found(rows: &[[f32; 6]]) -> Vec<FoundBox> {
    let of = |row: &[f32; 6]| {
        let [class, left, top, width, height, score] = row.map(f64::from);
        FoundBox { extent: [left, top, width, height], class: class as usize, score }
    };
    rows.iter().map(of).collect()
}

struct Scoring {
    images: Vec<(ImageTruth, Vec<FoundBox>)>,
}

impl Scoring {
    fn scores(&self) -> DetMetrics {
        let mut scores = CocoScores::new(CLASSES, CocoScores::LIMIT);
        scores.push_all(&self.images);
        scores.scores()
    }
}

impl Work for Scoring {
    /// The twelve numbers of COCO in its order.
    fn check(&mut self) -> NamedTensors {
        let scores = self.scores();
        let precisions = [scores.ap, scores.ap50, scores.ap75, scores.ap_small, scores.ap_medium, scores.ap_large];
        let recalls = [scores.ar1, scores.ar10, scores.ar100, scores.ar_small, scores.ar_medium, scores.ar_large];
        // What could not be computed is -1 there.
        let values = [precisions, recalls].concat().into_iter().map(|value| value.unwrap_or(-1.0) as f32).collect();
        [("scores".to_owned(), (vec![12], values))].into()
    }

    fn run(&mut self) {
        self.scores();
    }
}

fn suppression(boxes: usize, classes: usize) -> Case {
    Case {
        name: format!("boxes/nms-{boxes}-classes{classes}"),
        spec: json!({ "kind": "nms", "classes": classes, "iou": NMS_IOU }),
        // Which boxes are left: the same.
        tolerance: Tolerance::Largest(0.0),
        images: None,
        fresh: false,
        build: Box::new(move |_: &Device| -> Result<Built> { Ok(suppressing(boxes, classes)) }),
    }
}

/// Boxes in heaps of twenty, as a dense detector finds them around objects.
fn suppressing(count: usize, classes: usize) -> Built {
    const HEAP: usize = 20;
    let heaps: Vec<[f32; 6]> = shares("heaps", 6 * count.div_ceil(HEAP)).chunks_exact(6).map(object).collect();
    let boxes: Vec<[f32; 6]> = shares("heaped", 7 * count)
        .chunks_exact(7)
        .enumerate()
        .map(|(index, shares)| {
            near(heaps[index / HEAP], &shares.iter().map(|share| 3.0 * share - 1.0).collect::<Vec<_>>())
        })
        .collect();
    // No two score the same: neither side promises which of them is better.
    let detection = |(index, row): (usize, &[f32; 6])| {
        let [class, left, top, width, height, _] = *row;
        let edges = [left, top, left + width, top + height];
        Detection { edges, class: class as u8 % classes as u8, score: (index * 7919 % count) as f32 / count as f32 }
    };
    let found: Vec<Detection> = boxes.iter().enumerate().map(detection).collect();
    let column = |of: &dyn Fn(&Detection) -> f32| (vec![count], found.iter().map(of).collect::<Vec<f32>>());
    let edges = found.iter().flat_map(|one| one.edges).collect();
    let tensors = [
        ("edges".to_owned(), (vec![count, 4], edges)),
        ("scores".to_owned(), column(&|one| one.score)),
        ("classes".to_owned(), column(&|one| f32::from(one.class))),
    ];
    Built { tensors: tensors.into(), work: Box::new(Suppressing { found }) }
}

struct Suppressing {
    found: Vec<Detection>,
}

impl Work for Suppressing {
    fn check(&mut self) -> NamedTensors {
        let kept: Vec<f32> = suppress(&self.found, NMS_IOU, usize::MAX).into_iter().map(|place| place as f32).collect();
        [("kept".to_owned(), (vec![kept.len()], kept))].into()
    }

    fn run(&mut self) {
        drop(suppress(&self.found, NMS_IOU, usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_neither_trivial_nor_empty() {
        let metrics = |mut built: Built| built.work.check();
        let scores = metrics(scoring(20));
        assert!(scores["scores"].1.iter().all(|score| (0.005..0.95).contains(score)), "{scores:?}");
        for classes in [1, CLASSES] {
            let kept = metrics(suppressing(1000, classes))["kept"].1.len();
            assert!((50..700).contains(&kept), "{kept} of 1000 kept");
        }
    }
}
