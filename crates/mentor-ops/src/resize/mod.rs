//! Resizing of feature maps and label maps.
//!
//! Bilinear resizing is a kernel of our own for f32 on the CPU, and two matrix products elsewhere, so that it has a
//! gradient on every device (burn's own has none on GPUs) and both meanings of the corners.

mod bilinear;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor, TensorData};

use crate::cpu::flex::is_ours;
use crate::resize::bilinear::{Bilinear, places};

/// The `[output, input]` matrix of linear interpolation along one axis, in `PyTorch`'s meaning
/// (no antialiasing).
///
/// # Panics
/// If either length is zero.
#[must_use]
pub fn bilinear_matrix(input: usize, output: usize, align_corners: bool) -> Vec<f32> {
    let mut matrix = vec![0.0; input * output];
    for (row, place) in places(input, output, align_corners).into_iter().enumerate() {
        matrix[row * input + place.low] += 1.0 - place.share;
        matrix[row * input + place.high] += place.share;
    }
    matrix
}

/// Bilinear resizing of `x_nchw` to `size` (height, width), differentiable on every device.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, size[0], size[1]]`.
///
/// # Panics
/// If a side is zero.
#[must_use]
pub fn resize_bilinear(x_nchw: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, height, width] = x_nchw.dims();
    if [height, width] == size {
        return x_nchw;
    }
    if is_ours(&x_nchw) {
        return Tensor::from_dispatch(Dispatch::mentor_bilinear(x_nchw.into_dispatch(), size, align_corners));
    }
    resampled(x_nchw, size, |input, output| bilinear_matrix(input, output, align_corners))
}

/// Applies the `[output, input]` matrices that `matrix(input, output)` makes to rows and columns.
pub(crate) fn resampled(
    x_nchw: Tensor<4>,
    [out_height, out_width]: [usize; 2],
    matrix: impl Fn(usize, usize) -> Vec<f32>,
) -> Tensor<4> {
    let [n, c, height, width] = x_nchw.dims();
    let (device, dtype) = (x_nchw.device(), x_nchw.dtype());
    let matrix = |input, output| {
        let data = TensorData::new(matrix(input, output), [output, input]);
        Tensor::<2>::from_data(data, &device).cast(dtype)
    };
    let rows = x_nchw.reshape([n * c * height, width]).matmul(matrix(width, out_width).transpose());
    let rows = rows.reshape([n * c, height, out_width]);
    let columns = matrix(height, out_height).unsqueeze::<3>().expand([n * c, out_height, height]);
    columns.matmul(rows).reshape([n, c, out_height, out_width])
}

/// For every output pixel along one axis the input pixel that nearest-neighbour resizing takes:
/// `floor(i * input / output)`, as `PyTorch`'s mode `nearest`.
#[must_use]
pub fn nearest_indices(input: usize, output: usize) -> Vec<i64> {
    (0..output).map(|i| ((i * input) / output) as i64).collect()
}

/// Nearest-neighbour resizing of a label map to `size` (height, width).
///
/// # Shapes
/// `[n, h, w]` to `[n, size[0], size[1]]`.
#[must_use]
pub fn resize_nearest_int(x_nhw: Tensor<3, Int>, size: [usize; 2]) -> Tensor<3, Int> {
    let [_, height, width] = x_nhw.dims();
    if [height, width] == size {
        return x_nhw;
    }
    let device = x_nhw.device();
    let indices =
        |input, output| Tensor::<1, Int>::from_data(TensorData::new(nearest_indices(input, output), [output]), &device);
    x_nhw.select(1, indices(height, size[0])).select(2, indices(width, size[1]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn rows_of_the_matrix_sum_to_one() {
        for (input, output) in [(1, 5), (4, 7), (7, 4), (3, 3), (5, 1)] {
            for align in [false, true] {
                let matrix = bilinear_matrix(input, output, align);
                for row in matrix.chunks(input) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_ramp_stays_a_ramp() {
        let x = Tensor::<4>::from_data([[[[0.0f32, 1.0], [2.0, 3.0]]]], &Device::flex());
        let y = resize_bilinear(x, [3, 3], true).into_data().try_into_vec_as::<f32>().unwrap();
        assert_eq!(y, [0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn nearest_takes_the_floor() {
        assert_eq!(nearest_indices(5, 3), [0, 1, 3]);
        assert_eq!(nearest_indices(2, 4), [0, 0, 1, 1]);
    }
}
