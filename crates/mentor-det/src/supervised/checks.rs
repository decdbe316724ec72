//! What the tests of all parts share.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use mentor_distill::{Column, Term};
use mentor_nets::{BackboneKind, Level};
use mentor_types::{BoxCoding, BoxKind, BoxLabels, DetLevel, DetOutput, LevelLayout, Taps};
use mentor_weights::NamedTensors;

use crate::assign::{AssignConfig, AtssAssign, FcosAssign, MaxIouAssign, SimotaAssign};
use crate::context::{Context, Labelled};
use crate::nets::{NetConfig, NetTable};
use crate::task::Det;
use crate::testing::{close, golden, labelled, map, output, seen, values};
use crate::upload::DetTargets;

use super::distribution_focal::two_hot;

/// What a part of the loss compares.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    ClassLogits,
    Distances,
    Centerness,
    Deltas,
    Distribution,
}

impl Part {
    /// `[n, c, p]` of a level.
    fn of(self, level: &DetLevel) -> Tensor<3> {
        match (self, &level.coding) {
            (Self::ClassLogits, _) => level.class_logits.clone(),
            (Self::Distances, _) => level.distances.clone(),
            (Self::Centerness, _) => level.centerness.clone().unwrap(),
            (Self::Deltas, BoxCoding::Deltas(deltas)) => deltas.clone(),
            (Self::Distribution, BoxCoding::Distribution(logits)) => logits.clone().flatten(1, 2),
            _ => panic!("the level does not say its boxes so"),
        }
    }

    fn put(self, level: &mut DetLevel, part: Tensor<3>) {
        match self {
            Self::ClassLogits => level.class_logits = part,
            Self::Distances => level.distances = part,
            Self::Centerness => level.centerness = Some(part),
            Self::Deltas => level.coding = BoxCoding::Deltas(part),
            Self::Distribution => {
                let [n, rows, places] = part.dims();
                level.coding = BoxCoding::Distribution(part.reshape([n, 4, rows / 4, places]));
            }
        }
    }

    /// The parts of a level.
    fn all(level: &DetLevel) -> Vec<Self> {
        let coding = match level.coding {
            BoxCoding::Distances => None,
            BoxCoding::Deltas(_) => Some(Self::Deltas),
            BoxCoding::Distribution(_) => Some(Self::Distribution),
        };
        [Some(Self::ClassLogits), Some(Self::Distances), level.centerness.as_ref().map(|_| Self::Centerness), coding]
            .into_iter()
            .flatten()
            .collect()
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
            let leaf = Tensor::from_inner(part.of(level)).require_grad();
            part.put(level, leaf.clone());
            leaf
        })
        .collect();
    let value = evaluate(term, &output, labels);
    let gradients = value.backward();
    (values(value)[0], leaves.iter().map(|leaf| values(leaf.grad(&gradients).unwrap())).collect())
}

/// Losses and gradients of another's, on images one of which has no box.
pub(crate) struct Golden {
    file: &'static str,
    strides: [usize; 3],
    image_size: [usize; 2],
    images: usize,
    anchors: fn(usize) -> Vec<[f32; 2]>,
    /// What is in the file of each level.
    parts: &'static [(&'static str, Part)],
    assign: fn() -> AssignConfig,
}

/// torchvision's FCOS.
pub(crate) const FCOS: Golden = Golden {
    file: "fcos_loss",
    strides: [4, 8, 16],
    image_size: [96, 128],
    images: 3,
    anchors: |stride| vec![[8.0 * stride as f32; 2]],
    parts: &[("class_logits", Part::ClassLogits), ("distances", Part::Distances), ("centerness", Part::Centerness)],
    assign: || AssignConfig::Fcos(FcosAssign::default()),
};

/// torchvision's `RetinaNet`; the boxes are not in the file, since its parts do not look at them.
pub(crate) const RETINANET: Golden = Golden {
    file: "retinanet_loss",
    strides: [8, 16, 32],
    image_size: [64, 96],
    images: 2,
    anchors: |stride| NetConfig::Retinanet(NetTable::new(BackboneKind::Resnet18)).anchors(level_of_stride(stride)),
    parts: &[("class_logits", Part::ClassLogits), ("deltas", Part::Deltas)],
    assign: || AssignConfig::MaxIou(MaxIouAssign::default()),
};

/// The papers' formulas, and torchvision's measures of boxes, with adaptive sample selection.
pub(crate) const GFL: Golden = Golden {
    file: "gfl_loss",
    strides: [8, 16, 32],
    image_size: [64, 96],
    images: 3,
    anchors: |stride| vec![[8.0 * stride as f32; 2]],
    parts: &[("class_logits", Part::ClassLogits), ("distances", Part::Distances), ("distribution", Part::Distribution)],
    assign: || AssignConfig::Atss(AtssAssign::default()),
};

#[test]
fn targets_by_cost_agree_with_the_paper() {
    let config = AssignConfig::Simota(SimotaAssign::default());
    let golden = golden(GFL.file);
    let targets = DetTargets::upload(&GFL.labels(&golden), &Device::flex());
    let found = Labelled::of(&targets, &GFL.output(&golden), &config).assignment;
    for (name, found) in
        [("positive", found.positive_n1p), ("one_hot", found.classes_nkp), ("target_distances", found.distances_n4p)]
    {
        close(&values(found), &golden[&format!("simota.{name}")].1, 1e-5);
    }
}

fn level_of_stride(stride: usize) -> Level {
    *Level::ALL.iter().find(|level| level.stride() == stride).unwrap()
}

impl Golden {
    /// Compares targets, and the value and the gradients of a part.
    pub(crate) fn agrees(&self, name: &str, part: Part, term: &dyn Term<Det>) {
        let golden = golden(self.file);
        let (output, labels) = (self.output(&golden), self.labels(&golden));
        let targets = DetTargets::upload(&labels, &Device::flex());
        let seen = Labelled::of(&targets, &output, &(self.assign)());
        let assignment = &seen.assignment;
        for (name, found) in [
            ("positive", &assignment.positive_n1p),
            ("one_hot", &assignment.classes_nkp),
            ("target_distances", &assignment.distances_n4p),
            ("target_centerness", &assignment.centerness_n1p),
            ("counted", &assignment.counted_nkp),
        ] {
            if let Some((_, expected)) = golden.get(name) {
                close(&values(found.clone()), expected, 1e-5);
            }
        }
        let (value, gradients) = with_gradient(term, part, &output, &seen);
        close(&[value], &golden[&format!("{name}.value")].1, 1e-5);
        for (index, gradient) in gradients.iter().enumerate() {
            close(gradient, &golden[&format!("{name}.grad.{index}")].1, 1e-4);
        }
    }

    fn output(&self, golden: &NamedTensors) -> DetOutput {
        let of_level = |(index, stride): (usize, usize)| {
            let size = self.image_size.map(|side| side / stride);
            let anchors = (self.anchors)(stride);
            let layout = LevelLayout { stride, size, point: 0.5, anchors };
            let rows = |count| Tensor::zeros([self.images, count, layout.places()], &Device::flex());
            let (class_logits, distances) = (rows(1), rows(4));
            let coding = BoxCoding::Distances;
            let mut level = DetLevel { class_logits, distances, coding, centerness: None, layout };
            for (name, part) in self.parts {
                let values = golden[&format!("{name}.{index}")].1.clone();
                let places = level.layout.places();
                let shape = [self.images, values.len() / self.images / places, places];
                part.put(&mut level, Tensor::from_data(TensorData::new(values, shape), &Device::flex()));
            }
            level
        };
        let levels = self.strides.into_iter().enumerate().map(of_level).collect();
        DetOutput { levels, regions: None, taps: Taps::default(), image_size: self.image_size }
    }

    fn labels(&self, golden: &NamedTensors) -> Vec<BoxLabels> {
        let of_image = |image| {
            let (boxes, classes) = (&golden[&format!("boxes.{image}")].1, &golden[&format!("classes.{image}")].1);
            let label = |(edges, class): (&[f32], &f32)| (edges.try_into().unwrap(), *class as u8, BoxKind::Object);
            labelled(&boxes.chunks(4).zip(classes).map(label).collect::<Vec<_>>())
        };
        (0..self.images).map(of_image).collect()
    }
}

/// How many distances have a probability.
const BINS: usize = 4;

const LEVELS: [(usize, [usize; 2]); 2] = [(8, [4, 4]), (16, [2, 2])];

/// Two images with objects, one of them with a crowd and a difficult object beside.
fn batch(part: Part) -> (DetOutput, Vec<BoxLabels>) {
    let object = ([2.0, 3.0, 17.0, 15.0], 1, BoxKind::Object);
    let crowd = ([16.0, 0.0, 32.0, 32.0], 2, BoxKind::Crowd);
    let difficult = ([0.0, 16.0, 16.0, 32.0], 0, BoxKind::Difficult);
    let large = ([-60.0, -50.0, 80.0, 75.0], 0, BoxKind::Object);
    let labels = vec![labelled(&[object, crowd, difficult]), labelled(&[large, object])];
    let value = |i: usize| ((i * 37) % 23) as f32 / 11.0 - 0.97;
    let mut output = output(&LEVELS, 2, 3, value);
    for level in &mut output.levels {
        let rows = |rows| map([2, rows, 1, level.layout.places()], value).flatten(2, 3);
        match part {
            Part::Deltas => part.put(level, rows(4)),
            Part::Distribution => part.put(level, rows(4 * BINS)),
            _ => {}
        }
    }
    (output, labels)
}

pub(crate) fn check_part(case: &Case) {
    what_does_not_count_changes_nothing(case);
    a_repeated_batch_leaves_the_mean(case);
    differences_agree_with_the_gradient(case);
    no_box_is_finite(case);
    it_falls_on_a_fixed_batch(case);
}

fn what_does_not_count_changes_nothing(case: &Case) {
    let (output, labels) = batch(case.part);
    let labels = seen(&output, &labels);
    let counted = if case.background { &labels.assignment.counted_nkp } else { &labels.assignment.positive_n1p };
    let (value, gradients) = with_gradient(case.term, case.part, &output, &labels);
    assert!(value.is_finite() && value > 0.0);
    let mut changed = output.clone();
    let mut some = false;
    for (index, level) in changed.levels.iter_mut().enumerate() {
        let counted = labels.grid.at_level(level.layout.stride, counted);
        let part = case.part.of(level);
        // One for each place, or one for each class score.
        let mask = values::<3>(counted.expand(part.shape()));
        assert!(mask.iter().zip(&gradients[index]).all(|(counts, slope)| *counts != 0.0 || *slope == 0.0));
        some |= mask.contains(&0.0);
        let noise = like(&part, |i| if mask[i] == 0.0 { (i % 7) as f32 } else { 0.0 });
        case.part.put(level, part + noise);
    }
    assert!(some);
    assert_eq!(with_gradient(case.term, case.part, &changed, &labels), (value, gradients));
}

fn a_repeated_batch_leaves_the_mean(case: &Case) {
    let (output, labels) = batch(case.part);
    let once = value(case.term, &output, &seen(&output, &labels));
    let mut twice = output;
    for level in &mut twice.levels {
        for part in Part::all(level) {
            let once = part.of(level);
            part.put(level, Tensor::cat(vec![once.clone(), once], 0));
        }
    }
    let repeated = value(case.term, &twice, &seen(&twice, &[labels.clone(), labels].concat()));
    assert!((once - repeated).abs() < 1e-5 * once, "{once} becomes {repeated}");
}

fn differences_agree_with_the_gradient(case: &Case) {
    let (output, labels) = batch(case.part);
    let labels = seen(&output, &labels);
    let (_, gradients) = with_gradient(case.term, case.part, &output, &labels);
    let step = 1e-2;
    let moved = |sign: f32| {
        let mut output = output.clone();
        for (level, gradient) in output.levels.iter_mut().zip(&gradients) {
            let part = case.part.of(level);
            let off = like(&part, |i| sign * step * gradient[i].signum());
            case.part.put(level, part + off);
        }
        value(case.term, &output, &labels)
    };
    let slope: f32 = gradients.concat().iter().map(|slope| slope.abs()).sum();
    let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
    assert!((difference - slope).abs() < 0.02 * slope, "differences say {difference}, the gradient {slope}");
}

fn no_box_is_finite(case: &Case) {
    let (output, _) = batch(case.part);
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
    let (mut output, labels) = batch(case.part);
    let labels = seen(&output, &labels);
    let least = least(case, &output, &labels);
    let first = value(case.term, &output, &labels);
    for _ in 0..100 {
        let (_, gradients) = with_gradient(case.term, case.part, &output, &labels);
        for (level, gradient) in output.levels.iter_mut().zip(&gradients) {
            let part = case.part.of(level);
            let down = like(&part, |i| gradient[i]).mul_scalar(case.rate);
            case.part.put(level, part - down);
        }
    }
    let last = value(case.term, &output, &labels);
    assert!(last - least < (first - least) / 2.0, "{first} falls to {last}, the least is {least}");
}

/// The least of a cross-entropy with soft targets is their entropy: the value where the scores say the targets.
fn least(case: &Case, output: &DetOutput, labels: &Labelled) -> f32 {
    let mut best = output.clone();
    for level in &mut best.levels {
        let own = |of_places: &Tensor<3>| labels.grid.at_level(level.layout.stride, of_places);
        let log = |p: Tensor<3>| p.clamp(1e-6, 1.0 - 1e-6).log();
        let part = match case.part {
            Part::Centerness => {
                let central = own(&labels.assignment.centerness_n1p);
                log(central.clone()) - log(central.neg().add_scalar(1.0))
            }
            Part::Distribution => {
                let strides = own(&labels.assignment.distances_n4p).div_scalar(level.layout.stride as f64);
                log(two_hot(strides, BINS).flatten(1, 2))
            }
            _ => return 0.0,
        };
        case.part.put(level, part);
    }
    value(case.term, &best, labels)
}
