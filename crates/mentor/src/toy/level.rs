//! `level`: pulls every score towards the teacher's at the same place, or towards 1 where there is none.

use burn::tensor::Tensor;
use mentor_distill::{Column, Shared, Stream, Term};
use mentor_ops::mean_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Seen, Toy};

/// The mean square of the gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Level {
    /// Factor in the loss. Default 1.
    pub weight: f64,
}

impl Default for Level {
    fn default() -> Self {
        Self { weight: 1.0 }
    }
}

impl Term<Toy> for Level {
    fn source(&self) -> &'static str {
        "a test"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: 0, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, seen: &Seen<'_>, _column: &Column) -> Tensor<1> {
        let gap = match seen.teacher {
            Some(teacher) => seen.student.clone() - teacher.clone(),
            None => seen.student.clone() - 1.0,
        };
        mean_all(gap.clone() * gap)
    }
}
