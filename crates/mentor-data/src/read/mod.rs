//! Files to pixels and labels.

mod coco;
mod detections;
mod image_boxes;
mod json;
mod mask;
mod mistakes;
mod photo;
mod voc;
mod yolo;

pub use coco::{CocoBox, CocoCategory, CocoImage, CocoTruth};
pub use detections::{CocoFound, CocoResults};
pub(crate) use image_boxes::ImageBoxes;
pub use json::CocoId;
pub(crate) use mask::{RawMask, decode_raw, has_alpha_alone, read_mask};
pub use mistakes::{BoxMistake, BoxMistakeKind};
pub use photo::read_image;
pub(crate) use photo::{read_rgb, read_size};
pub(crate) use voc::read_voc;
pub(crate) use yolo::read_yolo;
