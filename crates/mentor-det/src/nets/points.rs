//! Where the points of a level lie.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a point lies in its square of pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Points {
    /// In its middle, as in the papers.
    #[default]
    Middle,
    /// At its upper left corner: for weights that torchvision trained.
    Corner,
}

impl Points {
    /// How far from the upper left corner, in parts of the side.
    pub(super) fn part(self) -> f32 {
        match self {
            Self::Middle => 0.5,
            Self::Corner => 0.0,
        }
    }
}
