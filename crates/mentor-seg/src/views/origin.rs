//! The geometry between the views: which weak pixel each strong one shows.

use burn::tensor::{Int, Tensor};
use mentor_types::UNKNOWN;

/// Where each pixel of a strong view lies in the weak views, and whether it may take a
/// pseudo-label.
#[derive(Clone, Debug)]
pub struct Origin {
    index: Tensor<1, Int>,
    size: [usize; 3],
    /// 1 where a strong pixel may take a pseudo-label: a weak view shows its spot and nobody labelled
    /// or ignored it there; `[n, h, w]`.
    pub free_nhw: Tensor<3>,
}

impl Origin {
    /// Reads a geometry.
    ///
    /// # Shapes
    /// `origin_nhw` `[n, h, w]`: flat indices into the `n * h * w` weak pixels, or -1 where no weak view
    /// shows the spot. `weak_targets_nhw` `[n, h, w]`: a weak pixel that carries a class or is ignored
    /// gives no pseudo-label.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn new(origin_nhw: Tensor<3, Int>, weak_targets_nhw: Tensor<3, Int>) -> Self {
        let size = origin_nhw.dims();
        assert_eq!(size, weak_targets_nhw.dims(), "an origin {size:?} for weak targets {:?}", weak_targets_nhw.dims());
        let shown = origin_nhw.clone().greater_equal_elem(0);
        // A pixel without an origin gathers pixel 0, which its mask then drops.
        let index = origin_nhw.clamp_min(0).reshape([-1]);
        let targets = weak_targets_nhw.reshape([-1]).select(0, index.clone()).reshape(size);
        let free = targets.equal_elem(i64::from(UNKNOWN)).bool_and(shown);
        Self { index, size, free_nhw: free.float() }
    }

    /// Height and width of the views.
    #[must_use]
    pub fn view_size(&self) -> [usize; 2] {
        [self.size[1], self.size[2]]
    }

    /// Numbers of the weak views where they belong in the strong ones, `[n, k, h, w]`; what stands
    /// where [`Origin::free_nhw`] is 0 means nothing.
    #[must_use]
    pub fn carry(&self, weak_nkhw: Tensor<4>) -> Tensor<4> {
        let [images, height, width] = self.size;
        let channels = weak_nkhw.dims()[1];
        assert_eq!(weak_nkhw.dims(), [images, channels, height, width], "weak views of another size");
        let pixels = images * height * width;
        let flat = weak_nkhw.swap_dims(0, 1).reshape([channels, pixels]).select(1, self.index.clone());
        flat.reshape([channels, images, height, width]).swap_dims(0, 1)
    }

    /// Labels of the weak views where they belong in the strong ones, `[n, h, w]`, see [`Origin::carry`].
    #[must_use]
    pub(crate) fn carry_labels(&self, weak_nhw: Tensor<3, Int>) -> Tensor<3, Int> {
        assert_eq!(weak_nhw.dims(), self.size, "weak views of another size");
        weak_nhw.reshape([-1]).select(0, self.index.clone()).reshape(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::testing::*;
    use mentor_types::IGNORE;

    const FREE: i64 = UNKNOWN as i64;

    #[test]
    fn labelled_and_ignored_pixels_and_those_without_origin_take_none() {
        // Strong pixels 0..6 show weak pixels 5, 4, 3, 2 and 1; the last shows nothing, though weak
        // pixel 0, which stands in for it, is free.
        let origin = Origin::new(
            ints(&[5, 4, 3, 2, 1, -1], [1, 2, 3]),
            ints(&[FREE, FREE, 0, IGNORE.into(), 7, FREE], [1, 2, 3]),
        );
        assert_eq!(values(origin.free_nhw), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }
}
