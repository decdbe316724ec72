//! Where in a map each channel is active: a teacher's channels as distributions over the positions, and the
//! divergence of a student's from them.

use burn::tensor::Tensor;
use mentor_ops::mean_all;

use crate::{kl_divergence, weighted_mean};

/// Its exponential is 0 beside every activation, and it is finite, so that no arithmetic on it gives NaN.
const LOWEST: f32 = -1e30;

/// The mean divergence of the student's channels from the teacher's, each a distribution over positions.
///
/// `T^2 / (N C) * sum_n sum_c KL(phi(t_nc) || phi(s_nc))` with `phi(x)_i = exp(x_i / T) / sum_j exp(x_j / T)`
/// over the positions of one channel of one map.
///
/// # Shapes
/// Both maps `[n, c, h, w]`, `counted_n1hw` `[n, 1, h, w]` with 1 where a position counts and 0 elsewhere. One
/// element.
///
/// # Units and ranges
/// Activations without unit, of any finite spread. `temperature` is above 0. The result is in nats, times
/// `T^2`, and not negative but for rounding.
///
/// # Reduction
/// Mean over the channels of the images in which any position counts. A position that does not count is left
/// out of both distributions; with none that counts the result is a finite zero with a zero gradient.
///
/// # Gradient
/// Reaches the student only: `T / (N C) * (phi(s) - phi(t))`.
///
/// # Panics
/// If the maps differ in shape.
///
/// # Source
/// Shu et al. 2021, arXiv 2011.13256 (`unchecked`); the official code, irfanICMLL/TorchDistiller.
///
/// # Differs
/// The official code knows no position that does not count. It takes the logarithm of a softmax, which is
/// infinite where the spread over `T` passes about 100; here it is a log-softmax.
#[must_use]
pub fn channel_divergence(
    student_nchw: Tensor<4>,
    teacher_nchw: Tensor<4>,
    counted_n1hw: Option<Tensor<4>>,
    temperature: f64,
) -> Tensor<1> {
    let dims = student_nchw.dims();
    assert_eq!(dims, teacher_nchw.dims(), "maps of student and teacher differ in shape");
    let [n, channels, height, width] = dims;
    let counted_n1hw = counted_n1hw.map(Tensor::inner);
    let left_out = counted_n1hw.as_ref().map(|counted_n1hw| counted_n1hw.clone().equal_elem(0.0).expand(dims));
    let positions = |x_nchw: Tensor<4>| -> Tensor<3> {
        let x_nchw = x_nchw.div_scalar(temperature);
        let x_nchw = match &left_out {
            Some(left_out) => x_nchw.mask_fill(left_out.clone(), LOWEST),
            None => x_nchw,
        };
        x_nchw.reshape([n, channels, height * width])
    };
    let each_nc1 = kl_divergence(positions(student_nchw), positions(teacher_nchw.inner()), 2, 1.0);
    let mean = match counted_n1hw {
        Some(counted_n1hw) => {
            let any_n11: Tensor<3> = counted_n1hw.reshape([n, 1, height * width]).max_dim(2);
            weighted_mean(each_nc1, any_n11.expand([n, channels, 1]))
        }
        None => mean_all(each_nc1),
    };
    mean.mul_scalar(temperature * temperature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn map(dims: [usize; 4], value: impl Fn(usize) -> f32) -> Tensor<4> {
        let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    /// Two channels of two positions: in the first both agree, in the second the teacher has (3/4, 1/4) at
    /// temperature 2 and the student (1/2, 1/2).
    fn pair() -> [Tensor<4>; 2] {
        [map([1, 2, 1, 2], |_| 1.0), map([1, 2, 1, 2], |i| if i == 2 { 2.0 * 3.0f32.ln() } else { 0.0 })]
    }

    #[test]
    fn two_channels_by_hand() {
        let [student, teacher] = pair();
        let divergence = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
        let found = values(channel_divergence(student, teacher, None, 2.0))[0];
        assert!((found - 4.0 * divergence / 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_shift_of_a_whole_channel_changes_nothing() {
        let teacher = map([2, 3, 2, 4], |i| ((i * 37) % 11) as f32 - 5.0);
        let shifted = teacher.clone() + map([2, 3, 2, 4], |i| (i / 8) as f32);
        assert!(values(channel_divergence(shifted, teacher.clone(), None, 4.0))[0].abs() < 1e-5);
        assert_eq!(values(channel_divergence(teacher.clone(), teacher, None, 4.0)), [0.0]);
    }

    #[test]
    fn what_does_not_count_is_as_if_it_were_not_there() {
        let wide = |x: Tensor<4>, beside: f32| Tensor::cat(vec![x, map([1, 2, 1, 1], |_| beside)], 3);
        let counted = map([1, 1, 1, 3], |i| if i < 2 { 1.0 } else { 0.0 });
        let [student, teacher] = pair();
        let expected = values(channel_divergence(student.clone(), teacher.clone(), None, 2.0))[0];
        for beside in [0.0, 1e4, -1e4] {
            let (student, teacher) = (wide(student.clone(), beside), wide(teacher.clone(), 3.0));
            let found = values(channel_divergence(student, teacher, Some(counted.clone()), 2.0))[0];
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected} beside {beside}");
        }
    }

    #[test]
    fn an_image_without_a_position_that_counts_is_left_out_of_the_mean() {
        let [student, teacher] = pair();
        let expected = values(channel_divergence(student.clone(), teacher.clone(), None, 1.0))[0];
        let twice = |x: Tensor<4>| Tensor::cat(vec![x.clone(), x], 0);
        for counted in [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] {
            let counted = map([2, 1, 1, 2], |i| counted[i / 2]);
            let found =
                values(channel_divergence(twice(student.clone()), twice(teacher.clone()), Some(counted), 1.0))[0];
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn no_position_that_counts_is_a_zero_with_a_gradient() {
        let [student, teacher] = pair();
        let student = Tensor::from_inner(student).require_grad();
        let loss = channel_divergence(student.clone(), teacher, Some(map([1, 1, 1, 2], |_| 0.0)), 4.0);
        assert_eq!(values(student.grad(&loss.backward()).unwrap()), [0.0; 4]);
        assert_eq!(values(loss), [0.0]);
    }

    #[test]
    fn extreme_activations_stay_finite_with_their_gradient() {
        for spread in [500.0, 1e4] {
            let student = Tensor::from_inner(map([1, 1, 1, 2], |i| [spread, -spread][i])).require_grad();
            let loss = channel_divergence(student.clone(), map([1, 1, 1, 2], |i| [-spread, spread][i]), None, 4.0);
            let gradient = values(student.grad(&loss.backward()).unwrap());
            assert!((values(loss)[0] - 8.0 * spread).abs() <= 1e-5 * spread);
            assert_eq!(gradient, [4.0, -4.0]);
        }
    }

    #[test]
    #[should_panic(expected = "differ in shape")]
    fn maps_of_two_widths_are_refused() {
        let _ = channel_divergence(map([1, 2, 1, 2], |_| 0.0), map([1, 3, 1, 2], |_| 0.0), None, 1.0);
    }
}
