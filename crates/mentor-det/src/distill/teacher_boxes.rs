//! `[distill.teacher_boxes]`: the boxes that the teacher finds, as labels.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Labelled, Learnt};
use crate::found::FoundBoxes;
use crate::task::Det;

/// The student learns the boxes that the teacher finds in the same images as if somebody had drawn them.
///
/// The supervised loss with the teacher's boxes for labels: those that score at least `threshold` are objects, with the
/// classes at which the teacher scores them highest; inside of those that score at least `ignored_from` nothing is learnt;
/// whatever else is background. On labelled images that is so for the classes alone that nobody looked for there: what the
/// labels say, the labels teach.
///
/// # Shapes
/// Whatever the parts of the supervised loss take; the value has one element. Teacher and student may have other levels and
/// other heads.
///
/// # Units and ranges
/// Those of the supervised loss. `threshold`, `ignored_from` and `nms_iou` lie in [0, 1].
///
/// # Reduction
/// As each part of the supervised loss, by the places that answer for a box of the teacher.
///
/// # Gradient
/// Reaches the student only.
///
/// # Panics
/// If there is no teacher.
///
/// # Source
/// Self-training with a fixed teacher: Sohn et al. 2020, *STAC*, arXiv 2005.04757 (`unchecked`), which labels the images
/// once, with the threshold 0.9 and the weight 2.
///
/// # Differs
/// The teacher sees the student's own view of the image at each step, so that boxes need not be carried from view to view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherBoxes {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// The score from which a box is an object, in [0, 1]. Default 0.5.
    pub threshold: f64,
    /// The score from which a box is not background either, in [0, 1]; `threshold` or more for none. Default 0.3.
    pub ignored_from: f64,
    /// Of two boxes of a class that overlap by more than this the surer one is kept, in [0, 1]. Default 0.6.
    pub nms_iou: f64,
    /// How many boxes are taken at most in an image. Default 32.
    pub most: usize,
    /// The images it is computed on. Default `["unlabelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for TeacherBoxes {
    fn default() -> Self {
        Self {
            weight: 1.0,
            threshold: 0.5,
            ignored_from: 0.3,
            nms_iou: 0.6,
            most: 32,
            on: vec![Stream::Unlabelled],
            ramp_steps: 0,
        }
    }
}

impl Term<Det> for TeacherBoxes {
    fn source(&self) -> &'static str {
        "Sohn et al. 2020, arXiv 2005.04757"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let found = FoundBoxes::of(context.taught(), self.nms_iou, self.most);
        let labels = found.labels(self.threshold, self.ignored_from);
        let labels = match context.labelled {
            Some(Labelled { targets, .. }) => labels.of_classes(targets.looked_for.clone().neg().add_scalar(1.0)),
            None => labels,
        };
        context.loss_on(&labels, Learnt::All)
    }

    fn check(&self, found: &mut Found) {
        FoundBoxes::check([self.threshold, self.ignored_from], self.nms_iou, self.most, found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::assign::{AssignConfig, FcosAssign};
    use crate::context::{Part, Parts};
    use crate::supervised::{Focal, Giou};
    use crate::testing::{labelled, map, output, seen, values};
    use mentor_types::{BoxKind, BoxLabels, DetOutput};

    /// A teacher with a coarser pyramid, which is sure of one box of class 1 about (8, 8), and half sure of another of class 0.
    fn teacher() -> DetOutput {
        let mut output = output(&[(16, [2, 2])], 1, 3, |_| 0.0);
        let level = &mut output.levels[0];
        level.centerness = None;
        let sees = |i: usize| match i {
            4 => 2.0,
            3 => -0.5,
            _ => -20.0,
        };
        level.class_logits = map([1, 3, 2, 2], sees).flatten(2, 3);
        level.distances = map([1, 4, 2, 2], |_| 6.0).flatten(2, 3);
        output
    }

    #[test]
    fn the_value_is_that_of_the_same_boxes_by_hand() {
        let student = output(&[(8, [4, 4]), (16, [2, 2])], 1, 3, |i| ((i * 37) % 23) as f32 / 11.0 - 0.97);
        let (focal, giou, assign) = (Focal::default(), Giou::default(), AssignConfig::Fcos(FcosAssign::default()));
        let all: [Part<'_>; 2] = [("focal", &focal), ("giou", &giou)];
        let parts = Parts { all: &all, of_classes: &all[..1], assign: &assign, second: None };
        let (term, taught) = (TeacherBoxes::default(), teacher());
        let context = Context { teacher: Some(&taught), parts: Some(parts), ..Context::of(&student, None) };
        let column = Column::of("teacher_boxes", &term.shared()).swap_remove(0);
        let found = values(term.value(&context, &column))[0];
        // The other scores 0.38.
        let boxes = [([2.0, 2.0, 14.0, 14.0], 1, BoxKind::Object), ([18.0, 18.0, 30.0, 30.0], 0, BoxKind::Difficult)];
        let labels = seen(&student, &[labelled(&boxes)]);
        let of_part = |(name, part): &Part<'_>| {
            let column = Column::of(name, &part.shared()).swap_remove(0);
            values(part.value(&Context::of(&student, Some(&labels)), &column))[0]
        };
        let expected: f32 = all.iter().map(of_part).sum();
        assert!((found - expected).abs() < 1e-5 && expected > 0.1, "{found} instead of {expected}");

        // On an image where 0 and 2 were looked for, the teacher's box of class 1 is learnt, and its channel alone.
        let value_with = |looked_for| {
            let given = seen(&student, &[BoxLabels { looked_for, ..labelled(&[]) }]);
            values(term.value(&Context { labelled: Some(&given), ..context }, &column))[0]
        };
        let partly = BoxLabels { looked_for: Some(vec![1]), ..labelled(&boxes[..1]) };
        let labels = seen(&student, &[partly]);
        let of_part = |(name, part): &Part<'_>| {
            let column = Column::of(name, &part.shared()).swap_remove(0);
            values(part.value(&Context::of(&student, Some(&labels)), &column))[0]
        };
        let expected: f32 = all.iter().map(of_part).sum();
        let found = value_with(Some(vec![0, 2]));
        assert!((found - expected).abs() < 1e-5 && expected > 0.1, "{found} instead of {expected}");
        assert_eq!(value_with(None), 0.0);
    }
}
