//! Host batches to device tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_nets::images::DeviceImages;
use mentor_types::{Batch, LabelMask, Pairs, Samples};

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
    fn labels_keep_their_three_states() {
        let values = labels(vec![3, 254, 255], [1, 1, 3], &Device::flex()).into_data();
        assert_eq!(values.convert::<i64>().try_into_vec::<i64>().unwrap(), [3, 254, 255]);
    }
}
