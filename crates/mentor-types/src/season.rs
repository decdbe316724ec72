//! The seasons of drawn scenes.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a scene is seen. The streets and houses of an index are the same in every season.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Season {
    /// Green, dry or autumnal, in full light.
    #[default]
    Summer,
    /// Snow, bare trees and a low sun.
    Winter,
}

impl Season {
    /// Every season there is.
    pub const ALL: [Self; 2] = [Self::Summer, Self::Winter];

    /// As cards write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Summer => "summer",
            Self::Winter => "winter",
        }
    }
}

impl FromStr for Season {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|season| season.as_str() == name);
        found.ok_or_else(|| format!("there is no season of that name, but {}", known()))
    }
}
