//! What tests share: outputs and labels by hand, golden tensors.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use mentor_types::{BoxCoding, BoxKind, BoxLabels, DetLevel, DetOutput, Edges, LabelBox, LevelLayout, Taps};
use mentor_weights::{NamedTensors, from_safetensors};

use crate::assign::{AssignConfig, FcosAssign};
use crate::context::Labelled;
use crate::upload::DetTargets;

/// The elements in row order.
pub(crate) fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec_as::<f32>().unwrap()
}

/// `[n, c, h, w]` with values by index.
pub(crate) fn map(dims: [usize; 4], value: impl Fn(usize) -> f32) -> Tensor<4> {
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

/// `[1, c, p]`.
pub(crate) fn rows<const P: usize>(rows: &[[f32; P]]) -> Tensor<3> {
    Tensor::from_data(TensorData::new(rows.concat(), [1, rows.len(), P]), &Device::flex())
}

/// An output of levels of these strides and sizes, every number by its index in its tensor; distances are made positive.
pub(crate) fn output(
    levels: &[(usize, [usize; 2])],
    n: usize,
    classes: usize,
    value: impl Fn(usize) -> f32,
) -> DetOutput {
    let part = |&(stride, [height, width]): &(usize, [usize; 2])| {
        let logits = map([n, classes, height, width], &value);
        let distances = map([n, 4, height, width], |i| value(i).abs() * stride as f32);
        level(stride, logits, distances, Some(map([n, 1, height, width], &value)))
    };
    let (stride, [height, width]) = levels[0];
    let image_size = [stride * height, stride * width];
    DetOutput { levels: levels.iter().map(part).collect(), regions: None, taps: Taps::default(), image_size }
}

/// A level of a net without anchors that says these maps.
pub(crate) fn level(
    stride: usize,
    class_logits: Tensor<4>,
    distances: Tensor<4>,
    centerness: Option<Tensor<4>>,
) -> DetLevel {
    let [.., height, width] = class_logits.dims();
    let anchors = vec![[8.0 * stride as f32; 2]];
    DetLevel {
        layout: LevelLayout { stride, size: [height, width], point: 0.5, anchors },
        class_logits: class_logits.flatten(2, 3),
        distances: distances.flatten(2, 3),
        coding: BoxCoding::Distances,
        centerness: centerness.map(|map| map.flatten(2, 3)),
    }
}

/// Labels of an image in which all classes were looked for.
pub(crate) fn labelled(boxes: &[(Edges, u8, BoxKind)]) -> BoxLabels {
    let label = |&(edges, class, kind): &(Edges, u8, BoxKind)| {
        let area = (edges[2] - edges[0]) * (edges[3] - edges[1]);
        LabelBox { edges, class, kind, area }
    };
    BoxLabels { boxes: boxes.iter().map(label).collect(), looked_for: None }
}

/// Labels as terms see them.
pub(crate) fn seen(output: &DetOutput, labels: &[BoxLabels]) -> Labelled {
    Labelled::of(&DetTargets::upload(labels, &Device::flex()), output, &AssignConfig::Fcos(FcosAssign::default()))
}

/// Asserts that all elements agree to within `tolerance` of the largest expected one.
pub(crate) fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * largest, "element {i}: found {found}, expected {expected}");
    }
}

/// The tensors that the script of this name in `tests/golden` writes.
pub(crate) fn golden(name: &str) -> NamedTensors {
    let path = format!("{}/../../tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    from_safetensors(&std::fs::read(path).unwrap()).unwrap()
}
