//! Counting label maps on the device.

use burn::tensor::ops::PadMode;
use burn::tensor::{DType, Device, FloatDType, Int, IntDType, Tensor, TensorData};
use mentor_types::{IGNORE, UNKNOWN};

use super::{ConfusionMatrix, SegMetrics, boundary_reach, labelled_table};

/// Pixels counted by one matrix product: few enough that 32-bit floats count exactly (below 2^24)
/// and that the indicator matrices stay small.
pub(super) const PIXELS_AT_ONCE: usize = 1 << 17;

/// A label that no map has, for what lies outside the image.
const OUTSIDE: f32 = 1000.0;

/// Counts over label maps on the device, read once at the end.
#[derive(Clone, Debug)]
pub struct Confusion {
    classes: usize,
    device: Device,
    // `[k + 1, k + 3]` of 64 bits. Above: for each class of the truth its predictions, then "both
    // boundaries" and "boundary of the truth". Last row: for each prediction its boundary.
    counts: Tensor<2, Int>,
}

impl Confusion {
    /// No pixel counted yet.
    #[must_use]
    pub fn new(classes: usize, device: &Device) -> Self {
        let counts = Tensor::zeros([classes + 1, classes + 3], (device, DType::I64));
        Self { classes, device: device.clone(), counts }
    }

    /// Counts images in which `labelled_classes` were labelled (all classes where `None`).
    ///
    /// A pixel counts where the truth is a class that was labelled. A prediction of a class that was
    /// not labelled counts as "another class". The boundary of a map are its pixels with another
    /// label, or the end of the image, within `max(1, round(0.02 * diagonal))` pixels in either
    /// direction; where the truth is ignored or unknown the prediction is made so too before boundaries
    /// are taken, so that the edge of such a region is the same in both maps.
    ///
    /// # Shapes
    /// Both `[n, h, w]`. Predictions are classes; the truth is a class, unknown or ignored.
    ///
    /// # Panics
    /// If the shapes differ.
    ///
    /// # Source
    /// Boundary IoU: Cheng et al., *Boundary IoU: Improving Object-Centric Image Segmentation
    /// Evaluation* (arXiv 2103.16562), section 4 and the 0.02 of its official code (`unchecked`).
    ///
    /// # Differs
    /// The paper judges binary masks of objects; here each class of a map is one mask, and pixels
    /// without a truth count nowhere.
    pub fn update(
        &mut self,
        prediction_nhw: Tensor<3, Int>,
        target_nhw: Tensor<3, Int>,
        labelled_classes: Option<&[u8]>,
    ) {
        let size = target_nhw.dims();
        assert_eq!(prediction_nhw.dims(), size, "a prediction {:?} for a truth {size:?}", prediction_nhw.dims());
        let pixels = size.iter().product();
        if pixels == 0 {
            return;
        }
        let unlabelled = target_nhw.clone().greater_equal_elem(i64::from(UNKNOWN));
        let target_map = target_nhw.clone().cast(FloatDType::F32);
        let prediction_map = prediction_nhw.clone().cast(FloatDType::F32);
        let stamped = prediction_map.mask_where(unlabelled, target_map.clone());
        let reach = boundary_reach(size[1], size[2]);
        let in_target = boundary_on_device(target_map, reach).reshape([pixels]);
        let in_prediction = boundary_on_device(stamped, reach).reshape([pixels]);

        let (rows, columns) = self.tables(labelled_classes);
        let row = rows.select(0, table_index(target_nhw));
        let column = columns.select(0, table_index(prediction_nhw));
        let in_prediction = in_prediction * row.clone().greater_equal_elem(0.0).float();
        let both = in_target.clone() * in_prediction.clone() * row.clone().equal(column.clone()).float();
        for start in (0..pixels).step_by(PIXELS_AT_ONCE) {
            let end = (start + PIXELS_AT_ONCE).min(pixels);
            let part = |values: &Tensor<1>| values.clone().narrow(0, start, end - start);
            let left = [self.indicator(part(&row), self.classes), part(&in_prediction).unsqueeze_dim(0)];
            let right = [
                self.indicator(part(&column), self.classes + 1),
                part(&both).unsqueeze_dim(0),
                part(&in_target).unsqueeze_dim(0),
            ];
            let counted = Tensor::cat(left.into(), 0).matmul(Tensor::cat(right.into(), 0).transpose());
            self.counts = self.counts.clone() + counted.cast(IntDType::I64);
        }
    }

    /// For each of the 256 labels its row (-1 where it does not count) and its column.
    fn tables(&self, labelled_classes: Option<&[u8]>) -> (Tensor<1>, Tensor<1>) {
        let labelled = labelled_table(self.classes, labelled_classes);
        let table = |without: f32| {
            let of = |class| if labelled.get(class) == Some(&true) { class as f32 } else { without };
            Tensor::from_data(TensorData::new((0..256).map(of).collect::<Vec<f32>>(), [256]), &self.device)
        };
        (table(-1.0), table(self.classes as f32))
    }

    /// 1 where a pixel has the index of the row: `[pixels]` to `[indices, pixels]`.
    fn indicator(&self, index: Tensor<1>, indices: usize) -> Tensor<2> {
        let pixels = index.dims()[0];
        let all = Tensor::<1, Int>::arange(0..indices as i64, &self.device).cast(FloatDType::F32);
        let index = index.unsqueeze_dim::<2>(0).expand([indices, pixels]);
        index.equal(all.unsqueeze_dim::<2>(1).expand([indices, pixels])).float()
    }

    /// What was counted so far, on the host; waits for the device.
    ///
    /// # Panics
    /// If the device cannot be read.
    #[must_use]
    pub fn read(&self) -> ConfusionMatrix {
        let counts = self.counts.clone().into_data().convert::<i64>();
        let counts: Vec<i64> = counts.try_into_vec().expect("converted to i64 above");
        let at = |row: usize, column: usize| counts[row * (self.classes + 3) + column].unsigned_abs();
        let k = self.classes;
        let boundary = |row: usize| (0..k).map(move |c| if row == 2 { (k, c) } else { (c, k + 1 + row) });
        ConfusionMatrix {
            classes: k,
            counts: (0..k).flat_map(|t| (0..=k).map(move |p| (t, p))).map(|(t, p)| at(t, p)).collect(),
            boundary: (0..3).flat_map(boundary).map(|(row, column)| at(row, column)).collect(),
        }
    }

    /// The metrics, or `None` where no pixel counted; see [`Confusion::read`].
    #[must_use]
    pub fn metrics(&self) -> Option<SegMetrics> {
        self.read().metrics()
    }
}

/// Labels as indices that no table of 256 entries refuses.
fn table_index(labels_nhw: Tensor<3, Int>) -> Tensor<1, Int> {
    labels_nhw.clamp(0, i64::from(IGNORE)).reshape([-1])
}

/// 1 where another label, or the end of the image, lies within `reach` of a pixel; `[n, h, w]`.
pub(super) fn boundary_on_device(labels_nhw: Tensor<3>, reach: usize) -> Tensor<3> {
    let [n, height, width] = labels_nhw.dims();
    let map = labels_nhw.pad([(reach, reach), (reach, reach)], PadMode::Constant(OUTSIDE));
    let side = 2 * reach + 1;
    let largest = |x| largest_along(1, side, largest_along(2, side, x));
    // A window of one label has one value; one that leaves the image has the value from outside too.
    let differs = largest(map.clone()).not_equal(largest(map.neg()).neg());
    differs.float().reshape([n, height, width])
}

/// The largest value of every window of `side` pixels along an axis; windows of two pixels, then four,
/// then eight, so that a long one takes few passes.
fn largest_along(axis: usize, side: usize, mut map: Tensor<3>) -> Tensor<3> {
    let mut covered = 1;
    while covered < side {
        let further = covered.min(side - covered);
        let left = map.dims()[axis] - further;
        map = map.clone().narrow(axis, 0, left).max_pair(map.narrow(axis, further, left));
        covered += further;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_stay_exact() {
        let mut confusion = Confusion::new(2, &Device::flex());
        confusion.counts = confusion.counts.clone() + (1i64 << 40);
        let map = Tensor::from_data([[[1]]], &Device::flex());
        confusion.update(map.clone(), map, None);
        let matrix = confusion.read();
        assert_eq!((matrix.count(1, 1), matrix.count(0, 0)), ((1 << 40) + 1, 1 << 40));
    }
}
