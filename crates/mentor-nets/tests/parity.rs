//! Backbones against torchvision, on golden files that `tests/golden/nets.py` writes.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/golden/nets_rule.rs"]
mod rule;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use mentor_nets::{
    Backbone, BackboneKind, BackboneSpec, Fresh, fill_weights, freeze_norms, num_params, pytorch_shapes,
};
use rule::{assert_case, filled, golden};

fn init(kind: BackboneKind, width: usize, output_stride: usize) -> Backbone {
    BackboneSpec { kind, width, output_stride }.init(&Fresh::on(&Device::flex().autodiff()))
}

fn taps(net: &Backbone, images: Tensor<4>) -> Vec<(String, Tensor<4>)> {
    net.forward(images).iter().map(|(tap, features)| (tap.name().to_owned(), features.clone())).collect()
}

/// Taps and input gradients with running statistics.
fn assert_backbone(file: &str, case: &str, kind: BackboneKind, width: usize, output_stride: usize, size: [usize; 2]) {
    let net = freeze_norms(filled(init(kind, width, output_stride)));
    assert_case(&golden(file), case, [1, 3, size[0], size[1]], |images| taps(&net, images));
}

#[test]
fn narrow_basic_resnets_agree_at_every_output_stride() {
    for stride in [8, 16, 32] {
        let case = format!("resnet18_os{stride}");
        assert_backbone("nets_resnet.safetensors", &case, BackboneKind::Resnet18, 8, stride, [65, 49]);
    }
}

#[test]
fn narrow_bottleneck_resnets_agree_at_every_output_stride() {
    for stride in [8, 16, 32] {
        let case = format!("resnet50_os{stride}");
        assert_backbone("nets_resnet.safetensors", &case, BackboneKind::Resnet50, 8, stride, [65, 49]);
    }
}

#[test]
fn narrow_mobilenets_agree_at_every_output_stride() {
    for stride in [8, 16, 32] {
        let case = format!("mobilenet_v2_os{stride}");
        assert_backbone("nets_resnet.safetensors", &case, BackboneKind::MobilenetV2, 16, stride, [65, 49]);
    }
}

#[test]
fn the_deeper_resnets_agree() {
    assert_backbone("nets_resnet.safetensors", "resnet34_os16", BackboneKind::Resnet34, 4, 16, [33, 47]);
    assert_backbone("nets_resnet.safetensors", "resnet101_os16", BackboneKind::Resnet101, 4, 16, [33, 47]);
}

#[test]
fn batch_statistics_agree_and_running_means_move_alike() {
    let golden = golden("nets_resnet.safetensors");
    let net = filled(init(BackboneKind::Resnet18, 8, 16));
    assert_case(&golden, "resnet18_train", [2, 3, 65, 49], |images| taps(&net, images));
    let weights = mentor_weights::named_weights(&net);
    for (path, name) in [
        ("ResNet.bn1.running_mean", "bn1.running_mean"),
        ("ResNet.layer4.1.Basic.bn2.running_mean", "layer4.1.bn2.running_mean"),
    ] {
        let expected = &golden[&format!("resnet18_train/{name}")].1;
        for (found, expected) in weights[path].1.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{name}: {found}, expected {expected}");
        }
    }
}

#[test]
fn resnet18_agrees_at_full_width() {
    assert_backbone("nets_full.safetensors", "resnet18", BackboneKind::Resnet18, 64, 32, [65, 49]);
}

#[test]
fn resnet101_agrees_at_full_width() {
    assert_backbone("nets_full.safetensors", "resnet101", BackboneKind::Resnet101, 64, 32, [33, 17]);
}

#[test]
fn mobilenet_v2_agrees_at_full_width() {
    assert_backbone("nets_full.safetensors", "mobilenet_v2", BackboneKind::MobilenetV2, 32, 32, [65, 49]);
}

/// The state dicts of `nets_names.txt`: net to tensor name to shape.
fn listed() -> BTreeMap<&'static str, BTreeMap<String, Vec<usize>>> {
    let mut nets = BTreeMap::new();
    let mut current = "";
    for line in include_str!("../../../tests/golden/nets_names.txt").lines() {
        if let Some(net) = line.strip_prefix("# ") {
            current = net;
            continue;
        }
        let (name, shape) = line.split_once(' ').unwrap_or((line, ""));
        let shape = shape.split(',').filter(|side| !side.is_empty()).map(|side| side.parse().unwrap()).collect();
        nets.entry(current).or_insert_with(BTreeMap::new).insert(name.to_owned(), shape);
    }
    nets
}

const PUBLISHED: [(&str, BackboneKind); 5] = [
    ("resnet18", BackboneKind::Resnet18),
    ("resnet34", BackboneKind::Resnet34),
    ("resnet50", BackboneKind::Resnet50),
    ("resnet101", BackboneKind::Resnet101),
    ("mobilenet_v2", BackboneKind::MobilenetV2),
];

#[test]
fn names_and_shapes_are_those_of_torchvision() {
    let listed = listed();
    for (name, kind) in PUBLISHED {
        let mut expected = listed[name].clone();
        // The classifier, with the convolution that feeds it alone, is no part of a backbone.
        expected.retain(|name, _| {
            !(name.ends_with("num_batches_tracked")
                || name.starts_with("fc.")
                || name.starts_with("classifier.")
                || name.starts_with("features.18."))
        });
        assert_eq!(pytorch_shapes(&init(kind, kind.published_width(), 32)), expected, "{name}");
    }
}

#[test]
fn parameters_and_multiply_adds_are_those_of_torchvision() {
    for line in include_str!("../../../tests/golden/nets_counts.txt").lines() {
        let [name, height, width, params, macs] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let Some((_, kind)) = PUBLISHED.iter().find(|(published, _)| *published == name) else { continue };
        let net = init(*kind, kind.published_width(), 32);
        assert_eq!(num_params(&net), params.parse::<u64>().unwrap(), "{name}");
        let size = [height.parse().unwrap(), width.parse().unwrap()];
        assert_eq!(net.macs(size), macs.parse::<u64>().unwrap(), "{name}");
    }
}

#[test]
fn channels_and_sizes_of_taps_are_as_told() {
    for kind in PUBLISHED.map(|(_, kind)| kind) {
        for output_stride in [8, 16, 32] {
            let spec = BackboneSpec { kind, width: 8, output_stride };
            let net = fill_weights(spec.init(&Fresh::on(&Device::flex())), |_, _| None);
            let mut sizes = BTreeMap::new();
            net.count(&mut mentor_nets::Cost::at([41, 70]), |tap, size| {
                sizes.insert(tap, size);
            });
            for (tap, features) in net.forward(Tensor::zeros([1, 3, 41, 70], &Device::flex())).iter() {
                let [_, channels, height, width] = features.dims();
                assert_eq!(spec.channels(tap), Some(channels), "{kind:?} {tap}");
                assert_eq!(net.channels(tap), Some(channels), "{kind:?} {tap}");
                assert_eq!(sizes[&tap], [height, width], "{kind:?} {tap}");
            }
        }
    }
}
