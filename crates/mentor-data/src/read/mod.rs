//! Files to pixels and labels.

mod mask;
mod photo;
mod voc;

pub(crate) use mask::{decode_raw, read_mask};
pub use photo::read_image;
pub(crate) use photo::{read_rgb, read_size};
pub(crate) use voc::{VocImage, read_voc};
