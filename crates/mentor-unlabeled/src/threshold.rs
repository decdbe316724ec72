//! Which pseudo-labels are sure enough.

use burn::tensor::Tensor;

/// 1 where `confidence` (a probability) is at least `threshold`, else 0; off the graph.
///
/// # Shapes
/// Any; the result has the same.
#[must_use]
pub fn confident<const D: usize>(confidence: Tensor<D>, threshold: f64) -> Tensor<D> {
    confidence.inner().greater_equal_elem(threshold).float()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_threshold_itself_is_confident() {
        let confidence = Tensor::<1>::from_data([0.94f32, 0.95, 0.96], &Device::flex());
        let mask = confident(confidence, 0.95f32.into()).into_data().try_into_vec_as::<f32>().unwrap();
        assert_eq!(mask, [0.0, 1.0, 1.0]);
    }
}
