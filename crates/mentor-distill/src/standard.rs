//! Features without their mean and spread: channel by channel, over all positions of a batch.

use burn::tensor::Tensor;

/// A channel whose variance is below this has no spread.
const LEAST: f64 = 1e-12;

/// Added to deviations.
const NOTHING: f64 = 1e-6;

/// The mean and the standard deviation of each channel over all images and positions, `[n, c, h, w]` to `[1, c, 1, 1]` each.
///
/// The deviation is the root of the mean square about the mean. It is at least 1e-6, where it has no gradient.
#[must_use]
pub fn mean_and_deviation(x_nchw: Tensor<4>) -> [Tensor<4>; 2] {
    let mean_1c11 = channel_mean(x_nchw.clone());
    let centred_nchw = x_nchw - mean_1c11.clone();
    let variance_1c11 = channel_mean(centred_nchw.clone() * centred_nchw);
    [mean_1c11, variance_1c11.clamp_min(LEAST).sqrt()]
}

/// Each channel moved and scaled to a mean of 0 and a deviation of 1 over all images and positions.
///
/// `(x - mean) / (deviation + 1e-6)`.
///
/// # Shapes
/// `[n, c, h, w]` to the same.
///
/// # Units and ranges
/// Any; the result has no unit. A channel of a single value is 0.
///
/// # Reduction
/// Mean and deviation are over the batch: an image depends on those beside it.
///
/// # Gradient
/// Of the formula, through mean and deviation, too; none for a channel of a single value.
///
/// # Source
/// Cao et al. 2022, arXiv 2207.02039, section 3.2 (`unchecked`); the official code in open-mmlab/mmrazor, small number included.
///
/// # Differs
/// There the deviation is that of a sample, of one value less, and a channel of a single value has a gradient that is not a
/// number.
#[must_use]
pub fn standardised(x_nchw: Tensor<4>) -> Tensor<4> {
    let [mean_1c11, deviation_1c11] = mean_and_deviation(x_nchw.clone());
    // The mask comes first, so that the huge gradient at a vanishing spread is multiplied by zero.
    let spreads_1c11 = deviation_1c11.clone().inner().greater_scalar(1.5 * LEAST.sqrt()).float();
    (x_nchw - mean_1c11) * spreads_1c11 / deviation_1c11.add_scalar(NOTHING)
}

/// `[n, c, h, w]` to `[1, c, 1, 1]`.
fn channel_mean(x_nchw: Tensor<4>) -> Tensor<4> {
    let [n, channels, height, width] = x_nchw.dims();
    let of_images_nc1: Tensor<3> = x_nchw.reshape([n, channels, height * width]).mean_dim(2);
    of_images_nc1.mean_dim(0).reshape([1, channels, 1, 1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    /// Two images of two channels and one position: 1 and 4, 7 and 7.
    fn map() -> Tensor<4> {
        Tensor::<4>::from_data([[[[1.0f32]], [[7.0]]], [[[4.0]], [[7.0]]]], &Device::flex())
    }

    #[test]
    fn two_values_by_hand_and_one_alone() {
        let [mean, deviation] = mean_and_deviation(map()).map(values);
        assert_eq!(mean, [2.5, 7.0]);
        assert!((deviation[0] - 1.5).abs() < 1e-6, "{deviation:?}");
        for (found, expected) in values(standardised(map())).iter().zip([-1.0, 0.0, 1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
        }
    }

    #[test]
    fn a_channel_of_one_value_has_no_gradient() {
        let x = Tensor::from_inner(map()).require_grad();
        let gradient =
            values(x.grad(&(standardised(x.clone()).add_scalar(1.0)).powi_scalar(3).sum().backward()).unwrap());
        assert!(gradient.iter().all(|slope| slope.is_finite()));
        assert_eq!([gradient[1], gradient[3]], [0.0; 2]);
    }
}
