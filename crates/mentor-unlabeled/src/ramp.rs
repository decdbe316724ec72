//! Weights that grow over the first steps, as pure functions of the step: nothing to save, nothing
//! to resume.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a weight grows from about 0 to 1 over its first steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ramp {
    /// 1 from the first step.
    Constant,
    /// A straight line, see [`linear_ramp`].
    Linear,
    /// The left half of a Gaussian bell, see [`sigmoid_ramp`].
    #[default]
    Sigmoid,
}

impl Ramp {
    /// The factor at `step` (counted from 0), in `[0, 1]`.
    #[must_use]
    pub fn at(self, step: u64, ramp_steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Linear => linear_ramp(step, ramp_steps),
            Self::Sigmoid => sigmoid_ramp(step, ramp_steps),
        }
    }
}

/// How far a ramp of `ramp_steps` has come, in `[0, 1]`; a ramp of no steps is over at once.
fn progress(step: u64, ramp_steps: u64) -> f64 {
    if step >= ramp_steps { 1.0 } else { step as f64 / ramp_steps as f64 }
}

/// `t = min(step / ramp_steps, 1)`: 0 at step 0, 1 from step `ramp_steps` on.
#[must_use]
pub fn linear_ramp(step: u64, ramp_steps: u64) -> f64 {
    progress(step, ramp_steps)
}

/// `exp(-5 (1 - t)^2)` with `t = min(step / ramp_steps, 1)`: 0.0067 at step 0, 1 from step
/// `ramp_steps` on.
///
/// # Source
/// Laine & Aila, *Temporal Ensembling for Semi-Supervised Learning* (arXiv 1610.02242), section 2
/// (`unchecked`); the official code of *Mean teachers are better role models* uses the same curve.
#[must_use]
pub fn sigmoid_ramp(step: u64, ramp_steps: u64) -> f64 {
    let left = 1.0 - progress(step, ramp_steps);
    (-5.0 * left * left).exp()
}

/// Whether `burn_in_steps` of training on labels alone are over at `step` (counted from 0).
#[must_use]
pub fn burnt_in(step: u64, burn_in_steps: u64) -> bool {
    step >= burn_in_steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_start_low_and_end_at_one_for_good() {
        assert_eq!(linear_ramp(0, 10), 0.0);
        assert_eq!(linear_ramp(5, 10), 0.5);
        assert!((sigmoid_ramp(0, 10) - (-5.0f64).exp()).abs() < 1e-12);
        assert!((sigmoid_ramp(5, 10) - (-1.25f64).exp()).abs() < 1e-12);
        for ramp in [Ramp::Constant, Ramp::Linear, Ramp::Sigmoid] {
            assert_eq!(ramp.at(10, 10), 1.0);
            assert_eq!(ramp.at(u64::MAX, 10), 1.0);
        }
    }

    #[test]
    fn a_ramp_of_no_steps_is_over_at_once() {
        for ramp in [Ramp::Constant, Ramp::Linear, Ramp::Sigmoid] {
            assert_eq!(ramp.at(0, 0), 1.0);
        }
    }

    #[test]
    fn a_ramp_never_falls() {
        for ramp in [Ramp::Linear, Ramp::Sigmoid] {
            let values: Vec<f64> = (0..30).map(|step| ramp.at(step, 20)).collect();
            assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{values:?}");
            assert!(values[0] < 0.01);
        }
    }

    #[test]
    fn burn_in_ends_at_its_step() {
        assert!(burnt_in(0, 0));
        assert!(!burnt_in(9, 10));
        assert!(burnt_in(10, 10));
    }
}
