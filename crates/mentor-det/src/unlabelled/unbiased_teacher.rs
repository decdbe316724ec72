//! `[unlabelled.unbiased_teacher]`: hard boxes of a moving average.

use burn::tensor::Tensor;
use mentor_distill::{Column, Needs, Shared, Stream, Term};
use mentor_types::Found;
use mentor_unlabeled::Teaching;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Learnt};
use crate::found::FoundBoxes;
use crate::task::Det;
use crate::upload::DetTargets;

/// The student learns on the strong view the boxes that its average finds in the weak one, where it is sure of them.
///
/// The supervised loss with pseudo-labels for labels: the boxes of the weak view that score at least `threshold` are moved to
/// the strong view and are objects there, with the classes at which the average scores them highest; whatever else is
/// background, but for boxes that score at least `ignored_from`, inside of which nothing is learnt. With `boxes` all parts of
/// the supervised loss are learnt, without it those about classes alone.
///
/// # Shapes
/// Whatever the parts of the supervised loss take; the value has one element.
///
/// # Units and ranges
/// Those of the supervised loss. `threshold`, `ignored_from` and `nms_iou` lie in [0, 1].
///
/// # Reduction
/// As each part of the supervised loss, by the places that answer for a pseudo-label.
///
/// # Gradient
/// Reaches the student on the strong view only: pseudo-labels are constants.
///
/// # Panics
/// If there are no views.
///
/// # Source
/// Liu et al. 2021, *Unbiased Teacher*, arXiv 2102.09480: weight 4, threshold 0.7, classes alone, after a burn-in of 2000 steps
/// on labels; an average with decay 0.9996. Liu et al. 2022 (arXiv 2206.09500) for detectors without anchors.
///
/// # Differs
/// Of a net with one stage its places take the part of proposals. The average begins with the run, not with the end of the burn-in. An
/// image in which some classes were labelled keeps these labels, and takes boxes of the other classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UnbiasedTeacher {
    /// Factor in the loss. Default 4.
    pub weight: f64,
    /// The score from which a box is an object, in [0, 1]. Default 0.7.
    pub threshold: f64,
    /// The score from which a box is not background either, in [0, 1]; `threshold` or more for none. Default 1: everything that
    /// is no object is background, as published.
    pub ignored_from: f64,
    /// Of two boxes of a class that overlap by more than this the surer one is kept, in [0, 1]. Default 0.6.
    pub nms_iou: f64,
    /// How many boxes are taken at most in an image. Default 32.
    pub most: usize,
    /// Whether the edges of boxes are learnt, too. Default false, as published.
    pub boxes: bool,
    /// Who finds the boxes: `"ema"` (default), which needs an `[ema]`, or `"student"`.
    pub teacher: Teaching,
    /// Optimizer steps before which the term is off. Default 0.
    pub burn_in_steps: u64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it, counted from the end of the burn-in.
    /// Default 0.
    pub ramp_steps: u64,
}

impl Default for UnbiasedTeacher {
    fn default() -> Self {
        Self {
            weight: 4.0,
            threshold: 0.7,
            ignored_from: 1.0,
            nms_iou: 0.6,
            most: 32,
            boxes: false,
            teacher: Teaching::Ema,
            burn_in_steps: 0,
            ramp_steps: 0,
        }
    }
}

impl Term<Det> for UnbiasedTeacher {
    fn source(&self) -> &'static str {
        "Liu et al. 2021, arXiv 2102.09480"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Unlabelled], at: &[] }
    }

    fn needs(&self) -> Needs {
        Needs { average: self.teacher == Teaching::Ema, ..Needs::default() }
    }

    fn burn_in_steps(&self) -> u64 {
        self.burn_in_steps
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let learnt = if self.boxes { Learnt::All } else { Learnt::Classes };
        context.loss_on(&self.pseudo_labels(context), learnt)
    }

    fn pseudo(&self, context: &Context<'_>) -> Option<DetTargets> {
        Some(self.pseudo_labels(context))
    }

    fn check(&self, found: &mut Found) {
        FoundBoxes::check([self.threshold, self.ignored_from], self.nms_iou, self.most, found);
    }
}

impl UnbiasedTeacher {
    /// The labels of the strong views: those that there are, and the boxes that were found of other classes.
    fn pseudo_labels(&self, context: &Context<'_>) -> DetTargets {
        let views = context.views();
        views.pseudo_labels("unbiased_teacher", || {
            let found = FoundBoxes::of(views.weak(self.teacher), self.nms_iou, self.most);
            let labels = views.completed(found.labels(self.threshold, self.ignored_from));
            views.carried(&labels, context.student.image_size)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::assign::{AssignConfig, FcosAssign};
    use crate::context::{Labelled, Part, Parts};
    use crate::supervised::{Focal, Giou};
    use crate::testing::{map, output, seen, values};
    use crate::upload::PairLabels;
    use crate::views::Views;
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, DetOutput, Geometry};

    /// A weak view of 32x32 in which the place in the second column and row of the fine level sees class 1, with these edges
    /// about (12, 12), and nothing else is seen.
    fn weak(logit: f32, ways: [f32; 4]) -> DetOutput {
        let mut output = output(&[(8, [4, 4]), (16, [2, 2])], 1, 3, |_| -20.0);
        output.levels.iter_mut().for_each(|level| level.centerness = None);
        let fine = &mut output.levels[0];
        fine.class_logits = map([1, 3, 4, 4], |i| if i == 16 + 5 { logit } else { -20.0 }).flatten(2, 3);
        fine.distances = map([1, 4, 4, 4], |i| ways[i / 16]).flatten(2, 3);
        output
    }

    fn strong() -> DetOutput {
        output(&[(8, [4, 4]), (16, [2, 2])], 1, 3, |i| ((i * 37) % 23) as f32 / 11.0 - 0.97)
    }

    /// The value where the strong view shows the weak one mirrored.
    fn value(term: &UnbiasedTeacher, logit: f32, strong: &DetOutput) -> Tensor<1> {
        let weak = weak(logit, [8.0, 6.0, 4.0, 6.0]);
        let labeller = |_: Teaching| weak.clone();
        let mirror = Geometry { scale: [-1.0, 1.0], shift: [32.0, 0.0] };
        let unknown = [BoxLabels::unknown()];
        let labels = PairLabels::upload(&[mirror], &unknown, &unknown, &Device::flex());
        let views = Views::new(&labels, &labeller, 0.25);
        let (focal, giou, assign) = (Focal::default(), Giou::default(), AssignConfig::Fcos(FcosAssign::default()));
        let all: [Part<'_>; 2] = [("focal", &focal), ("giou", &giou)];
        let parts = Parts { all: &all, of_classes: &all[..1], assign: &assign, second: None };
        let context = Context { views: Some(&views), parts: Some(parts), ..Context::of(strong, None) };
        let column = Column::of("unbiased_teacher", &term.shared()).swap_remove(0);
        term.value(&context, &column)
    }

    /// The sum of parts with this label.
    fn expected(strong: &DetOutput, boxes: &[([f32; 4], u8, BoxKind)], parts: &[&dyn Term<Det>]) -> f32 {
        let labels: Labelled = seen(strong, &[crate::testing::labelled(boxes)]);
        let of_part = |part: &&dyn Term<Det>| {
            let column = Column::of("part", &part.shared()).swap_remove(0);
            values(part.value(&Context::of(strong, Some(&labels)), &column))[0]
        };
        parts.iter().map(of_part).sum()
    }

    /// The box (4, 6, 16, 18) of the weak view, mirrored.
    const MIRRORED: [f32; 4] = [16.0, 6.0, 28.0, 18.0];

    #[test]
    fn a_sure_box_is_learnt_where_the_strong_view_shows_it() {
        let strong = strong();
        let (focal, giou) = (Focal::default(), Giou::default());
        let object = [(MIRRORED, 1, BoxKind::Object)];
        for (boxes, parts) in [(false, vec![&focal as &dyn Term<Det>]), (true, vec![&focal, &giou])] {
            let term = UnbiasedTeacher { boxes, ..UnbiasedTeacher::default() };
            let found = values(value(&term, 2.0, &strong))[0];
            assert!((found - expected(&strong, &object, &parts)).abs() < 1e-5, "{found} with boxes = {boxes}");
        }
    }

    #[test]
    fn an_unsure_box_is_background_or_ignored() {
        let (strong, focal) = (strong(), Focal::default());
        let parts: [&dyn Term<Det>; 1] = [&focal];
        // A probability of 0.62.
        let found = |ignored_from| {
            let term = UnbiasedTeacher { ignored_from, ..UnbiasedTeacher::default() };
            values(value(&term, 0.5, &strong))[0]
        };
        let (background, ignored) =
            (expected(&strong, &[], &parts), expected(&strong, &[(MIRRORED, 1, BoxKind::Difficult)], &parts));
        assert!((found(1.0) - background).abs() < 1e-5 && (found(0.5) - ignored).abs() < 1e-5);
        assert!((background - ignored).abs() > 1e-3);
    }

    #[test]
    fn the_gradient_reaches_the_student_and_the_value_halves() {
        let term = UnbiasedTeacher { boxes: true, ..UnbiasedTeacher::default() };
        let mut output = strong();
        let mut course = Vec::new();
        for _ in 0..100 {
            let mut leaves = Vec::new();
            let mut tracked = output.clone();
            for level in &mut tracked.levels {
                let [logits, ways] = [&level.class_logits, &level.distances]
                    .map(|part| Tensor::<3>::from_inner(part.clone()).require_grad());
                (level.class_logits, level.distances) = (logits.clone(), ways.clone());
                leaves.push((logits, ways));
            }
            let value = value(&term, 2.0, &tracked);
            course.push(values(value.clone())[0]);
            let gradients = value.backward();
            for (level, (logits, ways)) in output.levels.iter_mut().zip(&leaves) {
                let slope = |leaf: &Tensor<3>| leaf.grad(&gradients).unwrap();
                level.class_logits = level.class_logits.clone() - slope(logits).mul_scalar(2.0);
                level.distances = level.distances.clone() - slope(ways).mul_scalar(20.0);
            }
        }
        assert!(course[99] < course[0] / 2.0, "{} falls to {}", course[0], course[99]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let wrong = UnbiasedTeacher { threshold: 2.0, nms_iou: -1.0, most: 0, ..UnbiasedTeacher::default() };
        let mut found = Found::new();
        wrong.check(&mut found);
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["threshold", "nms_iou", "most"]);
    }
}
