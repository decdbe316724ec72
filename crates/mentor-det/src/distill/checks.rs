//! What the tests of all terms share.
#![allow(clippy::unwrap_used)]

use burn::tensor::Tensor;
use mentor_distill::{Term, columns};
use mentor_types::{BoxLabels, DetOutput, Tap};

use crate::context::Context;
use crate::task::Det;
use crate::testing::{map, output, seen, values};

/// A value of a student's map and a teacher's, with or without an object.
pub(crate) type Value<'a> = &'a dyn Fn(&Tensor<4>, &Tensor<4>, bool) -> Tensor<1>;

/// A term with what its checks need.
pub(crate) struct Case<'a> {
    pub value: Value<'a>,
    /// `[n, c, h, w]` of both maps.
    pub dims: [usize; 4],
    /// The learning rate at which plain gradient descent on the student's map halves the value.
    pub rate: f64,
    /// Whether nothing is compared without an object.
    pub needs_boxes: bool,
}

impl Case<'_> {
    fn student(&self) -> Tensor<4> {
        map(self.dims, |i| ((i * 37) % 11) as f32 / 3.0 - 1.5)
    }

    fn teacher(&self) -> Tensor<4> {
        map(self.dims, |i| ((i * 61) % 13) as f32 / 3.0 - 2.0)
    }
}

/// The value of a term at p3, whose only level has stride 8, and whose features are `student` and `teacher`; `ways` says how
/// far each edge of the boxes of student and teacher is, by the index in its tensor. All images have the same labels.
pub(crate) fn value_at_p3(
    (name, term): (&'static str, &dyn Term<Det>),
    student: &Tensor<4>,
    teacher: &Tensor<4>,
    labels: &BoxLabels,
    ways: [&dyn Fn(usize) -> f32; 2],
) -> Tensor<1> {
    let [n, _, height, width] = student.dims();
    let side = |features: &Tensor<4>, ways: &dyn Fn(usize) -> f32| -> DetOutput {
        let mut output = output(&[(8, [height, width])], n, 2, |_| 0.0);
        output.levels[0].distances = map([n, 4, height, width], ways).flatten(2, 3);
        output.taps.insert(Tap::P3, features.clone());
        output
    };
    let (student, teacher) = (side(student, ways[0]), side(teacher, ways[1]));
    let labelled = seen(&student, &vec![labels.clone(); n]);
    let column = columns(name, term, &[Tap::P3]).swap_remove(0);
    term.value(&Context { teacher: Some(&teacher), ..Context::of(&student, Some(&labelled)) }, &column)
}

pub(crate) fn check_term(case: &Case) {
    the_teacher_gets_no_gradient(case);
    differences_agree_with_the_gradient(case);
    a_repeated_batch_leaves_the_mean(case);
    it_halves_on_a_fixed_batch(case);
    let equal = values((case.value)(&case.teacher(), &case.teacher(), true))[0];
    assert!(equal.abs() < 1e-6, "{equal} for equal maps");
    if case.needs_boxes {
        let (value, gradient) = evaluate(case, &case.student(), false);
        assert_eq!((value, gradient), (0.0, vec![0.0; case.dims.iter().product()]));
    }
}

/// The value and the gradient at the student's map.
fn evaluate(case: &Case, student: &Tensor<4>, boxes: bool) -> (f32, Vec<f32>) {
    let student = Tensor::from_inner(student.clone()).require_grad();
    let value = (case.value)(&student, &case.teacher(), boxes);
    let gradient = student.grad(&value.backward()).expect("the student gets a gradient");
    (values(value)[0], values(gradient))
}

fn the_teacher_gets_no_gradient(case: &Case) {
    let student = Tensor::from_inner(case.student()).require_grad();
    let teacher = Tensor::from_inner(case.teacher()).require_grad();
    let gradients = (case.value)(&student, &teacher, true).backward();
    assert!(teacher.grad(&gradients).is_none());
    assert!(values(student.grad(&gradients).unwrap()).iter().any(|slope| *slope != 0.0));
}

fn differences_agree_with_the_gradient(case: &Case) {
    let (_, gradient) = evaluate(case, &case.student(), true);
    for seed in 0..3 {
        // Along the gradient's own signs, blended with a fixed pattern, so that it is never tiny.
        let direction: Vec<f32> =
            gradient.iter().enumerate().map(|(i, g)| g.signum() * (((i * 7 + seed) % 5) as f32 + 1.0)).collect();
        let slope: f32 = direction.iter().zip(&gradient).map(|(d, g)| d * g).sum();
        let step = 1e-3;
        let moved = |sign: f32| {
            let offset = map(case.dims, |i| sign * step * direction[i]);
            values((case.value)(&(case.student() + offset), &case.teacher(), true))[0]
        };
        let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        assert!((difference - slope).abs() < 0.02 * slope, "differences say {difference}, the gradient {slope}");
    }
}

fn a_repeated_batch_leaves_the_mean(case: &Case) {
    let twice = |x: Tensor<4>| Tensor::cat(vec![x.clone(), x], 0);
    let once = values((case.value)(&case.student(), &case.teacher(), true))[0];
    let repeated = values((case.value)(&twice(case.student()), &twice(case.teacher()), true))[0];
    assert!((once - repeated).abs() < 1e-5 * once, "{once} becomes {repeated}");
}

fn it_halves_on_a_fixed_batch(case: &Case) {
    let (first, mut gradient) = evaluate(case, &case.student(), true);
    let (mut student, mut last) = (case.student(), first);
    for _ in 0..100 {
        student = student - map(case.dims, |i| gradient[i]).mul_scalar(case.rate);
        (last, gradient) = evaluate(case, &student, true);
    }
    assert!(last <= first / 2.0, "{first} falls to {last} only");
}
