//! Images on the device, as every net here takes them.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mentor_types::{Geometry, Images};

/// Mean of the three channels that images are normalised by, as torchvision's `ImageNet` weights expect.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the three channels.
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Images on the device as the bytes that they are on the host: a quarter of what they need once normalised.
#[derive(Clone, Debug)]
pub struct DeviceImages {
    /// `[n, height, width, 3]`, sRGB.
    bytes: Tensor<4, Int>,
}

impl DeviceImages {
    /// Uploads images to the plain device.
    ///
    /// # Panics
    /// If there are not `n * height * width * 3` bytes.
    #[must_use]
    pub fn upload(images: Images, device: &Device) -> Self {
        let shape = [images.n, images.height, images.width, 3];
        let bytes = TensorData::new(images.rgb, shape);
        // Shaders in WebGPU's language know no bytes.
        let holds_bytes = device.supports_dtype(DType::U8);
        Self {
            bytes: if holds_bytes {
                Tensor::from_data(bytes, (device, DType::U8))
            } else {
                Tensor::from_data(bytes, device)
            },
        }
    }

    /// `(byte / 255 - MEAN) / DEVIATION`, computed on the device.
    ///
    /// # Shapes
    /// Returns `[n, 3, height, width]`.
    #[must_use]
    pub fn normalised(&self) -> Tensor<4> {
        let device = self.bytes.device();
        let row = |values: [f32; 3]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), &device);
        let scaled = self.bytes.clone().permute([0, 3, 1, 2]).float().div_scalar(255.0);
        (scaled - row(MEAN)) / row(DEVIATION)
    }
}

/// Uploads images and normalises them, see [`DeviceImages`].
///
/// # Panics
/// As [`DeviceImages::upload`].
#[must_use]
pub fn normalised(images: Images, device: &Device) -> Tensor<4> {
    DeviceImages::upload(images, device).normalised()
}

/// Normalised images `[n, 3, h, w]` seen through a geometry, `size` = height and width: what lies outside of them has the mean
/// colour, 0. See [`Geometry::weighed`].
#[must_use]
pub fn resampled(images_nchw: Tensor<4>, geometry: Geometry, size: [usize; 2]) -> Tensor<4> {
    let [.., height, width] = images_nchw.dims();
    let device = images_nchw.device();
    // A matrix for each axis, from the pixels behind to those of the view.
    let matrix = |axis: usize, len: usize, limit: usize| {
        let mut values = vec![0.0; len * limit];
        for (row, of) in values.chunks_exact_mut(limit).zip(geometry.weighed(axis, len, limit)) {
            let of = of.iter().flat_map(|of| of.weights.iter().zip(of.start..));
            of.for_each(|(weight, pixel)| row[pixel] = *weight);
        }
        Tensor::<2>::from_data(TensorData::new(values, [len, limit]), &device).unsqueeze::<4>()
    };
    let rows = matrix(1, size[0], height).matmul(images_nchw);
    rows.matmul(matrix(0, size[1], width).transpose())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn images_are_enlarged_shrunk_and_padded_with_the_mean_colour() {
        let image = Tensor::<4>::from_data([[[[0.0f32, 4.0], [8.0, 12.0]]]], &Device::flex());
        let values =
            |geometry, size| resampled(image.clone(), geometry, size).into_data().try_into_vec_as::<f32>().unwrap();
        assert_eq!(values(Geometry::IDENTITY, [3, 3]), [0.0, 4.0, 0.0, 8.0, 12.0, 0.0, 0.0, 0.0, 0.0]);
        // Pixel centres at a quarter and three quarters; the outer ones see one pixel alone.
        let twice = values(Geometry::scaling(0.5), [4, 4]);
        assert_eq!(twice[..4], [0.0, 1.0, 3.0, 4.0]);
        assert_eq!([twice[4], twice[8], twice[12]], [2.0, 6.0, 8.0]);
        assert_eq!(values(Geometry::scaling(2.0), [1, 1]), [6.0]);
    }

    #[test]
    fn bytes_become_normalised_channels() {
        let batch = Images { n: 1, height: 1, width: 2, rgb: vec![0, 128, 255, 255, 0, 64] };
        let values = normalised(batch, &Device::flex()).into_data().try_into_vec_as::<f32>().unwrap();
        let expected: Vec<f32> = [(0, 0), (255, 0), (128, 1), (0, 1), (255, 2), (64, 2)]
            .into_iter()
            .map(|(byte, channel): (u8, usize)| (f32::from(byte) / 255.0 - MEAN[channel]) / DEVIATION[channel])
            .collect();
        for (found, expected) in values.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{values:?} instead of {expected:?}");
        }
    }
}
