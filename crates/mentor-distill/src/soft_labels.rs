//! Learning from a teacher's class probabilities: Kullback-Leibler divergence and soft
//! cross-entropy, each from logits.

use burn::tensor::Tensor;
use mentor_ops::{log_softmax, softmax};

/// The Kullback-Leibler divergence of the student's class probabilities from the teacher's.
///
/// `KL(p || q) = sum_k p_k (log p_k - log q_k)` with `p = softmax(teacher / T)`,
/// `q = softmax(student / T)`.
///
/// # Shapes
/// Two tensors of one shape with the classes in dimension `classes`; the result has the same shape
/// with size 1 there.
///
/// # Units and ranges
/// Logits, not probabilities; any finite spread. `temperature` is above 0. The result is in nats
/// and not negative but for rounding.
///
/// # Reduction
/// None but the sum over classes. There is no factor `T^2`: a term applies it.
///
/// # Gradient
/// Reaches the student: `(q - p) / T`. None reaches the teacher.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Hinton et al. 2015, arXiv 1503.02531, section 2 (as soft cross-entropy, which has the same
/// gradient).
///
/// # Differs
/// Log-softmax on both sides, so that no probability is rounded to zero before its logarithm is
/// taken.
#[must_use]
pub fn kl_divergence<const D: usize>(
    student_logits: Tensor<D>,
    teacher_logits: Tensor<D>,
    classes: usize,
    temperature: f64,
) -> Tensor<D> {
    let (student, teacher) = scaled(student_logits, teacher_logits, temperature);
    let difference = log_softmax(teacher.clone(), classes) - log_softmax(student, classes);
    (softmax(teacher, classes) * difference).sum_dim(classes)
}

/// The cross-entropy of the student's class probabilities under the teacher's.
///
/// `CE(p, q) = -sum_k p_k log q_k` with `p = softmax(teacher / T)`, `q = softmax(student / T)`: the
/// divergence plus the teacher's entropy, so it is not zero where both agree.
///
/// # Shapes
/// As [`kl_divergence`].
///
/// # Units and ranges
/// As [`kl_divergence`].
///
/// # Reduction
/// As [`kl_divergence`].
///
/// # Gradient
/// As [`kl_divergence`], the same values.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Hinton et al. 2015, arXiv 1503.02531, section 2.
///
/// # Differs
/// Nowhere.
#[must_use]
pub fn soft_cross_entropy<const D: usize>(
    student_logits: Tensor<D>,
    teacher_logits: Tensor<D>,
    classes: usize,
    temperature: f64,
) -> Tensor<D> {
    let (student, teacher) = scaled(student_logits, teacher_logits, temperature);
    (softmax(teacher, classes) * log_softmax(student, classes)).sum_dim(classes).neg()
}

/// The logits over the temperature, the teacher's off the graph.
fn scaled<const D: usize>(student: Tensor<D>, teacher: Tensor<D>, temperature: f64) -> (Tensor<D>, Tensor<D>) {
    assert_eq!(student.dims(), teacher.dims(), "logits of student and teacher differ in shape");
    let scaled = |logits: Tensor<D>| if temperature == 1.0 { logits } else { logits.div_scalar(temperature) };
    (scaled(student), scaled(teacher.inner()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::Device;

    fn row(values: [f32; 3]) -> Tensor<2> {
        Tensor::from_data([values], &Device::flex())
    }

    fn value(x: Tensor<2>) -> f32 {
        x.into_scalar::<f32>()
    }

    #[test]
    fn two_classes_by_hand() {
        // softmax gives the student (1/2, 1/2) and the teacher (3/4, 1/4).
        let student = Tensor::<2>::from_data([[1.0f32, 1.0]], &Device::flex());
        let teacher = Tensor::<2>::from_data([[3.0f32.ln(), 0.0]], &Device::flex());
        let cross_entropy = 2.0f32.ln();
        let entropy = -(0.75 * 0.75f32.ln() + 0.25 * 0.25f32.ln());
        assert!((value(soft_cross_entropy(student.clone(), teacher.clone(), 1, 1.0)) - cross_entropy).abs() < 1e-6);
        assert!((value(kl_divergence(student, teacher, 1, 1.0)) - (cross_entropy - entropy)).abs() < 1e-6);
    }

    #[test]
    fn a_shift_of_all_logits_changes_nothing_and_equal_sides_give_zero() {
        let logits = row([0.3, -1.0, 2.0]);
        assert!(value(kl_divergence(logits.clone(), logits.clone(), 1, 2.0)).abs() < 1e-7);
        assert!(value(kl_divergence(logits.clone() + 7.0, logits, 1, 2.0)).abs() < 1e-6);
    }

    #[test]
    fn extreme_logits_stay_finite_with_their_gradient() {
        for spread in [500.0, 1e4] {
            let student = Tensor::<2>::from_data([[spread, -spread, 0.0]], &Device::flex().autodiff()).require_grad();
            for form in [kl_divergence::<2>, soft_cross_entropy::<2>] {
                let loss = form(student.clone(), row([-spread, 0.0, spread]), 1, 1.0);
                let gradient = student.grad(&loss.backward()).unwrap().into_data().try_into_vec_as::<f32>().unwrap();
                assert!((value(loss) - spread).abs() <= 1e-6 * spread);
                assert_eq!(gradient, [1.0, 0.0, -1.0]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "differ in shape")]
    fn logits_of_two_shapes_are_refused() {
        let _ = kl_divergence(row([0.0; 3]), Tensor::zeros([1, 4], &Device::flex()), 1, 1.0);
    }
}
