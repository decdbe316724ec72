//! Sums whose bits do not depend on the number of threads.
//!
//! On burn's CPU backend `sum()` of four million elements and more adds in the order in which
//! threads finish. Reducing one dimension first gives the same bits on any number of threads.

use burn::tensor::Tensor;

/// The sum of all elements, deterministic on the CPU.
///
/// # Shapes
/// Any; the result has one element. An empty tensor sums to zero.
#[must_use]
pub fn sum_all<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let elements = x.shape().num_elements();
    if elements == 0 {
        return Tensor::zeros([1], &x.device());
    }
    // Rows of about the square root of the size, so that neither reduction is long.
    let last = x.dims()[D - 1];
    let rows = elements / last;
    x.reshape([rows, last]).sum_dim(1).reshape([rows]).sum()
}

/// The mean of all elements, deterministic on the CPU; zero for an empty tensor.
///
/// # Shapes
/// Any; the result has one element.
#[must_use]
pub fn mean_all<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let elements = x.shape().num_elements().max(1);
    sum_all(x).div_scalar(elements as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn sums_and_means_are_those_of_the_elements() {
        let x = Tensor::<3>::from_data([[[1.0f32, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 9.0]]], &Device::flex());
        assert_eq!(sum_all(x.clone()).into_scalar::<f32>(), 37.0);
        assert_eq!(mean_all(x).into_scalar::<f32>(), 37.0 / 8.0);
    }

    #[test]
    fn an_empty_tensor_sums_to_zero() {
        let x = Tensor::<2>::zeros([0, 3], &Device::flex());
        assert_eq!(sum_all(x).into_scalar::<f32>(), 0.0);
    }
}
