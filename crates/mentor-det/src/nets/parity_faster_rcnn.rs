//! Faster R-CNN against torchvision, on golden files that `tests/golden/faster_rcnn.py` writes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::rule::{Golden, assert_case, filled, golden, tensor};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use mentor_nets::{
    BackboneKind, LoadOptions, Scope, export_safetensors, freeze_norms, load_weights, num_params, pytorch_shapes,
};
use mentor_ops::sum_all;
use mentor_types::{DetOutput, Found, Regions};
use mentor_weights::{is_buffer, named_weights, weights_fingerprint};

use super::{Anchors, DetNet, NetConfig, Points, TwoStageTable, TwoStages};
use crate::decode::{EvalConfig, detections};
use crate::proposals::{ProposalLimits, Proposals};

const SIZE: [usize; 2] = [67, 93];

/// Both cases of the golden file.
fn cases() -> [(&'static str, Points); 2] {
    [("corner", Points::Corner), ("middle", Points::Middle)]
}

fn narrow(points: Points) -> NetConfig {
    let table = TwoStageTable::new(BackboneKind::Resnet18);
    NetConfig::FasterRcnn(TwoStageTable {
        width: Some(4),
        head_channels: Some(16),
        region_width: Some(24),
        points,
        ..table
    })
}

fn by_rule(points: Points, device: &Device) -> TwoStages {
    let DetNet::FasterRcnn(mut net) = filled(narrow(points).build(3, device)) else { panic!("another head") };
    net.backbone.body = freeze_norms(net.backbone.body);
    net
}

fn read<const D: usize>(golden: &Golden, name: &str) -> Tensor<D> {
    let (shape, values) = golden[name].clone();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// The boxes of the golden file.
fn given(golden: &Golden, case: &str) -> Proposals {
    let edges_nr4 = read::<3>(golden, &format!("{case}/boxes"));
    let [n, r, _] = edges_nr4.dims();
    Proposals { real_nr: Tensor::ones([n, r], &edges_nr4.device()), edges_nr4 }
}

/// The pyramid, and what both stages say, by name.
fn maps(output: &DetOutput, regions: Regions) -> Vec<(String, Tensor<4>)> {
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
    maps.push(("class_logits".to_owned(), regions.class_logits.unsqueeze_dim(3)));
    maps.push(("deltas".to_owned(), regions.deltas));
    maps
}

#[test]
fn both_stages_of_a_narrow_net_agree_with_torchvision_at_an_odd_size() {
    let golden = golden("faster_rcnn.safetensors");
    for (case, points) in cases() {
        let net = by_rule(points, &Device::flex().autodiff());
        assert_case(&golden, case, [2, 3, SIZE[0], SIZE[1]], |images| {
            let output = net.dense(images);
            let regions = net.regions(&output, given(&golden, case));
            maps(&output, regions)
        });
    }
}

/// What the net says, with the numbers of the golden file: both sides start from the same.
fn of_golden(golden: &Golden, case: &str, points: Points) -> DetOutput {
    let net = by_rule(points, &Device::flex());
    let mut output = net.dense(tensor("input", [2, 3, SIZE[0], SIZE[1]], &Device::flex()));
    for level in &mut output.levels {
        let index = level.layout.stride.ilog2();
        for (key, part) in [("cls_logits", &mut level.class_logits), ("distances", &mut level.distances)] {
            *part = read::<4>(golden, &format!("{case}/{key}.p{index}")).reshape(part.dims());
        }
    }
    output
}

fn sorted(values: &[f32]) -> Vec<[f32; 4]> {
    let mut boxes: Vec<[f32; 4]> = values.as_chunks().0.to_vec();
    boxes.sort_by(|a, b| a.partial_cmp(b).unwrap());
    boxes
}

#[test]
fn what_is_proposed_is_what_torchvision_proposes() {
    let golden = golden("faster_rcnn.safetensors");
    for (case, points) in cases() {
        let output = of_golden(&golden, case, points);
        for (candidates, proposals) in [(1000, 1000), (60, 15)] {
            let found = Proposals::of(&output, &ProposalLimits { candidates, nms_iou: 0.7, proposals });
            for image in 0..2 {
                let values = |x: Tensor<2>| x.into_data().try_into_vec_as::<f32>().unwrap();
                let edges = values(found.edges_nr4.clone().narrow(0, image, 1).squeeze_dim(0));
                let real = values(found.real_nr.clone().narrow(0, image, 1));
                let kept: Vec<f32> = edges
                    .chunks(4)
                    .zip(&real)
                    .filter(|(_, is)| **is == 1.0)
                    .flat_map(|(edges, _)| edges.to_vec())
                    .collect();
                let (found, expected) =
                    (sorted(&kept), sorted(&golden[&format!("{case}/proposals.{proposals}.{image}")].1));
                assert_eq!(found.len(), expected.len(), "{case} {proposals} {image}");
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?} {expected:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_found_is_what_torchvision_finds() {
    let golden = golden("faster_rcnn.safetensors");
    let config = EvalConfig { score_threshold: 0.05, nms_iou: 0.5, detections: 12, ..EvalConfig::default() };
    for (case, points) in cases() {
        let mut output = of_golden(&golden, case, points);
        let Proposals { edges_nr4, real_nr } = given(&golden, case);
        output.regions = Some(Regions {
            class_logits: read::<4>(&golden, &format!("{case}/class_logits")).squeeze_dim(3),
            deltas: read(&golden, &format!("{case}/deltas")),
            edges_nr4,
            real_nr,
        });
        for (image, found) in detections(&output, &config).into_iter().enumerate() {
            let expected = |key| &golden[&format!("{case}/detections.{image}.{key}")].1;
            let (boxes, scores, classes) = (expected("boxes"), expected("scores"), expected("classes"));
            assert!(found.len() == scores.len() && found.len() > 3, "{case} {image}: {found:?}");
            for (at, score) in scores.iter().enumerate() {
                let is_same = |one: &&mentor_types::Detection| {
                    let near = one.edges.iter().zip(&boxes[4 * at..]).all(|(a, b)| (a - b).abs() < 1e-3);
                    near && (one.score - score).abs() < 1e-5 && f32::from(one.class) == classes[at]
                };
                assert_eq!(found.iter().filter(is_same).count(), 1, "{case} {image} {at}: {found:?}");
            }
        }
    }
}

#[test]
fn names_shapes_and_parameters_are_those_of_torchvision() {
    let text = include_str!("../../../../tests/golden/faster_rcnn_names.txt");
    let (count, lines) = text.split_once('\n').unwrap();
    let of_line = |line: &str| {
        let (name, shape) = line.split_once(' ').unwrap();
        (name.to_owned(), shape.split(',').map(|side| side.parse::<usize>().unwrap()).collect::<Vec<_>>())
    };
    let expected: BTreeMap<_, _> = lines.lines().map(of_line).collect();
    // Background is a class there.
    let net = NetConfig::FasterRcnn(TwoStageTable::new(BackboneKind::Resnet50)).build(90, &Device::flex());
    let mut shapes = pytorch_shapes(&net);
    shapes.retain(|name, _| !name.starts_with("backbone.body"));
    assert_eq!(shapes, expected);
    assert_eq!(num_params(&net), count.trim_start_matches("# ").parse::<u64>().unwrap());
    assert_eq!(net.classes(), 90);
}

#[test]
fn a_file_fills_a_net_by_name_and_other_classes_start_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let fresh = |classes, seed| narrow(Points::Corner).init(classes, seed, &Device::flex());
    export_safetensors(&fresh(5, 1), &path, &BTreeMap::new(), false).unwrap();
    let load = |classes, new_classes| {
        load_weights(fresh(classes, 2), &path, &LoadOptions { scope: Scope::Whole, new_classes })
    };
    let (net, report) = load(5, false).unwrap();
    assert!(report.missing.is_empty() && report.unused.is_empty());
    assert_eq!(weights_fingerprint(&net), weights_fingerprint(&fresh(5, 1)));
    assert!(load(3, false).is_err());
    let (net, report) = load(3, true).unwrap();
    assert_eq!((net.classes(), report.new_classes.len()), (3, 4));
}

#[test]
fn shapes_are_as_told_and_every_weight_gets_a_gradient() {
    let config = narrow(Points::Middle);
    let net = config.init(7, 1, &Device::flex().autodiff());
    assert_eq!((net.classes(), net.strides()), (7, vec![4, 8, 16, 32, 64]));
    let output = net.forward(tensor("input", [2, 3, 41, 70], &Device::flex()));
    let regions = output.regions.clone().unwrap();
    let [n, r, _] = regions.edges_nr4.dims();
    assert_eq!((n, regions.class_logits.dims(), regions.deltas.dims()), (2, [2, r, 8], [2, r, 7, 4]));
    assert!(r <= 1000 && !regions.edges_nr4.is_autodiff());
    let mut total = sum_all(regions.class_logits.clone() * regions.class_logits);
    total = total + sum_all(regions.deltas.clone() * regions.deltas);
    for (level, own) in output.levels.into_iter().zip(config.shared().levels) {
        assert_eq!(level.layout.size, [41, 70].map(|side: usize| side.div_ceil(own.stride())));
        assert_eq!(level.layout.anchors, config.anchors(*own));
        assert_eq!(level.class_logits.dims(), [2, 1, level.layout.places()]);
        total = total + sum_all(level.class_logits.clone() * level.class_logits) + sum_all(level.distances);
    }
    let gradients = GradientsParams::from_grads(total.backward(), &net);
    let trained = named_weights(&net).into_keys().filter(|name| !is_buffer(name)).count();
    assert_eq!(gradients.len(), trained);
    assert!(net.macs([97, 129]) > 0);
}

#[test]
fn a_table_reads_with_its_defaults_and_says_what_is_out_of_range() {
    let read = |text: &str| serde_json::from_str::<NetConfig>(text);
    let config = read(r#"{"faster_rcnn": {"backbone": "resnet18"}}"#).unwrap();
    assert_eq!(config, NetConfig::FasterRcnn(TwoStageTable::new(BackboneKind::Resnet18)));
    let NetConfig::FasterRcnn(table) = config.resolved() else { panic!("another head") };
    assert_eq!((table.width, table.head_channels, table.region_width), (Some(64), Some(256), Some(1024)));
    assert_eq!(table.anchors, Some(Anchors { side: 8.0, sizes: 1, ratios: vec![0.5, 1.0, 2.0] }));
    assert_eq!(read(&serde_json::to_string(&config.resolved()).unwrap()).unwrap(), config.resolved());
    assert!(read(r#"{"faster_rcnn": {"backbone": "resnet18", "head_convs": 4}}"#).is_err());
    let mut found = Found::new();
    config.resolved().check(&mut found);
    assert!(found.is_empty(), "{found:?}");
    let wrong = r#"{"faster_rcnn": {"backbone": "resnet18", "levels": ["p5", "p6", "p7"], "candidates": 0, "bins": 0,
        "proposals": 0, "proposal_nms_iou": 2, "anchors": {"side": -1}}}"#;
    read(wrong).unwrap().check(&mut found);
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.strip_prefix("faster_rcnn.").unwrap()).collect();
    assert_eq!(keys, ["p6_from", "candidates", "proposals", "bins", "proposal_nms_iou", "anchors.side"]);
}
