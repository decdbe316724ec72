//! Batch normalisation.

use burn::nn::BatchNorm;
use burn::tensor::Tensor;

/// Batch norm of `x_nchw` by the layer's own mode: batch statistics (and an update of the running
/// ones) while it trains on an autodiff device, running statistics otherwise.
///
/// # Shapes
/// `[n, c, h, w]` to the same.
#[must_use]
pub fn batch_norm(layer: &BatchNorm, x_nchw: Tensor<4>) -> Tensor<4> {
    layer.forward(x_nchw)
}

/// Batch norm, then an optional `residual` is added, then `ReLU`.
///
/// # Shapes
/// All `[n, c, h, w]`.
#[must_use]
pub fn batch_norm_relu(layer: &BatchNorm, x_nchw: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
    let normed = batch_norm(layer, x_nchw);
    burn::tensor::activation::relu(match residual {
        Some(residual) => normed + residual,
        None => normed,
    })
}
