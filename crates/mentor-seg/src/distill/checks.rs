//! What the tests of all terms share.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_distill::{Column, Term};
use mentor_types::{Key, SegOutput, Tap, Taps};
use mentor_weights::{NamedTensors, from_safetensors};

use crate::context::Context;
use crate::task::Seg;

/// A value of a student's map, a teacher's map, and labels at twice their size.
pub type Value<'a> = &'a dyn Fn(&Tensor<4>, &Tensor<4>, Option<&[i64]>) -> Tensor<1>;

/// A term with two maps on which it is checked.
pub struct Case<'a> {
    pub value: Value<'a>,
    /// `[n, c, h, w]` with `h` and `w` of at least 4.
    pub student: Tensor<4>,
    pub teacher: Tensor<4>,
    /// Whether the value is zero where the student equals the teacher.
    pub zero_at_equality: bool,
    /// The learning rate at which plain gradient descent on the student's map halves the value.
    pub rate: f64,
}

pub fn map(dims: [usize; 4], value: impl Fn(usize) -> f32) -> Tensor<4> {
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

pub fn target(dims: [usize; 3], labels: &[i64]) -> Tensor<3, Int> {
    Tensor::from_data(TensorData::new(labels.to_vec(), dims), &Device::flex())
}

pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec_as::<f32>().unwrap()
}

pub fn output(logits: Tensor<4>, c5: Option<Tensor<4>>) -> SegOutput {
    let mut taps = Taps::default();
    if let Some(c5) = c5 {
        taps.insert(Tap::C5, c5);
    }
    let [_, _, height, width] = logits.dims();
    SegOutput { image_size: [2 * height, 2 * width], logits, auxiliary: None, taps }
}

/// Evaluates in a context of two outputs and labels.
pub fn with_context(
    student: &SegOutput,
    teacher: &SegOutput,
    target_nhw: Option<&Tensor<3, Int>>,
    evaluate: impl Fn(Context<'_>) -> Tensor<1>,
) -> Tensor<1> {
    let context = Context::of(student, Key::new(0)).with(|context| {
        context.teacher = Some(teacher);
        context.target_nhw = target_nhw;
    });
    evaluate(context)
}

/// The first column of a term.
pub fn column(name: &'static str, term: &dyn Term<Seg>) -> Column {
    Column::of(name, &term.shared()).swap_remove(0)
}

pub fn check_term(case: &Case) {
    the_teacher_gets_no_gradient(case);
    differences_agree_with_the_gradient(case);
    ignored_pixels_change_nothing(case);
    unknown_pixels_count_like_any_other(case);
    a_repeated_batch_leaves_the_mean(case);
    no_valid_pixel_is_a_zero_with_a_gradient(case);
    it_halves_on_a_fixed_batch(case);
    if case.zero_at_equality {
        let value = values((case.value)(&case.teacher, &case.teacher, None))[0];
        assert!(value.abs() < 1e-6, "{value} for equal maps");
    }
}

/// The value and the gradient at the student's map.
fn evaluate(case: &Case, student: &Tensor<4>, labels: Option<&[i64]>) -> (f32, Vec<f32>) {
    let student = Tensor::from_inner(student.clone()).require_grad();
    let value = (case.value)(&student, &case.teacher, labels);
    let gradient = student.grad(&value.backward()).expect("the student gets a gradient");
    (values(value)[0], values(gradient))
}

fn close(a: f32, b: f32, tolerance: f32) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

fn the_teacher_gets_no_gradient(case: &Case) {
    let student = Tensor::from_inner(case.student.clone()).require_grad();
    let teacher = Tensor::from_inner(case.teacher.clone()).require_grad();
    let gradients = (case.value)(&student, &teacher, None).backward();
    assert!(teacher.grad(&gradients).is_none());
    assert!(values(student.grad(&gradients).unwrap()).iter().any(|g| *g != 0.0));
}

fn differences_agree_with_the_gradient(case: &Case) {
    let (_, gradient) = evaluate(case, &case.student, None);
    let dims = case.student.dims();
    for seed in 0..3 {
        // Along the gradient's own signs, blended with a fixed pattern, so that it is never tiny.
        let direction: Vec<f32> =
            gradient.iter().enumerate().map(|(i, g)| g.signum() * (((i * 7 + seed) % 5) as f32 + 1.0)).collect();
        let slope: f32 = direction.iter().zip(&gradient).map(|(d, g)| d * g).sum();
        let step = 1e-3;
        let moved = |sign: f32| {
            let offset = map(dims, |i| sign * step * direction[i]);
            values((case.value)(&(case.student.clone() + offset), &case.teacher, None))[0]
        };
        let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        assert!(close(difference, slope, 0.02), "differences say {difference}, the gradient {slope}");
    }
}

/// Labels at twice the size of the student's map, `label` where the map's pixel is chosen.
fn labels(case: &Case, label: i64, chosen: impl Fn(usize, usize) -> bool) -> Vec<i64> {
    let [n, _, height, width] = case.student.dims();
    let (tall, wide) = (2 * height, 2 * width);
    (0..n * tall * wide).map(|i| if chosen(i / wide % tall / 2, i % wide / 2) { label } else { 1 }).collect()
}

fn ignored_pixels_change_nothing(case: &Case) {
    let [_, _, height, width] = case.student.dims();
    // A pixel, a row of pixels, and a quarter of the map.
    let ignored =
        |y: usize, x: usize| (y, x) == (height - 1, width - 1) || y == height - 2 || (y < height / 2 && x < width / 2);
    let is_ignored = |i: usize| ignored(i / width % height, i % width);
    let labels = labels(case, 255, ignored);
    let (value, gradient) = evaluate(case, &case.student, Some(&labels));
    let noise = map(case.student.dims(), |i| if is_ignored(i) { (i % 7) as f32 - 3.0 } else { 0.0 });
    assert_eq!(evaluate(case, &(case.student.clone() + noise), Some(&labels)), (value, gradient.clone()));
    assert!(gradient.iter().enumerate().all(|(i, g)| !is_ignored(i) || *g == 0.0));
    assert_ne!(value, evaluate(case, &case.student, None).0);
}

fn unknown_pixels_count_like_any_other(case: &Case) {
    let known = labels(case, 1, |_, _| true);
    let partly = labels(case, 254, |y, x| (y + x) % 2 == 0);
    let (all, _) = evaluate(case, &case.student, None);
    let (with_known, gradient) = evaluate(case, &case.student, Some(&known));
    assert!(close(all, with_known, 1e-5));
    assert_eq!(evaluate(case, &case.student, Some(&partly)), (with_known, gradient));
}

fn a_repeated_batch_leaves_the_mean(case: &Case) {
    let twice = |x: &Tensor<4>| Tensor::cat(vec![x.clone(), x.clone()], 0);
    let labels = labels(case, 255, |y, _| y == 0);
    for labels in [None, Some(labels)] {
        let once = values((case.value)(&case.student, &case.teacher, labels.as_deref()))[0];
        let labels = labels.map(|labels| labels.repeat(2));
        let repeated = values((case.value)(&twice(&case.student), &twice(&case.teacher), labels.as_deref()))[0];
        assert!(close(once, repeated, 1e-5), "{once} becomes {repeated}");
    }
}

fn no_valid_pixel_is_a_zero_with_a_gradient(case: &Case) {
    let (value, gradient) = evaluate(case, &case.student, Some(&labels(case, 255, |_, _| true)));
    assert_eq!(value, 0.0);
    assert!(gradient.iter().all(|g| *g == 0.0));
}

fn it_halves_on_a_fixed_batch(case: &Case) {
    let (first, mut gradient) = evaluate(case, &case.student, None);
    let mut student = case.student.clone();
    let mut last = first;
    for _ in 0..100 {
        student = student - map(case.student.dims(), |i| gradient[i]).mul_scalar(case.rate);
        (last, gradient) = evaluate(case, &student, None);
    }
    assert!(last <= first / 2.0, "{first} falls to {last} only");
}

pub fn golden() -> NamedTensors {
    from_safetensors(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/distill.safetensors")))
        .unwrap()
}

/// Compares `loss` and its gradient with `<name>.value` and `<name>.grad`, 1e-5 of the largest.
pub fn agrees(golden: &NamedTensors, name: &str, student: &Tensor<4>, loss: Tensor<1>) {
    let gradient = values(student.grad(&loss.backward()).unwrap());
    for (part, found) in [("value", values(loss)), ("grad", gradient)] {
        let expected = &golden[&format!("{name}.{part}")].1;
        let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let off = found.iter().zip(expected).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(found.len() == expected.len() && off <= 1e-5 * largest, "{name}.{part}: {off} of {largest}");
    }
}
