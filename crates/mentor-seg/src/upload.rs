//! Host batches to device tensors.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mentor_types::{Images, Pairs, Samples};

/// Mean of the three channels that images are normalised by, as torchvision's `ImageNet` weights expect.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the three channels.
pub const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Uploads bytes and normalises them on the device: `(byte / 255 - MEAN) / DEVIATION`.
///
/// # Shapes
/// Returns `[n, 3, height, width]`, on the plain device.
///
/// # Panics
/// If there are not `n * height * width * 3` bytes.
#[must_use]
pub fn images(images: Images, device: &Device) -> Tensor<4> {
    let shape = [images.n, images.height, images.width, 3];
    let bytes = Tensor::<4, Int>::from_data(TensorData::new(images.rgb, shape), (device, DType::U8));
    let row = |values: [f32; 3]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), device);
    let scaled = bytes.permute([0, 3, 1, 2]).float().div_scalar(255.0);
    (scaled - row(MEAN)) / row(DEVIATION)
}

/// Uploads labels: `[n, height, width]`.
///
/// # Panics
/// If the labels do not fill the shape.
#[must_use]
pub fn labels(labels: Vec<u8>, shape: [usize; 3], device: &Device) -> Tensor<3, Int> {
    Tensor::from_data(TensorData::new(labels, shape), device)
}

/// Labelled images on the device.
#[derive(Clone, Debug)]
pub struct DeviceSamples {
    /// `[n, 3, h, w]`, normalised.
    pub images: Tensor<4>,
    /// `[n, h, w]`: class, unknown or ignored.
    pub targets: Tensor<3, Int>,
}

impl DeviceSamples {
    /// Uploads a batch.
    #[must_use]
    pub fn upload(samples: Samples, device: &Device) -> Self {
        let shape = [samples.images.n, samples.images.height, samples.images.width];
        Self { targets: labels(samples.targets, shape, device), images: images(samples.images, device) }
    }
}

/// Pairs of views on the device; see [`Pairs`].
#[derive(Clone, Debug)]
pub struct DevicePairs {
    /// Weak views, `[n, 3, h, w]`.
    pub weak: Tensor<4>,
    /// Strong views, `[n, 3, h, w]`.
    pub strong: Tensor<4>,
    /// `[n, h, w]`.
    pub origin: Tensor<3, Int>,
    /// Labels of the weak views, `[n, h, w]`.
    pub targets: Tensor<3, Int>,
    /// Truth of the weak views, for statistics only, `[n, h, w]`.
    pub truth: Tensor<3, Int>,
}

impl DevicePairs {
    /// Uploads a batch.
    #[must_use]
    pub fn upload(pairs: Pairs, device: &Device) -> Self {
        let shape = [pairs.weak.n, pairs.weak.height, pairs.weak.width];
        Self {
            weak: images(pairs.weak, device),
            strong: images(pairs.strong, device),
            origin: Tensor::from_data(TensorData::new(pairs.origin, shape), device),
            targets: labels(pairs.targets, shape, device),
            truth: labels(pairs.truth, shape, device),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_become_normalised_channels() {
        let batch = Images { n: 1, height: 1, width: 2, rgb: vec![0, 128, 255, 255, 0, 64] };
        let values = images(batch, &Device::flex()).into_data().try_into_vec_as::<f32>().unwrap();
        let expected: Vec<f32> = [(0, 0), (255, 0), (128, 1), (0, 1), (255, 2), (64, 2)]
            .into_iter()
            .map(|(byte, channel): (u8, usize)| (f32::from(byte) / 255.0 - MEAN[channel]) / DEVIATION[channel])
            .collect();
        for (found, expected) in values.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{values:?} instead of {expected:?}");
        }
    }

    #[test]
    fn labels_keep_their_three_states() {
        let values = labels(vec![3, 254, 255], [1, 1, 3], &Device::flex()).into_data();
        assert_eq!(values.convert::<i64>().try_into_vec::<i64>().unwrap(), [3, 254, 255]);
    }
}
