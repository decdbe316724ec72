//! One factor per class, for the pixels of a loss.

use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_types::{Found, check_weight};

/// The key under which a term has them.
const KEY: &str = "class_weights";

/// Reports factors out of range.
pub(crate) fn check(weights: Option<&[f64]>, found: &mut Found) {
    let Some(weights) = weights else { return };
    for (class, weight) in weights.iter().enumerate() {
        check_weight(&format!("{KEY}[{class}]"), *weight, found);
    }
    if weights.iter().all(|weight| *weight == 0.0) {
        found.push((KEY.into(), "every class has weight 0: no pixel would count".into()));
    }
}

/// Reports another number of factors than of classes.
pub(crate) fn check_count(weights: Option<&[f64]>, classes: usize, found: &mut Found) {
    if let Some(weights) = weights.filter(|weights| weights.len() != classes) {
        let message = format!("{} weights for {classes} classes: give one per class", weights.len());
        found.push((KEY.into(), message));
    }
}

/// The factor of each pixel's class, `[n, h, w]`, of `classes` classes in all.
///
/// # Panics
/// If there are not as many factors as classes.
pub(crate) fn per_pixel(weights: &[f64], classes: usize, classes_nhw: &Tensor<3, Int>) -> Tensor<3> {
    let weights = on_device(weights, classes, &classes_nhw.device());
    weights.select(0, classes_nhw.clone().flatten::<1>(0, 2)).reshape(classes_nhw.dims())
}

/// The factor to be expected at each pixel, `[n, 1, h, w]`, given the probabilities of its classes, `[n, k, h, w]`.
///
/// # Panics
/// If there are not as many factors as classes.
pub(crate) fn expected(weights: &[f64], probabilities_nkhw: Tensor<4>) -> Tensor<4> {
    let classes = probabilities_nkhw.dims()[1];
    let weights = on_device(weights, classes, &probabilities_nkhw.device());
    (probabilities_nkhw * weights.reshape([1, classes, 1, 1])).sum_dim(1)
}

fn on_device(weights: &[f64], classes: usize, device: &Device) -> Tensor<1> {
    assert_eq!(weights.len(), classes, "{} class weights for {classes} classes", weights.len());
    let weights: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
    Tensor::from_data(TensorData::new(weights, [classes]), device)
}
