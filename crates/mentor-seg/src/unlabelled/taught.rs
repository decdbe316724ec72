//! What terms teach about unlabelled images, for people to look at.

use burn::tensor::{Device, Tensor};
use mentor_distill::{Term, TermTable};
use mentor_types::{IGNORE, Key, LabelMask, Pairs, UNKNOWN};

use super::UnlabelledConfig;
use crate::context::Context;
use crate::nets::SegNet;
use crate::task::Seg;
use crate::upload::DevicePairs;
use crate::views::{Pseudo, Views};
use mentor_unlabeled::Teaching;

/// The nets that label weak views.
pub type Labellers<'a> = mentor_unlabeled::Labellers<'a, SegNet>;

/// What a labeller says about weak views, off the graph.
///
/// # Shapes
/// `weak_nchw` `[n, 3, h, w]`; returns `[n, k, h', w']`.
///
/// # Panics
/// As [`weak`](mentor_unlabeled::Labellers::weak).
#[must_use]
pub(crate) fn weak_logits(nets: Labellers<'_>, teaching: Teaching, weak_nchw: &Tensor<4>) -> Tensor<4> {
    nets.weak(teaching, weak_nchw, |net, images_nchw| net.forward(images_nchw, None).logits)
}

/// What a term teaches about unlabelled images.
pub type Taught = mentor_unlabeled::Taught<TaughtView>;

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
pub fn pseudo_of(
    config: &UnlabelledConfig,
    nets: Labellers<'_>,
    pairs: &Pairs<LabelMask>,
    device: &Device,
) -> Vec<Taught> {
    let on = config.terms();
    if on.is_empty() {
        return Vec::new();
    }
    let uploaded = DevicePairs::upload(pairs.clone(), device);
    let weak = uploaded.weak.normalised();
    let labeller = |teaching| weak_logits(nets, teaching, &weak);
    let views = Views::new(&uploaded.pixels, &labeller);
    let see = |net: &SegNet, images_nchw| net.forward(images_nchw, None);
    let strong = nets.weak(Teaching::Student, &uploaded.strong.normalised(), see);
    let context = Context::of(&strong, Key::new(0)).with(|context| context.views = Some(&views));
    let taught = |(name, term): (&str, &dyn Term<Seg>)| {
        let pseudo = term.pseudo(&context)?;
        Some(Taught { term: name.to_owned(), views: taught_views(&pseudo, pairs) })
    };
    on.into_iter().filter_map(taught).collect()
}

fn taught_views(Pseudo { labels, threshold }: &Pseudo, pairs: &Pairs<LabelMask>) -> Vec<TaughtView> {
    let classes = labels.classes_nhw.clone().into_data().convert::<u8>();
    let classes = classes.try_into_vec::<u8>().expect("converted to u8 above");
    let accepted = labels.accepted(*threshold).into_data().convert::<f32>();
    let accepted = accepted.try_into_vec::<f32>().expect("converted to f32 above");
    let [width, height] = [pairs.strong.width, pairs.strong.height];
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let view = |first: usize| {
        let mut labels = vec![IGNORE; width * height];
        let (mut free, mut taken, mut known, mut right) = (0, 0, 0, 0);
        for (place, label) in labels.iter_mut().enumerate() {
            let pixel = first + place;
            let Ok(weak) = usize::try_from(pairs.link[pixel]) else { continue };
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
    use super::*;
    use crate::nets::{NetConfig, NetTable};
    use crate::unlabelled::{FixMatch, MeanTeacher, unlabelled};
    use crate::views::testing::*;
    use crate::views::{Origin, PseudoLabels, weak_probabilities};
    use burn::tensor::DType;
    use mentor_nets::BackboneKind;
    use mentor_types::{Images, LossTerms, SegOutput, Stats, Taps};
    use rand::RngExt;

    #[test]
    fn what_is_shown_of_a_strong_view_tells_its_pixels_apart() {
        // Strong pixels: sure and right, sure and wrong, sure of unknown truth, unsure, labelled, ignored, no origin.
        let pairs = Pairs::<LabelMask> {
            weak: Images { n: 1, height: 1, width: 7, rgb: vec![0; 21] },
            strong: Images { n: 1, height: 1, width: 7, rgb: vec![0; 21] },
            link: vec![1, 0, 2, 3, 4, 5, -1],
            targets: vec![UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 1, IGNORE, UNKNOWN],
            truth: vec![1, 0, UNKNOWN, 0, 1, IGNORE, 0],
        };
        let probabilities: [[[[f32; 7]; 1]; 2]; 1] =
            [[[[0.9, 0.9, 0.1, 0.6, 0.9, 0.9, 0.9]], [[0.1, 0.1, 0.9, 0.4, 0.1, 0.1, 0.1]]]];
        let numbers = |values: &[i64]| ints(values, [1, 1, 7]);
        let targets: Vec<i64> = pairs.targets.iter().map(|label| i64::from(*label)).collect();
        let origin = Origin::new(numbers(&[1, 0, 2, 3, 4, 5, -1]), numbers(&targets));
        let labels = PseudoLabels::new(Tensor::from_data(probabilities, &Device::flex()), &origin);
        let views = taught_views(&Pseudo { labels, threshold: 0.7 }, &pairs);
        assert_eq!(views[0].labels.labels(), [0, 0, 1, UNKNOWN, 1, IGNORE, IGNORE]);
        assert_eq!((views[0].accepted, views[0].precision), (Some(0.75), Some(0.5)));
    }

    /// Pairs whose strong views are their weak ones mirrored; the first row shows nothing.
    fn mirrored_pairs(side: usize) -> Pairs<LabelMask> {
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
            link: (0..2 * side * side).map(mirrored).collect(),
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
        // Half of what each labeller says is sure enough.
        let [of_student, of_average] = [Teaching::Student, Teaching::Ema].map(|teaching| {
            let weak = DevicePairs::upload(pairs.clone(), &device).weak.normalised();
            let probabilities = weak_probabilities(weak_logits(nets, teaching, &weak), [32, 32]);
            let mut confidence = values(probabilities.max_dim(1));
            confidence.sort_by(f32::total_cmp);
            f64::from(confidence[confidence.len() / 2])
        });
        let mut shares = Vec::new();
        for (teacher, min_confidence) in [(Teaching::Student, Some(of_average)), (Teaching::Ema, None)] {
            let config = UnlabelledConfig {
                mean_teacher: Some(MeanTeacher { min_confidence, ..MeanTeacher::default() }),
                fixmatch: Some(FixMatch { threshold: of_student, teacher, ..FixMatch::default() }),
                ..UnlabelledConfig::default()
            };
            let uploaded = DevicePairs::upload(pairs.clone(), &device);
            let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
            let weak = |teaching| weak_logits(nets, teaching, &uploaded.weak.normalised());
            let logits = Tensor::zeros([2, 3, 32, 32], &device);
            let strong = SegOutput { logits, auxiliary: None, taps: Taps::default(), image_size: [32, 32] };
            let views = Views::new(&uploaded.pixels, &weak);
            let context = Context::of(&strong, Key::new(0)).with(|context| context.views = Some(&views));
            unlabelled(&config, &context, 0, &mut terms, &mut stats);
            let trained: Vec<f64> = stats
                .iter()
                .map(|stat| {
                    let ratio = stat.numerator.clone() / stat.denominator.clone();
                    f64::from(ratio.into_scalar::<f32>())
                })
                .collect();
            let taught = pseudo_of(&config, nets, &pairs, &device);
            assert_eq!(
                taught.iter().map(|taught| taught.term.as_str()).collect::<Vec<_>>(),
                ["mean_teacher", "fixmatch"]
            );
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
    fn shares_of(taught: &Taught, pairs: &Pairs<LabelMask>) -> [f64; 2] {
        let labels: Vec<u8> = taught.views.iter().flat_map(|view| view.labels.labels()).copied().collect();
        let count = |counts: &dyn Fn(usize, u8) -> bool| {
            labels.iter().enumerate().filter(|(pixel, label)| counts(*pixel, **label)).count() as f64
        };
        let taken = count(&|_, label| label < UNKNOWN);
        let truth = |pixel: usize| usize::try_from(pairs.link[pixel]).map(|weak| pairs.truth[weak]);
        [taken / count(&|_, label| label != IGNORE), count(&|pixel, label| truth(pixel) == Ok(label)) / taken]
    }
}
