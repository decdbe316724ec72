//! How much boxes overlap that lie about one point each, given by the ways from it to their edges.

use burn::tensor::Tensor;

/// Keeps quotients of empty boxes finite.
const NOTHING: f64 = 1e-7;

/// Sides shorter than this have no shape, in pixels.
const NO_SIDE: f64 = 1e-3;

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
/// Both `[n, 4, p]`: left, top, right, bottom from the point, which may lie outside; no box is less than empty. Returns
/// `[n, 1, p]`.
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

/// The overlap, less the squared distance of the middles as a part of the enclosing box's squared diagonal: in `(-1, 1]`.
///
/// # Shapes
/// As [`iou`].
///
/// # Source
/// Zheng et al. 2020, arXiv 1911.08287, equation 7; the small number below fractions is torchvision's.
#[must_use]
pub(crate) fn diou(a_n4p: Tensor<3>, b_n4p: Tensor<3>) -> Tensor<3> {
    let iou = iou(a_n4p.clone(), b_n4p.clone());
    let square = |x: Tensor<3>| x.clone() * x;
    let hull_n4p = a_n4p.clone().max_pair(b_n4p.clone());
    let off_n4p = a_n4p - b_n4p;
    let side = |low: usize| hull_n4p.clone().narrow(1, low, 1) + hull_n4p.clone().narrow(1, low + 2, 1);
    let off = |low: usize| (off_n4p.clone().narrow(1, low + 2, 1) - off_n4p.clone().narrow(1, low, 1)).div_scalar(2.0);
    let diagonal = square(side(0)) + square(side(1));
    iou - (square(off(0)) + square(off(1))) / diagonal.add_scalar(NOTHING)
}

/// [`diou`], less how much the shapes differ: `v^2 / (1 - IoU + v)` with
/// `v = (2 / pi (atan(w_b / h_b) - atan(w_a / h_a)))^2`.
///
/// # Shapes
/// As [`iou`].
///
/// # Gradient
/// As published none goes through the factor `v / (1 - IoU + v)`.
///
/// # Source
/// Zheng et al. 2020, arXiv 1911.08287, equations 8 to 11; the small number below fractions is torchvision's.
#[must_use]
pub(crate) fn ciou(a_n4p: Tensor<3>, b_n4p: Tensor<3>) -> Tensor<3> {
    let side =
        |x: &Tensor<3>, low: usize| (x.clone().narrow(1, low, 1) + x.clone().narrow(1, low + 2, 1)).clamp_min(NO_SIDE);
    let shape = |x: &Tensor<3>| (side(x, 0) / side(x, 1)).atan();
    let turn = (shape(&b_n4p) - shape(&a_n4p)).mul_scalar(std::f64::consts::FRAC_2_PI);
    let v = turn.clone() * turn;
    let gap = iou(a_n4p.clone(), b_n4p.clone()).detach().neg().add_scalar(1.0);
    let still = v.clone().detach();
    let factor = still.clone() / (gap + still).add_scalar(NOTHING);
    diou(a_n4p, b_n4p) - factor * v
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{close, golden, rows, values};
    use burn::tensor::{Device, TensorData};

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

    /// A measure of boxes.
    type Measure = fn(Tensor<3>, Tensor<3>) -> Tensor<3>;

    #[test]
    fn boxes_that_lie_apart_do_not_overlap() {
        // Both lie beside the point, on different sides along both axes.
        let a = rows(&[[-2.0], [-2.0], [5.0], [5.0]]);
        let b = rows(&[[3.0], [3.0], [-1.0], [-1.0]]);
        assert_eq!(values(iou(a.clone(), b.clone())), [0.0]);
        // 3x3 and 2x2 in a hull of 8x8, their middles 5.5 apart along both axes.
        assert!((values(giou(a.clone(), b.clone()))[0] + 51.0 / 64.0).abs() < 1e-6);
        assert!((values(diou(a, b))[0] + 2.0 * 5.5 * 5.5 / 128.0).abs() < 1e-6);
    }

    #[test]
    fn middles_and_shapes_by_hand() {
        // 4x4 against 2x6 about the same point.
        let [a, b] = pair().map(|boxes| boxes.narrow(2, 0, 1));
        assert!((values(diou(a.clone(), b.clone()))[0] - 0.4).abs() < 1e-6);
        let v = (std::f32::consts::FRAC_2_PI * ((1.0f32 / 3.0).atan() - 1f32.atan())).powi(2);
        assert!((values(ciou(a, b))[0] - (0.4 - v * v / (0.6 + v))).abs() < 1e-6);
    }

    #[test]
    fn overlaps_and_gradients_are_those_of_torchvision() {
        let golden = golden("overlap");
        let read = |name: &str| {
            let (shape, values) = golden[name].clone();
            Tensor::<3>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        for (name, measure) in [("giou", giou as Measure), ("diou", diou), ("ciou", ciou)] {
            let a = Tensor::from_inner(read("a")).require_grad();
            let loss = measure(a.clone(), read("b")).neg().add_scalar(1.0);
            let gradient = values(a.grad(&loss.clone().sum().backward()).unwrap());
            close(&values(loss), &golden[&format!("{name}.value")].1, 1e-5);
            close(&gradient, &golden[&format!("{name}.grad")].1, 1e-4);
        }
    }

    #[test]
    fn empty_boxes_have_a_finite_gradient() {
        for measure in [giou as Measure, diou, ciou] {
            let [a, b] = pair();
            let a = Tensor::from_inner(a).require_grad();
            let gradient = a.grad(&measure(a.clone(), b).sum().backward()).unwrap();
            assert!(values(gradient).iter().all(|slope| slope.is_finite()));
        }
    }
}
