//! The table `[masks]` of a card: where masks are and what their pixels mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Masks: one label for each pixel of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Masks {
    /// Folder of the masks below the root, put before every mask's path. Default: the root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) root: String,
    /// The path of an image's mask, as `gtFine/{id}_labelIds.png`, for lists without a label column; `[pairing]` says
    /// what `{id}` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Whether `path` also replaces the label column of a line that has one. Default no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replace_column: bool,
    /// How a mask is stored.
    pub(crate) format: MaskFormat,
    /// Raw values that are ignored: no loss, no metric. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ignore: Vec<u8>,
    /// Raw values that mean "nobody labelled this". Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown: Vec<u8>,
    /// Colours that are ignored, for the format `color`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ignore_colors: Vec<[u8; 3]>,
    /// Added to a raw value to give its class: -1 where 1 is the first class. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) offset: i32,
    /// Raw values and their classes, one by one, instead of an offset. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) values: Vec<ValueMap>,
    /// What a raw value is that none of the above names. Default `error`.
    #[serde(default)]
    pub(crate) other_values: OtherValues,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// How a mask is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskFormat {
    /// One channel (or the indices of a palette): the pixel is a number.
    Index,
    /// Red, green, blue: the pixel is the colour of its class.
    Color,
}

/// One raw value and its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueMap {
    /// The value in the mask.
    pub(crate) from: u8,
    /// The index of the class.
    pub(crate) to: u8,
}

/// What an unnamed raw value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OtherValues {
    /// An error that names value and pixel.
    #[default]
    Error,
    /// Ignored.
    Ignore,
}
