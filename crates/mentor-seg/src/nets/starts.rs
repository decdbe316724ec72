//! How nets start, against torchvision's: moments of every weight, in a golden file that
//! `tests/golden/starts.py` writes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use mentor_nets::{BackboneKind, pytorch_name};
use mentor_ops::log_softmax;
use mentor_weights::{is_buffer, named_weights};

use super::{NetConfig, NetTable};

const CLASSES: usize = 6;
const SEEDS: u64 = 4;

/// By how many standard deviations of the sampling two moments may differ.
const SIGMAS: f64 = 5.0;

/// What is known of the values of one weight over several seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    sum: f64,
    square: f64,
    largest: f64,
    count: f64,
}

impl Sample {
    fn add(&mut self, values: &[f32]) {
        for value in values {
            let value = f64::from(*value);
            self.sum += value;
            self.square += value * value;
            self.largest = self.largest.max(value.abs());
        }
        self.count += values.len() as f64;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    fn root(&self) -> f64 {
        (self.square / self.count).sqrt()
    }
}

/// The weights of a case by `PyTorch` name: law and sample.
fn golden(case: &str) -> BTreeMap<&'static str, (&'static str, Sample)> {
    let listing = include_str!("../../../../tests/golden/starts.txt");
    let (_, lines) = listing.split_once(&format!("# {case}\n")).unwrap();
    let lines = lines.lines().take_while(|line| !line.starts_with('#'));
    let read = |line: &'static str| {
        let [name, law, numbers @ ..] = line.split(' ').collect::<Vec<_>>().try_into().unwrap_or([""; 6]);
        let [mean, root, largest, count] = numbers.map(|number: &str| number.parse::<f64>().unwrap());
        (name, (law, Sample { sum: mean * count, square: root * root * count, largest, count }))
    };
    lines.map(read).collect()
}

fn samples(config: &NetConfig) -> BTreeMap<String, Sample> {
    let mut samples = BTreeMap::<String, Sample>::new();
    for seed in 0..SEEDS {
        for (path, (_, values)) in named_weights(&config.init(CLASSES, seed, &Device::flex())) {
            if !is_buffer(&path) {
                samples.entry(pytorch_name(&path)).or_default().add(&values);
            }
        }
    }
    samples
}

/// Asserts that two samples may be of one law: equal means and mean squares to within the errors of both.
fn assert_same(name: &str, law: &str, found: Sample, expected: Sample) {
    if law == "constant" {
        assert_eq!((found.mean(), found.root()), (expected.mean(), expected.root()), "{name}");
        return;
    }
    // The variance of a mean square, over its square, is the fourth moment over the square of the second, less one.
    let spread: f64 = if law == "uniform" { 0.8 } else { 2.0 };
    let error = (1.0 / found.count + 1.0 / expected.count).sqrt();
    let (mean, root) = (found.mean() - expected.mean(), found.root() / expected.root());
    assert!(mean.abs() < SIGMAS * error * expected.root(), "{name}: mean {} {}", found.mean(), expected.mean());
    let allowed = SIGMAS * error * spread.sqrt() / 2.0;
    assert!((root - 1.0).abs() < allowed, "{name}: deviation {} {}", found.root(), expected.root());
    // A uniform law ends at 1.73 deviations, and a normal one goes beyond twice in each twenty values.
    if found.count > 200.0 {
        let reach = found.largest / expected.root();
        assert_eq!(reach > 1.9, law == "normal", "{name}: {law}, largest {reach} deviations");
    }
}

#[test]
fn every_weight_of_every_net_and_head_starts_as_in_torchvision() {
    let table = |backbone, width| NetTable { width: Some(width), ..NetTable::new(backbone) };
    let narrow = table(BackboneKind::Resnet18, 8);
    // torchvision's head has this many, however narrow the backbone is.
    let deep = NetTable { head_channels: Some(256), ..narrow.clone() };
    let cases = [
        ("fcn_resnet18", NetConfig::Fcn(NetTable { auxiliary: true, ..narrow.clone() })),
        ("fcn_resnet50", NetConfig::Fcn(table(BackboneKind::Resnet50, 8))),
        ("fcn_mobilenet_v2", NetConfig::Fcn(table(BackboneKind::MobilenetV2, 16))),
        ("pspnet_resnet18", NetConfig::Pspnet(narrow.clone())),
        ("deeplabv3_resnet18", NetConfig::Deeplabv3(deep)),
        ("deeplabv3plus_resnet18", NetConfig::Deeplabv3plus(narrow)),
    ];
    for (case, config) in cases {
        let (golden, found) = (golden(case), samples(&config));
        assert!(golden.keys().copied().eq(found.keys().map(String::as_str)), "{case}: other weights");
        for (name, sample) in found {
            let (law, expected) = golden[name.as_str()];
            assert_same(&format!("{case} {name}"), law, sample, expected);
        }
    }
}

/// A classifier that starts with big weights is sure of what it guesses: its cross-entropy stands far above
/// that of a guess, and FixMatch takes its guesses for labels from the first step on.
#[test]
fn a_fresh_net_is_sure_of_nothing() {
    let table = NetTable { auxiliary: true, ..NetTable::new(BackboneKind::Resnet18) };
    let table = NetTable { width: Some(16), output_stride: Some(16), ..table };
    let nets: [fn(NetTable) -> NetConfig; 4] =
        [NetConfig::Fcn, NetConfig::Pspnet, NetConfig::Deeplabv3, NetConfig::Deeplabv3plus];
    let shape = [4, 3, 64, 64];
    let noise =
        (0..shape.iter().product()).map(|i: usize| ((i * 7919) % 1009) as f32 / 291.0 - 1.73).collect::<Vec<_>>();
    let images = Tensor::<4>::from_data(TensorData::new(noise, shape), &Device::flex());
    for config in nets.map(|net| net(table.clone())) {
        let output = config.init(CLASSES, 0, &Device::flex().autodiff()).forward(images.clone(), None);
        for scores in [output.logits, output.auxiliary.unwrap()] {
            let logs = log_softmax(scores.inner(), 1).into_data().try_into_vec_as::<f32>().unwrap();
            // Over all classes as the label, since none is there.
            let cross_entropy = -logs.iter().map(|log| f64::from(*log)).sum::<f64>() / logs.len() as f64;
            let sure = logs.iter().filter(|log| log.exp() >= 0.95).count();
            assert!(cross_entropy - (CLASSES as f64).ln() < 0.3, "{}: {cross_entropy}", config.name());
            assert_eq!(sure, 0, "{}", config.name());
        }
    }
}
