//! How much boxes overlap, each with each, given by their edges.

use burn::tensor::Tensor;

/// Keeps quotients of empty boxes finite.
const NOTHING: f64 = 1e-7;

/// The areas that each box of the one side shares with each of the other, `[n, m, r]`.
///
/// # Shapes
/// `[n, m, 4]` and `[n, r, 4]`: left, top, right, bottom.
pub(crate) fn common_areas(a_nm4: &Tensor<3>, b_nr4: &Tensor<3>) -> Tensor<3> {
    let along = |low: usize| {
        let of_a = |edge: usize| a_nm4.clone().narrow(2, edge, 1);
        let of_b = |edge: usize| b_nr4.clone().narrow(2, edge, 1).swap_dims(1, 2);
        let [n, m, _] = a_nm4.dims();
        let shape = [n, m, b_nr4.dims()[1]];
        let high = of_a(low + 2).expand(shape).min_pair(of_b(low + 2).expand(shape));
        (high - of_a(low).expand(shape).max_pair(of_b(low).expand(shape))).clamp_min(0.0)
    };
    along(0) * along(1)
}

/// The areas of boxes `[n, r, 4]`, `[n, r, 1]`.
pub(crate) fn areas(edges_nr4: &Tensor<3>) -> Tensor<3> {
    let side = |low: usize| edges_nr4.clone().narrow(2, low + 2, 1) - edges_nr4.clone().narrow(2, low, 1);
    side(0) * side(1)
}

/// Intersection over union of each box of the one side with each of the other, `[n, m, r]`; 0 for empty ones.
///
/// # Shapes
/// As [`common_areas`].
pub(crate) fn overlaps(a_nm4: &Tensor<3>, b_nr4: &Tensor<3>) -> Tensor<3> {
    let common_nmr = common_areas(a_nm4, b_nr4);
    let both_nmr = areas(a_nm4) + areas(b_nr4).swap_dims(1, 2);
    common_nmr.clone() / (both_nmr - common_nmr).clamp_min(NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, values};
    use burn::tensor::Device;

    #[test]
    fn overlaps_by_hand() {
        let a = Tensor::<3>::from_data([[[0.0f32, 0.0, 4.0, 4.0], [10.0, 10.0, 10.0, 10.0]]], &Device::flex());
        let b = Tensor::<3>::from_data(
            [[[2.0f32, 0.0, 6.0, 4.0], [0.0, 0.0, 4.0, 4.0], [9.0, 9.0, 11.0, 11.0]]],
            &Device::flex(),
        );
        close(&values(common_areas(&a, &b)), &[8.0, 16.0, 0.0, 0.0, 0.0, 0.0], 1e-6);
        close(&values(overlaps(&a, &b)), &[8.0 / 24.0, 1.0, 0.0, 0.0, 0.0, 0.0], 1e-6);
    }
}
