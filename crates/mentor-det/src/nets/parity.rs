//! Detectors against torchvision, on golden files that `tests/golden/fcos.py` writes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::rule::{assert_case, filled, golden, tensor};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use mentor_nets::{
    BackboneKind, BackboneSpec, BatchNormMode, Fresh, Frozen, Grouped, Level, LoadOptions, PyramidKind, Scope, Student,
    WeightsError, export_safetensors, freeze_norms, load_tensors, load_weights, num_params, pytorch_shapes,
};
use mentor_ops::sum_all;
use mentor_types::{DetOutput, Found, Group, Tap};
use mentor_weights::{NamedTensors, is_buffer, named_weights, weights_fingerprint};

use super::{DetNet, NetConfig, NetTable};

fn device() -> Device {
    Device::flex().autodiff()
}

/// A net of a few channels.
fn narrow(levels: &[Level]) -> NetConfig {
    let table = NetTable::new(BackboneKind::Resnet18);
    NetConfig::Fcos(NetTable { width: Some(4), head_convs: 1, levels: levels.to_vec(), ..table })
}

fn maps(output: &DetOutput) -> Vec<(String, Tensor<4>)> {
    let mut maps = Vec::new();
    for (tap, features) in output.taps.iter().filter(|(tap, _)| tap.name().starts_with('p')) {
        let stride = 1 << tap.name()[1..].parse::<usize>().unwrap();
        let level = output.levels.iter().find(|level| level.layout.stride == stride).unwrap().clone();
        let [height, width] = level.layout.size;
        let map = |rows: Tensor<3>| {
            let [n, channels, _] = rows.dims();
            rows.reshape([n, channels, height, width])
        };
        maps.push((tap.name().to_owned(), features.clone()));
        maps.push((format!("cls_logits.{tap}"), map(level.class_logits)));
        maps.push((format!("distances.{tap}"), map(level.distances)));
        maps.push((format!("centerness.{tap}"), map(level.centerness.unwrap())));
    }
    maps
}

#[test]
fn narrow_nets_agree_with_torchvision_at_an_odd_size() {
    let golden = golden("fcos.safetensors");
    let (fine, published) = (&Level::ALL[..4], &Level::ALL[1..]);
    for (name, backbone, width, levels, head_channels, head_convs) in [
        ("resnet18_p3_p7", BackboneKind::Resnet18, 8, published, None, 2),
        ("resnet18_p2_p5", BackboneKind::Resnet18, 4, fine, Some(24), 1),
        ("resnet50_p3_p7", BackboneKind::Resnet50, 4, published, None, 4),
    ] {
        let table = NetTable { width: Some(width), levels: levels.to_vec(), ..NetTable::new(backbone) };
        let config = NetConfig::Fcos(NetTable { head_channels, head_convs, ..table });
        let DetNet::Fcos(mut net) = filled(config.build(5, &device())) else { panic!("another head") };
        net.backbone.body = freeze_norms(net.backbone.body);
        let net = DetNet::Fcos(net);
        assert_case(&golden, name, [2, 3, 67, 93], |images| {
            let maps = maps(&net.forward(images));
            assert_eq!(maps.len(), 4 * levels.len());
            maps
        });
    }
}

#[test]
fn a_pyramid_that_is_gone_through_both_ways_agrees_with_its_formula() {
    let golden = golden("pafpn.safetensors");
    let table = NetTable { width: Some(4), head_convs: 1, ..NetTable::new(BackboneKind::Resnet18) };
    let config = NetConfig::Fcos(NetTable { pyramid: PyramidKind::Pafpn, ..table });
    let DetNet::Fcos(mut net) = filled(config.build(5, &device())) else { panic!("another head") };
    net.backbone.body = freeze_norms(net.backbone.body);
    let net = DetNet::Fcos(net);
    assert_case(&golden, "resnet18_p3_p7", [2, 3, 67, 93], |images| maps(&net.forward(images)));
}

#[test]
fn every_head_stands_on_both_kinds_of_pyramid_whose_weights_go_by_name() {
    let table = |pyramid| NetTable {
        width: Some(4),
        head_convs: 1,
        levels: Level::ALL[1..4].to_vec(),
        pyramid,
        ..NetTable::new(BackboneKind::Resnet18)
    };
    for head in [NetConfig::Fcos, NetConfig::Gfl, NetConfig::Retinanet] {
        let (config, plain) = (head(table(PyramidKind::Pafpn)), head(table(PyramidKind::Fpn)));
        let (net, other) = (config.init(3, 1, &device()), config.init(3, 2, &device()));
        let images = || Tensor::ones([1, 3, 64, 48], &Device::flex());
        let scores = |net: &DetNet| {
            let levels = net.forward(images()).levels;
            levels
                .into_iter()
                .flat_map(|level| level.class_logits.into_data().try_into_vec_as::<f32>().unwrap())
                .collect::<Vec<_>>()
        };
        assert_ne!(scores(&net), scores(&other), "{}", config.name());
        let options = LoadOptions { scope: Scope::Whole, new_classes: false };
        let tensors = || -> NamedTensors { named_weights(&net) };
        let (other, _) = load_tensors(other, tensors(), std::path::Path::new("net"), &options).unwrap();
        assert_eq!(scores(&net), scores(&other), "{}", config.name());
        assert!(pytorch_shapes(&net).contains_key("backbone.fpn.bottom_up.1.down.weight"));
        // 3x3 convolutions of 16 channels, two of them for each step, which end on maps of 4x3 and 2x2.
        let more = net.macs([64, 48]) - plain.build(3, &device()).macs([64, 48]);
        assert_eq!(more, 2 * 16 * 16 * 9 * (12 + 4), "{}", config.name());
    }
    let one = NetConfig::Fcos(NetTable { levels: vec![Level::P5, Level::P6], ..table(PyramidKind::Pafpn) });
    let mut found = Found::new();
    one.check(&mut found);
    assert!(found.iter().any(|(key, message)| key == "fcos.pyramid" && message.contains("no way up")), "{found:?}");
}

#[test]
fn names_shapes_parameters_and_multiply_adds_are_those_of_torchvision() {
    let (counts, lines) = include_str!("../../../../tests/golden/fcos_names.txt").split_once('\n').unwrap();
    let expected: BTreeMap<String, Vec<usize>> = lines
        .lines()
        .filter(|line| !line.contains("num_batches_tracked"))
        .map(|line| {
            let (name, shape) = line.split_once(' ').unwrap();
            (name.to_owned(), shape.split(',').map(|side| side.parse().unwrap()).collect())
        })
        .collect();
    let net = NetConfig::Fcos(NetTable::new(BackboneKind::Resnet50)).build(91, &device());
    assert_eq!(pytorch_shapes(&net), expected);
    let counts: Vec<u64> = counts.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    assert_eq!(num_params(&net), counts[2]);
    assert_eq!(net.macs([counts[0] as usize, counts[1] as usize]), counts[3]);
}

#[test]
fn shapes_channels_strides_and_classes_are_as_told_at_any_size() {
    for levels in [&Level::ALL[..], &Level::ALL[1..], &Level::ALL[..2], &Level::ALL[3..5]] {
        let config = narrow(levels);
        let net = config.init(7, 1, &device());
        assert_eq!(net.classes(), 7);
        assert_eq!(net.strides(), levels.iter().map(|level| level.stride()).collect::<Vec<_>>());
        for [height, width] in [[1, 1], [41, 70], [64, 32]] {
            let output = net.forward(Tensor::ones([2, 3, height, width], &Device::flex()));
            assert_eq!(output.image_size, [height, width]);
            assert_eq!(output.levels.len(), levels.len());
            for level in &output.levels {
                let size = [height, width].map(|side| side.div_ceil(level.layout.stride));
                assert_eq!((level.layout.size, level.layout.point), (size, 0.5));
                let places = level.layout.places();
                assert_eq!(level.class_logits.dims(), [2, 7, places]);
                assert_eq!(level.distances.dims(), [2, 4, places]);
                assert_eq!(level.centerness.as_ref().unwrap().dims(), [2, 1, places]);
            }
            for tap in Tap::ALL {
                let found = output.taps.get(tap).map(|features| features.dims()[1]);
                if tap != Tap::Logits {
                    assert_eq!(net.tap_channels(tap), found, "{config:?} {tap}");
                    assert_eq!(config.tap_channels(tap), found, "{config:?} {tap}");
                }
            }
            let towers = output.taps.iter().filter(|(tap, _)| *tap == Tap::RegTower);
            let sizes: Vec<_> = towers.map(|(_, features)| features.dims()[2]).collect();
            assert_eq!(sizes, output.levels.iter().map(|level| level.layout.size[0]).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_fresh_net_says_the_prior_everywhere_and_its_weights_are_a_function_of_the_seed() {
    let config = narrow(&Level::ALL);
    let hash = |seed| weights_fingerprint(&config.init(5, seed, &device()));
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
    let net = config.init(5, 1, &device());
    let weights = named_weights(&net);
    let prior = -(99.0f32).ln();
    assert!(weights["Fcos.head.classification_head.cls_logits.bias"].1.iter().all(|bias| (bias - prior).abs() < 1e-5));
    for (name, square) in [("cls_logits.weight", 1e-4), ("conv.0.Conv.weight", 1e-4)] {
        let values = &weights[&format!("Fcos.head.classification_head.{name}")].1;
        let found = values.iter().map(|value| f64::from(value * value)).sum::<f64>() / values.len() as f64;
        assert!((found / square - 1.0).abs() < 0.2, "{name}: mean square {found}");
    }
    let output = net.forward(tensor("input", [2, 3, 61, 77], &Device::flex()));
    for level in output.levels {
        let logits = level.class_logits.into_data().try_into_vec_as::<f32>().unwrap();
        assert!(logits.iter().all(|logit| (logit - prior).abs() < 0.5), "stride {}: {logits:?}", level.layout.stride);
    }
}

#[test]
fn every_weight_gets_a_gradient() {
    let net = narrow(&Level::ALL).init(3, 1, &device());
    let output = net.forward(tensor("input", [2, 3, 65, 81], &Device::flex()));
    let mut total = Tensor::<1>::zeros([1], &device());
    for level in output.levels {
        for map in [level.class_logits, level.distances, level.centerness.unwrap()] {
            total = total + sum_all(map.clone() * map);
        }
    }
    let gradients = GradientsParams::from_grads(total.backward(), &net);
    let trained = named_weights(&net).into_keys().filter(|name| !is_buffer(name)).count();
    assert_eq!(gradients.len(), trained);
}

#[test]
fn a_frozen_teacher_is_plain_and_untouched_and_frozen_norms_are_those_of_the_backbone() {
    let images = tensor("input", [1, 3, 33, 41], &Device::flex());
    let config = narrow(&Level::ALL[1..]);
    let net = config.init(5, 1, &device());
    let teacher = Frozen::of(&net);
    let before = weights_fingerprint(teacher.net());
    let _ = net.forward(images.clone());
    let output = teacher.net().forward(images.clone());
    assert!(!output.levels[0].class_logits.is_autodiff() && !output.taps.get(Tap::P3).unwrap().is_autodiff());
    assert_eq!(weights_fingerprint(teacher.net()), before);
    assert_ne!(weights_fingerprint(&net), before);

    let frozen = NetConfig::Fcos(NetTable { batch_norm: BatchNormMode::Frozen, ..config.table().unwrap().clone() });
    let net = frozen.init(5, 1, &device());
    let before = weights_fingerprint(&net);
    let output = net.forward(images);
    let total = sum_all(output.levels[0].class_logits.clone());
    let gradients = GradientsParams::from_grads(total.backward(), &net);
    assert_eq!(weights_fingerprint(&net), before);
    let DetNet::Fcos(net) = net else { panic!("another head") };
    let super::TowerLayer::Norm(norm) = &net.head.classification_head.conv[1] else { panic!("no norm") };
    assert!(gradients.get::<1>(norm.gamma.as_ref().unwrap().id).is_some());
}

#[test]
fn a_net_computes_in_the_type_of_the_images_and_speaks_in_f32() {
    let net = narrow(&Level::ALL[1..]).init(5, 1, &Device::flex());
    let images = tensor("input", [1, 3, 64, 64], &Device::flex());
    let (full, half) = (net.forward(images.clone()), net.forward(images.cast(DType::BF16)));
    assert_eq!(half.taps.get(Tap::ClsTower).unwrap().dtype(), DType::BF16);
    for (full, half) in full.levels.into_iter().zip(half.levels) {
        assert_eq!(half.distances.dtype(), DType::F32);
        assert_eq!(half.class_logits.dtype(), DType::F32);
        let worst = (full.class_logits - half.class_logits).abs().max().into_scalar::<f32>();
        assert!(worst > 0.0 && worst < 0.02, "{worst}");
    }
}

#[test]
fn the_backbone_alone_is_no_head() {
    let group = Student::<DetNet>::group;
    let head = |path: &str, rank| <DetNet as Grouped>::group(path, rank).is_head;
    assert_eq!(group("net.Fcos.backbone.body.ResNet.conv1.weight", 4), Group { is_head: false, decays: true });
    assert_eq!(group("net.Fcos.backbone.fpn.inner_blocks.0.conv_0.bias", 1), Group { is_head: true, decays: false });
    let net = narrow(&Level::ALL).build(5, &device());
    let heads = named_weights(&net).into_iter().filter(|(path, (shape, _))| head(path, shape.len())).count();
    // Four stages and two extra levels, then two towers of one convolution and their ends, all with biases; two norms.
    assert_eq!(heads, 2 * (4 + 4 + 2 + 2 + 3 + 2));
}

#[test]
fn a_backbone_from_a_file_starts_a_detector_and_a_detector_other_detectors() {
    let folder = std::env::temp_dir().join(format!("mentor-det-nets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (bare, whole) = (folder.join("resnet18.safetensors"), folder.join("fcos.safetensors"));
    let config = narrow(&Level::ALL[1..]);
    let fresh = |classes, seed| config.init(classes, seed, &device());
    let spec = BackboneSpec { kind: BackboneKind::Resnet18, width: 4, output_stride: 32 };
    let backbone = Fresh::seeded(&device(), 9, |fresh| spec.init(fresh));
    export_safetensors(&backbone, &bare, &BTreeMap::new(), false).unwrap();
    export_safetensors(&fresh(21, 1), &whole, &BTreeMap::new(), false).unwrap();
    let load =
        |net, path: &std::path::Path, scope, new_classes| load_weights(net, path, &LoadOptions { scope, new_classes });

    let start = load(fresh(5, 2), &bare, Scope::AtLeastBackbone, false).unwrap();
    assert_eq!(start.1.loaded, 100);
    assert!(start.1.unused.is_empty() && start.1.missing.len() == named_weights(&fresh(5, 2)).len() - 100);
    let DetNet::Fcos(net) = start.0 else { panic!("another head") };
    assert_eq!(weights_fingerprint(&net.backbone.body), weights_fingerprint(&backbone));
    assert!(matches!(load(fresh(5, 2), &bare, Scope::Whole, false), Err(WeightsError::Missing { .. })));

    let all = named_weights(&fresh(21, 2)).len();
    assert_eq!(load(fresh(21, 2), &whole, Scope::Whole, false).unwrap().1.loaded, all);
    assert!(matches!(load(fresh(5, 2), &whole, Scope::Whole, false), Err(WeightsError::Classes { .. })));
    let (net, report) = load(fresh(5, 2), &whole, Scope::Whole, true).unwrap();
    assert_eq!((report.loaded, report.new_classes.len()), (all - 2, 2));
    assert_eq!(net.classes(), 5);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_of_an_older_torchvision_fills_the_pyramid() {
    let config = narrow(&Level::ALL[1..]);
    let old: NamedTensors = named_weights(&config.init(5, 1, &device()))
        .into_iter()
        .map(|(path, tensor)| {
            let is_block = path.contains("inner_blocks") || path.contains("layer_blocks");
            (if is_block { path.replace(".conv_0", "") } else { path }, tensor)
        })
        .collect();
    let options = LoadOptions { scope: Scope::Whole, new_classes: false };
    let (net, report) = load_tensors(config.init(5, 2, &device()), old, "old".as_ref(), &options).unwrap();
    assert_eq!((report.missing.len(), report.unused.len()), (0, 0));
    assert_eq!(weights_fingerprint(&net), weights_fingerprint(&config.init(5, 1, &device())));
}

#[test]
fn a_table_reads_from_json_and_rejects_what_it_does_not_know() {
    let read = |text: &str| serde_json::from_str::<NetConfig>(text);
    let config = read(r#"{"fcos": {"backbone": "mobilenet_v2", "width": 16, "levels": ["p2", "p3"]}}"#).unwrap();
    let resolved = config.resolved();
    assert_eq!((resolved.table().unwrap().width, resolved.table().unwrap().head_channels), (Some(16), Some(128)));
    assert_eq!((resolved.table().unwrap().head_convs, resolved.table().unwrap().levels.len()), (4, 2));
    assert_eq!(read(&serde_json::to_string(&resolved).unwrap()).unwrap(), resolved);
    assert!(read(r#"{"fcos": {"backbone": "resnet18", "widht": 16}}"#).unwrap_err().to_string().contains("widht"));
    assert!(read(r#"{"fcos": {"backbone": "resnet18", "levels": ["c3"]}}"#).unwrap_err().to_string().contains("p2"));
    assert!(read(r#"{"focs": {"backbone": "resnet18"}}"#).unwrap_err().to_string().contains("fcos"));
}

#[test]
fn every_value_out_of_range_is_a_problem_of_its_own() {
    let mut found = Found::new();
    NetConfig::Fcos(NetTable {
        width: Some(0),
        levels: vec![Level::P3, Level::P5],
        head_channels: Some(0),
        head_convs: 0,
        new_classes: true,
        ..NetTable::new(BackboneKind::Resnet18)
    })
    .check(&mut found);
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    let expected = ["width", "levels", "head_channels", "head_convs", "new_classes"];
    assert_eq!(keys, expected.map(|key| format!("fcos.{key}")));
    found.clear();
    narrow(&Level::ALL).check(&mut found);
    assert!(found.is_empty());
}
