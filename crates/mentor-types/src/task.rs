//! The names of tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a recipe trains, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// Semantic segmentation: one class per pixel.
    Seg,
}

impl TaskName {
    /// As recipes write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seg => "seg",
        }
    }
}
