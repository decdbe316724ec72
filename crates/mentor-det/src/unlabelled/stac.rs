//! `[unlabelled.stac]`: boxes that a detector found before the run.

use burn::tensor::Tensor;
use mentor_distill::{Column, Needs, Shared, Stream, Term};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Learnt};
use crate::task::Det;
use crate::upload::DetTargets;

/// The student learns on the strong view the boxes that came with the unlabelled images, from `[data.pseudo_labels]`.
///
/// The supervised loss with pseudo-labels for labels: those of the weak view are moved to the strong view. What is an object,
/// what is background and inside of what nothing is learnt was said where the file was read.
///
/// # Shapes
/// Whatever the parts of the supervised loss take; the value has one element.
///
/// # Units and ranges
/// Those of the supervised loss.
///
/// # Reduction
/// As each part of the supervised loss, by the places that answer for a pseudo-label.
///
/// # Gradient
/// Reaches the student on the strong view: pseudo-labels are constants.
///
/// # Panics
/// If there are no views.
///
/// # Source
/// Sohn et al. 2020, *A Simple Semi-Supervised Learning Framework for Object Detection*, arXiv 2005.04757: weight 2, objects
/// from a score of 0.9 on; the student starts where the detector that found the boxes started, not where it ended.
///
/// # Differs
/// Strong views are not rotated or sheared, and no box is changed by itself. An image that was labelled in part is learnt with
/// these labels alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stac {
    /// Factor in the loss. Default 2.
    pub weight: f64,
    /// Optimizer steps before which the term is off. Default 0.
    pub burn_in_steps: u64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it, counted from the end of the burn-in.
    /// Default 0.
    pub ramp_steps: u64,
}

impl Default for Stac {
    fn default() -> Self {
        Self { weight: 2.0, burn_in_steps: 0, ramp_steps: 0 }
    }
}

impl Term<Det> for Stac {
    fn source(&self) -> &'static str {
        "Sohn et al. 2020, arXiv 2005.04757"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Unlabelled], at: &[] }
    }

    fn needs(&self) -> Needs {
        Needs { pseudo_labels: true, ..Needs::default() }
    }

    fn burn_in_steps(&self) -> u64 {
        self.burn_in_steps
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        context.loss_on(&pseudo_labels(context), Learnt::All)
    }

    fn pseudo(&self, context: &Context<'_>) -> Option<DetTargets> {
        Some(pseudo_labels(context))
    }
}

/// The labels of the strong views.
fn pseudo_labels(context: &Context<'_>) -> DetTargets {
    let views = context.views();
    views.pseudo_labels("stac", || views.carried(views.given(), context.student.image_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::{AssignConfig, FcosAssign};
    use crate::context::{Part, Parts};
    use crate::supervised::{Focal, Giou};
    use crate::testing::{labelled, output, seen, values};
    use crate::upload::PairLabels;
    use crate::views::Views;
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, DetOutput, Geometry};

    fn strong() -> DetOutput {
        output(&[(8, [4, 4]), (16, [2, 2])], 1, 3, |i| ((i * 37) % 23) as f32 / 11.0 - 0.97)
    }

    /// The value where the strong view shows the weak one mirrored, and nobody is asked what is there.
    fn value(given: &BoxLabels, strong: &DetOutput) -> Tensor<1> {
        let nobody = |_| panic!("the labels are there");
        let mirror = Geometry { scale: [-1.0, 1.0], shift: [32.0, 0.0] };
        let labels =
            PairLabels::upload(&[mirror], std::slice::from_ref(given), &[BoxLabels::unknown()], &Device::flex());
        let views = Views::new(&labels, &nobody, 0.25);
        let (focal, giou, assign) = (Focal::default(), Giou::default(), AssignConfig::Fcos(FcosAssign::default()));
        let all: [Part<'_>; 2] = [("focal", &focal), ("giou", &giou)];
        let parts = Parts { all: &all, of_classes: &all[..1], assign: &assign, second: None };
        let context = Context { views: Some(&views), parts: Some(parts), ..Context::of(strong, None) };
        Stac::default().value(&context, &Column::of("stac", &Stac::default().shared()).swap_remove(0))
    }

    /// The supervised loss with these labels of the strong view.
    fn expected(strong: &DetOutput, boxes: &[([f32; 4], u8, BoxKind)]) -> f32 {
        let labels = seen(strong, &[labelled(boxes)]);
        let of_part = |part: &dyn Term<Det>| {
            let column = Column::of("part", &part.shared()).swap_remove(0);
            values(part.value(&Context::of(strong, Some(&labels)), &column))[0] * part.shared().weight as f32
        };
        of_part(&Focal::default()) + of_part(&Giou::default())
    }

    #[test]
    fn labels_on_file_are_learnt_where_the_strong_view_shows_them() {
        let strong = strong();
        for kind in [BoxKind::Object, BoxKind::Difficult] {
            let given = labelled(&[([4.0, 6.0, 16.0, 18.0], 1, kind)]);
            let found = values(value(&given, &strong))[0];
            let mirrored = expected(&strong, &[([16.0, 6.0, 28.0, 18.0], 1, kind)]);
            assert!((found - mirrored).abs() < 1e-5, "{kind:?}: {found} instead of {mirrored}");
        }
    }

    #[test]
    fn an_image_without_a_box_is_background_and_one_that_nobody_saw_teaches_nothing() {
        let strong = strong();
        let empty = values(value(&BoxLabels::default(), &strong))[0];
        assert!((empty - expected(&strong, &[])).abs() < 1e-5 && empty > 0.1, "{empty}");
        let unknown = values(value(&BoxLabels::unknown(), &strong))[0];
        assert!(unknown.abs() < 1e-6, "{unknown}");
    }

    #[test]
    fn the_gradient_reaches_the_student_and_the_value_halves() {
        let given = labelled(&[([4.0, 6.0, 16.0, 18.0], 1, BoxKind::Object)]);
        let mut output = strong();
        let mut course = Vec::new();
        for _ in 0..100 {
            let mut leaves = Vec::new();
            let mut tracked = output.clone();
            for level in &mut tracked.levels {
                let [logits, ways] = [&level.class_logits, &level.distances]
                    .map(|part| Tensor::<3>::from_inner(part.clone()).require_grad());
                (level.class_logits, level.distances) = (logits.clone(), ways.clone());
                leaves.push([logits, ways]);
            }
            let value = value(&given, &tracked);
            course.push(values(value.clone())[0]);
            let gradients = value.backward();
            for (level, leaves) in output.levels.iter_mut().zip(&leaves) {
                let [logits, ways] = leaves.each_ref().map(|leaf| leaf.grad(&gradients).expect("a gradient"));
                level.class_logits = level.class_logits.clone() - logits.mul_scalar(2.0);
                level.distances = level.distances.clone() - ways.mul_scalar(20.0);
            }
        }
        assert!(course[99] < course[0] / 2.0, "{} falls to {}", course[0], course[99]);
    }
}
