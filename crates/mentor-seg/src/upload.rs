//! Host batches to device tensors.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mentor_types::{Batch, Images, LabelMask, Pairs, Samples};

/// Mean of the three channels that images are normalised by, as torchvision's `ImageNet` weights expect.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
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
pub fn images(images: Images, device: &Device) -> Tensor<4> {
    DeviceImages::upload(images, device).normalised()
}

/// Uploads labels: `[n, height, width]`.
///
/// # Panics
/// If the labels do not fill the shape.
#[must_use]
pub fn labels(labels: Vec<u8>, shape: [usize; 3], device: &Device) -> Tensor<3, Int> {
    Tensor::from_data(TensorData::new(labels, shape), device)
}

/// A micro-batch on the device; see [`Batch`].
///
/// The loader's thread makes it, on a GPU on a stream of its own, so that bytes travel while the step before is computed.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    /// Images with labels.
    pub labelled: DeviceSamples,
    /// Views of images without, or with partial, labels.
    pub unlabelled: Option<DevicePairs>,
}

impl DeviceBatch {
    /// Uploads a micro-batch to the plain device.
    #[must_use]
    pub fn upload(batch: Batch<LabelMask>, device: &Device) -> Self {
        Self {
            labelled: DeviceSamples::upload(batch.labelled, device),
            unlabelled: batch.unlabelled.map(|pairs| DevicePairs::upload(pairs, device)),
        }
    }
}

/// Labelled images on the device.
#[derive(Clone, Debug)]
pub struct DeviceSamples {
    /// The images.
    pub images: DeviceImages,
    /// `[n, h, w]`: class, unknown or ignored.
    pub targets: Tensor<3, Int>,
}

impl DeviceSamples {
    fn upload(samples: Samples<LabelMask>, device: &Device) -> Self {
        let shape = [samples.images.n, samples.images.height, samples.images.width];
        let targets = labels(samples.targets, shape, device);
        Self { images: DeviceImages::upload(samples.images, device), targets }
    }
}

/// Pairs of views on the device; see [`Pairs`].
#[derive(Clone, Debug)]
pub struct DevicePairs {
    /// Weak views.
    pub weak: DeviceImages,
    /// Strong views.
    pub strong: DeviceImages,
    /// What is known of their pixels.
    pub pixels: PairPixels,
}

/// What is known of the pixels of pairs of views, each `[n, h, w]`.
#[derive(Clone, Debug)]
pub struct PairPixels {
    /// The weak pixel that a strong one shows, or -1.
    pub origin: Tensor<3, Int>,
    /// Labels of the weak views.
    pub targets: Tensor<3, Int>,
    /// Truth of the weak views, for statistics only.
    pub truth: Tensor<3, Int>,
}

impl DevicePairs {
    pub(crate) fn upload(pairs: Pairs<LabelMask>, device: &Device) -> Self {
        let shape = [pairs.weak.n, pairs.weak.height, pairs.weak.width];
        let pixels = PairPixels {
            origin: Tensor::from_data(TensorData::new(pairs.link, shape), device),
            targets: labels(pairs.targets, shape, device),
            truth: labels(pairs.truth, shape, device),
        };
        let [weak, strong] = [pairs.weak, pairs.strong].map(|images| DeviceImages::upload(images, device));
        Self { weak, strong, pixels }
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
