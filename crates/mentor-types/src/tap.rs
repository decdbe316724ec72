//! Where features are taken out of a network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place in a network whose features a term can read.
///
/// `c2`..`c5` are the outputs of the four stages of a backbone, whatever their stride; `p2`..`p7`
/// the levels of a feature pyramid; `head` what goes into the last convolution; `logits` the class scores
/// that come out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Tap {
    Stem,
    C2,
    C3,
    C4,
    C5,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
    Head,
    ClsTower,
    RegTower,
    Roi,
    Logits,
}

impl Tap {
    /// Every tap.
    pub const ALL: [Self; 16] = [
        Self::Stem,
        Self::C2,
        Self::C3,
        Self::C4,
        Self::C5,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::P7,
        Self::Head,
        Self::ClsTower,
        Self::RegTower,
        Self::Roi,
        Self::Logits,
    ];

    /// The levels of a feature pyramid, the finest first.
    pub const PYRAMID: [Self; 6] = [Self::P2, Self::P3, Self::P4, Self::P5, Self::P6, Self::P7];

    /// The name in recipes and log columns.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stem => "stem",
            Self::C2 => "c2",
            Self::C3 => "c3",
            Self::C4 => "c4",
            Self::C5 => "c5",
            Self::P2 => "p2",
            Self::P3 => "p3",
            Self::P4 => "p4",
            Self::P5 => "p5",
            Self::P6 => "p6",
            Self::P7 => "p7",
            Self::Head => "head",
            Self::ClsTower => "cls_tower",
            Self::RegTower => "reg_tower",
            Self::Roi => "roi",
            Self::Logits => "logits",
        }
    }
}

impl std::fmt::Display for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
