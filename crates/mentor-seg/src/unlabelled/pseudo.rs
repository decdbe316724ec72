//! What a teacher says about the pixels of the views, and which of them take its word.

use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use mentor_ops::{resize_bilinear, softmax};
use mentor_types::{IGNORE, LabelMask, Pairs, UNKNOWN};
use mentor_unlabeled::{Acceptance, confident};

use super::{Origin, Teaching, UnlabelledConfig};
use crate::nets::SegNet;
use crate::upload::DevicePairs;

/// The nets that label weak views.
#[derive(Clone, Copy, Debug)]
pub struct Labellers<'a> {
    /// The student.
    pub student: &'a SegNet,
    /// Its moving average, where the run keeps one.
    pub average: Option<&'a SegNet>,
    /// The type of numbers that the nets compute in.
    pub precision: DType,
}

impl Labellers<'_> {
    /// What a labeller says about weak views, off the graph.
    ///
    /// # Shapes
    /// `weak_nchw` `[n, 3, h, w]`; returns `[n, k, h', w']`.
    ///
    /// # Panics
    /// If there is no average and it is asked: a checked recipe has an `[ema]` where a term needs one.
    #[must_use]
    pub fn weak_logits(&self, teaching: Teaching, weak_nchw: &Tensor<4>) -> Tensor<4> {
        let see = |net: &SegNet| net.forward(weak_nchw.clone().cast(self.precision), None).logits;
        match teaching {
            Teaching::Student => see(&self.student.valid()),
            Teaching::Ema => see(self.average.expect("a checked recipe has an [ema] where a term needs one")),
        }
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

/// Who labels for a term, and how sure it must be.
struct Source {
    term: &'static str,
    teaching: Teaching,
    threshold: f64,
}

/// The terms that are on, in the order of the log.
fn sources(config: &UnlabelledConfig) -> Vec<Source> {
    let mean_teacher = config.mean_teacher.as_ref().map(|term| Source {
        term: "mean_teacher",
        teaching: Teaching::Ema,
        threshold: term.min_confidence.unwrap_or(0.0),
    });
    let fixmatch = config.fixmatch.as_ref().map(|term| Source {
        term: "fixmatch",
        teaching: term.teacher,
        threshold: term.threshold,
    });
    mean_teacher.into_iter().chain(fixmatch).collect()
}

/// What a term teaches about unlabelled images.
#[derive(Clone, Debug, PartialEq)]
pub struct Taught {
    /// The term.
    pub term: &'static str,
    /// For each image, what is taught on its strong view.
    pub views: Vec<TaughtView>,
}

/// What is taught on a strong view.
#[derive(Clone, Debug, PartialEq)]
pub struct TaughtView {
    /// The pseudo-label of every pixel that took one; unknown where the teacher was not sure enough, ignored where no
    /// weak view shows the spot, and the label where somebody gave one.
    pub labels: LabelMask,
    /// Share of the free pixels that took a pseudo-label; `None` where no pixel is free.
    pub accepted: Option<f64>,
    /// Share of those that are right, where the truth is known.
    pub precision: Option<f64>,
}

/// The pseudo-labels that each term trains on, as the step makes them: by the term's own labeller, from the weak
/// views, carried to the strong ones, where they are sure enough for the term.
#[must_use]
pub fn pseudo_of(config: &UnlabelledConfig, nets: Labellers<'_>, pairs: &Pairs, device: &Device) -> Vec<Taught> {
    let sources = sources(config);
    if sources.is_empty() {
        return Vec::new();
    }
    let uploaded = DevicePairs::upload(pairs.clone(), device);
    let weak = uploaded.weak.normalised();
    let origin = Origin::new(uploaded.pixels.origin, uploaded.pixels.targets);
    let taught = |source: Source| {
        let probabilities = weak_probabilities(nets.weak_logits(source.teaching, &weak), origin.view_size());
        let pseudo = PseudoLabels::new(probabilities, &origin);
        Taught { term: source.term, views: taught_views(&pseudo, source.threshold, pairs) }
    };
    sources.into_iter().map(taught).collect()
}

fn taught_views(pseudo: &PseudoLabels, threshold: f64, pairs: &Pairs) -> Vec<TaughtView> {
    let classes = pseudo.classes_nhw.clone().into_data().convert::<u8>();
    let classes = classes.try_into_vec::<u8>().expect("converted to u8 above");
    let accepted = pseudo.accepted(threshold).into_data().convert::<f32>();
    let accepted = accepted.try_into_vec::<f32>().expect("converted to f32 above");
    let [width, height] = [pairs.strong.width, pairs.strong.height];
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let view = |first: usize| {
        let mut labels = vec![IGNORE; width * height];
        let (mut free, mut taken, mut known, mut right) = (0, 0, 0, 0);
        for (place, label) in labels.iter_mut().enumerate() {
            let pixel = first + place;
            let Ok(weak) = usize::try_from(pairs.origin[pixel]) else { continue };
            *label = pairs.targets[weak];
            free += usize::from(*label == UNKNOWN);
            if accepted[pixel] > 0.0 {
                *label = classes[pixel];
                taken += 1;
                known += usize::from(pairs.truth[weak] < UNKNOWN);
                right += usize::from(pairs.truth[weak] == *label);
            }
        }
        let labels = LabelMask::new(width, height, labels);
        TaughtView { labels, accepted: share(taken, free), precision: share(right, known) }
    };
    (0..pairs.strong.n).map(|image| view(image * width * height)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::*;
    use super::*;
    use crate::nets::{NetConfig, NetTable};
    use crate::unlabelled::{FixMatch, MeanTeacher};
    use burn::tensor::TensorData;
    use mentor_nets::BackboneKind;
    use mentor_types::{Images, Key, LossTerms, Stats};
    use rand::RngExt;

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

    #[test]
    fn what_is_shown_of_a_strong_view_tells_its_pixels_apart() {
        // Strong pixels: sure and right, sure and wrong, sure of unknown truth, unsure, labelled, ignored, no origin.
        let pairs = Pairs {
            weak: Images { n: 1, height: 1, width: 7, rgb: vec![0; 21] },
            strong: Images { n: 1, height: 1, width: 7, rgb: vec![0; 21] },
            origin: vec![1, 0, 2, 3, 4, 5, -1],
            targets: vec![UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 1, IGNORE, UNKNOWN],
            truth: vec![1, 0, UNKNOWN, 0, 1, IGNORE, 0],
        };
        let probabilities: [[[[f32; 7]; 1]; 2]; 1] =
            [[[[0.9, 0.9, 0.1, 0.6, 0.9, 0.9, 0.9]], [[0.1, 0.1, 0.9, 0.4, 0.1, 0.1, 0.1]]]];
        let numbers = |values: &[i64]| ints(values, [1, 1, 7]);
        let targets: Vec<i64> = pairs.targets.iter().map(|label| i64::from(*label)).collect();
        let origin = Origin::new(numbers(&[1, 0, 2, 3, 4, 5, -1]), numbers(&targets));
        let pseudo = PseudoLabels::new(Tensor::from_data(probabilities, &Device::flex()), &origin);
        let views = taught_views(&pseudo, 0.7, &pairs);
        assert_eq!(views[0].labels.labels(), [0, 0, 1, UNKNOWN, 1, IGNORE, IGNORE]);
        assert_eq!((views[0].accepted, views[0].precision), (Some(0.75), Some(0.5)));
    }

    /// Pairs whose strong views are their weak ones mirrored; the first row shows nothing.
    fn mirrored_pairs(side: usize) -> Pairs {
        let mut rng = Key::new(4).rng();
        let mut images = || Images {
            n: 2,
            height: side,
            width: side,
            rgb: (0..2 * side * side * 3).map(|_| rng.random()).collect(),
        };
        let (weak, strong) = (images(), images());
        let mirrored = |pixel: usize| {
            let (row, column) = (pixel / side, pixel % side);
            if row % side == 0 { -1 } else { i32::try_from(row * side + side - 1 - column).unwrap() }
        };
        Pairs {
            weak,
            strong,
            origin: (0..2 * side * side).map(mirrored).collect(),
            targets: vec![UNKNOWN; 2 * side * side],
            truth: (0..2 * side * side).map(|pixel| (pixel % 3) as u8).collect(),
        }
    }

    #[test]
    fn what_is_shown_is_what_the_step_trains_on() {
        let device = Device::flex();
        let mut table = NetTable::new(BackboneKind::Resnet18);
        (table.width, table.output_stride) = (Some(4), Some(16));
        let [student, average] = [1, 2].map(|seed| NetConfig::Fcn(table.clone()).init(3, seed, &device));
        let nets = Labellers { student: &student, average: Some(&average), precision: DType::F32 };
        let pairs = mirrored_pairs(32);
        let mut shares = Vec::new();
        for (teacher, min_confidence) in [(Teaching::Student, Some(0.9)), (Teaching::Ema, None)] {
            let config = UnlabelledConfig {
                mean_teacher: Some(MeanTeacher { min_confidence, ..MeanTeacher::default() }),
                fixmatch: Some(FixMatch { threshold: 0.5, teacher, ..FixMatch::default() }),
                ..UnlabelledConfig::default()
            };
            let uploaded = DevicePairs::upload(pairs.clone(), &device);
            let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
            let weak = |teaching| nets.weak_logits(teaching, &uploaded.weak.normalised());
            let strong = Tensor::zeros([2, 3, 32, 32], &device);
            config.losses(&weak, strong, &uploaded.pixels, 0, &mut terms, &mut stats);
            let trained: Vec<f64> = stats
                .iter()
                .map(|stat| {
                    let ratio = stat.numerator.clone() / stat.denominator.clone();
                    f64::from(ratio.into_scalar::<f32>())
                })
                .collect();
            let taught = pseudo_of(&config, nets, &pairs, &device);
            assert_eq!(taught.iter().map(|taught| taught.term).collect::<Vec<_>>(), ["mean_teacher", "fixmatch"]);
            let shown: Vec<f64> = taught.iter().flat_map(|taught| shares_of(taught, &pairs)).collect();
            for (shown, trained) in shown.iter().zip(&trained) {
                assert!((shown - trained).abs() < 1e-6, "{shown:?} is shown of {trained:?}");
            }
            assert_eq!(shown.len(), trained.len());
            shares.push(shown);
        }
        // The other threshold of mean_teacher, and the other labeller of fixmatch, accept something else.
        assert!([0, 2].into_iter().all(|share| shares[0][share] != shares[1][share]), "{shares:?}");
        assert_eq!(pseudo_of(&UnlabelledConfig::default(), nets, &pairs, &device), []);
    }

    /// The share accepted over all views, and the precision.
    fn shares_of(taught: &Taught, pairs: &Pairs) -> [f64; 2] {
        let labels: Vec<u8> = taught.views.iter().flat_map(|view| view.labels.labels()).copied().collect();
        let count = |counts: &dyn Fn(usize, u8) -> bool| {
            labels.iter().enumerate().filter(|(pixel, label)| counts(*pixel, **label)).count() as f64
        };
        let taken = count(&|_, label| label < UNKNOWN);
        let truth = |pixel: usize| usize::try_from(pairs.origin[pixel]).map(|weak| pairs.truth[weak]);
        [taken / count(&|_, label| label != IGNORE), count(&|pixel, label| truth(pixel) == Ok(label)) / taken]
    }
}
