//! The table `[boxes]` of a card: how boxes are stored, and of which classes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Boxes around objects. Where one file holds those of a whole split, its key `boxes` says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Boxes {
    /// How a file of boxes is written.
    pub(crate) format: BoxFormat,
    /// Folder of the files of single images below the root, put before their paths. Default: the root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) root: String,
    /// The path of an image's file, as `Annotations/{id}.xml` or `labels/{id}.txt`; `[pairing]` says what `{id}` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What the first column and row of an image are called in files of the format `voc`: 1 in Pascal VOC itself. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) first_pixel: u8,
    /// The classes that have boxes, by name, in their order. Default: all classes of the card.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) classes: Vec<String>,
}

/// How a file of boxes is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BoxFormat {
    /// COCO JSON: one file for all images of a split. An image that it does not name is not labelled.
    Coco,
    /// Pascal VOC's XML: a file for each image.
    Voc,
    /// YOLO's text: a file for each image, a line `class cx cy width height` for each box, in fractions of the image, where a
    /// class is a place in `classes`. An image without a file is not labelled, one whose file is empty has no object.
    Yolo,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u8) -> bool {
    *value == 0
}
