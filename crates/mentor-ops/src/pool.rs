//! Pooling.

use burn::tensor::Tensor;

/// The `[output, input]` matrix that averages bins along one axis: bin `i` covers
/// `floor(i * input / output)..ceil((i + 1) * input / output)`, as in `PyTorch`; bins may overlap.
fn bin_matrix(input: usize, output: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; input * output];
    for (bin, row) in matrix.chunks_mut(input).enumerate() {
        let (first, end) = (bin * input / output, ((bin + 1) * input).div_ceil(output));
        row[first..end].fill(1.0 / (end - first) as f32);
    }
    matrix
}

/// Average pooling to `size` (height, width), differentiable on every device.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, size[0], size[1]]`.
///
/// # Panics
/// If a side is zero.
#[must_use]
pub fn adaptive_avg_pool2d(x_nchw: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = x_nchw.dims();
    assert!(height * width * size[0] * size[1] > 0, "cannot pool {height}x{width} pixels to {size:?}");
    crate::resize::resampled(x_nchw, size, bin_matrix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values};
    use burn::tensor::module;

    #[test]
    fn bins_are_those_of_pytorch() {
        let x = Tensor::<4>::from_data([[[[1.0f32, 2.0, 3.0, 4.0, 5.0]]]], &burn::tensor::Device::flex());
        // Five pixels in three bins: 0..2, 1..4, 3..5.
        assert_close(&values(adaptive_avg_pool2d(x, [1, 3])), &[1.5, 3.0, 4.5], 1e-6, "bins");
    }

    #[test]
    fn output_and_gradient_are_as_burns() {
        for size in [[1, 1], [2, 3], [6, 6], [9, 11]] {
            let x = noise([2, 3, 7, 9], "x").require_grad();
            let results = |y: Tensor<4>| {
                let grads = (y.clone() * noise(y.dims(), "grad")).sum().backward();
                [values(y), values(x.grad(&grads).unwrap())]
            };
            let ours = results(adaptive_avg_pool2d(x.clone(), size));
            let burns = results(module::adaptive_avg_pool2d(x.clone(), size));
            assert_close(&ours[0], &burns[0], 1e-5, "output");
            assert_close(&ours[1], &burns[1], 1e-5, "gradient");
        }
    }
}
