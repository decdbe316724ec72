//! What the tests of all parts share.
#![allow(clippy::unwrap_used)]

use burn::tensor::Tensor;
use mentor_distill::{Column, Term};
use mentor_types::{BoxKind, BoxLabels, DetLevel, DetOutput, Taps};

use crate::context::{Context, Labelled};
use crate::task::Det;
use crate::testing::{close, golden, labelled, level, map, output, seen, values};

/// What a part of the loss compares.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    ClassLogits,
    Distances,
    Centerness,
}

impl Part {
    fn of(self, level: &mut DetLevel) -> &mut Tensor<3> {
        match self {
            Self::ClassLogits => &mut level.class_logits,
            Self::Distances => &mut level.distances,
            Self::Centerness => level.centerness.as_mut().unwrap(),
        }
    }
}

/// A part with what its checks need.
pub(crate) struct Case<'a> {
    pub term: &'a dyn Term<Det>,
    pub part: Part,
    /// The learning rate at which plain gradient descent halves what can be lost.
    pub rate: f64,
    /// Whether places that answer for nothing are trained.
    pub background: bool,
}

fn evaluate(term: &dyn Term<Det>, output: &DetOutput, labels: &Labelled) -> Tensor<1> {
    let column = Column::of("part", &term.shared()).swap_remove(0);
    term.value(&Context::of(output, Some(labels)), &column)
}

pub(crate) fn value(term: &dyn Term<Det>, output: &DetOutput, labels: &Labelled) -> f32 {
    let value = evaluate(term, output, labels);
    assert_eq!(value.dims(), [1]);
    values(value)[0]
}

/// Values by index, in the shape of `part`.
fn like(part: &Tensor<3>, value: impl Fn(usize) -> f32) -> Tensor<3> {
    let [n, channels, places] = part.dims();
    map([n, channels, 1, places], value).reshape([n, channels, places])
}

/// The value, and the gradient at the part of every level.
fn with_gradient(term: &dyn Term<Det>, part: Part, output: &DetOutput, labels: &Labelled) -> (f32, Vec<Vec<f32>>) {
    let mut output = output.clone();
    let leaves: Vec<Tensor<3>> = output
        .levels
        .iter_mut()
        .map(|level| {
            let leaf = Tensor::from_inner(part.of(level).clone()).require_grad();
            *part.of(level) = leaf.clone();
            leaf
        })
        .collect();
    let value = evaluate(term, &output, labels);
    let gradients = value.backward();
    (values(value)[0], leaves.iter().map(|leaf| values(leaf.grad(&gradients).unwrap())).collect())
}

/// Compares targets, value and gradients with torchvision's, on three images, one of them without a box.
pub(crate) fn agrees_with_torchvision(name: &str, part: Part, term: &dyn Term<Det>) {
    let golden = golden();
    let tensor = |name: String| {
        let (shape, values) = &golden[&name];
        map(shape.as_slice().try_into().unwrap(), |i| values[i])
    };
    let of_level = |(index, stride): (usize, usize)| {
        let [logits, distances, centerness] =
            ["class_logits", "distances", "centerness"].map(|name| tensor(format!("{name}.{index}")));
        level(stride, logits, distances, Some(centerness))
    };
    let levels = [4, 8, 16].into_iter().enumerate().map(of_level).collect();
    let output = DetOutput { levels, taps: Taps::default(), image_size: [96, 128] };
    let labels: Vec<BoxLabels> = (0..3)
        .map(|image| {
            let (boxes, classes) = (&golden[&format!("boxes.{image}")].1, &golden[&format!("classes.{image}")].1);
            let label = |(edges, class): (&[f32], &f32)| (edges.try_into().unwrap(), *class as u8, BoxKind::Object);
            labelled(&boxes.chunks(4).zip(classes).map(label).collect::<Vec<_>>())
        })
        .collect();
    let seen = seen(&output, &labels);
    let assignment = &seen.assignment;
    for (name, found) in [
        ("positive", &assignment.positive_n1p),
        ("one_hot", &assignment.classes_nkp),
        ("target_distances", &assignment.distances_n4p),
        ("target_centerness", &assignment.centerness_n1p),
    ] {
        close(&values(found.clone()), &golden[name].1, 1e-5);
    }
    let (value, gradients) = with_gradient(term, part, &output, &seen);
    close(&[value], &golden[&format!("{name}.value")].1, 1e-5);
    for (index, gradient) in gradients.iter().enumerate() {
        close(gradient, &golden[&format!("{name}.grad.{index}")].1, 1e-4);
    }
}

const LEVELS: [(usize, [usize; 2]); 2] = [(8, [4, 4]), (16, [2, 2])];

/// Two images with objects, one of them with a crowd and a difficult object beside.
fn batch() -> (DetOutput, Vec<BoxLabels>) {
    let object = ([2.0, 3.0, 17.0, 15.0], 1, BoxKind::Object);
    let crowd = ([16.0, 0.0, 32.0, 32.0], 2, BoxKind::Crowd);
    let difficult = ([0.0, 16.0, 16.0, 32.0], 0, BoxKind::Difficult);
    let large = ([-60.0, -50.0, 80.0, 75.0], 0, BoxKind::Object);
    let labels = vec![labelled(&[object, crowd, difficult]), labelled(&[large, object])];
    (output(&LEVELS, 2, 3, |i| ((i * 37) % 23) as f32 / 11.0 - 0.97), labels)
}

pub(crate) fn check_part(case: &Case) {
    what_does_not_count_changes_nothing(case);
    a_repeated_batch_leaves_the_mean(case);
    differences_agree_with_the_gradient(case);
    no_box_is_finite(case);
    it_falls_on_a_fixed_batch(case);
}

fn what_does_not_count_changes_nothing(case: &Case) {
    let (output, labels) = batch();
    let labels = seen(&output, &labels);
    let counted = if case.background { &labels.assignment.counted_nkp } else { &labels.assignment.positive_n1p };
    let (value, gradients) = with_gradient(case.term, case.part, &output, &labels);
    assert!(value.is_finite() && value > 0.0);
    let mut changed = output.clone();
    let mut some = false;
    for (index, level) in changed.levels.iter_mut().enumerate() {
        let counted = labels.grid.at_level(level.layout.stride, counted);
        let part = case.part.of(level);
        let mask = values::<3>(counted.expand(part.shape()));
        assert!(mask.iter().zip(&gradients[index]).all(|(counts, slope)| *counts != 0.0 || *slope == 0.0));
        some |= mask.contains(&0.0);
        let noise = like(part, |i| if mask[i] == 0.0 { (i % 7) as f32 } else { 0.0 });
        *part = part.clone() + noise;
    }
    assert!(some);
    assert_eq!(with_gradient(case.term, case.part, &changed, &labels), (value, gradients));
}

fn a_repeated_batch_leaves_the_mean(case: &Case) {
    let (output, labels) = batch();
    let once = value(case.term, &output, &seen(&output, &labels));
    let mut twice = output;
    for level in &mut twice.levels {
        for part in [Part::ClassLogits, Part::Distances, Part::Centerness] {
            let part = part.of(level);
            *part = Tensor::cat(vec![part.clone(), part.clone()], 0);
        }
    }
    let repeated = value(case.term, &twice, &seen(&twice, &[labels.clone(), labels].concat()));
    assert!((once - repeated).abs() < 1e-5 * once, "{once} becomes {repeated}");
}

fn differences_agree_with_the_gradient(case: &Case) {
    let (output, labels) = batch();
    let labels = seen(&output, &labels);
    let (_, gradients) = with_gradient(case.term, case.part, &output, &labels);
    let step = 1e-2;
    let moved = |sign: f32| {
        let mut output = output.clone();
        for (level, gradient) in output.levels.iter_mut().zip(&gradients) {
            let part = case.part.of(level);
            *part = part.clone() + like(part, |i| sign * step * gradient[i].signum());
        }
        value(case.term, &output, &labels)
    };
    let slope: f32 = gradients.concat().iter().map(|slope| slope.abs()).sum();
    let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
    assert!((difference - slope).abs() < 0.02 * slope, "differences say {difference}, the gradient {slope}");
}

fn no_box_is_finite(case: &Case) {
    let (output, _) = batch();
    let nobody = BoxLabels::unknown();
    for (labels, trains) in [(labelled(&[]), case.background), (nobody, false)] {
        let labels = seen(&output, &[labels.clone(), labels]);
        let (value, gradients) = with_gradient(case.term, case.part, &output, &labels);
        assert!(value.is_finite() && (value > 0.0) == trains, "{value}");
        let trained = gradients.concat().iter().any(|slope| *slope != 0.0);
        assert!(trained == trains && gradients.concat().iter().all(|slope| slope.is_finite()));
    }
}

/// Descends on the part; what is left above the least value halves within 100 steps.
fn it_falls_on_a_fixed_batch(case: &Case) {
    let (mut output, labels) = batch();
    let labels = seen(&output, &labels);
    // The least of a cross-entropy with soft targets is their entropy.
    let least = match case.part {
        Part::Centerness => {
            let (c, own) = (&labels.assignment.centerness_n1p, &labels.assignment.positive_n1p);
            let entropy = |c: f32| -c * c.max(1e-12).ln() - (1.0 - c) * (1.0 - c).max(1e-12).ln();
            let (c, own) = (values(c.clone()), values(own.clone()));
            c.iter().zip(&own).map(|(c, own)| entropy(*c) * own).sum::<f32>() / own.iter().sum::<f32>()
        }
        _ => 0.0,
    };
    let first = value(case.term, &output, &labels);
    for _ in 0..100 {
        let (_, gradients) = with_gradient(case.term, case.part, &output, &labels);
        for (level, gradient) in output.levels.iter_mut().zip(&gradients) {
            let part = case.part.of(level);
            *part = part.clone() - like(part, |i| gradient[i]).mul_scalar(case.rate);
        }
    }
    let last = value(case.term, &output, &labels);
    assert!(last - least < (first - least) / 2.0, "{first} falls to {last}, the least is {least}");
}
