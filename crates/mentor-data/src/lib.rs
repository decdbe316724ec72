//! Images and labels in: cards, readers, three-state labels, views, samplers, loader.
//!
//! A [`Card`] describes a data set; a [`SegDataset`] is a card together with the folders in which its files may lie; a
//! [`Split`] is a list of its images. A [`BatchMaker`] turns (seed, step) into host batches, purely; a [`SegLoader`]
//! runs it ahead of the training loop on threads of its own, and an [`EvalLoader`] reads a split in order.
//!
//! Nothing here touches a tensor or a device.

mod batches;
mod cache;
mod card;
mod config;
mod dataset;
mod error;
mod files;
mod label_map;
mod loader;
mod paths;
mod read;
mod sampler;
mod split;
mod starter;
pub mod views;

pub use batches::{BatchMaker, BatchPlan};
pub use card::{Card, Class, MaskFormat, Masks, OtherValues, Pairing, SplitSpec, ValueMap};
pub use config::{DataConfig, Jitter, OnBadSample, Photometric, StrongConfig, ViewsConfig};
pub use dataset::{Sample, SegDataset, SplitStats};
pub use error::{BadSample, BadSamples, DataError};
pub use files::{IMAGE_EXTENSIONS, is_image_name};
pub use label_map::LabelMap;
pub use loader::{EvalLoader, SegLoader};
pub use read::{MAX_PIXELS, MAX_SIDE_PX, read_image};
pub use sampler::Sampler;
pub use split::{Entry, Split};
pub use starter::{Starter, starter_card};
pub use views::Geometry;
