//! `RoIAlign`: boxes of a map as small maps of one size.
//!
//! A sample of a bilinear map is a sum over rows of sums over columns, with weights that depend on its height alone and on its
//! place across alone; so are means of samples on a grid, and what lies outside of the map. So a region is two matrices, one
//! from rows to bins and one from columns, and [`pool`](super::pool) applies them.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::pool::pool_regions;

/// The side of a box that the level [`CANONICAL_LEVEL`] is for, in pixels.
const CANONICAL_SIDE: f64 = 224.0;

/// The level of a stride of 16.
const CANONICAL_LEVEL: i32 = 4;

/// By how much less than a level's least a box may be, in levels.
const SLACK: f64 = 1e-6;

/// A coordinate outside of every map, in pixels: no sample of a box there counts.
const NOWHERE: f64 = -1e8;

/// How regions are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoiAlign {
    /// Bins along each side of a region.
    pub bins: usize,
    /// Samples along each side of a bin, at least 1.
    pub samples: usize,
    /// Whether a map's first value lies half a stride from the image's corner. Without it values lie at whole strides, and a
    /// region is never shorter than one.
    pub aligned: bool,
}

/// What a map shows inside of boxes: each cut into `bins` by `bins`, of each of which the mean of `samples` by `samples`
/// bilinear samples is taken.
///
/// A sample more than one value beyond the map is 0, one nearer is that of the map's edge.
///
/// # Shapes
/// Features `[n, c, h, w]` of images whose pixels are `stride` times as dense; boxes `[n, r, 4]`, left, top, right, bottom in
/// pixels, on the plain device. The result is `[n, r, c, bins, bins]`, in f32.
///
/// # Gradient
/// Reaches the features; none the boxes.
///
/// # Panics
/// If the numbers of images differ, or there are no samples or bins. The number of samples is fixed: how many fit into a box, as
/// torchvision counts them where it is given none, would make another shape for each.
///
/// # Source
/// He et al. 2017, arXiv 1703.06870, section 3; `torchvision.ops.roi_align`.
#[must_use]
pub fn roi_align(features_nchw: Tensor<4>, edges_nr4: &Tensor<3>, stride: usize, options: RoiAlign) -> Tensor<5> {
    let [n, _, height, width] = features_nchw.dims();
    assert_eq!(n, edges_nr4.dims()[0], "images of the map, and of the boxes");
    assert!(options.bins > 0 && options.samples > 0, "{options:?}");
    let edges_nr4 = edges_nr4.clone().without_autodiff();
    let along = |first: usize, len: usize| {
        let [low_nr1, high_nr1] = [first, first + 2].map(|edge| edges_nr4.clone().narrow(2, edge, 1));
        options.weights(low_nr1.div_scalar(stride as f64), high_nr1.div_scalar(stride as f64), len)
    };
    pool_regions(features_nchw.cast(DType::F32), along(1, height), along(0, width))
}

/// The same on a pyramid: every box on the level of its size, `4 + log2(side / 224)` rounded down, where the level of stride 16
/// is the fourth and `side` is the root of the area; or on the first or last level that there is.
///
/// Every level is asked for all boxes; those of other levels lie nowhere there.
///
/// # Shapes
/// As [`roi_align`], with the stride of each map; all maps have the same images and channels.
///
/// # Gradient
/// As [`roi_align`].
///
/// # Panics
/// As [`roi_align`]; if there is no level, or strides are not powers of two that rise.
///
/// # Source
/// Lin et al. 2017, arXiv 1612.03144, equation 1; torchvision's `LevelMapper`.
#[must_use]
pub fn roi_align_levels(levels: &[(usize, Tensor<4>)], edges_nr4: &Tensor<3>, options: RoiAlign) -> Tensor<5> {
    let rises = levels.windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(rises && levels.iter().all(|(stride, _)| stride.is_power_of_two()), "strides of a pyramid");
    let edges_nr4 = edges_nr4.clone().without_autodiff();
    let side = |axis: usize| edges_nr4.clone().narrow(2, axis + 2, 1) - edges_nr4.clone().narrow(2, axis, 1);
    let side_nr1 = (side(0) * side(1)).clamp_min(0.0).sqrt();
    let least = |stride: usize| {
        let level = stride.ilog2() as i32 - CANONICAL_LEVEL;
        CANONICAL_SIDE * (f64::from(level) - SLACK).exp2()
    };
    let pooled = levels.iter().enumerate().map(|(index, (stride, map))| {
        let mut elsewhere_nr1 =
            side_nr1.clone().lower_scalar(if index > 0 { least(*stride) } else { f64::NEG_INFINITY });
        if let Some((next, _)) = levels.get(index + 1) {
            elsewhere_nr1 = elsewhere_nr1.bool_or(side_nr1.clone().greater_equal_scalar(least(*next)));
        }
        let own_nr4 = edges_nr4.clone().mask_fill(elsewhere_nr1.expand(edges_nr4.shape()), NOWHERE);
        roi_align(map.clone(), &own_nr4, *stride, options)
    });
    pooled.reduce(|sum, of_level| sum + of_level).expect("a pyramid has a level")
}

impl RoiAlign {
    /// How much each of `len` values counts in each bin along an axis, `[n, r, bins, len]`, for regions from `low` to `high` in
    /// strides, `[n, r, 1]` both.
    fn weights(self, low_nr1: Tensor<3>, high_nr1: Tensor<3>, len: usize) -> Tensor<4> {
        let Self { bins, samples, aligned } = self;
        let [n, r, _] = low_nr1.dims();
        let device = low_nr1.device();
        let (low_nr1, size_nr1) = if aligned {
            (low_nr1.clone().sub_scalar(0.5), high_nr1 - low_nr1)
        } else {
            (low_nr1.clone(), (high_nr1 - low_nr1).clamp_min(1.0))
        };
        let at = |index: usize| (index as f32 + 0.5) / (bins * samples) as f32;
        let parts = row((0..bins * samples).map(at), &device);
        let at_nrq = low_nr1 + size_nr1 * parts;
        let beyond_nrq = at_nrq.clone().lower_scalar(-1.0).bool_or(at_nrq.clone().greater_scalar(len as f64));
        let at_nrq1: Tensor<4> = at_nrq.clamp(0.0, (len - 1) as f64).unsqueeze_dim(3);
        let values: Tensor<4> = row((0..len).map(|index| index as f32), &device).unsqueeze_dim(0);
        let shares_nrql = (at_nrq1 - values).abs().neg().add_scalar(1.0).clamp_min(0.0);
        let [_, _, count, _] = shares_nrql.dims();
        let beyond_nrql = beyond_nrq.unsqueeze_dim::<4>(3).expand([n, r, count, len]);
        let shares_nrql = shares_nrql.mask_fill(beyond_nrql, 0.0);
        shares_nrql.reshape([n * r, bins, samples, len]).mean_dim(2).reshape([n, r, bins, len])
    }
}

/// `[1, 1, q]`.
fn row(values: impl Iterator<Item = f32>, device: &Device) -> Tensor<3> {
    let values: Vec<f32> = values.collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [1, 1, count]), device)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values};

    const OPTIONS: RoiAlign = RoiAlign { bins: 2, samples: 2, aligned: false };

    fn boxes<const R: usize>(edges: [[f32; 4]; R]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(edges.concat(), [1, R, 4]), &Device::flex())
    }

    /// A value of a map by torchvision's rule, and its four corners.
    fn sample(map: &[f32], [height, width]: [usize; 2], [y, x]: [f64; 2]) -> f64 {
        if y < -1.0 || x < -1.0 || y > height as f64 || x > width as f64 {
            return 0.0;
        }
        let along = |at: f64, len: usize| {
            let low = (at.max(0.0) as usize).min(len - 1);
            let share = if low == len - 1 { 0.0 } else { at.max(0.0) - low as f64 };
            [(low, 1.0 - share), ((low + 1).min(len - 1), share)]
        };
        let value = |row: usize, column: usize| f64::from(map[row * width + column]);
        along(y, height)
            .into_iter()
            .flat_map(|(row, of_row)| along(x, width).map(|(column, share)| of_row * share * value(row, column)))
            .sum()
    }

    /// Plain loops in f64.
    fn by_loops(map: &[f32], size: [usize; 2], edges: [f32; 4], stride: usize, options: RoiAlign) -> Vec<f32> {
        let RoiAlign { bins, samples, aligned } = options;
        let edges = edges.map(|edge| f64::from(edge) / stride as f64 - if aligned { 0.5 } else { 0.0 });
        let side = |axis: usize| {
            let side = edges[axis + 2] - edges[axis];
            (if aligned { side } else { side.max(1.0) }) / bins as f64
        };
        let at = |axis: usize, bin: usize, index: usize| {
            edges[axis] + (bin as f64 + (index as f64 + 0.5) / samples as f64) * side(axis)
        };
        let mean = |bin: usize| {
            let all = (0..samples * samples).map(|index| {
                sample(map, size, [at(1, bin / bins, index / samples), at(0, bin % bins, index % samples)])
            });
            (all.sum::<f64>() / (samples * samples) as f64) as f32
        };
        (0..bins * bins).map(mean).collect()
    }

    #[test]
    fn a_ramp_by_hand() {
        // Values are their columns: of the box from 1 to 3 the bins' samples lie at 1.25 and 1.75, then at 2.25 and 2.75.
        let map = Tensor::<4>::from_data([[[[0.0f32, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]]]], &Device::flex());
        let found = values(roi_align(map.clone(), &boxes([[8.0, 0.0, 24.0, 8.0]]), 8, OPTIONS));
        assert_close(&found, &[1.5, 2.5, 1.5, 2.5], 1e-6, "a ramp");
        // Half a value to the left where they lie in the middle of their strides.
        let found = values(roi_align(map, &boxes([[8.0, 0.0, 24.0, 8.0]]), 8, RoiAlign { aligned: true, ..OPTIONS }));
        assert_close(&found, &[1.0, 2.0, 1.0, 2.0], 1e-6, "an aligned ramp");
    }

    #[test]
    fn regions_inside_across_and_beyond_the_edges_agree_with_plain_loops() {
        let size = [5, 7];
        let map = noise([1, 1, 5, 7], "map").without_autodiff();
        let plane = values(map.clone());
        let edges = [
            [3.0, 2.0, 40.0, 31.0],
            [-30.0, -9.0, 13.0, 90.0],
            [50.0, 30.0, 56.5, 40.5],
            [10.0, 10.0, 10.2, 10.1],
            [500.0, 0.0, 600.0, 9.0],
        ];
        for (bins, samples) in [(1, 1), (2, 2), (7, 2), (3, 4)] {
            for aligned in [false, true] {
                let options = RoiAlign { bins, samples, aligned };
                let found = values(roi_align(map.clone(), &boxes(edges), 8, options));
                let expected: Vec<f32> =
                    edges.iter().flat_map(|edges| by_loops(&plane, size, *edges, 8, options)).collect();
                assert_close(&found, &expected, 1e-5, &format!("{options:?}"));
                assert!(found[4 * bins * bins..].iter().all(|value| *value == 0.0), "beyond the map");
            }
        }
    }

    #[test]
    fn boxes_go_to_the_level_of_their_size() {
        // Every value of a level is its number.
        let level = |stride: usize, side| {
            let number = stride.ilog2() as f32;
            (stride, Tensor::<4>::full([1, 1, side, side], number, &Device::flex()))
        };
        let levels = [level(4, 128), level(8, 64), level(16, 32), level(32, 16)];
        let of_side = |side: f32| [0.0, 0.0, side, side];
        let edges = boxes([10.0, 111.9, 112.0, 223.0, 224.0, 300.0, 448.0, 5000.0].map(of_side));
        let found = values(roi_align_levels(&levels, &edges, RoiAlign { bins: 1, samples: 1, aligned: false }));
        // The middle of the last lies beyond the map.
        assert_close(&found, &[2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 0.0], 1e-6, "levels");
    }
}
