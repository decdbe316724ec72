//! How much boxes overlap that lie about one point each, given by the ways from it to their edges.

use burn::tensor::Tensor;

/// Keeps quotients of empty boxes finite.
const NOTHING: f64 = 1e-7;

/// What overlap and enclosing box are made of, each `[n, 1, p]`.
struct Areas {
    common: Tensor<3>,
    union: Tensor<3>,
    enclosing: Tensor<3>,
}

impl Areas {
    fn of(a_n4p: Tensor<3>, b_n4p: Tensor<3>) -> Self {
        let least = a_n4p.clone().min_pair(b_n4p.clone());
        let most = a_n4p.clone().max_pair(b_n4p.clone());
        let common = area_inside(least);
        Self { union: area(a_n4p) + area(b_n4p) - common.clone(), enclosing: area(most), common }
    }

    fn iou(&self) -> Tensor<3> {
        self.common.clone() / self.union.clone().add_scalar(NOTHING)
    }
}

/// The area of boxes, which have none where their edges stand the wrong way around.
fn area_inside(distances_n4p: Tensor<3>) -> Tensor<3> {
    let side = |edge: usize| distances_n4p.clone().narrow(1, edge, 1);
    (side(0) + side(2)).clamp_min(0.0) * (side(1) + side(3)).clamp_min(0.0)
}

/// The area of boxes, `[n, 4, p]` to `[n, 1, p]`.
fn area(distances_n4p: Tensor<3>) -> Tensor<3> {
    let side = |edge: usize| distances_n4p.clone().narrow(1, edge, 1);
    (side(0) + side(2)) * (side(1) + side(3))
}

/// The area that two boxes share, as a part of the area that they cover: in `[0, 1]`, and 0 for empty ones.
///
/// # Shapes
/// Both `[n, 4, p]`: left, top, right, bottom from the point; negative for an edge beyond it. Returns `[n, 1, p]`.
#[must_use]
pub(crate) fn iou(a_n4p: Tensor<3>, b_n4p: Tensor<3>) -> Tensor<3> {
    Areas::of(a_n4p, b_n4p).iou()
}

/// The overlap, less the part of the enclosing box that neither covers: in `(-1, 1]`.
///
/// # Shapes
/// As [`iou`].
///
/// # Source
/// Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1; the small number below fractions is torchvision's.
#[must_use]
pub(crate) fn giou(a_n4p: Tensor<3>, b_n4p: Tensor<3>) -> Tensor<3> {
    let areas = Areas::of(a_n4p, b_n4p);
    let iou = areas.iou();
    let Areas { union, enclosing, .. } = areas;
    iou - (enclosing.clone() - union) / enclosing.add_scalar(NOTHING)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{rows, values};

    fn pair() -> [Tensor<3>; 2] {
        // 4x4 against 2x6 about the same point, then equal boxes, then empty ones.
        let a = rows(&[[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 3.0, 0.0], [2.0, 1.0, 0.0]]);
        let b = rows(&[[1.0, 1.0, 0.0], [3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [3.0, 1.0, 0.0]]);
        [a, b]
    }

    #[test]
    fn overlaps_by_hand() {
        let [a, b] = pair();
        let close = |found: Vec<f32>, expected: [f32; 3]| {
            assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{found:?}");
        };
        close(values(iou(a.clone(), b.clone())), [8.0 / 20.0, 1.0, 0.0]);
        close(values(giou(a, b)), [8.0 / 20.0 - 4.0 / 24.0, 1.0, 0.0]);
    }

    #[test]
    fn empty_boxes_have_a_finite_gradient() {
        let [a, b] = pair();
        let a = Tensor::from_inner(a).require_grad();
        let gradient = a.grad(&giou(a.clone(), b).sum().backward()).unwrap();
        assert!(values(gradient).iter().all(|slope| slope.is_finite()));
    }
}
