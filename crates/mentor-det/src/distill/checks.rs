//! What the tests of all terms share.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor};
use mentor_distill::{Column, Term, columns};
use mentor_nets::Adapter;
use mentor_types::{AdapterSpec, BoxCoding, BoxKind, BoxLabels, DetOutput, Tap, Taps};
use mentor_weights::{NamedTensors, from_safetensors, load_named};

use crate::context::Context;
use crate::task::Det;
use crate::testing::{close, labelled, map, output, seen, values};

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
    at_p3((name, term), [student, teacher], labels, ways, |context, column| term.value(context, column))
}

/// What `told` makes of such a context.
fn at_p3<T>(
    (name, term): (&'static str, &dyn Term<Det>),
    [student, teacher]: [&Tensor<4>; 2],
    labels: &BoxLabels,
    ways: [&dyn Fn(usize) -> f32; 2],
    told: impl Fn(&Context<'_>, &Column) -> T,
) -> T {
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
    told(&Context { teacher: Some(&teacher), ..Context::of(&student, Some(&labelled)) }, &column)
}

/// Asserts that the weights of a term's places are those of its value: a difference at a single place counts in proportion
/// to the weight of the place, and not all places count alike. Boxes of the student are smaller than the teacher's.
pub(crate) fn check_place_weights((name, term): (&'static str, &dyn Term<Det>), labels: &BoxLabels) {
    let dims = [1, 1, 3, 4];
    let teacher = map(dims, |i| 1.0 + (i % 5) as f32);
    let ways: [&dyn Fn(usize) -> f32; 2] = [&|i| 1.0 + (i % 3) as f32, &|_| 4.0];
    let weights = at_p3((name, term), [&teacher, &teacher], labels, ways, |context, column| {
        values(term.place_weights(context, column).unwrap())
    });
    let of_place = |place: usize| {
        let student = map(dims, |i| 1.0 + (i % 5) as f32 + if i == place { 2.0 } else { 0.0 });
        values(value_at_p3((name, term), &student, &teacher, labels, ways))[0]
    };
    let found: Vec<f32> = (0..weights.len()).map(of_place).collect();
    let factor = found.iter().sum::<f32>() / weights.iter().sum::<f32>();
    close(&found, &weights.iter().map(|weight| weight * factor).collect::<Vec<_>>(), 1e-4);
    assert!(weights.iter().all(|weight| *weight >= 0.0) && weights.iter().any(|weight| *weight != weights[0]));
}

/// The same where no box of a net matters.
pub(crate) fn of_features(
    term: (&'static str, &dyn Term<Det>),
    student: &Tensor<4>,
    teacher: &Tensor<4>,
    labels: &BoxLabels,
) -> Tensor<1> {
    value_at_p3(term, student, teacher, labels, [&|_| 1.0, &|_| 1.0])
}

/// What of a level a term compares.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Features,
    ClassLogits,
    Distances,
    Distribution,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::ClassLogits => "class_logits",
            Self::Distances => "distances",
            Self::Distribution => "distribution",
        }
    }

    /// Puts a map where the part is.
    pub(crate) fn put(self, output: &mut DetOutput, map_nchw: Tensor<4>) {
        let level = &mut output.levels[0];
        match self {
            Self::Features => output.taps.insert(Tap::P3, map_nchw),
            Self::ClassLogits => level.class_logits = map_nchw.flatten(2, 3),
            Self::Distances => level.distances = map_nchw.flatten(2, 3),
            Self::Distribution => {
                let [n, channels, height, width] = map_nchw.dims();
                let logits = map_nchw.reshape([n, 4, channels / 4, height * width]);
                level.coding = BoxCoding::Distribution(logits);
            }
        }
    }
}

/// What `tests/golden/det_distill.py` writes.
pub(crate) fn golden() -> NamedTensors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/det_distill.safetensors");
    from_safetensors(&std::fs::read(path).unwrap()).unwrap()
}

/// Channels of the features there.
const FEATURES: usize = 4;

/// Compares value and gradient of a term with those that `tests/golden/det_distill.py` wrote under `name`, for two images with
/// boxes on a net with the one level p3.
pub(crate) fn agrees(name: &'static str, part: Part, term: &dyn Term<Det>) {
    let golden = golden();
    let read = |name: String| {
        let (shape, values) = &golden[&name];
        map(shape.as_slice().try_into().unwrap(), |i| values[i])
    };
    let student = Tensor::from_inner(read(format!("student.{}", part.name()))).require_grad();
    let side = |side: &str| {
        let [n, classes, height, width] = read(format!("{side}.class_logits")).dims();
        let mut output = output(&[(8, [height, width])], n, classes, |_| 0.0);
        for part in [Part::Features, Part::ClassLogits, Part::Distances, Part::Distribution] {
            let map = read(format!("{side}.{}", part.name()));
            part.put(&mut output, map);
        }
        output
    };
    let (mut output, teacher) = (side("student"), side("teacher"));
    if let Part::Features = part {
        output.taps = Taps::default();
    }
    part.put(&mut output, student.clone());
    let labels: Vec<BoxLabels> = (0..2)
        .map(|image| {
            let (boxes, classes) = (&golden[&format!("boxes.{image}")].1, &golden[&format!("classes.{image}")].1);
            let label = |(edges, class): (&[f32], &f32)| (edges.try_into().unwrap(), *class as u8, BoxKind::Object);
            labelled(&boxes.chunks(4).zip(classes).map(label).collect::<Vec<_>>())
        })
        .collect();
    let labels = seen(&output, &labels);
    let column = columns(name, term, &[Tap::P3]).swap_remove(0);
    let specs = column.place.map_or_else(Vec::new, |_| term.adapters(&column, [FEATURES; 2]));
    let adapter = |spec: &AdapterSpec| {
        let weight = NamedTensors::from([("conv.weight".to_owned(), golden[&spec.name].clone())]);
        load_named(Adapter::fresh(spec, 0, &Device::flex().autodiff()), weight).unwrap()
    };
    let adapters: Vec<_> = specs.iter().map(adapter).collect();
    let context = Context { teacher: Some(&teacher), adapters: &adapters, ..Context::of(&output, Some(&labels)) };
    let value = term.value(&context, &column);
    let gradient = student.grad(&value.backward()).unwrap();
    close(&values(value), &golden[&format!("{name}.value")].1, 1e-5);
    close(&values(gradient), &golden[&format!("{name}.grad")].1, 1e-4);
}

/// The value of a term that compares `part`, of nets with the one level p3. All images have the same labels.
pub(crate) fn of_part(
    (name, term): (&'static str, &dyn Term<Det>),
    part: Part,
    student: &Tensor<4>,
    teacher: &Tensor<4>,
    labels: &BoxLabels,
) -> Tensor<1> {
    let side = |map_nchw: &Tensor<4>| {
        let [n, channels, height, width] = map_nchw.dims();
        let classes = if let Part::ClassLogits = part { channels } else { 2 };
        let mut output = output(&[(8, [height, width])], n, classes, |_| 0.5);
        part.put(&mut output, map_nchw.clone());
        output
    };
    let (student, teacher) = (side(student), side(teacher));
    let labels = seen(&student, &vec![labels.clone(); student.levels[0].class_logits.dims()[0]]);
    let column = columns(name, term, &[Tap::P3]).swap_remove(0);
    term.value(&Context { teacher: Some(&teacher), ..Context::of(&student, Some(&labels)) }, &column)
}

/// The checks of a term that is not least, or not 0, where both sides agree.
pub(crate) fn check_slopes(case: &Case) {
    the_teacher_gets_no_gradient(case);
    differences_agree_with_the_gradient(case);
    a_repeated_batch_leaves_the_mean(case);
}

pub(crate) fn check_term(case: &Case) {
    check_slopes(case);
    it_halves_on_a_fixed_batch(case);
    let equal = values((case.value)(&case.teacher(), &case.teacher(), true))[0];
    let apart = values((case.value)(&case.student(), &case.teacher(), true))[0];
    assert!(equal.abs() < 1e-6 * apart.max(1.0), "{equal} for equal maps");
    if case.needs_boxes {
        nothing_is_compared_without_a_box(case);
    }
}

pub(crate) fn nothing_is_compared_without_a_box(case: &Case) {
    let (value, gradient) = evaluate(case, &case.student(), false);
    assert_eq!((value, gradient), (0.0, vec![0.0; case.dims.iter().product()]));
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

pub(crate) fn it_halves_on_a_fixed_batch(case: &Case) {
    let (first, mut gradient) = evaluate(case, &case.student(), true);
    let (mut student, mut last) = (case.student(), first);
    for _ in 0..100 {
        student = student - map(case.dims, |i| gradient[i]).mul_scalar(case.rate);
        (last, gradient) = evaluate(case, &student, true);
    }
    assert!(last <= first / 2.0, "{first} falls to {last} only");
}
