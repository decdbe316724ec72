//! The learning rate as a pure function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[schedule.poly]`, `[schedule.cosine]` or `[schedule.step]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// `(1 - step / steps) ^ power`.
    Poly(PolySchedule),
    /// Half a cosine from 1 down to `final_factor` (arXiv 1608.03983).
    Cosine(CosineSchedule),
    /// A factor at each milestone.
    Step(StepSchedule),
}

/// `[schedule.poly]`: `(1 - step / steps) ^ power`, the schedule of most segmentation papers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolySchedule {
    /// The exponent. Default 0.9.
    #[serde(default = "power")]
    pub power: f64,
    /// Steps over which the rate rises linearly to its value. Default 0.
    #[serde(default)]
    pub warmup_steps: u64,
}

/// `[schedule.cosine]`: half a cosine from 1 down to `final_factor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CosineSchedule {
    /// The factor at the end. Default 0.
    #[serde(default)]
    pub final_factor: f64,
    /// Steps over which the rate rises linearly to its value. Default 0.
    #[serde(default)]
    pub warmup_steps: u64,
}

/// `[schedule.step]`: the rate is multiplied by `factor` at each milestone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSchedule {
    /// Steps at which the rate falls, rising.
    pub milestones: Vec<u64>,
    /// By what it is multiplied. Default 0.1.
    #[serde(default = "tenth")]
    pub factor: f64,
    /// Steps over which the rate rises linearly to its value. Default 0.
    #[serde(default)]
    pub warmup_steps: u64,
}

fn power() -> f64 {
    0.9
}
fn tenth() -> f64 {
    0.1
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::Poly(PolySchedule { power: power(), warmup_steps: 0 })
    }
}

impl ScheduleConfig {
    /// The factor on the base rate for the step that follows `step` finished ones, of `steps`.
    #[must_use]
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let progress = (step as f64 / steps.max(1) as f64).min(1.0);
        let (factor, warmup) = match self {
            Self::Poly(poly) => ((1.0 - progress).powf(poly.power), poly.warmup_steps),
            Self::Cosine(cosine) => {
                let wave = f64::midpoint(1.0, (std::f64::consts::PI * progress).cos());
                (cosine.final_factor + (1.0 - cosine.final_factor) * wave, cosine.warmup_steps)
            }
            Self::Step(fall) => {
                let passed = fall.milestones.iter().filter(|milestone| step >= **milestone).count();
                (fall.factor.powi(i32::try_from(passed).unwrap_or(i32::MAX)), fall.warmup_steps)
            }
        };
        if step < warmup { factor * (step + 1) as f64 / warmup as f64 } else { factor }
    }

    /// Reports values out of range as (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        match self {
            Self::Poly(poly) if !(poly.power >= 0.0 && poly.power.is_finite()) => {
                problems.push(("poly.power".to_owned(), format!("must be at least 0, found {}", poly.power)));
            }
            Self::Cosine(cosine) if !(0.0..=1.0).contains(&cosine.final_factor) => problems
                .push(("cosine.final_factor".to_owned(), format!("must lie in [0, 1], found {}", cosine.final_factor))),
            Self::Step(fall) if !fall.milestones.is_sorted() => {
                problems.push(("step.milestones".to_owned(), "must rise".to_owned()));
            }
            Self::Step(fall) if !(fall.factor > 0.0 && fall.factor.is_finite()) => {
                problems.push(("step.factor".to_owned(), format!("must be above 0, found {}", fall.factor)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }

    #[test]
    fn poly_is_pytorchs_polynomial_rate() {
        // torch.optim.lr_scheduler.PolynomialLR(total_iters=40, power=0.9) after 10 steps.
        let schedule = ScheduleConfig::default();
        close(schedule.factor(0, 40), 1.0);
        close(schedule.factor(10, 40), 0.75f64.powf(0.9));
        close(schedule.factor(40, 40), 0.0);
    }

    #[test]
    fn cosine_ends_at_its_final_factor() {
        let schedule = ScheduleConfig::Cosine(CosineSchedule { final_factor: 0.1, warmup_steps: 0 });
        close(schedule.factor(0, 10), 1.0);
        close(schedule.factor(5, 10), 0.55);
        close(schedule.factor(10, 10), 0.1);
    }

    #[test]
    fn steps_fall_at_their_milestones_and_warm_up_rises() {
        let schedule = ScheduleConfig::Step(StepSchedule { milestones: vec![6, 8], factor: 0.1, warmup_steps: 4 });
        let factors: Vec<f64> = (0..10).map(|step| schedule.factor(step, 10)).collect();
        for (found, expected) in factors.into_iter().zip([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]) {
            close(found, expected);
        }
    }
}
