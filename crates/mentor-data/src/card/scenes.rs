//! The table `[scenes]` of a card: a set that is drawn, not fetched.

use mentor_types::Season;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scenes that are drawn where the set is first used: their files, lists and boxes are then in a folder that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenes {
    /// Which world. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// How many scenes, all splits together.
    pub count: u64,
    /// Pixels along a side.
    pub size_px: usize,
    /// When they are seen: `summer` or `winter`. Default `summer`.
    #[serde(default)]
    pub season: Season,
}
