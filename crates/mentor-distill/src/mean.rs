//! The mean over what counts.

use burn::tensor::Tensor;
use mentor_ops::sum_all;

/// Weights that sum to less than this count as none.
const NOTHING: f64 = 1e-12;

/// The mean of `values` by `weights`: `sum(w * x) / sum(w)`, and zero where nothing counts.
///
/// # Shapes
/// Both of one shape, any; the result has one element.
///
/// # Units and ranges
/// Weights are not negative; 0 and 1 make a mask.
///
/// # Reduction
/// Over every entry, the batch included. With all weights zero the result is a finite zero that
/// still hangs on the graph of `values`, with a zero gradient.
///
/// # Gradient
/// Reaches `values` only.
///
/// # Panics
/// If the shapes differ.
#[must_use]
pub fn weighted_mean<const D: usize>(values: Tensor<D>, weights: Tensor<D>) -> Tensor<1> {
    assert_eq!(values.dims(), weights.dims(), "values and their weights differ in shape");
    let weights = weights.inner();
    let total = sum_all(weights.clone()).clamp_min(NOTHING);
    sum_all(values * weights) / total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    fn values() -> Tensor<2> {
        Tensor::<2>::from_data([[1.0f32, 2.0], [3.0, 100.0]], &Device::flex().autodiff()).require_grad()
    }

    #[test]
    fn weights_decide_what_counts() {
        let weights = Tensor::from_data([[1.0f32, 1.0], [2.0, 0.0]], &Device::flex());
        assert_eq!(weighted_mean(values(), weights).into_scalar::<f32>(), 9.0 / 4.0);
    }

    #[test]
    fn nothing_that_counts_is_a_zero_with_a_gradient() {
        let values = values();
        let mean = weighted_mean(values.clone(), Tensor::zeros([2, 2], &Device::flex()));
        let gradient = values.grad(&mean.backward()).unwrap();
        assert_eq!(mean.into_scalar::<f32>(), 0.0);
        assert_eq!(gradient.into_data().try_into_vec_as::<f32>().unwrap(), [0.0; 4]);
    }
}
