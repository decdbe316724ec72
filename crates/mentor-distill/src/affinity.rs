//! How alike the regions of a map are to each other: pooled nodes, their cosines, and the distance
//! of a student's cosines from a teacher's.

use burn::tensor::Tensor;
use burn::tensor::ops::{MaxPoolOptions, PadMode};
use mentor_ops::{max_pool2d, mean_all};

use crate::weighted_mean;

/// Below every feature, and finite, so that no arithmetic on it gives NaN.
const LOWEST: f32 = -1e30;

/// A vector shorter than this has no direction.
const SHORTEST: f64 = 1e-8;

/// Max-pools a map into nodes whose sides are a fraction of the map's.
///
/// Kernel and stride are `int(fraction * height)` and `int(fraction * width)`, at least one pixel; a
/// remainder at the lower and right edge makes a node of its own (ceiling mode).
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, ceil(h / kernel), ceil(w / kernel)]`: with a half, 64 pixels give two
/// nodes and 65 give three.
///
/// # Units and ranges
/// `fraction` in (0, 1]. Features above -1e30.
///
/// # Reduction
/// None.
///
/// # Gradient
/// Goes to the largest feature of each node, the first in row order where several are equal.
///
/// # Panics
/// If a side is zero.
///
/// # Source
/// The official code of Liu et al. 2019, arXiv 1903.04197.
///
/// # Differs
/// Nowhere. The ceiling is made by padding, since not every device pools in ceiling mode.
#[must_use]
pub(crate) fn pool_by_fraction(x_nchw: Tensor<4>, fraction: f64) -> Tensor<4> {
    let [_, _, height, width] = x_nchw.dims();
    assert!(height > 0 && width > 0, "a map of {height}x{width} pixels has no nodes");
    let kernel = [height, width].map(|side| ((side as f64 * fraction) as usize).clamp(1, side));
    let missing = [height.next_multiple_of(kernel[0]) - height, width.next_multiple_of(kernel[1]) - width];
    let padded = match missing {
        [0, 0] => x_nchw,
        [rows, columns] => x_nchw.pad([(0, rows), (0, columns)], PadMode::Constant(LOWEST)),
    };
    if kernel == [1, 1] { padded } else { max_pool2d(padded, MaxPoolOptions::new(kernel)) }
}

/// The cosine of the angle between the features of any two places of a map.
///
/// `a_ij = f_i . f_j / (|f_i| |f_j|)`.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, h * w, h * w]`, symmetric.
///
/// # Units and ranges
/// -1 to 1. A vector shorter than 1e-8 has no direction: its cosines are 0.
///
/// # Reduction
/// None.
///
/// # Gradient
/// Of the formula, norms included; with `detach_norm` the norms are constants (the same value,
/// another gradient). A vector without a direction gets none.
///
/// # Source
/// Liu et al. 2019, arXiv 1903.04197, equation 3.
///
/// # Differs
/// The official code detaches the norms; so does `detach_norm`.
#[must_use]
pub fn affinities(x_nchw: Tensor<4>, detach_norm: bool) -> Tensor<3> {
    let [n, c, height, width] = x_nchw.dims();
    let x_ncm = x_nchw.reshape([n, c, height * width]);
    let squares_n1m = (x_ncm.clone() * x_ncm.clone()).sum_dim(1);
    let has_direction_n1m = squares_n1m.clone().inner().greater_elem(SHORTEST * SHORTEST).float();
    let norm_n1m = squares_n1m.clamp_min(SHORTEST * SHORTEST).sqrt();
    let norm_n1m = if detach_norm { norm_n1m.detach() } else { norm_n1m };
    // The mask comes first, so that the huge gradient at a vanishing vector is multiplied by zero.
    let units_ncm = x_ncm * has_direction_n1m / norm_n1m;
    units_ncm.clone().swap_dims(1, 2).matmul(units_ncm)
}

/// The mean squared difference of a student's and a teacher's affinities between pooled nodes.
///
/// `sum_n sum_ij (a^T_ij - a^S_ij)^2 / (N m^2)` with `m` pooled nodes in each map.
///
/// # Shapes
/// `student_nchw` `[n, c, h, w]`, `teacher_nchw` `[n, c', h, w]` (the numbers of channels may
/// differ), `counted_n1hw` `[n, 1, h, w]` with 1 where a pixel counts and 0 elsewhere. One element.
///
/// # Units and ranges
/// `fraction` in (0, 1]. The result lies between 0 and 4.
///
/// # Reduction
/// Over all pairs of nodes of all images. A pixel that does not count is left out of its node; a
/// node without a pixel that counts is left out of every pair; without any pair the result is a
/// finite zero with a zero gradient.
///
/// # Gradient
/// Reaches the student only; see [`affinities`] for `detach_norm`.
///
/// # Panics
/// If the maps differ in number or size.
///
/// # Source
/// Liu et al. 2019, arXiv 1903.04197, equation 2 and the official code.
///
/// # Differs
/// The official code knows no pixel that does not count.
#[must_use]
pub fn affinity_distance(
    student_nchw: Tensor<4>,
    teacher_nchw: Tensor<4>,
    counted_n1hw: Option<Tensor<4>>,
    fraction: f64,
    detach_norm: bool,
) -> Tensor<1> {
    let (student, teacher) = (student_nchw.dims(), teacher_nchw.dims());
    let place = |dims: [usize; 4]| [dims[0], dims[2], dims[3]];
    assert_eq!(place(student), place(teacher), "maps of {student:?} and {teacher:?} differ in number or size");
    let Some(counted_n1hw) = counted_n1hw.map(Tensor::inner) else {
        let graph = |x| affinities(pool_by_fraction(x, fraction), detach_norm);
        let difference = graph(teacher_nchw.inner()) - graph(student_nchw);
        return mean_all(difference.clone() * difference);
    };
    let weight_n1hw = pool_by_fraction(counted_n1hw.clone(), fraction);
    let (left_out, empty) = (counted_n1hw.equal_elem(0.0), weight_n1hw.clone().equal_elem(0.0));
    let graph = |x_nchw: Tensor<4>| {
        let dims = x_nchw.dims();
        let nodes_nchw = pool_by_fraction(x_nchw.mask_fill(left_out.clone().expand(dims), LOWEST), fraction);
        let dims = nodes_nchw.dims();
        affinities(nodes_nchw.mask_fill(empty.clone().expand(dims), 0.0), detach_norm)
    };
    let difference = graph(teacher_nchw.inner()) - graph(student_nchw);
    let weight_n1m: Tensor<3> = weight_n1hw.flatten(2, 3);
    let weight_nmm = weight_n1m.clone().swap_dims(1, 2).matmul(weight_n1m);
    weighted_mean(difference.clone() * difference, weight_nmm)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn map(dims: [usize; 4], values: impl Fn(usize) -> f32) -> Tensor<4> {
        let values: Vec<f32> = (0..dims.iter().product()).map(values).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn the_remainder_makes_a_node_of_its_own() {
        for (height, width, fraction, nodes) in
            [(4, 6, 0.5, [2, 2]), (5, 7, 0.5, [3, 3]), (65, 33, 0.5, [3, 3]), (1, 1, 0.5, [1, 1]), (7, 3, 1.0, [1, 1])]
        {
            let x = map([1, 1, height, width], |i| i as f32);
            let pooled = pool_by_fraction(x, fraction);
            assert_eq!(pooled.dims()[2..], nodes, "{height}x{width} by {fraction}");
            assert_eq!(*values(pooled).last().unwrap(), (height * width - 1) as f32);
        }
    }

    #[test]
    fn padding_never_wins_over_a_negative_feature() {
        let pooled = pool_by_fraction(map([1, 1, 3, 3], |i| -1.0 - i as f32), 0.67);
        assert_eq!(values(pooled), [-1.0, -3.0, -7.0, -9.0]);
    }

    #[test]
    fn cosines_by_hand() {
        // Two places with the features (3, 4) and (4, 3).
        let x = Tensor::<4>::from_data([[[[3.0f32, 4.0]], [[4.0, 3.0]]]], &Device::flex());
        for (found, expected) in values(affinities(x, false)).into_iter().zip([1.0, 0.96, 0.96, 1.0]) {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_vector_without_direction_has_no_cosine_and_no_gradient() {
        let x = Tensor::<4>::from_data([[[[0.0f32, 1.0]], [[0.0, 2.0]]]], &Device::flex().autodiff()).require_grad();
        for detach_norm in [false, true] {
            let graph = affinities(x.clone(), detach_norm);
            let cosines = values(graph.clone());
            assert_eq!(cosines[..3], [0.0; 3]);
            assert!((cosines[3] - 1.0).abs() < 1e-6);
            let gradient = values(x.grad(&(graph + 1.0).powi_scalar(2).sum().backward()).unwrap());
            assert!(gradient.iter().all(|g| g.is_finite()));
            assert_eq!([gradient[0], gradient[2]], [0.0, 0.0]);
        }
    }

    #[test]
    fn equal_maps_are_at_distance_zero_and_scale_does_not_matter() {
        let x = map([2, 3, 4, 5], |i| ((i * 37) % 11) as f32 - 5.0);
        assert_eq!(values(affinity_distance(x.clone(), x.clone(), None, 0.5, false)), [0.0]);
        assert!(values(affinity_distance(x.clone() * 3.0, x, None, 0.5, false))[0] < 1e-12);
    }

    #[test]
    fn a_mask_of_ones_is_no_mask() {
        let student = map([2, 3, 5, 5], |i| ((i * 37) % 11) as f32 - 5.0);
        let teacher = map([2, 4, 5, 5], |i| ((i * 17) % 13) as f32 - 6.0);
        let ones = Tensor::ones([2, 1, 5, 5], &Device::flex());
        let plain = values(affinity_distance(student.clone(), teacher.clone(), None, 0.5, false))[0];
        let masked = values(affinity_distance(student, teacher, Some(ones), 0.5, false))[0];
        assert!(plain > 0.01 && (plain - masked).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_count_changes_nothing() {
        let teacher = map([1, 2, 4, 4], |i| ((i * 17) % 13) as f32 - 6.0);
        // A whole node (upper left) and one pixel of another do not count.
        let counted = map([1, 1, 4, 4], |i| if [0, 1, 4, 5, 15].contains(&i) { 0.0 } else { 1.0 });
        let distance = |noise: f32| {
            let student = map([1, 2, 4, 4], |i| {
                let seen = (((i * 37) % 11) as f32) - 5.0;
                if [0, 1, 4, 5, 15].contains(&(i % 16)) { seen * noise } else { seen }
            });
            let student = Tensor::from_inner(student).require_grad();
            let loss = affinity_distance(student.clone(), teacher.clone(), Some(counted.clone()), 0.5, false);
            (values(student.grad(&loss.backward()).unwrap()), values(loss))
        };
        assert_eq!(distance(1.0), distance(-1000.0));
        assert!(distance(1.0).1[0] > 0.0);
    }

    #[test]
    fn no_pixel_that_counts_is_a_zero_with_a_gradient() {
        let student = Tensor::from_inner(map([1, 2, 4, 4], |i| i as f32)).require_grad();
        let loss = affinity_distance(
            student.clone(),
            map([1, 2, 4, 4], |i| 1.0 / (1.0 + i as f32)),
            Some(Tensor::zeros([1, 1, 4, 4], &Device::flex())),
            0.5,
            false,
        );
        assert_eq!(values(student.grad(&loss.backward()).unwrap()), [0.0; 32]);
        assert_eq!(values(loss), [0.0]);
    }
}
