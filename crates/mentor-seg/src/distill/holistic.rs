//! `[distill.holistic]`: whole segmentations, judged by a rival.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Place, RivalExample, Stream, Term, TermContext};

/// Makes the student's segmentations such that a [`Rival`](super::Rival) takes them for the teacher's.
///
/// `-mean_n D(softmax(z^S_n), image_n)`, while the rival minimises `mean_n D(softmax(z^S_n), image_n) -
/// mean_n D(softmax(z^T_n), image_n)` after each step.
///
/// # Shapes
/// Logits `[n, k, h, w]` of both; the images are resized bilinearly to `[n, 3, h, w]`.
///
/// # Units and ranges
/// A score without unit, of either sign: only its difference from the teacher's score means anything.
///
/// # Reduction
/// Mean over the images in which any pixel counts. At an ignored pixel (labels resized to the logits
/// by nearest neighbour) the rival sees zeros, of the logits and of the image. With no pixel that
/// counts the value is a finite zero with a zero gradient.
///
/// # Gradient
/// Reaches the student's logits through the rival, and no weight of the rival.
///
/// # Panics
/// If the context has no rival or no images.
///
/// # Source
/// Liu et al. 2019, arXiv 1903.04197, equations 4 and 5; self-attention as in Zhang et al. 2018, arXiv
/// 1805.08318 (`unchecked`); spectral normalisation as in Miyato et al. 2018, arXiv 1802.05957
/// (`unchecked`). Official defaults: weight 0.1, learning rate 4e-4, 64 channels.
///
/// # Differs
/// The rival is held to a Lipschitz constant by spectral normalisation (each convolution, as a matrix
/// of outputs by all else, is divided by its largest singular value, found by power iteration that goes
/// on with each of the rival's updates) and by that alone: the paper's gradient penalty needs second
/// derivatives, which burn has not. Self-attention is not bounded by it.
/// The rival judges probabilities and sees the image, as the paper says; the official code shows it
/// batch-normed logits without the image. It takes maps of any size: three convolutions 3x3 of
/// stride 2, one self-attention, and the mean of a map of scores, where the official one has four of
/// 4x4, two self-attentions and one score for a map of 65x65. Its optimizer is Adam with betas 0 and
/// 0.9; the official code takes SGD and scales the rival's loss by the weight of the term.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Holistic {
    /// Factor in the loss. Default 0.1.
    pub weight: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight rises from 0. Default 0.
    pub ramp_steps: usize,
    /// The rival and its training.
    pub rival: RivalConfig,
}

/// `[distill.holistic.rival]`: the discriminator and its optimizer, Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RivalConfig {
    /// Learning rate. Default 4e-4.
    pub lr: f64,
    /// Decay of Adam's two moments, each in [0, 1). Default [0.0, 0.9].
    pub betas: [f64; 2],
    /// Channels of the first convolution; the following have two and four times as many. At least 1.
    /// Default 64.
    pub channels: usize,
}

impl Default for Holistic {
    fn default() -> Self {
        Self { weight: 0.1, on: vec![Stream::Labelled], ramp_steps: 0, rival: RivalConfig::default() }
    }
}

impl Default for RivalConfig {
    fn default() -> Self {
        Self { lr: 4e-4, betas: [0.0, 0.9], channels: 64 }
    }
}

impl Term for Holistic {
    fn name(&self) -> &'static str {
        "holistic"
    }

    fn source(&self) -> &'static str {
        "Liu et al. 2019, arXiv 1903.04197, eq. 4 and 5"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn ramp_steps(&self) -> usize {
        self.ramp_steps
    }

    fn on(&self) -> &[Stream] {
        &self.on
    }

    fn needs_rival(&self) -> bool {
        true
    }

    fn value(&self, context: &TermContext, _place: Option<&Place>) -> Tensor<1> {
        let rival = context.rival.expect("holistic is evaluated with a rival");
        RivalExample::of(context).score(rival.net(), context.student.logits.clone()).neg()
    }

    fn check(&self, problems: &mut Vec<(String, String)>) {
        let mut problem = |key: &str, message: String| problems.push((format!("rival.{key}"), message));
        let rival = &self.rival;
        if !(rival.lr.is_finite() && rival.lr > 0.0) {
            problem("lr", format!("must be above 0, found {}", rival.lr));
        }
        if let Some(beta) = rival.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
            problem("betas", format!("must lie in [0, 1), found {beta}"));
        }
        if rival.channels == 0 {
            problem("channels", "must be at least 1, found 0".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, check_term, map, output, target, values, with_context};
    use crate::distill::rival::tests::{example, trained};
    use crate::distill::{Discriminator, Rival};
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Device;
    use mentor_nets::Frozen;

    fn value(rival: &Frozen<Discriminator>, student: &Tensor<4>, labels: Option<&[i64]>) -> Tensor<1> {
        let [n, _, height, width] = student.dims();
        let target = labels.map(|labels| target([n, 2 * height, 2 * width], labels));
        // The same two images however often the batch is repeated.
        let pixels = 3 * 4 * height * width * 2;
        let images = map([n, 3, 2 * height, 2 * width], |i| ((i % pixels * 61) % 23) as f32 / 10.0 - 1.1);
        let output = output(student.clone(), None);
        with_context(&output, &output, target.as_ref(), |context| {
            let context = TermContext { rival: Some(rival), images_nchw: Some(&images), ..*context };
            Holistic::default().value(&context, None)
        })
    }

    #[test]
    fn its_gap_to_the_teacher_passes_the_checks_of_every_term() {
        let rival = trained(&example(), 40).frozen();
        check_term(&Case {
            value: &|student, teacher, labels| {
                value(&rival, student, labels) - value(&rival, &teacher.clone().inner(), labels)
            },
            student: map([2, 3, 8, 12], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0),
            teacher: map([2, 3, 8, 12], |i| if (i / 96) % 3 == (i / 4) % 3 { 6.0 } else { -6.0 }),
            zero_at_equality: true,
            rate: 50.0,
        });
    }

    #[test]
    fn an_image_without_a_counted_pixel_is_left_out_of_the_mean() {
        let rival = trained(&example(), 5).frozen();
        let both = map([2, 3, 8, 12], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0);
        let labels: Vec<i64> = (0..2 * 16 * 24).map(|i| if i < 16 * 24 { 1 } else { 255 }).collect();
        let first = values(value(&rival, &both.clone().narrow(0, 0, 1), None))[0];
        assert!(first != 0.0 && (values(value(&rival, &both, Some(&labels)))[0] - first).abs() < 1e-5);
        assert_eq!(values(value(&rival, &both, Some(&[255; 2 * 16 * 24]))), [0.0]);
    }

    struct Tracked(Vec<bool>);

    impl ModuleVisitor for Tracked {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().is_tracked() || param.val().is_require_grad());
        }
    }

    #[test]
    fn the_gradient_reaches_the_student_and_no_weight_of_the_rival() {
        let rival = trained(&example(), 2);
        let before = rival.save();
        let frozen = rival.frozen();
        let student = Tensor::from_inner(map([2, 3, 8, 12], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0)).require_grad();
        let gradients = value(&frozen, &student, None).backward();
        assert!(values(student.grad(&gradients).unwrap()).iter().any(|g| *g != 0.0));
        let mut tracked = Tracked(Vec::new());
        frozen.net().visit(&mut tracked);
        assert_eq!(tracked.0, vec![false; 22]);
        assert!(rival.save() == before);
    }

    #[test]
    fn a_fresh_rival_of_the_default_size_works() {
        let rival = Rival::new(&RivalConfig::default(), 3, 0, &Device::flex()).frozen();
        assert!(values(value(&rival, &map([1, 3, 4, 4], |i| i as f32), None))[0].is_finite());
    }
}
