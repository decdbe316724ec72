//! Who makes up labels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who labels the weak views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Teaching {
    /// The student itself, as it is at this step.
    #[default]
    Student,
    /// The moving average of the student.
    Ema,
}
