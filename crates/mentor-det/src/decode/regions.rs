//! The best boxes of the regions of a detector with two stages.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use mentor_types::{Detection, Regions};

use crate::regions::boxes;

/// Boxes with shorter sides are none, in pixels.
const SHORTEST: f32 = 1e-2;

/// What a second stage says, on the host.
pub(super) struct Host {
    /// Left, top, right, bottom, each of all boxes, and their scores; image by image, region by region, class by class.
    values: Vec<f32>,
    boxes: usize,
    classes: usize,
}

impl Host {
    /// Reads the device once.
    pub(super) fn read(regions: &Regions, image_size: [usize; 2]) -> Self {
        let [n, r, classes, _] = regions.deltas.dims();
        let count = r * classes;
        let probabilities = softmax(regions.class_logits.clone().detach(), 2).narrow(2, 1, classes);
        let real_nr1 = regions.real_nr.clone().detach().unsqueeze_dim::<3>(2);
        let scores_n1q: Tensor<3> = (probabilities * real_nr1).reshape([n, 1, count]);
        let edges_n4q = boxes(regions, image_size).detach();
        let data: TensorData = Tensor::cat(vec![edges_n4q, scores_n1q], 1).into_data();
        let values = data.convert::<f32>().try_into_vec::<f32>().expect("converted to f32 above");
        Self { values, boxes: count, classes }
    }

    /// The best `most` of an image that score more than `threshold`, the best first; of equal scores the first region, and
    /// there the first class.
    pub(super) fn best(&self, image: usize, threshold: f64, most: usize) -> Vec<Detection> {
        let of_image = &self.values[5 * image * self.boxes..5 * (image + 1) * self.boxes];
        let value = |row: usize, at: usize| of_image[row * self.boxes + at];
        let found = (0..self.boxes).filter_map(|at| {
            let edges = [0, 1, 2, 3].map(|row| value(row, at));
            let is_solid = edges[2] - edges[0] >= SHORTEST && edges[3] - edges[1] >= SHORTEST;
            let score = value(4, at);
            let class = (at % self.classes) as u8;
            (score > threshold as f32 && is_solid).then_some(Detection { edges, class, score })
        });
        let mut found: Vec<Detection> = found.collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(most);
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::output;
    use crate::{EvalConfig, FoundBoxes, detections};
    use burn::tensor::Device;

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    #[test]
    fn regions_find_by_their_classes_what_places_would_not() {
        let mut output = output(&[(8, [4, 4])], 1, 1, |_| 9.0);
        let edges = [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 4.0, 30.0, 24.0], [0.0; 4]];
        let logits = [[0.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [0.0, 5.0, 5.0]];
        // The third is moved by a fifth of its width for its class.
        let deltas: Vec<f32> = (0..32).map(|i| if i == 2 * 8 + 4 { 2.0 } else { 0.0 }).collect();
        output.regions = Some(Regions {
            edges_nr4: tensor(&edges.concat(), [1, 4, 4]),
            real_nr: tensor(&[1.0, 1.0, 1.0, 0.0], [1, 4]),
            class_logits: tensor(&logits.concat(), [1, 4, 3]),
            deltas: tensor(&deltas, [1, 4, 2, 4]),
        });
        let found = detections(&output, &EvalConfig { nms_iou: 0.5, score_threshold: 0.3, ..EvalConfig::default() });
        let softmax = |x: f32| x.exp() / (x.exp() + 2.0);
        let expected = [([22.0, 4.0, 32.0, 24.0], 1, softmax(3.0)), ([0.0, 0.0, 10.0, 10.0], 0, softmax(2.0))];
        assert_eq!(found[0].len(), 2);
        for (found, (edges, class, score)) in found[0].iter().zip(expected) {
            assert!(found.class == class && (found.score - score).abs() < 1e-6, "{found:?}");
            assert!(found.edges.iter().zip(edges).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        }
        let boxes = FoundBoxes::of(&output, 0.5, 3);
        let scores = crate::testing::values(boxes.scores_nm);
        assert!((scores[0] - softmax(3.0)).abs() < 1e-6 && (scores[1] - softmax(2.0)).abs() < 1e-6 && scores[2] == 0.0);
    }
}
