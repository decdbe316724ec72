//! What the tests of this crate share.

#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use mentor_types::Key;
use rand::RngExt;

/// Values in -1..1 by name, on the CPU with autodiff.
pub(crate) fn noise<const D: usize>(shape: [usize; D], name: &str) -> Tensor<D> {
    let mut rng = Key::new(3).at(name, 0).rng();
    let values = (0..shape.iter().product()).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
    Tensor::from_data(TensorData::new::<f32, _>(values, shape), &Device::flex().autodiff())
}

/// The values of a tensor.
pub(crate) fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec_as::<f32>().unwrap()
}

/// Panics if the values differ by more than `tolerance` of the largest expected one.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3, |largest: f32, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let distance = (found - expected).abs();
        assert!(distance <= tolerance * largest, "{what}: element {index} is {found}, expected {expected}");
    }
}
