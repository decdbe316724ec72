//! `[distill.holistic]`: whole segmentations, judged by a rival.

use burn::tensor::Tensor;
use mentor_distill::{Column, Needs, Shared, Start, Stream, Term};
use mentor_train::RivalConfig;
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::companions::{Companion, Rival, RivalExample};
use crate::context::Context;
use crate::task::Seg;

/// Makes the student's segmentations such that a [`Rival`] takes them for the teacher's.
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
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
    /// The rival and its training.
    pub rival: RivalConfig,
}

impl Default for Holistic {
    fn default() -> Self {
        Self { weight: 0.1, on: vec![Stream::Labelled], ramp_steps: 0, rival: RivalConfig::default() }
    }
}

impl Term<Seg> for Holistic {
    fn source(&self) -> &'static str {
        "Liu et al. 2019, arXiv 1903.04197, eq. 4 and 5"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn needs(&self) -> Needs {
        Needs { images: true, ..Needs::default() }
    }

    fn companion(&self, start: &Start<'_>) -> Option<Companion> {
        let rival = Rival::new(&self.rival, start.classes, start.seed, start.device);
        Some(Companion::Rival(Box::new(rival)))
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let companion = context.companions.and_then(|companions| companions.get(column.term));
        let Companion::Rival(rival) = companion.expect("holistic is evaluated with its rival");
        let example = RivalExample::of(context);
        rival.frozen().through(context.student.logits.clone(), |net, logits| example.score(net, logits)).neg()
    }

    fn check(&self, found: &mut Found) {
        self.rival.check("rival", found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::companions::rival::tests::{example, trained};
    use crate::distill::checks::{Case, check_term, column, map, output, target, values, with_context};
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Device;
    use mentor_distill::Companions;

    /// The companions of the term, its rival as it stands after `steps`.
    fn with_rival(steps: usize) -> Companions<Seg> {
        let term = Holistic::default();
        let fresh = Start { classes: 3, teacher_channels: 0, seed: 0, device: &Device::flex() };
        let mut companions = Companions::fresh([("holistic", &term as &dyn Term<Seg>)], &fresh);
        if let Some(Companion::Rival(rival)) = companions.get_mut("holistic") {
            **rival = trained(&example(), steps);
        }
        companions
    }

    fn rival(companions: &Companions<Seg>) -> &Rival {
        let Some(Companion::Rival(rival)) = companions.get("holistic") else { panic!("there is a rival") };
        rival
    }

    fn value(companions: &Companions<Seg>, student: &Tensor<4>, labels: Option<&[i64]>) -> Tensor<1> {
        let [n, _, height, width] = student.dims();
        let target = labels.map(|labels| target([n, 2 * height, 2 * width], labels));
        // The same two images however often the batch is repeated.
        let pixels = 3 * 4 * height * width * 2;
        let images = map([n, 3, 2 * height, 2 * width], |i| ((i % pixels * 61) % 23) as f32 / 10.0 - 1.1);
        let output = output(student.clone(), None);
        with_context(&output, &output, target.as_ref(), |context| {
            let context = context.with(|context| {
                context.companions = Some(companions);
                context.images_nchw = Some(&images);
            });
            let term = Holistic::default();
            term.value(&context, &column("holistic", &term))
        })
    }

    #[test]
    fn its_gap_to_the_teacher_passes_the_checks_of_every_term() {
        let rival = with_rival(40);
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
        let rival = with_rival(5);
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
        let companions = with_rival(2);
        let before = rival(&companions).save();
        let student = Tensor::from_inner(map([2, 3, 8, 12], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0)).require_grad();
        let gradients = value(&companions, &student, None).backward();
        assert!(values(student.grad(&gradients).unwrap()).iter().any(|g| *g != 0.0));
        let mut tracked = Tracked(Vec::new());
        rival(&companions).frozen().net().visit(&mut tracked);
        assert_eq!(tracked.0, vec![false; 22]);
        assert!(rival(&companions).save() == before);
    }

    #[test]
    fn a_fresh_rival_of_the_default_size_works() {
        let term = Holistic::default();
        let fresh = Start { classes: 3, teacher_channels: 0, seed: 0, device: &Device::flex() };
        let rival = Companions::fresh([("holistic", &term as &dyn Term<Seg>)], &fresh);
        assert!(values(value(&rival, &map([1, 3, 4, 4], |i| i as f32), None))[0].is_finite());
    }
}
