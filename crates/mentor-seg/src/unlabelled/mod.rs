//! Learning from unlabelled images: a teacher labels the weak view, the student learns those
//! pseudo-labels on the strong view.
//!
//! The geometry between the views is one gather ([`Origin`]); a pseudo-label never carries a gradient.

mod fixmatch;
mod mean_teacher;

use burn::tensor::{FloatDType, Int, Tensor};
use mentor_ops::{resize_bilinear, softmax, sum_all};
use mentor_types::{LossTerms, Stats, UNKNOWN};
use mentor_unlabeled::{Acceptance, confident};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::upload::PairPixels;

pub use fixmatch::FixMatch;
pub use mean_teacher::{Consistency, MeanTeacher};

/// `[unlabelled]`: what is learnt from unlabelled images; any of these together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlabelledConfig {
    /// Whether the student sees the labelled and the strong images in one batch, `"joined"`
    /// (default), or in two, `"apart"`: this is what batch norm averages over.
    #[serde(default)]
    pub streams: Streams,
    /// Consistency with the moving average of the student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_teacher: Option<MeanTeacher>,
    /// Hard pseudo-labels where the teacher is sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixmatch: Option<FixMatch>,
}

/// What batch norm averages over while the student trains on two streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// Labelled and strong images together, one forward pass.
    #[default]
    Joined,
    /// Each stream on its own, two forward passes.
    Apart,
}

/// Who labels the weak views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Teaching {
    /// The student itself, as it is at this step.
    #[default]
    Student,
    /// The moving average of the student.
    Ema,
}

impl UnlabelledConfig {
    /// Whether nothing is learnt from unlabelled images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mean_teacher.is_none() && self.fixmatch.is_none()
    }

    /// Whether a moving average of the student labels weak views.
    #[must_use]
    pub fn needs_ema(&self) -> bool {
        self.mean_teacher.is_some() || self.fixmatch.as_ref().is_some_and(|term| term.teacher == Teaching::Ema)
    }

    /// Reports every value out of range: (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        if let Some(term) = &self.mean_teacher {
            term.check("mean_teacher", problems);
        }
        if let Some(term) = &self.fixmatch {
            term.check("fixmatch", problems);
        }
    }

    /// Pushes the terms `mean_teacher` and `fixmatch` at `step` (counted from 0), and for each the share of
    /// pseudo-labels accepted and their precision where the truth is known.
    ///
    /// `weak_logits` says what a teacher makes of the weak views; each teacher is asked at most once.
    ///
    /// # Shapes
    /// Logits are `[n, k, h', w']` of any size; those smaller than the views are upsampled.
    pub fn losses(
        &self,
        weak_logits: &dyn Fn(Teaching) -> Tensor<4>,
        strong_logits_nkhw: Tensor<4>,
        pixels: &PairPixels,
        step: u64,
        terms: &mut LossTerms,
        stats: &mut Stats,
    ) {
        if self.is_empty() {
            return;
        }
        let origin = Origin::new(pixels.origin.clone(), pixels.targets.clone());
        let truth = origin.carry_labels(pixels.truth.clone());
        let ask = |teaching| weak_probabilities(weak_logits(teaching), origin.view_size());
        let from_ema = self.needs_ema().then(|| ask(Teaching::Ema));
        if let (Some(term), Some(weak)) = (&self.mean_teacher, &from_ema) {
            let value = term.loss(&origin, weak.clone(), strong_logits_nkhw.clone());
            terms.push("mean_teacher", term.weight_at(step), value);
            let pseudo = PseudoLabels::new(weak.clone(), &origin);
            pseudo.acceptance(term.min_confidence.unwrap_or(0.0), truth.clone()).push("mean_teacher", stats);
        }
        if let Some(term) = &self.fixmatch {
            let weak = match (term.teacher, from_ema) {
                (Teaching::Ema, Some(weak)) => weak,
                (teaching, _) => ask(teaching),
            };
            let pseudo = PseudoLabels::new(weak, &origin);
            terms.push("fixmatch", term.weight_at(step), term.loss(&pseudo, strong_logits_nkhw));
            pseudo.acceptance(term.threshold, truth).push("fixmatch", stats);
        }
    }
}

/// Reports a probability outside `[0, 1]`.
fn check_probability(key: String, value: f64, problems: &mut Vec<(String, String)>) {
    if !(0.0..=1.0).contains(&value) {
        problems.push((key, format!("a probability lies in [0, 1], found {value}")));
    }
}

/// Where each pixel of a strong view lies in the weak views, and whether it may take a
/// pseudo-label.
#[derive(Clone, Debug)]
pub struct Origin {
    index: Tensor<1, Int>,
    size: [usize; 3],
    /// 1 where a strong pixel may take a pseudo-label: a weak view shows its spot and nobody labelled
    /// or ignored it there; `[n, h, w]`.
    pub free_nhw: Tensor<3>,
}

impl Origin {
    /// Reads a geometry.
    ///
    /// # Shapes
    /// `origin_nhw` `[n, h, w]`: flat indices into the `n * h * w` weak pixels, or -1 where no weak view
    /// shows the spot. `weak_targets_nhw` `[n, h, w]`: a weak pixel that carries a class or is ignored
    /// gives no pseudo-label.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn new(origin_nhw: Tensor<3, Int>, weak_targets_nhw: Tensor<3, Int>) -> Self {
        let size = origin_nhw.dims();
        assert_eq!(size, weak_targets_nhw.dims(), "an origin {size:?} for weak targets {:?}", weak_targets_nhw.dims());
        let shown = origin_nhw.clone().greater_equal_elem(0);
        // A pixel without an origin gathers pixel 0, which its mask then drops.
        let index = origin_nhw.clamp_min(0).reshape([-1]);
        let targets = weak_targets_nhw.reshape([-1]).select(0, index.clone()).reshape(size);
        let free = targets.equal_elem(i64::from(UNKNOWN)).bool_and(shown);
        Self { index, size, free_nhw: free.float() }
    }

    /// Height and width of the views.
    #[must_use]
    pub fn view_size(&self) -> [usize; 2] {
        [self.size[1], self.size[2]]
    }

    /// Numbers of the weak views where they belong in the strong ones, `[n, k, h, w]`; what stands
    /// where [`Origin::free_nhw`] is 0 means nothing.
    #[must_use]
    pub fn carry(&self, weak_nkhw: Tensor<4>) -> Tensor<4> {
        let [images, height, width] = self.size;
        let channels = weak_nkhw.dims()[1];
        assert_eq!(weak_nkhw.dims(), [images, channels, height, width], "weak views of another size");
        let pixels = images * height * width;
        let flat = weak_nkhw.swap_dims(0, 1).reshape([channels, pixels]).select(1, self.index.clone());
        flat.reshape([channels, images, height, width]).swap_dims(0, 1)
    }

    /// Labels of the weak views where they belong in the strong ones, `[n, h, w]`, see [`Origin::carry`].
    #[must_use]
    pub fn carry_labels(&self, weak_nhw: Tensor<3, Int>) -> Tensor<3, Int> {
        assert_eq!(weak_nhw.dims(), self.size, "weak views of another size");
        weak_nhw.reshape([-1]).select(0, self.index.clone()).reshape(self.size)
    }
}

/// What a teacher believes about weak views, `[n, k, h, w]` probabilities of size `view_size`: its
/// logits upsampled, in 32 bits, off the graph.
#[must_use]
pub fn weak_probabilities(weak_logits_nkhw: Tensor<4>, view_size: [usize; 2]) -> Tensor<4> {
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

/// A student's logits at the size of the views, in 32 bits.
fn strong_logits_at(strong_logits_nkhw: Tensor<4>, view_size: [usize; 2]) -> Tensor<4> {
    resize_bilinear(strong_logits_nkhw.cast(FloatDType::F32), view_size, false)
}

/// `1/|F| sum` of `value_nhw` where `counted_nhw` is 1, with `F` the free pixels; a zero with a
/// gradient where there is none.
fn mean_over_free(value_nhw: Tensor<3>, counted_nhw: Tensor<3>, free_nhw: Tensor<3>) -> Tensor<1> {
    sum_all(value_nhw * counted_nhw) / sum_all(free_nhw).clamp_min(1.0)
}

#[cfg(test)]
mod testing {
    //! What the tests of the terms share.
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{Device, TensorData};
    use mentor_weights::{NamedTensors, from_safetensors};

    pub fn golden() -> NamedTensors {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/unlabelled.safetensors");
        from_safetensors(&std::fs::read(path).unwrap()).unwrap()
    }

    pub fn map(golden: &NamedTensors, name: &str) -> Tensor<4> {
        let (shape, values) = golden[name].clone();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    pub fn labels(golden: &NamedTensors, name: &str) -> Tensor<3, Int> {
        let (shape, values) = golden[name].clone();
        let values: Vec<i64> = values.iter().map(|value| *value as i64).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    pub fn golden_origin(golden: &NamedTensors) -> Origin {
        Origin::new(labels(golden, "origin"), labels(golden, "weak_target"))
    }

    pub fn ints(values: &[i64], shape: [usize; 3]) -> Tensor<3, Int> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// Views that show the same pixels, of which nobody labelled one.
    pub fn identity(shape: [usize; 3]) -> Origin {
        let pixels: Vec<i64> = (0..shape.iter().product::<usize>() as i64).collect();
        Origin::new(ints(&pixels, shape), ints(&vec![i64::from(UNKNOWN); pixels.len()], shape))
    }

    pub fn leaf(x: Tensor<4>) -> Tensor<4> {
        Tensor::from_inner(x).require_grad()
    }

    pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    pub fn gradient(strong: &Tensor<4>, loss: &Tensor<1>) -> Vec<f32> {
        values(strong.grad(&loss.clone().backward()).unwrap())
    }

    /// Compares `loss` and its gradient with the golden ones, 1e-5 of the largest.
    pub fn agrees(golden: &NamedTensors, name: &str, strong: &Tensor<4>, loss: Tensor<1>) {
        let found = gradient(strong, &loss);
        let pairs = [(values(loss), &golden[&format!("{name}.value")].1), (found, &golden[&format!("{name}.grad")].1)];
        for (found, expected) in pairs {
            let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let off = found.iter().zip(expected).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(found.len() == expected.len() && largest > 0.0 && off <= 1e-5 * largest, "{name}: {off}/{largest}");
        }
    }

    /// Alone, on one fixed batch, a loss must fall by half within 100 steps.
    pub fn falls_by_half(strong: Tensor<4>, rate: f64, loss: impl Fn(Tensor<4>) -> Tensor<1>) {
        let first = values(loss(strong.clone()))[0];
        let mut strong = strong;
        for _ in 0..100 {
            let student = leaf(strong.clone());
            let gradient = student.grad(&loss(student.clone()).backward()).unwrap();
            strong = strong - gradient.mul_scalar(rate);
        }
        let last = values(loss(strong))[0];
        assert!(last < 0.5 * first, "{first} fell to {last}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::testing::*;
    use super::*;
    use burn::tensor::{Device, TensorData};
    use mentor_types::IGNORE;
    use mentor_weights::NamedTensors;

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
    fn labelled_and_ignored_pixels_and_those_without_origin_take_none() {
        // Strong pixels 0..6 show weak pixels 5, 4, 3, 2 and 1; the last shows nothing, though weak
        // pixel 0, which stands in for it, is free.
        let origin = Origin::new(
            ints(&[5, 4, 3, 2, 1, -1], [1, 2, 3]),
            ints(&[FREE, FREE, 0, IGNORE.into(), 7, FREE], [1, 2, 3]),
        );
        assert_eq!(values(origin.free_nhw), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
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

    fn golden_pixels(golden: &NamedTensors, truth: i64) -> PairPixels {
        PairPixels {
            origin: labels(golden, "origin"),
            targets: labels(golden, "weak_target"),
            truth: ints(&[truth; 112], [2, 7, 8]),
        }
    }

    fn both(teacher: Teaching) -> UnlabelledConfig {
        UnlabelledConfig {
            streams: Streams::Joined,
            mean_teacher: Some(MeanTeacher { ramp_steps: 10, ..MeanTeacher::default() }),
            fixmatch: Some(FixMatch { threshold: 0.7, teacher, ..FixMatch::default() }),
        }
    }

    #[test]
    fn both_terms_are_pushed_with_their_weights_and_statistics() {
        let golden = golden();
        let pixels = golden_pixels(&golden, 1);
        let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
        let weak = |_: Teaching| map(&golden, "weak");
        both(Teaching::Student).losses(&weak, leaf(map(&golden, "strong")), &pixels, 5, &mut terms, &mut stats);
        let found: Vec<_> = terms.iter().map(|t| (t.name.as_str(), t.weight, values(t.value.clone())[0])).collect();
        assert_eq!(found.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), ["mean_teacher", "fixmatch"]);
        assert!((found[0].1 - 100.0 * (-1.25f64).exp()).abs() < 1e-9 && found[1].1 == 1.0);
        for ((name, _, value), golden_name) in found.iter().zip(["mean_teacher_mse", "fixmatch"]) {
            let expected = golden[&format!("{golden_name}.value")].1[0];
            assert!((value - expected).abs() < 1e-5 * expected, "{name}: {value} instead of {expected}");
        }
        let columns = ["mean_teacher_accepted", "mean_teacher_precision", "fixmatch_accepted", "fixmatch_precision"];
        assert_eq!(stats.iter().map(|stat| stat.name.as_str()).collect::<Vec<_>>(), columns);
    }

    #[test]
    fn each_teacher_is_asked_once_and_only_if_needed() {
        let golden = golden();
        let ask = |config: &UnlabelledConfig| {
            let asked = std::cell::RefCell::new(Vec::new());
            let weak = |teaching: Teaching| {
                asked.borrow_mut().push(teaching);
                map(&golden, "weak")
            };
            let pixels = golden_pixels(&golden, FREE);
            let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
            config.losses(&weak, map(&golden, "strong"), &pixels, 0, &mut terms, &mut stats);
            asked.into_inner()
        };
        assert_eq!(ask(&both(Teaching::Ema)), [Teaching::Ema]);
        assert_eq!(ask(&both(Teaching::Student)), [Teaching::Ema, Teaching::Student]);
        let alone = UnlabelledConfig { mean_teacher: None, ..both(Teaching::Student) };
        assert_eq!(ask(&alone), [Teaching::Student]);
        assert!(!alone.needs_ema() && both(Teaching::Student).needs_ema());
        assert_eq!(ask(&UnlabelledConfig::default()), []);
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

    #[test]
    fn the_table_is_read_and_its_values_are_checked() {
        let text = r#"{"streams": "apart", "mean_teacher": {"weight": 7, "loss": "cross_entropy"},
            "fixmatch": {"teacher": "ema"}}"#;
        let config: UnlabelledConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.streams, Streams::Apart);
        let expected = MeanTeacher { weight: 7.0, loss: Consistency::CrossEntropy, ..MeanTeacher::default() };
        assert_eq!(config.mean_teacher, Some(expected));
        assert_eq!(config.fixmatch, Some(FixMatch { teacher: Teaching::Ema, ..FixMatch::default() }));
        assert!(serde_json::from_str::<UnlabelledConfig>(r#"{"fixmatch": {"treshold": 0.9}}"#).is_err());

        let mut problems = Vec::new();
        config.check(&mut problems);
        assert_eq!(problems, []);
        let wrong = UnlabelledConfig {
            streams: Streams::Joined,
            mean_teacher: Some(MeanTeacher { weight: -1.0, min_confidence: Some(2.0), ..MeanTeacher::default() }),
            fixmatch: Some(FixMatch { weight: f64::NAN, threshold: 95.0, ..FixMatch::default() }),
        };
        wrong.check(&mut problems);
        let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        let expected = ["mean_teacher.weight", "mean_teacher.min_confidence", "fixmatch.weight", "fixmatch.threshold"];
        assert_eq!(keys, expected);
        assert_eq!(problems[3].1, "a probability lies in [0, 1], found 95");
    }
}
