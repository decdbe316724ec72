//! Segmentation nets against torchvision, on golden files that `tests/golden/nets.py` writes.
#![allow(clippy::unwrap_used)]

#[path = "../../../../tests/golden/nets_rule.rs"]
mod rule;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mentor_nets::{
    BackboneKind, BatchNormMode, Frozen, LoadOptions, Scope, export_safetensors, freeze_norms, load_weights,
    num_params, pytorch_shapes,
};
use mentor_ops::{resize_bilinear, sum_all};
use mentor_types::{Key, Tap};
use mentor_weights::{named_weights, weights_fingerprint};
use rule::{assert_case, filled, golden, tensor};

use super::{NetConfig, NetTable, SegNet};

fn device() -> Device {
    Device::flex().autodiff()
}

fn table(backbone: BackboneKind, width: usize) -> NetTable {
    NetTable { width: Some(width), ..NetTable::new(backbone) }
}

/// The four nets over one table.
fn all(table: &NetTable) -> [NetConfig; 4] {
    [NetConfig::Fcn, NetConfig::Pspnet, NetConfig::Deeplabv3, NetConfig::Deeplabv3plus].map(|net| net(table.clone()))
}

#[test]
fn narrow_nets_agree_with_pytorch() {
    let golden = golden("nets_heads.safetensors");
    for (kind, name, stride) in [(BackboneKind::Resnet18, "resnet18", 16), (BackboneKind::Resnet50, "resnet50", 8)] {
        for config in all(&NetTable { output_stride: Some(stride), ..table(kind, 8) }) {
            let mut config = config;
            if matches!(config, NetConfig::Deeplabv3(_)) {
                // torchvision's head has this many, however narrow the backbone is.
                config.table_mut().head_channels = Some(256);
            }
            let net = freeze_norms(filled(config.build(5, &device())));
            assert_case(&golden, &format!("{}_{name}", config.name()), [1, 3, 65, 49], |images| {
                let output = net.forward(images, None);
                let head = output.taps.get(Tap::Head).unwrap().clone();
                vec![("logits".into(), output.logits), ("head".into(), head)]
            });
        }
    }
}

fn published(config: fn(NetTable) -> NetConfig) -> SegNet {
    let table = NetTable { auxiliary: true, ..NetTable::new(BackboneKind::Resnet50) };
    config(table).build(21, &device())
}

fn assert_published(name: &str, config: fn(NetTable) -> NetConfig) {
    let net = freeze_norms(filled(published(config)));
    assert_case(&golden("nets_full.safetensors"), name, [1, 3, 33, 47], |images| {
        let output = net.forward(images, None);
        let full = |scores| resize_bilinear(scores, [33, 47], false);
        vec![("out".into(), full(output.logits)), ("aux".into(), full(output.auxiliary.unwrap()))]
    });
}

#[test]
fn fcn_resnet50_agrees_with_torchvision_at_full_width() {
    assert_published("fcn_resnet50", NetConfig::Fcn);
}

#[test]
fn deeplabv3_resnet50_agrees_with_torchvision_at_full_width() {
    assert_published("deeplabv3_resnet50", NetConfig::Deeplabv3);
}

#[test]
fn names_and_shapes_are_those_of_torchvision() {
    let listing = include_str!("../../../../tests/golden/nets_names.txt");
    for (name, config) in [("fcn_resnet50", NetConfig::Fcn as fn(_) -> _), ("deeplabv3_resnet50", NetConfig::Deeplabv3)]
    {
        let (_, lines) = listing.split_once(&format!("# {name}\n")).unwrap();
        let lines = lines.lines().take_while(|line| !line.starts_with('#'));
        let expected: BTreeMap<String, Vec<usize>> = lines
            .filter(|line| !line.contains("num_batches_tracked"))
            .map(|line| {
                let (name, shape) = line.split_once(' ').unwrap();
                (name.to_owned(), shape.split(',').map(|side| side.parse().unwrap()).collect())
            })
            .collect();
        assert_eq!(pytorch_shapes(&published(config)), expected, "{name}");
    }
}

#[test]
fn parameters_and_multiply_adds_are_those_of_torchvision() {
    let counts = include_str!("../../../../tests/golden/nets_counts.txt");
    for (name, config) in [("fcn_resnet50", NetConfig::Fcn as fn(_) -> _), ("deeplabv3_resnet50", NetConfig::Deeplabv3)]
    {
        let line = counts.lines().find(|line| line.starts_with(name)).unwrap();
        let numbers: Vec<u64> = line.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
        let net = published(config);
        assert_eq!(num_params(&net), numbers[2], "{name}");
        // torchvision's count includes the auxiliary head: 3x3 over 1024 channels, then scores, at stride 8.
        let pixels = numbers[0].div_ceil(8) * numbers[1].div_ceil(8);
        let auxiliary = pixels * (1024 * 256 * 9 + 256 * 21);
        assert_eq!(net.macs([numbers[0] as usize, numbers[1] as usize]) + auxiliary, numbers[3], "{name}");
    }
}

#[test]
fn shapes_channels_and_classes_are_as_told_for_every_net() {
    for kind in [BackboneKind::Resnet18, BackboneKind::Resnet50, BackboneKind::MobilenetV2] {
        for stride in [8, 16, 32] {
            for config in all(&NetTable { output_stride: Some(stride), auxiliary: true, ..table(kind, 8) }) {
                let net = config.init(7, 1, &device());
                let output = net.forward(Tensor::ones([2, 3, 41, 70], &Device::flex()), None);
                assert_eq!(net.classes(), 7);
                assert_eq!(output.image_size, [41, 70]);
                assert_eq!(output.logits.dims()[1], 7);
                let deep = if matches!(net, SegNet::Deeplabv3plus(_)) { 4 } else { stride };
                assert_eq!(output.logits.dims()[2..], [41usize.div_ceil(deep), 70usize.div_ceil(deep)]);
                assert_eq!(output.auxiliary.unwrap().dims()[1], 7);
                for tap in [Tap::Stem, Tap::C2, Tap::C3, Tap::C4, Tap::C5, Tap::Head] {
                    let [_, channels, ..] = output.taps.get(tap).unwrap().dims();
                    assert_eq!(net.tap_channels(tap), Some(channels), "{config:?} {tap}");
                    assert_eq!(config.tap_channels(tap), Some(channels), "{config:?} {tap}");
                }
                assert_eq!(net.tap_channels(Tap::P2), None);
            }
        }
    }
}

#[test]
fn initial_weights_are_a_function_of_the_seed() {
    let config = NetConfig::Pspnet(table(BackboneKind::Resnet18, 4));
    let hash = |seed| weights_fingerprint(&config.init(5, seed, &device()));
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
    let plain = config.init(5, 1, &Device::flex());
    assert_eq!(weights_fingerprint(&plain), hash(1));
}

#[test]
fn every_weight_but_the_auxiliary_heads_gets_a_gradient_of_the_scores() {
    for config in all(&table(BackboneKind::Resnet18, 4)) {
        let net = config.init(5, 1, &device());
        let output = net.forward(tensor("input", [2, 3, 33, 41], &Device::flex()), None);
        let gradients = sum_all(output.logits.clone() * output.logits).backward();
        let gradients = GradientsParams::from_grads(gradients, &net);
        let trained = named_weights(&net).into_keys().filter(|name| !mentor_weights::is_buffer(name)).count();
        assert_eq!(gradients.len(), trained, "{}", config.name());
    }
}

#[test]
fn a_frozen_teacher_is_plain_untouched_and_has_no_auxiliary_scores() {
    let net = NetConfig::Fcn(NetTable { auxiliary: true, ..table(BackboneKind::Resnet18, 4) }).init(5, 1, &device());
    let teacher = Frozen::of(&net);
    let before = weights_fingerprint(teacher.net());
    let images = tensor("input", [2, 3, 33, 41], &Device::flex());
    assert!(net.forward(images.clone(), None).auxiliary.is_some());
    let output = teacher.net().forward(images, None);
    assert!(output.auxiliary.is_none() && !output.logits.is_autodiff());
    assert_eq!(weights_fingerprint(teacher.net()), before);
    assert_ne!(weights_fingerprint(&net), before);
}

#[test]
fn frozen_norms_stay_while_convolutions_train() {
    let config = NetTable { batch_norm: BatchNormMode::Frozen, ..table(BackboneKind::Resnet18, 4) };
    let net = NetConfig::Fcn(config).init(5, 1, &device());
    let before = weights_fingerprint(&net);
    let output = net.forward(tensor("input", [2, 3, 33, 41], &Device::flex()), None);
    let gradients = GradientsParams::from_grads(sum_all(output.logits.clone() * output.logits).backward(), &net);
    // Twenty convolutions of the backbone, two of the head with one bias.
    assert_eq!(gradients.len(), 20 + 3);
    assert_eq!(weights_fingerprint(&net), before);
}

#[test]
fn dropout_follows_its_key_and_leaves_the_tap_alone() {
    for config in all(&NetTable { dropout: 0.5, ..table(BackboneKind::Resnet18, 4) }) {
        let net = config.init(5, 1, &device()).valid();
        let images = tensor("input", [1, 3, 33, 41], &Device::flex());
        let run = |key: Option<Key>| net.forward(images.clone(), key).logits.into_data();
        assert_eq!(run(Some(Key::new(1))), run(Some(Key::new(1))));
        assert_ne!(run(Some(Key::new(1))), run(Some(Key::new(2))), "{}", config.name());
        assert_ne!(run(Some(Key::new(1))), run(None));
        if matches!(net, SegNet::Fcn(_) | SegNet::Pspnet(_)) {
            let head = |key| net.forward(images.clone(), key).taps.get(Tap::Head).unwrap().clone().into_data();
            assert_eq!(head(Some(Key::new(1))), head(None));
        }
    }
}

#[test]
fn a_net_of_torchvision_starts_students_with_other_heads_and_classes() {
    let folder = std::env::temp_dir().join(format!("mentor-nets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("fcn.safetensors");
    let fcn = |classes, seed| NetConfig::Fcn(table(BackboneKind::Resnet18, 4)).init(classes, seed, &device());
    export_safetensors(&fcn(21, 1), &path, &BTreeMap::new(), false).unwrap();
    let load = |net: SegNet, path: &Path, scope, new_classes| {
        load_weights(net, path, &LoadOptions { scope, new_classes }).map(|(net, report)| (net, report.loaded))
    };
    assert_eq!(load(fcn(21, 2), &path, Scope::Whole, false).unwrap().1, 107);
    assert!(load(fcn(5, 2), &path, Scope::Whole, false).is_err());
    assert_eq!(load(fcn(5, 2), &path, Scope::Whole, true).unwrap().1, 105);
    for config in all(&table(BackboneKind::Resnet18, 4)) {
        let net = config.init(5, 2, &device());
        let (loaded, count) = load(net, &path, Scope::BackboneOnly, false).unwrap();
        assert_eq!(count, 100, "{}", config.name());
        let output = loaded.forward(Tensor::ones([1, 3, 33, 41], &Device::flex()), None);
        assert!(output.logits.is_autodiff());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_table_reads_from_json_and_rejects_what_it_does_not_know() {
    let read = |text: &str| serde_json::from_str::<NetConfig>(text);
    let config = read(r#"{"deeplabv3plus": {"backbone": "mobilenet_v2", "width": 16}}"#).unwrap();
    let resolved = config.resolved();
    assert_eq!(
        (resolved.table().width, resolved.table().output_stride, resolved.table().head_channels),
        (Some(16), Some(16), Some(128))
    );
    assert_eq!(read(&serde_json::to_string(&resolved).unwrap()).unwrap(), resolved);
    assert!(read(r#"{"fcn": {"backbone": "resnet18", "widht": 16}}"#).unwrap_err().to_string().contains("widht"));
    assert!(read(r#"{"fcn": {"backbone": "resnet19"}}"#).unwrap_err().to_string().contains("resnet18"));
    assert!(read(r#"{"fcm": {"backbone": "resnet18"}}"#).unwrap_err().to_string().contains("pspnet"));
}

#[test]
fn every_value_out_of_range_is_a_problem_of_its_own() {
    let mut problems = Vec::new();
    let bad = NetTable {
        output_stride: Some(4),
        head_channels: Some(0),
        dropout: 1.0,
        new_classes: true,
        ..table(BackboneKind::Resnet18, 0)
    };
    NetConfig::Pspnet(bad).check(&mut problems);
    let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["width", "output_stride", "head_channels", "dropout", "new_classes"].map(|key| format!("pspnet.{key}"))
    );
    problems.clear();
    NetConfig::Fcn(table(BackboneKind::Resnet18, 16)).check(&mut problems);
    assert!(problems.is_empty());
}
