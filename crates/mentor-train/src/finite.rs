//! The watch over losses and gradients.

use burn::tensor::{Device, Tensor};
use mentor_types::{LossTerms, Term};

use crate::TrainError;

/// Sees every loss and gradient norm of a run, and stops it where one is not a finite number.
///
/// On the CPU a value is read at once, before the update. Elsewhere reading would hold up the
/// device, so that the first bad step is kept there as a flag, which is read when the log is.
#[derive(Debug)]
pub(crate) struct FiniteCheck {
    at_once: bool,
    /// The first step with a bad value, `[1]`; zero while there is none.
    first_bad: Option<Tensor<1>>,
}

impl FiniteCheck {
    pub(crate) fn new(device: &Device) -> Self {
        Self { at_once: device.clone().without_autodiff() == Device::flex(), first_bad: None }
    }

    /// Takes note of a value `[1]` of `step`, counted from 1.
    pub(crate) fn see(
        &mut self,
        step: u64,
        what: &str,
        value: &Tensor<1>,
        terms: &LossTerms,
    ) -> Result<(), TrainError> {
        if self.at_once {
            return if number(value).is_finite() { Ok(()) } else { Err(not_finite(step, what, terms)) };
        }
        let bad = value.clone().inner().is_finite().bool_not().float().mul_scalar(step as f64);
        self.first_bad = Some(match self.first_bad.take() {
            None => bad,
            Some(first) => first.clone().mask_where(first.equal_elem(0.0), bad),
        });
        Ok(())
    }

    /// Reads the flag: before a log line, an evaluation or a checkpoint.
    pub(crate) fn settle(&mut self) -> Result<(), TrainError> {
        match self.first_bad.take().map(|first| number(&first)) {
            Some(step) if step > 0.0 => Err(TrainError::NotFinite {
                step: step as u64,
                what: "a loss or gradient".to_owned(),
                table: String::new(),
            }),
            _ => Ok(()),
        }
    }
}

fn not_finite(step: u64, what: &str, terms: &LossTerms) -> TrainError {
    let row = |term: &Term| format!("\n  {:<24} weight {:<10} value {}", term.name, term.weight, number(&term.value));
    TrainError::NotFinite { step, what: what.to_owned(), table: terms.iter().map(row).collect() }
}

/// Reads a `[1]` tensor: waits for the device.
pub(crate) fn number(value: &Tensor<1>) -> f64 {
    f64::from(value.clone().into_scalar::<f32>())
}

/// Reads many `[1]` tensors, waiting for the device once.
pub(crate) fn numbers<'a>(values: impl IntoIterator<Item = &'a Tensor<1>>) -> Vec<f64> {
    let values: Vec<_> = values.into_iter().map(|value| value.clone().inner()).collect();
    let read = Tensor::cat(values, 0).into_data().try_into_vec_as::<f32>().expect("what is logged is a float");
    read.into_iter().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value(number: f32) -> Tensor<1> {
        Tensor::from_data([number], &Device::flex())
    }

    fn terms(number: f32) -> LossTerms {
        let mut terms = LossTerms::default();
        terms.push("pixel_wise", 0.5, value(number));
        terms
    }

    #[test]
    fn a_bad_value_stops_at_once_and_names_the_terms() {
        let mut check = FiniteCheck::new(&Device::flex().autodiff());
        check.see(1, "the loss", &value(1.0), &terms(1.0)).unwrap();
        let error = check.see(2, "the loss", &value(f32::NAN), &terms(f32::NAN)).unwrap_err().to_string();
        assert!(error.contains("the loss is not finite at step 2") && error.contains("pixel_wise"), "{error}");
    }

    #[test]
    fn a_flag_names_the_first_of_several_bad_steps() {
        let mut check = FiniteCheck { at_once: false, first_bad: None };
        for (step, number) in [(6, 1.0), (7, f32::INFINITY), (8, 1.0), (9, f32::NAN)] {
            check.see(step, "the loss", &value(number), &terms(number)).unwrap();
        }
        let error = check.settle().unwrap_err();
        assert!(matches!(error, TrainError::NotFinite { step: 7, .. }), "{error}");
    }

    #[test]
    fn a_flag_without_bad_steps_settles_again_and_again() {
        let mut check = FiniteCheck { at_once: false, first_bad: None };
        for step in 1..4 {
            check.see(step, "the gradient", &value(-1.0), &terms(1.0)).unwrap();
            check.settle().unwrap();
        }
    }
}
