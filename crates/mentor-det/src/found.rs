//! What a detector finds, on the device: labels for images that have none.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Int, Tensor};
use mentor_types::{DetOutput, Found, Regions, check_probability};

use crate::grid::{Grid, at_all_places};
use crate::overlap::iou;
use crate::regions::boxes;
use crate::upload::DetTargets;

/// The surest boxes of each of `n` images, the surest first, with room for `m` of each; in fixed shapes and off the graph.
#[derive(Clone, Debug)]
pub struct FoundBoxes {
    /// `[n, m, 4]`: left, top, right, bottom in pixels, inside of the image.
    pub edges_nm4: Tensor<3>,
    /// `[n, m]`.
    pub classes_nm: Tensor<2, Int>,
    /// `[n, m]`: as [`detections`](crate::detections) scores them; 0 where there are fewer boxes.
    pub scores_nm: Tensor<2>,
}

impl FoundBoxes {
    /// Reports values out of range of the keys of a term that takes them for labels: `threshold` and `ignored_from`, `nms_iou`, and
    /// `most`.
    pub(crate) fn check([threshold, ignored_from]: [f64; 2], nms_iou: f64, most: usize, found: &mut Found) {
        for (key, value) in [("threshold", threshold), ("ignored_from", ignored_from), ("nms_iou", nms_iou)] {
            check_probability(key, value, found);
        }
        if !(1..=256).contains(&most) {
            found.push(("most".to_owned(), format!("{most} boxes, expected 1 to 256")));
        }
    }

    /// What an output says: of its places (or its regions, where there are some), each with its most probable class, the surest
    /// whose box overlaps none of the same class that was chosen before it by more than `nms_iou`, `most` times.
    ///
    /// # Differs
    /// [`detections`](crate::detections) lets a place find an object of each class, and stops at a score.
    #[must_use]
    pub fn of(output: &DetOutput, nms_iou: f64, most: usize) -> Self {
        let found = output.regions.as_ref().map(|regions| of_regions(regions, output.image_size));
        Self::surest(found.unwrap_or_else(|| places(output)), nms_iou, most)
    }

    /// The same of what the places of an output say, whatever a second stage makes of it.
    #[must_use]
    pub fn of_places(output: &DetOutput, nms_iou: f64, most: usize) -> Self {
        Self::surest(places(output), nms_iou, most)
    }

    fn surest((edges_n4p, scores_n1p, classes_n1p): Places, nms_iou: f64, most: usize) -> Self {
        let mut left_n1p = scores_n1p;
        let (mut edges, mut classes, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..most {
            let (score_n11, place_n11) = left_n1p.clone().max_dim_with_indices(2);
            let [n, ..] = place_n11.dims();
            let own_n41 = edges_n4p.clone().gather(2, place_n11.clone().expand([n, 4, 1]));
            let class_n11 = classes_n1p.clone().gather(2, place_n11);
            let overlap_n1p = iou(about_the_corner(&edges_n4p), about_the_corner(&own_n41).expand(edges_n4p.shape()));
            let same_n1p = classes_n1p.clone().equal(class_n11.clone().expand(classes_n1p.shape()));
            left_n1p = left_n1p.mask_fill(overlap_n1p.greater_scalar(nms_iou).bool_and(same_n1p), 0.0);
            edges.push(own_n41);
            classes.push(class_n11);
            scores.push(score_n11);
        }
        Self {
            edges_nm4: Tensor::cat(edges, 2).swap_dims(1, 2),
            classes_nm: Tensor::cat(classes, 2).squeeze_dim(1),
            scores_nm: Tensor::cat(scores, 2).squeeze_dim(1),
        }
    }

    /// The boxes as labels of images of which nothing else is known: those of at least `threshold` are objects; inside of those
    /// of at least `ignored_from` nothing is learnt; everything else is background of every class.
    #[must_use]
    pub fn labels(&self, threshold: f64, ignored_from: f64) -> DetTargets {
        let objects_nm = self.scores_nm.clone().greater_equal_scalar(threshold).float();
        let seen_nm = self.scores_nm.clone().greater_equal_scalar(ignored_from).float();
        let [n, _] = objects_nm.dims();
        DetTargets {
            edges_nm4: self.edges_nm4.clone(),
            classes_nm: self.classes_nm.clone(),
            ignored_nm: (seen_nm - objects_nm.clone()).clamp_min(0.0),
            looked_for: Tensor::ones([n, mentor_types::MAX_CLASSES], &objects_nm.device()),
            objects_nm,
        }
    }
}

/// Boxes `[n, 4, p]`, the best score of each and its class, `[n, 1, p]`.
type Places = (Tensor<3>, Tensor<3>, Tensor<3, Int>);

/// The box of each place. A box of less than a pixel scores nothing.
fn places(output: &DetOutput) -> Places {
    let class_logits = at_all_places(output, |level| &level.class_logits).inner();
    let distances = at_all_places(output, |level| &level.distances).inner();
    let grid = Grid::of(output, &distances.device());
    let (mut scores_n1p, classes_n1p) = sigmoid(class_logits).max_dim_with_indices(1);
    if output.levels.iter().all(|level| level.centerness.is_some()) {
        let centerness = at_all_places(output, |level| level.centerness.as_ref().expect("it was asked for"));
        scores_n1p = (scores_n1p * sigmoid(centerness.inner())).sqrt();
    }
    let edges = grid.edges_within(&distances, output.image_size);
    let [left, top, right, bottom] = edges.clone();
    let shorter = (right - left).min_pair(bottom - top);
    (Tensor::cat(edges.to_vec(), 1), scores_n1p.mask_fill(shorter.lower_scalar(1.0), 0.0), classes_n1p)
}

/// The box of each region, of its most probable class. A box of less than a pixel scores nothing.
fn of_regions(regions: &Regions, image_size: [usize; 2]) -> Places {
    let [n, r, k, _] = regions.deltas.dims();
    let probabilities_nkr = softmax(regions.class_logits.clone().inner(), 2).narrow(2, 1, k).swap_dims(1, 2);
    let (scores_n1r, classes_n1r) = probabilities_nkr.max_dim_with_indices(1);
    let plain = Regions { deltas: regions.deltas.clone().inner(), ..regions.clone() };
    let edges_n4rk: Tensor<4> = boxes(&plain, image_size).reshape([n, 4, r, k]);
    let own_n4r1 = classes_n1r.clone().unsqueeze_dim::<4>(3).expand([n, 4, r, 1]);
    let edges_n4r: Tensor<3> = edges_n4rk.gather(3, own_n4r1).squeeze_dim(3);
    let side = |low: usize| edges_n4r.clone().narrow(1, low + 2, 1) - edges_n4r.clone().narrow(1, low, 1);
    let none = side(0).min_pair(side(1)).lower_scalar(1.0);
    let scores_n1r = scores_n1r.mask_fill(none, 0.0) * regions.real_nr.clone().unsqueeze_dim::<3>(1);
    (edges_n4r, scores_n1r, classes_n1r)
}

/// The ways from the upper left corner of the image to the edges of boxes, as [`iou`] takes them.
fn about_the_corner(edges_n4p: &Tensor<3>) -> Tensor<3> {
    let [near, far] = [0, 2].map(|first| edges_n4p.clone().narrow(1, first, 2));
    Tensor::cat(vec![near.neg(), far], 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{map, output, values};
    use crate::{EvalConfig, detections};
    use mentor_types::IGNORE;

    /// Two images, two levels, three classes, logits of every size.
    fn noisy() -> DetOutput {
        let mut output = output(&[(8, [6, 7]), (16, [3, 4])], 2, 3, |i| ((i * 7919 + 13) % 101) as f32 / 20.0 - 2.5);
        output.image_size = [48, 56];
        // A place is probable for one class at most: what the other does is the same then.
        for level in &mut output.levels {
            let [n, k, p] = level.class_logits.dims();
            let best = values(level.class_logits.clone());
            let lowered = map([n, k, 1, p], |i| {
                let (image, place) = (i / (k * p), i % p);
                let of = |class: usize| best[image * k * p + class * p + place];
                let most = (0..k).map(of).fold(f32::MIN, f32::max);
                if best[i] == most { best[i] } else { -30.0 }
            });
            level.class_logits = lowered.flatten(2, 3);
        }
        output
    }

    #[test]
    fn the_surest_boxes_are_those_that_evaluation_finds() {
        let output = noisy();
        let config = EvalConfig { score_threshold: 0.0, detections: 12, ..EvalConfig::default() };
        let expected = detections(&output, &config);
        let found = FoundBoxes::of(&output, config.nms_iou, 12);
        let (edges, scores) = (values(found.edges_nm4), values(found.scores_nm));
        let classes = values(found.classes_nm.float());
        for (image, expected) in expected.iter().enumerate() {
            assert_eq!(expected.len(), 12);
            for (index, one) in expected.iter().enumerate() {
                let at = image * 12 + index;
                assert!((scores[at] - one.score).abs() < 1e-6, "image {image}, box {index}");
                assert_eq!(classes[at], f32::from(one.class));
                let apart = one.edges.iter().zip(&edges[4 * at..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 1e-4, "image {image}, box {index}: {one:?}");
            }
        }
    }

    #[test]
    fn where_fewer_boxes_are_left_scores_are_zero() {
        let mut output = output(&[(8, [1, 2])], 1, 1, |_| 2.0);
        output.levels[0].distances = map([1, 4, 1, 2], |i| if i % 2 == 0 { 4.0 } else { 0.2 }).flatten(2, 3);
        let scores = values(FoundBoxes::of(&output, 0.6, 3).scores_nm);
        assert!(scores[0] > 0.8 && scores[1..] == [0.0; 2], "{scores:?}");
    }

    #[test]
    fn sure_boxes_are_objects_and_others_are_ignored_or_background() {
        let device = burn::tensor::Device::flex();
        let found = FoundBoxes {
            edges_nm4: Tensor::zeros([1, 3, 4], &device),
            classes_nm: Tensor::zeros([1, 3], &device),
            scores_nm: Tensor::from_data([[0.7f32, 0.4, 0.2]], &device),
        };
        let labels = found.labels(0.7, 0.3);
        assert_eq!(values(labels.objects_nm), [1.0, 0.0, 0.0]);
        assert_eq!(values(labels.ignored_nm), [0.0, 1.0, 0.0]);
        assert_eq!(values(labels.looked_for), vec![1.0; mentor_types::MAX_CLASSES]);
        assert_eq!(values(found.labels(0.5, 0.9).ignored_nm), [0.0; 3]);
        assert!(mentor_types::MAX_CLASSES <= usize::from(IGNORE));
    }
}
