//! The names of tasks.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a recipe trains, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// Semantic segmentation: one class per pixel.
    Seg,
    /// Detection: boxes around objects.
    Det,
}

impl TaskName {
    /// Every task there is.
    pub const ALL: [Self; 2] = [Self::Seg, Self::Det];

    /// As recipes write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seg => "seg",
            Self::Det => "det",
        }
    }
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|task| task.as_str() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::as_str).collect();
            format!("there is no task of that name, but {}", known.join(", "))
        })
    }
}
