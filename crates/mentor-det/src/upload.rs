//! Host batches to device tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_nets::images::DeviceImages;
use mentor_types::{Batch, BoxKind, BoxLabels, Geometry, IGNORE, MAX_CLASSES, Pairs, Samples};

/// Tensors of boxes have room for at least so many in each image.
const FEWEST_BOXES: usize = 16;

/// A micro-batch on the device; see [`Batch`].
///
/// The loader's thread makes it, on a GPU on a stream of its own, so that bytes travel while the step before is computed.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    /// Images with labels.
    pub labelled: DetSamples,
    /// Views of images without, or with partial, labels.
    pub unlabelled: Option<DetPairs>,
}

impl DeviceBatch {
    /// Uploads a micro-batch to the plain device.
    #[must_use]
    pub fn upload(batch: Batch<BoxLabels>, device: &Device) -> Self {
        Self {
            labelled: DetSamples::upload(batch.labelled, device),
            unlabelled: batch.unlabelled.map(|pairs| DetPairs::upload(pairs, device)),
        }
    }
}

/// Labelled images on the device.
#[derive(Clone, Debug)]
pub struct DetSamples {
    /// The images.
    pub images: DeviceImages,
    /// Their boxes.
    pub targets: DetTargets,
}

impl DetSamples {
    fn upload(samples: Samples<BoxLabels>, device: &Device) -> Self {
        let targets = DetTargets::upload(&samples.targets, device);
        Self { images: DeviceImages::upload(samples.images, device), targets }
    }
}

/// Pairs of views on the device.
#[derive(Clone, Debug)]
pub struct DetPairs {
    /// Weak views.
    pub weak: DeviceImages,
    /// Strong views.
    pub strong: DeviceImages,
    /// What is known of them.
    pub labels: PairLabels,
}

impl DetPairs {
    /// Uploads pairs to the plain device.
    #[must_use]
    pub fn upload(pairs: Pairs<BoxLabels>, device: &Device) -> Self {
        Self {
            labels: PairLabels::upload(&pairs.link, &pairs.targets, &pairs.truth, device),
            weak: DeviceImages::upload(pairs.weak, device),
            strong: DeviceImages::upload(pairs.strong, device),
        }
    }
}

/// What is known of pairs of views: the geometry from strong to weak points, and the boxes of the weak views.
#[derive(Clone, Debug)]
pub struct PairLabels {
    /// `[n, 2]`: factors for x and y.
    pub scale_n2: Tensor<2>,
    /// `[n, 2]`: what is added to x and y, in pixels of the weak view.
    pub shift_n2: Tensor<2>,
    /// The labels of the weak views: all unknown for an unlabelled image.
    pub targets: DetTargets,
    /// Their truth where the data set has it: only ever compared with pseudo-labels.
    pub truth: DetTargets,
}

impl PairLabels {
    /// Uploads what is known of `n` pairs to the plain device.
    ///
    /// # Panics
    /// If there is no pair, or a geometry or the labels of one are missing.
    #[must_use]
    pub fn upload(link: &[Geometry], targets: &[BoxLabels], truth: &[BoxLabels], device: &Device) -> Self {
        assert_eq!([link.len(), truth.len()], [targets.len(); 2], "geometries, truths and labels of pairs");
        let of_axes = |part: fn(&Geometry) -> [f64; 2]| {
            let values: Vec<f32> = link.iter().flat_map(part).map(|value| value as f32).collect();
            Tensor::from_data(TensorData::new(values, [link.len(), 2]), device)
        };
        Self {
            scale_n2: of_axes(|geometry| geometry.scale),
            shift_n2: of_axes(|geometry| geometry.shift),
            targets: DetTargets::upload(targets, device),
            truth: DetTargets::upload(truth, device),
        }
    }
}

/// The boxes of `n` images, each with room for `m` of them: the smallest power of two, at least 16, that holds those of the
/// fullest image, so that a device sees few shapes. What is left of the room is neither an object nor ignored.
#[derive(Clone, Debug)]
pub struct DetTargets {
    /// `[n, m, 4]`: left, top, right, bottom in pixels.
    pub edges_nm4: Tensor<3>,
    /// `[n, m]`: the class, or [`IGNORE`].
    pub classes_nm: Tensor<2, Int>,
    /// `[n, m]`: 1 where the box holds one object that is to be found.
    pub objects_nm: Tensor<2>,
    /// `[n, m]`: 1 where nothing is to be learnt inside: crowds and difficult objects.
    pub ignored_nm: Tensor<2>,
    /// `[n, MAX_CLASSES]`: 1 where the class was looked for in the whole image.
    pub looked_for: Tensor<2>,
}

impl DetTargets {
    /// The boxes of some classes, `[n, MAX_CLASSES]` with 1 at each: nobody looked for the others.
    #[must_use]
    pub fn of_classes(self, kept: Tensor<2>) -> Self {
        // A box of any class is of none of them in particular, and says something of all that are kept.
        let any_nm = self.classes_nm.clone().equal_elem(i32::from(IGNORE));
        let own_nm =
            kept.clone().gather(1, self.classes_nm.clone().mask_fill(any_nm.clone(), 0)).mask_fill(any_nm, 1.0);
        Self {
            objects_nm: self.objects_nm * own_nm.clone(),
            ignored_nm: self.ignored_nm * own_nm,
            looked_for: self.looked_for * kept,
            ..self
        }
    }

    /// `[n, m, k]`: 1 at the class; nowhere for a box of no class.
    #[must_use]
    pub(crate) fn one_hot(&self, classes: usize) -> Tensor<3> {
        let [n, m] = self.classes_nm.dims();
        // The type of the labels is kept: two integer types cannot be compared.
        let options = (&self.classes_nm.device(), self.classes_nm.dtype());
        let all = Tensor::<1, Int>::arange(0..classes as i64, options).reshape([1, 1, -1]).expand([n, m, classes]);
        self.classes_nm.clone().unsqueeze_dim::<3>(2).expand([n, m, classes]).equal(all).float()
    }

    /// Uploads the boxes of images to the plain device.
    ///
    /// # Panics
    /// If there is no image.
    #[must_use]
    pub fn upload(labels: &[BoxLabels], device: &Device) -> Self {
        let n = labels.len();
        let fullest = labels.iter().map(|image| image.boxes.len()).max().expect("a batch holds an image");
        let m = fullest.max(FEWEST_BOXES).next_power_of_two();
        let mut edges = vec![0.0; n * m * 4];
        let mut classes = vec![0i32; n * m];
        let [mut objects, mut ignored] = [(); 2].map(|()| vec![0.0f32; n * m]);
        for (image, labels) in labels.iter().enumerate() {
            for (index, label) in labels.boxes.iter().enumerate() {
                let at = image * m + index;
                edges[4 * at..4 * at + 4].copy_from_slice(&label.edges);
                classes[at] = i32::from(label.class);
                let mask = if label.kind == BoxKind::Object { &mut objects } else { &mut ignored };
                mask[at] = 1.0;
            }
        }
        let looked_for = labels
            .iter()
            .flat_map(|labels| (0..MAX_CLASSES).map(|class| f32::from(u8::from(labels.is_known(class as u8)))));
        let mask = |values: Vec<f32>, width| Tensor::from_data(TensorData::new(values, [n, width]), device);
        Self {
            looked_for: mask(looked_for.collect(), MAX_CLASSES),
            objects_nm: mask(objects, m),
            ignored_nm: mask(ignored, m),
            classes_nm: Tensor::from_data(TensorData::new(classes, [n, m]), device),
            edges_nm4: Tensor::from_data(TensorData::new(edges, [n, m, 4]), device),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, values};

    fn images(boxes: usize) -> Vec<BoxLabels> {
        let one = ([1.0, 2.0, 3.0, 4.0], 2, BoxKind::Object);
        vec![labelled(&vec![one; boxes]), BoxLabels::unknown()]
    }

    #[test]
    fn boxes_have_the_room_of_a_power_of_two() {
        for (boxes, room) in [(0, 16), (16, 16), (17, 32), (33, 64)] {
            let targets = DetTargets::upload(&images(boxes), &Device::flex());
            assert_eq!(targets.edges_nm4.dims(), [2, room, 4]);
            assert_eq!(values(targets.objects_nm).iter().sum::<f32>(), boxes as f32);
        }
    }

    #[test]
    fn boxes_of_some_classes_leave_the_others_unknown() {
        let boxes =
            [([0.0; 4], 1, BoxKind::Object), ([1.0; 4], 2, BoxKind::Difficult), ([2.0; 4], IGNORE, BoxKind::Crowd)];
        let partly = BoxLabels { looked_for: Some(vec![0, 2]), ..labelled(&boxes) };
        let device = Device::flex();
        let kept = |classes: &[usize]| {
            let of: Vec<f32> = (0..MAX_CLASSES).map(|class| f32::from(u8::from(classes.contains(&class)))).collect();
            let targets = DetTargets::upload(std::slice::from_ref(&partly), &device);
            let left = targets.of_classes(Tensor::from_data(TensorData::new(of, [1, MAX_CLASSES]), &device));
            let row = |x: Tensor<2>| values(x)[..3].to_vec();
            (row(left.objects_nm), row(left.ignored_nm), row(left.looked_for))
        };
        assert_eq!(kept(&[0, 1]), (vec![1.0, 0.0, 0.0], vec![0.0, 0.0, 1.0], vec![1.0, 0.0, 0.0]));
        assert_eq!(kept(&[2]), (vec![0.0, 0.0, 0.0], vec![0.0, 1.0, 1.0], vec![0.0, 0.0, 1.0]));
    }

    #[test]
    fn kinds_and_classes_that_were_looked_for_become_masks() {
        let kinds = [BoxKind::Object, BoxKind::Difficult, BoxKind::Crowd];
        let classes = [1, 0, IGNORE];
        let boxes: Vec<_> = (0..3).map(|i| ([i as f32, 0.0, 9.0, 8.0], classes[i], kinds[i])).collect();
        let partly = BoxLabels { looked_for: Some(vec![0, 3]), ..labelled(&boxes) };
        let targets = DetTargets::upload(&[labelled(&[]), partly], &Device::flex());
        let row = |mask: Tensor<2>| values(mask.narrow(0, 1, 1).narrow(1, 0, 4));
        assert_eq!(row(targets.objects_nm), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(row(targets.ignored_nm), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(row(targets.looked_for.clone()), [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(values(targets.looked_for.narrow(0, 0, 1)), vec![1.0; MAX_CLASSES]);
        assert_eq!(row(targets.classes_nm.float()), [1.0, 0.0, 255.0, 0.0]);
        assert_eq!(values(targets.edges_nm4.narrow(0, 1, 1).narrow(1, 1, 1)), [1.0, 0.0, 9.0, 8.0]);
    }
}
