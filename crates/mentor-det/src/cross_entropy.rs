//! Cross-entropy of one yes or no.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};

/// `-y log p - (1 - y) log (1 - p)` with `p = sigmoid(logits)`: in nats, finite for any finite logit.
///
/// # Shapes
/// Both of one shape, any; so is the result.
///
/// # Gradient
/// Reaches the logits: `p - y`.
#[must_use]
pub(crate) fn binary_cross_entropy<const D: usize>(logits: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    let no = y.clone().neg().add_scalar(1.0);
    (y * log_sigmoid(logits.clone()) + no * log_sigmoid(logits.neg())).neg()
}

/// The cross-entropy times `|p - y|^gamma`: less where the logits are right already.
///
/// # Shapes
/// Both of one shape, any; so is the result.
///
/// # Gradient
/// Reaches the logits, through the factor, too.
#[must_use]
pub(crate) fn quality_focal<const D: usize>(logits: Tensor<D>, y: Tensor<D>, gamma: f64) -> Tensor<D> {
    let value = binary_cross_entropy(logits.clone(), y.clone());
    if gamma == 0.0 {
        return value;
    }
    // At 0 a power below 1 has no slope, and one of 0 none that is a number.
    value * (sigmoid(logits) - y).abs().clamp_min(1e-12).powf_scalar(gamma)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{rows, values};

    #[test]
    fn values_and_gradients_by_hand_also_at_the_ends() {
        let logits = Tensor::from_inner(rows(&[[0.0, 0.0, 3f32.ln(), 500.0, -500.0]])).require_grad();
        let value = binary_cross_entropy(logits.clone(), rows(&[[1.0, 0.25, 0.0, 0.0, 1.0]]));
        let gradient = values(logits.grad(&value.clone().sum().backward()).unwrap());
        let expected = [2f32.ln(), 2f32.ln(), 4f32.ln(), 500.0, 500.0];
        for (found, expected) in values(value).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
        }
        for (found, expected) in gradient.iter().zip([-0.5, 0.25, 0.75, 1.0, -1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}
