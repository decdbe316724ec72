//! What the tests of losses share: golden tensors, and the rules that every loss keeps.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_types::{IGNORE, Key, UNKNOWN};
use mentor_weights::{NamedTensors, from_safetensors};
use rand::RngExt;

/// A loss over logits `[n, k, h, w]` and labels `[n, h, w]`.
pub(crate) type Loss<'a> = &'a dyn Fn(Tensor<4>, Tensor<3, Int>) -> Tensor<1>;

/// The tensors that `tests/golden/supervised.py` writes.
pub(crate) struct Golden(NamedTensors);

impl Golden {
    pub(crate) fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/supervised.safetensors");
        Self(from_safetensors(&std::fs::read(path).unwrap()).unwrap())
    }

    /// Logits of that name, with a gradient.
    pub(crate) fn tensor(&self, name: &str) -> Tensor<4> {
        let (shape, values) = &self.0[name];
        leaf(values, shape.as_slice().try_into().unwrap())
    }

    pub(crate) fn target(&self) -> Tensor<3, Int> {
        let (shape, values) = &self.0["target"];
        let values: Vec<u8> = values.iter().map(|value| *value as u8).collect();
        target(&values, shape.as_slice().try_into().unwrap())
    }

    /// Compares value and gradient of `loss` at the logits named `input` with what is stored for `case`.
    pub(crate) fn assert_case(&self, case: &str, input: &str, loss: impl Fn(Tensor<4>, Tensor<3, Int>) -> Tensor<1>) {
        let logits = self.tensor(input);
        let value = loss(logits.clone(), self.target());
        close(&values(&value), &self.0[&format!("{case}.value")].1, 1e-5);
        close(&values(&logits.grad(&value.backward()).unwrap()), &self.0[&format!("{case}.grad")].1, 1e-6);
    }
}

/// A tensor with a gradient.
pub(crate) fn leaf(values: &[f32], shape: [usize; 4]) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex().autodiff()).require_grad()
}

/// Labels.
pub(crate) fn target(values: &[u8], shape: [usize; 3]) -> Tensor<3, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// A map of one row, `[1, 1, w]`.
pub(crate) fn row(values: &[f32]) -> Tensor<3> {
    Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, values.len()]), &Device::flex())
}

/// The elements in row order.
pub(crate) fn values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().inner().into_data().try_into_vec_as::<f32>().unwrap()
}

/// Asserts that all elements agree to within `tolerance` (relative for elements above 1).
pub(crate) fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "element {i}: found {found}, expected {expected}");
    }
}

/// Seeded logits of five classes and labels of four of them, some ignored, some unknown.
fn batch() -> (Vec<f32>, Vec<u8>) {
    let mut rng = Key::new(5).at("batch", 0).rng();
    let logits = (0..2 * 5 * 4 * 3).map(|_| rng.random_range(-3.0..3.0)).collect();
    let labels = (0..2 * 4 * 3).map(|i| match i % 7 {
        3 => IGNORE,
        5 => UNKNOWN,
        _ => rng.random_range(0..4),
    });
    (logits, labels.collect())
}

fn value_and_gradient(loss: Loss, logits: &[f32], labels: &[u8]) -> (f32, Vec<f32>) {
    let n = labels.len() / 12;
    let logits = leaf(logits, [n, 5, 4, 3]);
    let value = loss(logits.clone(), target(labels, [n, 4, 3]));
    assert_eq!(value.dims(), [1]);
    (values(&value)[0], values(&logits.grad(&value.clone().backward()).unwrap()))
}

/// Pixels without a class change nothing and receive no gradient; a batch repeated twice has the
/// same value; no valid pixel gives a zero with a zero gradient.
pub(crate) fn keeps_the_rules(loss: Loss) {
    let (logits, labels) = batch();
    let (value, gradient) = value_and_gradient(loss, &logits, &labels);
    assert!(value.is_finite() && value > 0.0);

    let mut changed = logits.clone();
    for (pixel, _) in labels.iter().enumerate().filter(|(_, label)| **label >= UNKNOWN) {
        for class in 0..5 {
            let at = (pixel / 12 * 5 + class) * 12 + pixel % 12;
            assert_eq!(gradient[at], 0.0);
            changed[at] += if class == 2 { 9.0 } else { -1.0 };
        }
    }
    assert_ne!(changed, logits);
    assert_eq!(value_and_gradient(loss, &changed, &labels), (value, gradient.clone()));
    let swapped = |label: &u8| match *label {
        IGNORE => UNKNOWN,
        UNKNOWN => IGNORE,
        class => class,
    };
    let swapped: Vec<u8> = labels.iter().map(swapped).collect();
    assert_eq!(value_and_gradient(loss, &logits, &swapped), (value, gradient));

    let (twice, _) = value_and_gradient(loss, &logits.repeat(2), &labels.repeat(2));
    close(&[twice], &[value], 1e-5);

    for nothing in [IGNORE, UNKNOWN] {
        assert_eq!(value_and_gradient(loss, &logits, &[nothing; 24]), (0.0, vec![0.0; logits.len()]));
    }
}

const SMALL: [usize; 4] = [1, 3, 2, 3];

fn small() -> (Vec<f32>, Tensor<3, Int>) {
    let mut rng = Key::new(6).at("small", 0).rng();
    let logits = (0..18).map(|_| rng.random_range(-1.0..1.0)).collect();
    (logits, target(&[0, 1, IGNORE, 1, 2, 0], [1, 2, 3]))
}

/// Compares the gradient with central differences.
pub(crate) fn agrees_with_finite_differences(loss: Loss) {
    let (logits, labels) = small();
    let at = leaf(&logits, SMALL);
    let gradient = values(&at.grad(&loss(at.clone(), labels.clone()).backward()).unwrap());
    let step = 1e-2;
    let differences: Vec<f32> = (0..logits.len())
        .map(|i| {
            let [up, down] = [step, -step].map(|by| {
                let mut moved = logits.clone();
                moved[i] += by;
                values(&loss(leaf(&moved, SMALL), labels.clone()))[0]
            });
            (up - down) / (2.0 * step)
        })
        .collect();
    assert!(gradient.iter().any(|x| x.abs() > 0.01));
    close(&gradient, &differences, 1e-3);
}

/// Descends on the logits and asserts that the value at least halves within 100 steps.
pub(crate) fn falls_by_half(loss: Loss) {
    let (mut logits, labels) = small();
    let mut course = Vec::new();
    for _ in 0..=100 {
        let at = leaf(&logits, SMALL);
        let value = loss(at.clone(), labels.clone());
        let gradient = values(&at.grad(&value.clone().backward()).unwrap());
        course.push(values(&value)[0]);
        logits.iter_mut().zip(gradient).for_each(|(x, slope)| *x -= 2.0 * slope);
    }
    assert!(course[100] < course[0] / 2.0, "from {} to {}", course[0], course[100]);
}
