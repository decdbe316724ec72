//! What a pyramid shows inside of boxes.

use burn::tensor::Tensor;
use mentor_ops::{RoiAlign, roi_align, roi_align_levels};
use mentor_types::{Tap, Taps};

use crate::grid::stride_of;

/// How torchvision's detectors sample a bin.
const SAMPLES: usize = 2;

/// Regions of so many bins along each side.
fn regions_of(bins: usize) -> RoiAlign {
    RoiAlign { bins, samples: SAMPLES, aligned: false }
}

/// Boxes `[n, r, 4]` of a level's features `[n, c, h, w]` as `[n, r, c, bins, bins]`.
///
/// # Panics
/// If the tap is no level.
pub(crate) fn at_level(level: Tap, features_nchw: Tensor<4>, edges_nr4: &Tensor<3>, bins: usize) -> Tensor<5> {
    let stride = stride_of(level).unwrap_or_else(|| panic!("`{level}` is no level of a pyramid"));
    roi_align(features_nchw, edges_nr4, stride, regions_of(bins))
}

/// The same of the level of each box's size, among those that stand on a stage of the backbone, `p2` to `p5`.
///
/// # Panics
/// If there is no such level.
pub(crate) fn at_own_levels(taps: &Taps, edges_nr4: &Tensor<3>, bins: usize) -> Tensor<5> {
    let level = |tap: Tap| Some((stride_of(tap)?, taps.get(tap)?.clone()));
    let levels: Vec<_> = [Tap::P2, Tap::P3, Tap::P4, Tap::P5].into_iter().filter_map(level).collect();
    roi_align_levels(&levels, edges_nr4, regions_of(bins))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{close, golden, values};
    use burn::tensor::{Device, TensorData};

    fn read<const D: usize>(name: &str) -> Tensor<D> {
        let (shape, values) = golden("roi_align")[name].clone();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// Compares values, and the gradients of their sum by the golden weights.
    fn agree(name: &str, bins: usize, maps: &[Tensor<4>], pooled: Tensor<5>) {
        let golden = golden("roi_align");
        close(&values(pooled.clone()), &golden[&format!("{name}.value")].1, 1e-5);
        let gradients = (pooled * read(&format!("weights.{bins}"))).sum().backward();
        for (index, map) in maps.iter().enumerate() {
            let key = if maps.len() > 1 { format!("{name}.grad.{index}") } else { format!("{name}.grad") };
            close(&values(map.grad(&gradients).unwrap()), &golden[&key].1, 1e-5);
        }
    }

    #[test]
    fn regions_of_one_map_are_those_of_torchvision() {
        for (bins, samples, aligned) in [(7, 2, false), (7, 2, true), (2, 1, false), (2, 3, true)] {
            let map = Tensor::from_inner(read::<4>("p2")).require_grad();
            let pooled = roi_align(map.clone(), &read("boxes"), 4, RoiAlign { bins, samples, aligned });
            agree(&format!("{bins}.{samples}.{}", u8::from(aligned)), bins, &[map], pooled);
        }
    }

    #[test]
    fn regions_of_a_pyramid_are_those_of_torchvision() {
        let leaf = |name: &str| Tensor::from_inner(read::<4>(name)).require_grad();
        let maps = ["p2", "p3", "p4"].map(leaf);
        let mut taps = Taps::default();
        for (tap, map) in [Tap::P2, Tap::P3, Tap::P4].into_iter().zip(&maps) {
            taps.insert(tap, map.clone());
        }
        let boxes = read::<3>("boxes").mul_scalar(4.0);
        agree("levels", 7, &maps, at_own_levels(&taps, &boxes, 7));
        // A single level is asked for boxes of all sizes.
        let pooled = at_level(Tap::P2, read("p2"), &read("boxes"), 7);
        close(&values(pooled), &golden("roi_align")["7.2.0.value"].1, 1e-5);
    }
}
