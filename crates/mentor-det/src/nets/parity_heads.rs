//! `RetinaNet` against torchvision, and the head of generalised focal loss against its formulas, on golden files that
//! `tests/golden/retinanet.py` and `gfl.py` write.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::rule::{assert_case, filled, golden, tensor};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mentor_nets::{
    BackboneKind, Level, LoadOptions, P6From, Scope, freeze_norms, load_tensors, num_params, pytorch_shapes,
};
use mentor_ops::sum_all;
use mentor_types::{BoxCoding, DetOutput, Found};
use mentor_weights::{NamedTensors, is_buffer, named_weights, weights_fingerprint};

use super::{Anchors, DetNet, HeadNorm, NetConfig, NetTable, Points};
use crate::decode::{EvalConfig, detections};

fn device() -> Device {
    Device::flex().autodiff()
}

fn narrow() -> NetTable {
    let table = NetTable::new(BackboneKind::Resnet18);
    NetTable { width: Some(4), head_channels: Some(16), head_convs: 2, ..table }
}

/// Both heads, narrow.
fn heads() -> [NetConfig; 2] {
    let levels = vec![Level::P3, Level::P4, Level::P5];
    let table = || NetTable { levels: levels.clone(), head_convs: 1, ..narrow() };
    [NetConfig::Gfl(table()), NetConfig::Retinanet(table())]
}

/// A net by the rule, with frozen norms of the backbone.
fn by_rule(config: &NetConfig, classes: usize, device: &Device) -> DetNet {
    match filled(config.build(classes, device)) {
        DetNet::FasterRcnn(_) | DetNet::Fcos(_) => panic!("another head"),
        DetNet::Gfl(mut net) => {
            net.backbone.body = freeze_norms(net.backbone.body);
            DetNet::Gfl(net)
        }
        DetNet::Retinanet(mut net) => {
            net.backbone.body = freeze_norms(net.backbone.body);
            DetNet::Retinanet(net)
        }
    }
}

/// The pyramid, class scores and distances by name.
fn maps(output: &DetOutput) -> Vec<(String, Tensor<4>)> {
    let mut maps = Vec::new();
    for (tap, features) in output.taps.iter().filter(|(tap, _)| tap.name().starts_with('p')) {
        let stride = 1 << tap.name()[1..].parse::<usize>().unwrap();
        let level = output.levels.iter().find(|level| level.layout.stride == stride).unwrap().clone();
        let ([height, width], anchors) = (level.layout.size, level.layout.anchors.len());
        let map = |rows: Tensor<3>| {
            let [n, channels, _] = rows.dims();
            rows.reshape([n, channels, height, width * anchors])
        };
        maps.push((tap.name().to_owned(), features.clone()));
        maps.push((format!("cls_logits.{tap}"), map(level.class_logits)));
        maps.push((format!("distances.{tap}"), map(level.distances)));
    }
    maps
}

/// The narrow nets of `retinanet.py`, by case.
fn retinanets() -> [(&'static str, NetConfig); 2] {
    let plain = NetTable { head_norm: HeadNorm::None, points: Points::Corner, ..narrow() };
    let group = NetTable { p6_from: P6From::C5, head_convs: 4, ..narrow() };
    [("plain_corner_p5", NetConfig::Retinanet(plain)), ("group_middle_c5", NetConfig::Retinanet(group))]
}

#[test]
fn narrow_retinanets_agree_with_torchvision_at_an_odd_size() {
    let golden = golden("retinanet.safetensors");
    for (name, config) in retinanets() {
        let net = by_rule(&config, 3, &device());
        assert_case(&golden, name, [2, 3, 45, 61], |images| maps(&net.forward(images)));
    }
}

#[test]
fn a_narrow_net_of_distributions_agrees_with_its_formulas_at_an_odd_size() {
    let golden = golden("gfl.safetensors");
    let net = by_rule(&NetConfig::Gfl(NetTable { bins: Some(5), ..narrow() }), 5, &device());
    assert_case(&golden, "resnet18_p3_p7", [2, 3, 45, 61], |images| maps(&net.forward(images)));
}

#[test]
fn what_a_retinanet_finds_is_what_torchvision_finds() {
    let golden = golden("retinanet.safetensors");
    for (case, config) in retinanets() {
        let net = by_rule(&config, 3, &Device::flex());
        let mut output = net.forward(tensor("input", [2, 3, 45, 61], &Device::flex()));
        // Both sides start from the same numbers.
        for level in &mut output.levels {
            let index = level.layout.stride.ilog2();
            for (key, part) in [("cls_logits", &mut level.class_logits), ("distances", &mut level.distances)] {
                let values = golden[&format!("{case}/{key}.p{index}")].1.clone();
                *part = Tensor::<1>::from_data(&values[..], &Device::flex()).reshape(part.dims());
            }
        }
        for (score_threshold, candidates, limit) in [(0.3, 40, 1000), (0.05, 1000, 20)] {
            let config = EvalConfig {
                score_threshold,
                nms_iou: 0.5,
                soft_nms: None,
                candidates,
                detections: limit,
                ..EvalConfig::default()
            };
            let found = detections(&output, &config);
            assert_eq!(found.len(), 2);
            for (image, found) in found.iter().enumerate() {
                let expected = |key| &golden[&format!("{case}/detections_{limit}.{image}.{key}")].1;
                let (boxes, scores, classes) = (expected("boxes"), expected("scores"), expected("classes"));
                assert_eq!(found.len(), scores.len(), "{case} {image}");
                assert!(found.len() >= 20);
                for (at, one) in found.iter().enumerate() {
                    assert!((one.score - scores[at]).abs() < 1e-6, "{case} {image} {at}: {one:?}");
                    assert_eq!(one.class, classes[at] as u8, "{case} {image} {at}");
                    for (found, expected) in one.edges.iter().zip(&boxes[4 * at..]) {
                        assert!((found - expected).abs() < 1e-4, "{case} {image} {at}: {one:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn names_shapes_parameters_and_multiply_adds_are_those_of_torchvision() {
    let text = include_str!("../../../../tests/golden/retinanet_names.txt");
    let version_two = text.rfind('#').unwrap();
    let table = NetTable::new(BackboneKind::Resnet50);
    let plain = NetTable { head_norm: HeadNorm::None, ..table.clone() };
    let group = NetTable { p6_from: P6From::C5, ..table };
    for (text, table) in [(&text[..version_two], plain), (&text[version_two..], group)] {
        let (counts, lines) = text.split_once('\n').unwrap();
        let of_line = |line: &str| {
            let (name, shape) = line.split_once(' ').unwrap();
            (name.to_owned(), shape.split(',').map(|side| side.parse::<usize>().unwrap()).collect::<Vec<_>>())
        };
        let expected: BTreeMap<_, _> = lines.lines().map(of_line).collect();
        let net = NetConfig::Retinanet(table).build(91, &device());
        let mut shapes = pytorch_shapes(&net);
        shapes.retain(|name, _| !name.starts_with("backbone.body"));
        assert_eq!(shapes, expected);
        let counts: Vec<u64> = counts.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
        assert_eq!(num_params(&net), counts[2]);
        assert_eq!(net.macs([counts[0] as usize, counts[1] as usize]), counts[3]);
        assert_eq!(net.classes(), 91);
    }
}

#[test]
fn a_file_of_an_older_torchvision_fills_a_head_without_norms() {
    let (_, config) = &retinanets()[0];
    let old: NamedTensors = named_weights(&config.init(5, 1, &device()))
        .into_iter()
        .map(|(path, tensor)| {
            // The activations were counted, too: `conv.2.weight` of what is now `conv.1.0.weight`.
            let path = path.replace(".conv.0.0.Conv.", ".conv.0.").replace(".conv.1.0.Conv.", ".conv.2.");
            let is_block = path.contains("inner_blocks") || path.contains("layer_blocks");
            let path = if is_block { path.replace(".conv_0", "") } else { path };
            (path, tensor)
        })
        .collect();
    assert!(old.contains_key("Retinanet.head.regression_head.conv.2.bias"));
    let options = LoadOptions { scope: Scope::Whole, new_classes: false };
    let (net, report) = load_tensors(config.init(5, 2, &device()), old, "old".as_ref(), &options).unwrap();
    assert_eq!((report.missing.len(), report.unused.len()), (0, 0));
    assert_eq!(weights_fingerprint(&net), weights_fingerprint(&config.init(5, 1, &device())));
}

#[test]
fn another_number_of_classes_starts_the_scores_afresh() {
    for config in heads() {
        let weights = named_weights(&config.init(21, 1, &device()));
        let load = |new_classes| {
            let options = LoadOptions { scope: Scope::Whole, new_classes };
            load_tensors(config.init(5, 2, &device()), weights.clone(), "other".as_ref(), &options)
        };
        assert!(load(false).is_err());
        let (net, report) = load(true).unwrap();
        assert_eq!((net.classes(), report.new_classes.len()), (5, 2), "{}", config.name());
    }
}

#[test]
fn shapes_anchors_and_boxes_are_as_told_and_every_weight_gets_a_gradient() {
    for config in heads() {
        let net = config.init(7, 1, &device());
        assert_eq!(net.classes(), 7);
        let output = net.forward(tensor("input", [2, 3, 41, 70], &Device::flex()));
        let mut total = Tensor::<1>::zeros([1], &device());
        for (level, own) in output.levels.into_iter().zip(&config.table().unwrap().levels) {
            assert_eq!(level.layout.size, [41, 70].map(|side: usize| side.div_ceil(own.stride())));
            assert_eq!(level.layout.anchors, config.anchors(*own));
            let places = level.layout.places();
            assert_eq!(level.class_logits.dims(), [2, 7, places]);
            assert_eq!(level.distances.dims(), [2, 4, places]);
            match &level.coding {
                BoxCoding::Deltas(deltas) => assert_eq!(deltas.dims(), [2, 4, places]),
                BoxCoding::Distribution(logits) => assert_eq!(logits.dims(), [2, 4, 17, places]),
                BoxCoding::Distances => panic!("distances alone"),
            }
            assert!(level.centerness.is_none());
            // Left plus right and upper plus lower are never negative.
            let [low, high] = [0, 2].map(|edge| level.distances.clone().narrow(1, edge, 2));
            assert!((low + high).min().into_scalar::<f32>() >= 0.0);
            for map in [level.class_logits, level.distances] {
                total = total + sum_all(map.clone() * map);
            }
        }
        let gradients = GradientsParams::from_grads(total.backward(), &net);
        let trained = named_weights(&net).into_keys().filter(|name| !is_buffer(name)).count();
        assert_eq!(gradients.len(), trained, "{}", config.name());
    }
}

#[test]
fn fresh_nets_say_the_prior_everywhere_and_boxes_like_their_anchors() {
    let prior = -(99.0f32).ln();
    for config in heads() {
        let net = config.init(5, 1, &device());
        let output = net.forward(tensor("input", [1, 3, 61, 77], &Device::flex()));
        for level in output.levels {
            let logits = level.class_logits.into_data().try_into_vec_as::<f32>().unwrap();
            assert!(logits.iter().all(|logit| (logit - prior).abs() < 0.5), "{logits:?}");
            let ways =
                level.distances.div_scalar(level.layout.stride as f64).into_data().try_into_vec_as::<f32>().unwrap();
            // Half of an anchor, or the middle of 17 bins.
            let expected = if config.name() == "gfl" { 7.5..8.5 } else { 0.5..8.0 };
            assert!(ways.iter().all(|way| expected.contains(way)), "{} {ways:?}", config.name());
        }
    }
}

#[test]
fn tables_read_with_their_defaults_and_keys_of_other_heads_are_problems() {
    let read = |text: &str| serde_json::from_str::<NetConfig>(text);
    let config = read(r#"{"retinanet": {"backbone": "resnet18", "anchors": {"sizes": 1}, "p6_from": "c5"}}"#).unwrap();
    assert_eq!(config.table().unwrap().anchors, Some(Anchors { sizes: 1, ..Anchors::default() }));
    let [gfl, retinanet] = heads();
    assert_eq!(gfl.resolved().table().unwrap().bins, Some(17));
    assert_eq!(retinanet.resolved().table().unwrap().anchors, Some(Anchors::default()));
    for config in [config, gfl, retinanet] {
        let resolved = config.resolved();
        assert_eq!(read(&serde_json::to_string(&resolved).unwrap()).unwrap(), resolved);
        let mut found = Found::new();
        resolved.check(&mut found);
        assert!(found.is_empty(), "{found:?}");
    }
    let keys = |config: NetConfig| {
        let mut found = Found::new();
        config.check(&mut found);
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let table = || NetTable {
        anchors: Some(Anchors { side: -1.0, ..Anchors::default() }),
        bins: Some(1),
        head_norm: HeadNorm::None,
        p6_from: P6From::C5,
        levels: vec![Level::P3],
        ..narrow()
    };
    let all = |name: &str, keys: &[&str]| keys.iter().map(|key| format!("{name}.{key}")).collect::<Vec<_>>();
    assert_eq!(keys(NetConfig::Fcos(table())), all("fcos", &["p6_from", "anchors", "bins", "head_norm"]));
    assert_eq!(keys(NetConfig::Gfl(table())), all("gfl", &["p6_from", "anchors", "bins", "head_norm"]));
    assert_eq!(keys(NetConfig::Retinanet(table())), all("retinanet", &["p6_from", "anchors.side", "bins"]));
}
