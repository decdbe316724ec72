//! Means over regions of a map.

use burn::tensor::{Tensor, TensorData};

/// Means over `size` (rows, columns) regions that cover the map, in `PyTorch`'s meaning: region `i` of
/// `n` along an axis of `length` goes from `floor(i * length / n)` to `ceil((i + 1) * length / n)`.
/// Two matrix products, so that it has a gradient on every device.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, size[0], size[1]]`.
///
/// # Panics
/// If a side is zero.
pub(crate) fn adaptive_avg_pool2d(x_nchw: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [n, channels, height, width] = x_nchw.dims();
    let device = x_nchw.device();
    let matrix = |length: usize, regions: usize| {
        let data = TensorData::new(region_means(length, regions), [regions, length]);
        Tensor::<2>::from_data(data, &device).cast(x_nchw.dtype())
    };
    let (rows, columns) = (matrix(height, size[0]), matrix(width, size[1]));
    let narrow = x_nchw.reshape([n * channels * height, width]).matmul(columns.transpose());
    let narrow = narrow.reshape([n * channels, height, size[1]]);
    let rows = rows.unsqueeze::<3>().expand([n * channels, size[0], height]);
    rows.matmul(narrow).reshape([n, channels, size[0], size[1]])
}

/// The `[regions, length]` matrix of means.
fn region_means(length: usize, regions: usize) -> Vec<f32> {
    assert!(length > 0 && regions > 0, "cannot pool {length} pixels into {regions} regions");
    let mut matrix = vec![0.0; regions * length];
    for region in 0..regions {
        let (start, end) = (region * length / regions, ((region + 1) * length).div_ceil(regions));
        matrix[region * length + start..region * length + end].fill(1.0 / (end - start) as f32);
    }
    matrix
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn regions_overlap_where_they_do_not_divide_the_map() {
        assert_eq!(
            region_means(5, 2),
            [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]
        );
        assert_eq!(region_means(2, 3), [1.0, 0.0, 0.5, 0.5, 0.0, 1.0]);
    }

    #[test]
    fn means_are_those_of_the_regions() {
        let x = Tensor::<4>::from_data([[[[1.0f32, 2.0, 3.0], [5.0, 6.0, 7.0]]]], &Device::flex());
        let pooled = |size| adaptive_avg_pool2d(x.clone(), size).into_data().try_into_vec_as::<f32>().unwrap();
        assert_eq!(pooled([1, 1]), [4.0]);
        assert_eq!(pooled([1, 2]), [3.5, 4.5]);
    }
}
