//! How alike two rows of numbers are, whatever their mean and size.

use burn::tensor::Tensor;

/// Rows whose squares sum to less than this about their mean have no spread.
const LEAST: f64 = 1e-16;

/// Pearson's correlation of a student's values with a teacher's.
///
/// `sum_i (a_i - mean a) (b_i - mean b) / (|a - mean a| |b - mean b| + 1e-8)`.
///
/// # Shapes
/// Both of one shape, with what is summed over in dimension `dim`; the result has the same with size 1 there.
///
/// # Units and ranges
/// Any numbers; the result lies in [-1, 1]. Values that are all alike correlate with nothing: 0.
///
/// # Reduction
/// None but the sum over `dim`.
///
/// # Gradient
/// Reaches the student only; none where its values are all alike.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Huang et al. 2022, arXiv 2205.10536 (DIST; `unchecked`); the official code, hunto/DIST_KD, small number included.
///
/// # Differs
/// Nowhere but for values that are all alike, whose gradient is no number there.
#[must_use]
pub fn correlation<const D: usize>(student: Tensor<D>, teacher: Tensor<D>, dim: usize) -> Tensor<D> {
    assert_eq!(student.dims(), teacher.dims(), "values of student and teacher differ in shape");
    let [(student, student_norm), (teacher, teacher_norm)] = [student, teacher.inner()].map(|x| {
        let centred = x.clone() - x.mean_dim(dim);
        let squares = (centred.clone() * centred.clone()).sum_dim(dim);
        // The mask comes first, so that the huge gradient at a vanishing spread is multiplied by zero.
        let spreads = squares.clone().inner().greater_scalar(LEAST).float();
        (centred * spreads, squares.clamp_min(LEAST).sqrt())
    });
    (student * teacher).sum_dim(dim) / (student_norm * teacher_norm).add_scalar(1e-8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    fn rows(values: [[f32; 3]; 3]) -> Tensor<2> {
        Tensor::from_data(values, &Device::flex())
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn rows_by_hand_and_one_that_is_all_alike() {
        let student = rows([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]]);
        let teacher = rows([[10.0, 20.0, 30.0], [0.0, 0.0, 1.0], [1.0, 2.0, 3.0]]);
        let student = Tensor::from_inner(student).require_grad();
        let found = correlation(student.clone(), teacher, 1);
        let gradient = values(student.grad(&found.clone().sum().backward()).unwrap());
        // (1, 0, -1) with (-1/3, -1/3, 2/3): -1 over the root of 2 times 2/3.
        for (found, expected) in values(found).iter().zip([1.0, -1.0 / (4.0f32 / 3.0).sqrt(), 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
        assert!(gradient.iter().all(|slope| slope.is_finite()));
        assert_eq!(gradient[6..], [0.0; 3]);
    }
}
