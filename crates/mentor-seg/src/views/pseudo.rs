//! What a teacher says about the pixels of the views, and which of them take its word.

use burn::tensor::{FloatDType, Int, Tensor};
use mentor_ops::{resize_bilinear, softmax};
use mentor_types::UNKNOWN;
use mentor_unlabeled::{Acceptance, confident};

use super::Origin;

/// What a teacher believes about weak views, `[n, k, h, w]` probabilities of size `view_size`: its
/// logits upsampled, in 32 bits, off the graph.
#[must_use]
pub(crate) fn weak_probabilities(weak_logits_nkhw: Tensor<4>, view_size: [usize; 2]) -> Tensor<4> {
    softmax(resize_bilinear(weak_logits_nkhw.inner().cast(FloatDType::F32), view_size, false), 1)
}

/// What a teacher says about each pixel of a strong view, in place and off the graph.
#[derive(Clone, Debug)]
pub struct PseudoLabels {
    /// The most probable class, `[n, h, w]`; always a class, also where no pseudo-label is allowed.
    pub classes_nhw: Tensor<3, Int>,
    /// Its probability, `[n, h, w]`.
    pub confidence_nhw: Tensor<3>,
    /// 1 where a pixel may take its pseudo-label, see [`Origin::free_nhw`].
    pub free_nhw: Tensor<3>,
}

/// The pseudo-labels that a term trains on.
#[derive(Clone, Debug)]
pub struct Pseudo {
    /// What the teacher says.
    pub labels: PseudoLabels,
    /// The lowest probability at which a pixel takes its pseudo-label.
    pub threshold: f64,
}

impl Pseudo {
    /// How many pixels are free, how many of these take their pseudo-label, and how many of those are
    /// right where the truth is known; see [`PseudoLabels::acceptance`].
    #[must_use]
    pub fn acceptance(&self, truth_nhw: Tensor<3, Int>) -> Acceptance {
        self.labels.acceptance(self.threshold, truth_nhw)
    }
}

impl PseudoLabels {
    /// The most probable class of each weak pixel, carried to where the strong views show it.
    ///
    /// # Shapes
    /// `weak_probabilities_nkhw` `[n, k, h, w]`, of the size of the views.
    ///
    /// # Panics
    /// If the size is another one.
    #[must_use]
    pub fn new(weak_probabilities_nkhw: Tensor<4>, origin: &Origin) -> Self {
        let (confidence_n1hw, classes_n1hw) = weak_probabilities_nkhw.inner().max_dim_with_indices(1);
        Self {
            classes_nhw: origin.carry_labels(classes_n1hw.squeeze_dim(1)),
            confidence_nhw: origin.carry(confidence_n1hw).squeeze_dim(1),
            free_nhw: origin.free_nhw.clone(),
        }
    }

    /// 1 where a free pixel's confidence is at least `threshold`, `[n, h, w]`.
    #[must_use]
    pub fn accepted(&self, threshold: f64) -> Tensor<3> {
        confident(self.confidence_nhw.clone(), threshold) * self.free_nhw.clone()
    }

    /// How many pixels are free, how many of these take their pseudo-label, and how many of those are
    /// right where the truth is known.
    ///
    /// # Shapes
    /// `truth_nhw` `[n, h, w]`, of the strong views: a class, or unknown or ignored where it is not known.
    #[must_use]
    pub fn acceptance(&self, threshold: f64, truth_nhw: Tensor<3, Int>) -> Acceptance {
        let known = truth_nhw.clone().lower_elem(i64::from(UNKNOWN)).float();
        let correct = self.classes_nhw.clone().equal(truth_nhw).float();
        Acceptance::count(self.free_nhw.clone(), self.accepted(threshold), known, correct)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::views::testing::*;
    use burn::tensor::{Device, TensorData};

    const SHAPE: [usize; 3] = [2, 3, 4];
    const FREE: i64 = UNKNOWN as i64;

    /// Weak pixel `i` of 24 says class `i`, with a probability that names it too.
    fn coordinates() -> Tensor<4> {
        let mut probabilities = vec![0.0f32; 24 * 24];
        for pixel in 0..24 {
            let (image, place) = (pixel / 12, pixel % 12);
            for class in 0..24 {
                let confidence = confidence_of(pixel);
                let value = if class == pixel { confidence } else { (1.0 - confidence) / 23.0 };
                probabilities[(image * 24 + class) * 12 + place] = value;
            }
        }
        Tensor::from_data(TensorData::new(probabilities, [2, 24, 3, 4]), &Device::flex())
    }

    fn confidence_of(pixel: usize) -> f32 {
        0.5 + pixel as f32 / 100.0
    }

    /// Image 0 is mirrored; image 1 is upside down, with the middle of mirrored image 0 pasted in and
    /// a last row that no weak view shows.
    fn flips_and_cutmix() -> Vec<i64> {
        let mirrored = |y: i64, x: i64| y * 4 + 3 - x;
        let first = (0..3).flat_map(|y| (0..4).map(move |x| mirrored(y, x)));
        let second = (0..3).flat_map(|y| {
            (0..4).map(move |x| match (y, x) {
                (2, _) => -1,
                (0..=1, 1..=2) => mirrored(y, x),
                _ => 12 + (2 - y) * 4 + x,
            })
        });
        first.chain(second).collect()
    }

    #[test]
    fn each_pseudo_label_lands_on_its_own_pixel() {
        let places = flips_and_cutmix();
        let origin = Origin::new(ints(&places, SHAPE), ints(&[FREE; 24], SHAPE));
        let pseudo = PseudoLabels::new(coordinates(), &origin);
        let classes = pseudo.classes_nhw.into_data().convert::<i64>().try_into_vec::<i64>().unwrap();
        let (confidence, free) = (values(pseudo.confidence_nhw), values(pseudo.free_nhw));
        let carried = values(origin.carry(coordinates()));
        for (pixel, place) in places.iter().enumerate() {
            assert_eq!(free[pixel], if *place < 0 { 0.0 } else { 1.0 }, "pixel {pixel}");
            if *place >= 0 {
                assert_eq!(classes[pixel], *place, "pixel {pixel}");
                assert_eq!(confidence[pixel], confidence_of(*place as usize), "pixel {pixel}");
                let channel = (pixel / 12 * 24 + *place as usize) * 12 + pixel % 12;
                assert_eq!(carried[channel], confidence_of(*place as usize), "pixel {pixel}");
            }
        }
        assert_eq!(free.iter().sum::<f32>(), 20.0);
    }

    #[test]
    fn acceptance_counts_what_is_free_sure_known_and_right() {
        let weak =
            Tensor::<4>::from_data([[[[0.9f32, 0.2, 0.6, 0.1, 0.9]], [[0.1, 0.8, 0.4, 0.9, 0.1]]]], &Device::flex());
        let origin = Origin::new(ints(&[0, 1, 2, 3, 4], [1, 1, 5]), ints(&[FREE, FREE, FREE, FREE, 0], [1, 1, 5]));
        let pseudo = PseudoLabels::new(weak, &origin);
        assert_eq!(values(pseudo.accepted(0.7)), [1.0, 1.0, 0.0, 1.0, 0.0]);
        // Right; wrong; not sure; not known; not free.
        let counts = pseudo.acceptance(0.7, ints(&[0, 0, 0, FREE, 0], [1, 1, 5]));
        let counts = [counts.candidates, counts.accepted, counts.known, counts.correct].map(|x| values(x)[0]);
        assert_eq!(counts, [4.0, 3.0, 2.0, 1.0]);
    }

    #[test]
    fn acceptance_agrees_with_pytorch() {
        let golden = golden();
        let origin = golden_origin(&golden);
        let pseudo = PseudoLabels::new(weak_probabilities(map(&golden, "weak"), [7, 8]), &origin);
        let counts = pseudo.acceptance(0.7, ints(&[FREE; 112], [2, 7, 8]));
        assert_eq!(values(counts.accepted), golden["accepted"].1);
        assert_eq!(values(counts.candidates), golden["candidates"].1);
        assert_eq!(values(counts.known), [0.0]);
    }

    #[test]
    fn small_weak_logits_are_upsampled_off_the_graph() {
        let small = leaf(Tensor::from_data([[[[0.0f32, 4.0]], [[0.0, 0.0]]]], &Device::flex()));
        let probabilities = weak_probabilities(small, [2, 4]);
        assert_eq!(probabilities.dims(), [1, 2, 2, 4]);
        assert!(!probabilities.is_require_grad() && !probabilities.is_tracked());
        let first = values(probabilities)[1];
        assert!((first - 1.0 / (1.0 + (-1.0f32).exp())).abs() < 1e-6, "a quarter of the way from 0 to 4: {first}");
    }
}
