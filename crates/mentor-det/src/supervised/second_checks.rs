//! What the tests of the parts of two stages share.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use mentor_distill::{Column, Term};
use mentor_types::{BoxCoding, BoxKind, DetOutput, Regions};

use crate::assign::{AssignConfig, MaxIouAssign};
use crate::context::{Context, Labelled, SecondLabels};
use crate::deltas::decoded;
use crate::regions::RegionTargets;
use crate::task::Det;
use crate::testing::{close, golden, labelled, map, output, values};
use crate::upload::DetTargets;

/// What a part of the loss compares.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    Objectness,
    AnchorDeltas,
    RegionLogits,
    RegionDeltas,
}

/// A part with what its checks need.
pub(crate) struct Case<'a> {
    pub term: &'a dyn Term<Det>,
    pub part: Part,
    /// The learning rate at which plain gradient descent halves the value.
    pub rate: f64,
    /// Whether background is trained.
    pub background: bool,
}

/// A student with what it is to say.
#[derive(Clone)]
struct Scene {
    output: DetOutput,
    labelled: Labelled,
}

impl Part {
    /// Puts other numbers where the part is.
    fn put(self, output: &mut DetOutput, part: Tensor<4>) {
        let (level, regions) = (&mut output.levels[0], output.regions.as_mut().unwrap());
        match self {
            Self::Objectness => level.class_logits = part.squeeze_dim(3),
            Self::AnchorDeltas => level.coding = BoxCoding::Deltas(part.squeeze_dim(3)),
            Self::RegionLogits => regions.class_logits = part.squeeze_dim(3),
            Self::RegionDeltas => regions.deltas = part,
        }
    }

    fn of(self, output: &DetOutput) -> Tensor<4> {
        let (level, regions) = (&output.levels[0], output.regions.as_ref().unwrap());
        match (self, &level.coding) {
            (Self::Objectness, _) => level.class_logits.clone().unsqueeze_dim(3),
            (Self::AnchorDeltas, BoxCoding::Deltas(deltas)) => deltas.clone().unsqueeze_dim(3),
            (Self::RegionLogits, _) => regions.class_logits.clone().unsqueeze_dim(3),
            (Self::RegionDeltas, _) => regions.deltas.clone(),
            _ => panic!("the level says no deltas"),
        }
    }

    /// 1 at the numbers that are learnt.
    fn counted(self, labelled: &Labelled, shape: [usize; 4]) -> Vec<f32> {
        let SecondLabels { drawn_n1p, regions } = labelled.second.as_ref().unwrap();
        let drawn_nr1: Tensor<3> = regions.drawn_nr.clone().unsqueeze_dim(2);
        let mask: Tensor<4> = match self {
            Self::Objectness => drawn_n1p.clone().unsqueeze_dim(3),
            Self::AnchorDeltas => (drawn_n1p.clone() * labelled.assignment.positive_n1p.clone()).unsqueeze_dim(3),
            Self::RegionLogits => drawn_nr1.unsqueeze_dim(3),
            Self::RegionDeltas => (drawn_nr1 * regions.classes_nrk.clone()).unsqueeze_dim(3),
        };
        values(mask.expand(shape))
    }
}

fn evaluate(term: &dyn Term<Det>, output: &DetOutput, labelled: &Labelled) -> Tensor<1> {
    let column = Column::of("part", &term.shared()).swap_remove(0);
    term.value(&Context::of(output, Some(labelled)), &column)
}

/// The value, and the gradient at the part.
fn with_gradient(term: &dyn Term<Det>, part: Part, scene: &Scene) -> (f32, Vec<f32>) {
    let mut output = scene.output.clone();
    let leaf = Tensor::from_inner(part.of(&output)).require_grad();
    part.put(&mut output, leaf.clone());
    let value = evaluate(term, &output, &scene.labelled);
    let gradients = value.backward();
    (values(value)[0], values(leaf.grad(&gradients).unwrap()))
}

/// Compares value and gradient with those that `tests/golden/faster_rcnn.py` wrote.
pub(crate) fn agrees(name: &str, part: Part, term: &dyn Term<Det>) {
    let golden = golden("faster_rcnn");
    let read = |name: &str| {
        let (shape, values) = golden[&format!("loss/{name}")].clone();
        (Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), &Device::flex()), shape)
    };
    let (classes, shape) = read("classes");
    let [n, r] = [shape[0], shape[1]];
    let classes = values(classes);
    let one_hot = |count: usize, first: usize| {
        map([n, r, count, 1], |i| f32::from(u8::from(classes[i / count] as usize == i % count + first))).squeeze_dim(3)
    };
    let mut scene = scene(1, |_| true);
    let (level, regions) = (&mut scene.output.levels[0], scene.output.regions.as_mut().unwrap());
    level.layout.size = [4, 10];
    level.class_logits = read("logits").0.reshape([2, 1, 40]);
    level.coding = BoxCoding::Deltas(read("deltas").0.reshape([2, 40, 4]).swap_dims(1, 2));
    regions.class_logits = read("region_logits").0.reshape([n, r, 4]);
    regions.deltas = read("region_deltas").0.reshape([n, r, 3, 4]);
    let labelled = &mut scene.labelled;
    labelled.assignment.positive_n1p = read("objects").0.reshape([2, 1, 40]);
    labelled.grid.anchors = [0, 1].map(|_| Tensor::full([1, 1, 40], 64.0, &Device::flex()));
    let own_n4p = read("own").0.reshape([2, 40, 4]).swap_dims(1, 2);
    labelled.assignment.distances_n4p = decoded(&own_n4p, &labelled.grid.anchors);
    let second = labelled.second.as_mut().unwrap();
    second.drawn_n1p = read("anchors_drawn").0.reshape([2, 1, 40]);
    second.regions.drawn_nr = Tensor::ones([n, r], &Device::flex());
    second.regions.allowed_nrk = one_hot(4, 0);
    second.regions.classes_nrk = one_hot(3, 1);
    second.regions.deltas_nr4 = read("region_own").0.reshape([n, r, 4]);
    let (value, gradient) = with_gradient(term, part, &scene);
    close(&[value], &golden[&format!("loss/{name}.value")].1, 1e-5);
    let mut expected = read(&format!("{name}.grad")).0;
    if part == Part::AnchorDeltas {
        expected = expected.reshape([2, 40, 4]).swap_dims(1, 2).reshape([320]);
    }
    close(&gradient, &values(expected), 1e-4);
}

const CLASSES: usize = 3;
const REGIONS: usize = 6;

/// Two images, as often as asked for, of which the anchors and regions are learnt from whose number `is_drawn`.
fn scene(copies: usize, is_drawn: impl Fn(usize) -> bool) -> Scene {
    let n = 2 * copies;
    // The same in each pair of images.
    let tensor = |[rows, columns, last]: [usize; 3], value: &dyn Fn(usize) -> f32| {
        map([n, rows, columns, last], |i| value(i % (2 * rows * columns * last)))
    };
    let noise = |i: usize| ((i * 37) % 23) as f32 / 11.0 - 0.97;
    let mut output = output(&[(8, [4, 4])], n, 1, |_| 0.0);
    let level = &mut output.levels[0];
    level.layout.anchors = vec![[16.0; 2]];
    level.centerness = None;
    level.class_logits = tensor([1, 16, 1], &noise).squeeze_dim(3);
    level.coding = BoxCoding::Deltas(tensor([4, 16, 1], &noise).squeeze_dim(3));
    output.regions = Some(Regions {
        edges_nr4: Tensor::zeros([n, REGIONS, 4], &Device::flex()),
        real_nr: Tensor::ones([n, REGIONS], &Device::flex()),
        class_logits: tensor([REGIONS, CLASSES + 1, 1], &noise).squeeze_dim(3),
        deltas: tensor([REGIONS, CLASSES, 4], &noise),
    });
    let object = ([2.0, 3.0, 17.0, 15.0], 0, BoxKind::Object);
    let images: Vec<_> = (0..n).map(|_| labelled(&[object])).collect();
    let assign = AssignConfig::MaxIou(MaxIouAssign { high: 0.3, low: 0.2, low_quality: true });
    let mut labelled = Labelled::of(&DetTargets::upload(&images, &Device::flex()), &output, &assign);
    let flag = |is: bool| f32::from(u8::from(is));
    // Every third region holds an object of the class of its number; in the second image the last class was not looked for.
    let class = |i: usize| (i % 3 == 1).then_some(i % CLASSES);
    let allowed = |i: usize| {
        let (region, column) = (i / (CLASSES + 1), i % (CLASSES + 1));
        match class(region) {
            Some(own) => flag(column == own + 1),
            None => flag(column == 0 || (region >= REGIONS && column == CLASSES)),
        }
    };
    labelled.second = Some(SecondLabels {
        drawn_n1p: tensor([1, 16, 1], &|i| flag(is_drawn(i))).squeeze_dim(3),
        regions: RegionTargets {
            drawn_nr: tensor([REGIONS, 1, 1], &|i| flag(is_drawn(i))).reshape([n, REGIONS]),
            positive_nr: tensor([REGIONS, 1, 1], &|i| flag(class(i).is_some())).reshape([n, REGIONS]),
            classes_nrk: tensor([REGIONS, CLASSES, 1], &|i| flag(class(i / CLASSES) == Some(i % CLASSES)))
                .squeeze_dim(3),
            allowed_nrk: tensor([REGIONS, CLASSES + 1, 1], &allowed).squeeze_dim(3),
            deltas_nr4: tensor([REGIONS, 4, 1], &|i| if class(i / 4).is_some() { noise(i + 5) } else { 0.0 })
                .squeeze_dim(3),
        },
    });
    Scene { output, labelled }
}

/// Most anchors and regions are learnt from, with and without objects.
fn some(i: usize) -> bool {
    i % 5 != 2
}

pub(crate) fn check_part(case: &Case) {
    what_is_not_drawn_changes_nothing(case);
    a_repeated_batch_leaves_the_mean(case);
    differences_agree_with_the_gradient(case);
    nothing_drawn_and_no_object_are_finite(case);
    it_halves_on_a_fixed_batch(case);
}

fn what_is_not_drawn_changes_nothing(case: &Case) {
    let mut scene = scene(1, some);
    let (value, gradient) = with_gradient(case.term, case.part, &scene);
    assert!(value.is_finite() && value > 0.0);
    let part = case.part.of(&scene.output);
    let mask = case.part.counted(&scene.labelled, part.dims());
    assert!(mask.contains(&0.0) && mask.contains(&1.0));
    assert!(mask.iter().zip(&gradient).all(|(counts, slope)| *counts != 0.0 || *slope == 0.0));
    let noise = map(part.dims(), |i| if mask[i] == 0.0 { (i % 7) as f32 } else { 0.0 });
    case.part.put(&mut scene.output, part + noise);
    assert_eq!(with_gradient(case.term, case.part, &scene), (value, gradient));
}

fn a_repeated_batch_leaves_the_mean(case: &Case) {
    let [once, repeated] = [1, 2].map(|copies| with_gradient(case.term, case.part, &scene(copies, some)).0);
    assert!((once - repeated).abs() < 1e-5 * once, "{once} becomes {repeated}");
}

fn differences_agree_with_the_gradient(case: &Case) {
    let scene = scene(1, some);
    let (_, gradient) = with_gradient(case.term, case.part, &scene);
    let step = 1e-2;
    let moved = |sign: f32| {
        let mut output = scene.output.clone();
        let part = case.part.of(&output);
        let off = map(part.dims(), |i| sign * step * gradient[i].signum() * f32::from(u8::from(gradient[i] != 0.0)));
        case.part.put(&mut output, part + off);
        values(evaluate(case.term, &output, &scene.labelled))[0]
    };
    let slope: f32 = gradient.iter().map(|slope| slope.abs()).sum();
    let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
    assert!((difference - slope).abs() < 0.02 * slope, "differences say {difference}, the gradient {slope}");
}

fn nothing_drawn_and_no_object_are_finite(case: &Case) {
    let nothing = with_gradient(case.term, case.part, &scene(1, |_| false));
    assert!(nothing.0 == 0.0 && nothing.1.iter().all(|slope| *slope == 0.0));
    // Of what is drawn nothing holds an object.
    let mut scene = scene(1, some);
    let assignment = &mut scene.labelled.assignment;
    assignment.positive_n1p = assignment.positive_n1p.zeros_like();
    assignment.distances_n4p = assignment.distances_n4p.zeros_like();
    let regions = &mut scene.labelled.second.as_mut().unwrap().regions;
    regions.classes_nrk = regions.classes_nrk.zeros_like();
    regions.allowed_nrk =
        map([2, REGIONS, CLASSES + 1, 1], |i| f32::from(u8::from(i % (CLASSES + 1) == 0))).squeeze_dim(3);
    let (value, gradient) = with_gradient(case.term, case.part, &scene);
    assert!(value.is_finite() && (value > 0.0) == case.background, "{value}");
    assert!(gradient.iter().all(|slope| slope.is_finite()));
}

fn it_halves_on_a_fixed_batch(case: &Case) {
    let mut scene = scene(1, some);
    let (first, mut gradient) = with_gradient(case.term, case.part, &scene);
    let mut last = first;
    for _ in 0..100 {
        let part = case.part.of(&scene.output);
        let down = map(part.dims(), |i| gradient[i]).mul_scalar(case.rate);
        case.part.put(&mut scene.output, part - down);
        (last, gradient) = with_gradient(case.term, case.part, &scene);
    }
    assert!(last < first / 2.0, "{first} falls to {last} only");
}

#[test]
fn what_may_be_in_a_region_is_not_taken_for_background() {
    use super::RegionClasses;
    // One region without an object, which says the last class loudly: in an image in which it was looked for, and in another.
    let mut scene = scene(1, |i| i % REGIONS == 0);
    let regions = scene.output.regions.as_mut().unwrap();
    regions.class_logits = map([2, REGIONS, CLASSES + 1, 1], |i| if i % 4 == 3 { 9.0 } else { 0.0 }).squeeze_dim(3);
    let value = values(evaluate(&RegionClasses::default(), &scene.output, &scene.labelled))[0];
    let all = 9f32.exp() + 3.0;
    let expected = (all.ln() + (all.ln() - (9f32.exp() + 1.0).ln())) / 2.0;
    assert!((value - expected).abs() < 1e-4, "{value} instead of {expected}");
}
