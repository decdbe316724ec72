//! Labelled boxes as regions of a level's map.

use burn::tensor::{Tensor, TensorData};
use mentor_types::LevelLayout;

use crate::upload::DetTargets;

/// What of a level's map lies in labelled boxes, each `[n, 1, h, w]`.
pub(super) struct Regions {
    /// 1 in the boxes of objects, 0 elsewhere.
    pub inside: Tensor<4>,
    /// One over the number of cells of the box, 0 outside of all; of several boxes that of the smallest counts.
    pub scaled: Tensor<4>,
    /// 1 outside of all boxes, those of crowds and difficult objects included.
    pub outside: Tensor<4>,
}

impl Regions {
    /// A box holds the cells from the one that its left upper corner lies in to the one behind that of its right lower corner,
    /// as the official code of FGD rounds; cells beyond the map are counted, too.
    pub fn of(layout: &LevelLayout, targets: &DetTargets) -> Self {
        let [height, width] = layout.size;
        let device = targets.edges_nm4.device();
        let range = |side: usize| {
            let values: Vec<f32> = (0..side).map(|index| index as f32).collect();
            Tensor::<3>::from_data(TensorData::new(values, [1, 1, side]), &device)
        };
        let edge_nm1 = |edge: usize| targets.edges_nm4.clone().narrow(2, edge, 1).div_scalar(layout.stride as f64);
        let along = |first: usize, side: usize| {
            let (first_nm1, last_nm1) = (edge_nm1(first).floor(), edge_nm1(first + 2).ceil());
            let after = (range(side) - first_nm1.clone()).greater_equal_scalar(0.0);
            let before = (last_nm1.clone() - range(side)).greater_equal_scalar(0.0);
            (after.bool_and(before).float(), (last_nm1 - first_nm1).add_scalar(1.0))
        };
        let ((columns_nmw, across_nm1), (rows_nmh, down_nm1)) = (along(0, width), along(1, height));
        let cells_nmhw: Tensor<4> = rows_nmh.unsqueeze_dim::<4>(3) * columns_nmw.unsqueeze_dim::<4>(2);
        let largest = |of_boxes_nm: Tensor<2>| {
            let of_boxes_nm11: Tensor<4> = of_boxes_nm.unsqueeze_dims(&[2, 3]);
            (cells_nmhw.clone() * of_boxes_nm11).max_dim(1)
        };
        let share_nm: Tensor<2> = (across_nm1 * down_nm1).squeeze_dim::<2>(2).recip();
        let inside = largest(targets.objects_nm.clone());
        let ignored = largest(targets.ignored_nm.clone());
        Self {
            scaled: largest(targets.objects_nm.clone() * share_nm),
            outside: inside.clone().max_pair(ignored).neg().add_scalar(1.0),
            inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labelled, values};
    use burn::tensor::Device;
    use mentor_types::BoxKind;

    #[test]
    fn boxes_hold_the_cells_that_their_corners_are_rounded_to() {
        let layout = LevelLayout { stride: 8, size: [2, 4], point: 0.5, anchors: vec![[64.0; 2]] };
        let boxes = [
            // Cells 0 to 1 of the first column on, rows 0 to 1; then a part of it; a crowd at the right.
            ([1.0, 2.0, 7.0, 8.0], 0, BoxKind::Object),
            ([-9.0, 8.0, 1.0, 9.0], 1, BoxKind::Object),
            ([24.0, 0.0, 24.0, 0.0], 1, BoxKind::Crowd),
        ];
        let targets = DetTargets::upload(&[labelled(&boxes), labelled(&[])], &Device::flex());
        let regions = Regions::of(&layout, &targets);
        let first = |x: Tensor<4>| values(x.narrow(0, 0, 1));
        assert_eq!(first(regions.inside.clone()), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        // 4 cells, and 4 by 2 with two columns beyond the map: the smaller box counts.
        assert_eq!(first(regions.scaled), [0.25, 0.25, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0]);
        assert_eq!(first(regions.outside.clone()), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let second = |x: Tensor<4>| values(x.narrow(0, 1, 1));
        assert_eq!((second(regions.inside), second(regions.outside)), (vec![0.0; 8], vec![1.0; 8]));
    }
}
