//! How the weight of a term grows over its first steps, as a pure function of the step: nothing to save,
//! nothing to resume.

/// `exp(-5 (1 - t)^2)` with `t = min(step / ramp_steps, 1)` and `step` counted from 0: 0.0067 at step 0, 1
/// from step `ramp_steps` on.
///
/// # Source
/// Laine & Aila, *Temporal Ensembling for Semi-Supervised Learning* (arXiv 1610.02242), section 2
/// (`unchecked`); the official code of *Mean teachers are better role models* uses the same curve.
#[must_use]
pub(crate) fn sigmoid_ramp(step: u64, ramp_steps: u64) -> f64 {
    let progress = if step >= ramp_steps { 1.0 } else { step as f64 / ramp_steps as f64 };
    let left = 1.0 - progress;
    (-5.0 * left * left).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_starts_low_never_falls_and_ends_at_one_for_good() {
        assert!((sigmoid_ramp(0, 10) - (-5.0f64).exp()).abs() < 1e-12);
        assert!((sigmoid_ramp(5, 10) - (-1.25f64).exp()).abs() < 1e-12);
        assert_eq!([sigmoid_ramp(10, 10), sigmoid_ramp(u64::MAX, 10)], [1.0; 2]);
        let values: Vec<f64> = (0..30).map(|step| sigmoid_ramp(step, 20)).collect();
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{values:?}");
    }

    #[test]
    fn a_ramp_of_no_steps_is_over_at_once() {
        assert_eq!(sigmoid_ramp(0, 0), 1.0);
    }
}
