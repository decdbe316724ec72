//! Dropout whose mask is a function of a key.

use burn::tensor::{Tensor, TensorData};
use mentor_types::Key;
use rand::RngExt;

/// Sets whole channels of single images to zero with `probability`, and scales the others so that the
/// expectation stays. Without a key, nothing is dropped.
///
/// # Shapes
/// `[n, c, h, w]` to the same.
pub(crate) fn dropout(x_nchw: Tensor<4>, probability: f64, key: Option<Key>) -> Tensor<4> {
    let Some(key) = key.filter(|_| probability > 0.0) else { return x_nchw };
    let [n, channels, ..] = x_nchw.dims();
    let mut rng = key.rng();
    let kept = (1.0 / (1.0 - probability)) as f32;
    let mask: Vec<f32> =
        (0..n * channels).map(|_| if rng.random::<f64>() < probability { 0.0 } else { kept }).collect();
    let mask_nc11 = Tensor::<4>::from_data(TensorData::new(mask, [n, channels, 1, 1]), &x_nchw.device());
    let mask_nc11 = mask_nc11.cast(x_nchw.dtype());
    x_nchw * mask_nc11
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    fn dropped(key: Option<Key>) -> Vec<f32> {
        let ones = Tensor::<4>::ones([4, 100, 2, 1], &Device::flex());
        dropout(ones, 0.25, key).into_data().try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn whole_channels_go_at_the_given_rate_and_the_rest_is_scaled() {
        let values = dropped(Some(Key::new(3)));
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        assert!((150..250).contains(&zeros), "{zeros} of 800");
        for channel in values.chunks(2) {
            assert!(channel == [0.0, 0.0] || channel == [4.0 / 3.0, 4.0 / 3.0], "{channel:?}");
        }
    }

    #[test]
    fn the_mask_is_that_of_the_key_and_no_key_drops_nothing() {
        assert_eq!(dropped(Some(Key::new(3))), dropped(Some(Key::new(3))));
        assert_ne!(dropped(Some(Key::new(3))), dropped(Some(Key::new(4))));
        assert_eq!(dropped(None), vec![1.0; 800]);
    }
}
