//! The ways from places to the edges of labelled boxes.

use burn::tensor::{Bool, Tensor};

use crate::grid::Grid;
use crate::upload::DetTargets;

/// Keeps the overlap of empty boxes finite.
const NO_AREA: f64 = 1e-6;

/// The ways from every place to the edges of every box.
pub(crate) struct Ways {
    /// Left, top, right, bottom, in pixels: positive inside; each `[n, m, p]`.
    pub edges_nmp: [Tensor<3>; 4],
}

impl Ways {
    pub fn of(grid: &Grid, targets: &DetTargets) -> Self {
        let edge_nm1 = |edge: usize| targets.edges_nm4.clone().narrow(2, edge, 1);
        let [x, y] = grid.points.clone();
        Self {
            edges_nmp: [x.clone() - edge_nm1(0), y.clone() - edge_nm1(1), x.neg() + edge_nm1(2), y.neg() + edge_nm1(3)],
        }
    }

    /// Whether the point lies inside of the box, its edges excepted.
    pub fn inside(&self) -> Tensor<3, Bool> {
        let [left, top, right, bottom] = self.edges_nmp.clone();
        left.min_pair(right).min_pair(top.min_pair(bottom)).greater_scalar(0.0)
    }

    /// The way to the farthest edge.
    pub fn farthest(&self) -> Tensor<3> {
        let [left, top, right, bottom] = self.edges_nmp.clone();
        left.max_pair(right).max_pair(top.max_pair(bottom))
    }

    /// The way to the middle of the box, along the axis where it is longer.
    pub fn off_middle(&self) -> Tensor<3> {
        let [left, top, right, bottom] = self.edges_nmp.clone();
        (left - right).abs().max_pair((top - bottom).abs()).div_scalar(2.0)
    }

    /// The area of each box.
    pub fn area(&self) -> Tensor<3> {
        let [left, top, right, bottom] = self.edges_nmp.clone();
        (left + right) * (top + bottom)
    }

    /// The overlap of the boxes with the anchors of the places: their common area as a part of the area that they cover,
    /// `[n, m, p]`.
    pub fn overlap_with_anchors(&self, grid: &Grid) -> Tensor<3> {
        let half = |axis: usize| grid.anchors[axis].clone().div_scalar(2.0);
        self.overlap([half(0), half(1), half(0), half(1)])
    }

    /// The same with boxes about the points of the places, `[n, 4, p]`: left, top, right, bottom from the point.
    pub fn overlap_with_boxes(&self, distances_n4p: &Tensor<3>) -> Tensor<3> {
        self.overlap([0, 1, 2, 3].map(|edge| distances_n4p.clone().narrow(1, edge, 1)))
    }

    fn overlap(&self, others: [Tensor<3>; 4]) -> Tensor<3> {
        let shape = self.edges_nmp[0].shape();
        let [left, top, right, bottom] = others.map(|edge| edge.expand(shape.clone()));
        let area = (left.clone() + right.clone()) * (top.clone() + bottom.clone());
        let [own_left, own_top, own_right, own_bottom] = self.edges_nmp.clone();
        let along = |low: Tensor<3>, own_low: Tensor<3>, high: Tensor<3>, own_high: Tensor<3>| {
            (low.min_pair(own_low) + high.min_pair(own_high)).clamp_min(0.0)
        };
        let common = along(left, own_left, right, own_right) * along(top, own_top, bottom, own_bottom);
        common.clone() / (self.area() + area - common).clamp_min(NO_AREA)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, output, values};
    use burn::tensor::Device;
    use mentor_types::BoxKind;

    #[test]
    fn ways_and_overlaps_by_hand() {
        // The points (4, 4) and (12, 4) beside the box (0, 0, 8, 8).
        let output = output(&[(8, [1, 2])], 1, 1, |_| 0.0);
        let targets = DetTargets::upload(&[labelled(&[([0.0, 0.0, 8.0, 8.0], 0, BoxKind::Object)])], &Device::flex());
        let grid = Grid::of(&output, &Device::flex());
        let ways = Ways::of(&grid, &targets);
        let of_box = |x: Tensor<3>| values(x.narrow(1, 0, 1));
        assert_eq!(ways.edges_nmp.clone().map(of_box), [[4.0, 12.0], [4.0, 4.0], [4.0, -4.0], [4.0, 4.0]]);
        assert_eq!(of_box(ways.inside().float()), [1.0, 0.0]);
        assert_eq!(of_box(ways.farthest()), [4.0, 12.0]);
        assert_eq!(of_box(ways.off_middle()), [0.0, 8.0]);
        assert_eq!(of_box(ways.area()), [64.0; 2]);
        // A square of 16 about the second point shares half of the box; then one of 8, and one of 8 by 16.
        let overlap = |[width, height]: [f64; 2]| {
            let sides = [width, height].map(|side| grid.strides.clone().mul_scalar(side / 8.0));
            of_box(ways.overlap_with_anchors(&Grid { anchors: sides, ..grid.clone() }))
        };
        assert_eq!(overlap([16.0, 16.0]), [64.0 / 256.0, 32.0 / (256.0 + 64.0 - 32.0)]);
        assert_eq!(overlap([8.0, 8.0]), [1.0, 0.0]);
        assert_eq!(overlap([8.0, 16.0]), [0.5, 0.0]);
        // The box itself, from both points; and one that lies beside its point.
        let boxes = crate::testing::rows(&[[4.0, 12.0], [4.0, 4.0], [4.0, -8.0], [4.0, 4.0]]);
        assert_eq!(of_box(ways.overlap_with_boxes(&boxes)), [1.0, 0.5]);
    }
}
