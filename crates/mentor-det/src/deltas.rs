//! Boxes as they differ from anchors.

use burn::tensor::Tensor;

/// The logarithm of how many times longer than its anchor's a side of a box may be said to be: of 1000 / 16.
const LONGEST: f64 = 4.135_166_556_742_356;

/// Keeps logarithms of empty sides finite.
const NOTHING: f64 = 1e-6;

/// The ways from the middle of an anchor to the edges of the box that lies `(x, y, w, h)` off it: a middle at `x` widths and `y`
/// heights of the anchor from its own, `exp(w)` times as wide and `exp(h)` times as high.
///
/// # Shapes
/// `[n, 4, p]` both; widths and heights of the anchors in pixels, each `[1, 1, p]`. Returns left, top, right, bottom in pixels.
///
/// # Source
/// Girshick et al. 2014, arXiv 1311.2524, appendix C; torchvision's `BoxCoder`, whose bound on `w` and `h` this has.
#[must_use]
pub(crate) fn decoded(deltas_n4p: &Tensor<3>, sides_11p: &[Tensor<3>; 2]) -> Tensor<3> {
    let row = |index: usize| deltas_n4p.clone().narrow(1, index, 1);
    let [width, height] = sides_11p.clone();
    let half = |log: Tensor<3>, side: Tensor<3>| log.clamp_max(LONGEST).exp() * side.div_scalar(2.0);
    let (right, down) = (row(0) * width.clone(), row(1) * height.clone());
    let (wide, high) = (half(row(2), width), half(row(3), height));
    Tensor::cat(vec![wide.clone() - right.clone(), high.clone() - down.clone(), wide + right, high + down], 1)
}

/// What [`decoded`] makes these ways of; of an empty side a very small one.
///
/// # Shapes
/// As [`decoded`].
#[must_use]
pub(crate) fn encoded(distances_n4p: &Tensor<3>, sides_11p: &[Tensor<3>; 2]) -> Tensor<3> {
    let way = |edge: usize| distances_n4p.clone().narrow(1, edge, 1);
    let shift = |low: usize, side: &Tensor<3>| (way(low + 2) - way(low)).div_scalar(2.0) / side.clone();
    let log = |low: usize, side: &Tensor<3>| ((way(low) + way(low + 2)) / side.clone()).clamp_min(NOTHING).log();
    let [width, height] = sides_11p;
    Tensor::cat(vec![shift(0, width), shift(1, height), log(0, width), log(1, height)], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, rows, values};

    #[test]
    fn a_box_by_hand_and_back() {
        // An anchor of 8 by 4: a middle 2 to the right and 1 up, twice as wide, as high as before.
        let sides = [rows(&[[8.0]]), rows(&[[4.0]])];
        let deltas = rows(&[[0.25], [-0.25], [2f32.ln()], [0.0]]);
        let distances = decoded(&deltas, &sides);
        close(&values(distances.clone()), &[6.0, 3.0, 10.0, 1.0], 1e-6);
        close(&values(encoded(&distances, &sides)), &values(deltas), 1e-6);
    }

    #[test]
    fn sides_are_bounded_and_empty_boxes_finite() {
        let sides = [rows(&[[16.0]]), rows(&[[16.0]])];
        let found = values(decoded(&rows(&[[0.0], [0.0], [90.0], [-90.0]]), &sides));
        close(&found, &[500.0, 0.0, 500.0, 0.0], 1e-5);
        assert!(values(encoded(&rows(&[[0.0]; 4]), &sides)).iter().all(|delta| delta.is_finite()));
    }
}
