//! Labels as tensors that a loss can index with: every pixel has a class in range, and a mask says
//! which of them count.

use burn::tensor::{Int, Tensor};

/// The labels of a batch, safe to gather with.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// `[n, h, w]`: the class; 0 where the pixel is ignored or its class unknown.
    pub classes_nhw: Tensor<3, Int>,
    /// `[n, h, w]`: 1 where the pixel has a class, else 0.
    pub mask_nhw: Tensor<3>,
    classes: usize,
}

impl Labels {
    /// Splits `target_nhw` into classes and mask; every label of `classes` and more is no class.
    pub(crate) fn of(target_nhw: Tensor<3, Int>, classes: usize) -> Self {
        let no_class = target_nhw.clone().greater_equal_scalar(classes as i64);
        let mask_nhw = no_class.clone().bool_not().float();
        Self { classes_nhw: target_nhw.mask_fill(no_class, 0), mask_nhw, classes }
    }

    /// `[n, k, h, w]`: 1 at the class of every pixel that has one, else 0.
    pub(crate) fn one_hot(&self) -> Tensor<4> {
        let [n, height, width] = self.classes_nhw.dims();
        let shape = [n, self.classes, height, width];
        // The type of the labels is kept: two integer types cannot be compared.
        let options = (&self.classes_nhw.device(), self.classes_nhw.dtype());
        let all = Tensor::<1, Int>::arange(0..self.classes as i64, options).reshape([1, -1, 1, 1]).expand(shape);
        let own = self.classes_nhw.clone().unsqueeze_dim::<4>(1).expand(shape);
        own.equal(all).float() * self.mask_nhw.clone().unsqueeze_dim::<4>(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{DType, Device};
    use mentor_types::{IGNORE, UNKNOWN};

    #[test]
    fn ignored_and_unknown_pixels_are_masked_and_in_range() {
        let device = Device::flex();
        for dtype in [DType::I64, DType::I32, DType::U8] {
            let target =
                Tensor::<3, Int>::from_data([[[0, 2, i32::from(IGNORE), i32::from(UNKNOWN), 3]]], (&device, dtype));
            let labels = Labels::of(target, 3);
            let classes = labels.classes_nhw.clone().into_data().convert::<i64>().try_into_vec_as::<i64>().unwrap();
            assert_eq!(classes, [0, 2, 0, 0, 0]);
            assert_eq!(
                labels.mask_nhw.clone().into_data().try_into_vec_as::<f32>().unwrap(),
                [1.0, 1.0, 0.0, 0.0, 0.0]
            );
            let one_hot = labels.one_hot();
            assert_eq!(one_hot.dims(), [1, 3, 1, 5]);
            let rows = [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0; 5], [0.0, 1.0, 0.0, 0.0, 0.0]];
            assert_eq!(one_hot.into_data().try_into_vec_as::<f32>().unwrap(), rows.concat());
        }
    }
}
