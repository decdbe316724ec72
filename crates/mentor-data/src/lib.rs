//! Images and labels in: cards, readers, three-state labels, views, samplers, loader.
//!
//! A [`Card`] describes a data set; a [`Dataset`] is a card together with the folders in which its files may lie and one
//! kind of label ([`ReadLabels`]); a [`Split`] is a list of its images. A [`BatchMaker`] turns (seed, step) into host
//! batches, purely; a [`Loader`] runs it ahead of the training loop on threads of its own, and an [`EvalLoader`] reads a
//! split in order.
//!
//! Nothing here touches a tensor or a device.

mod batches;
mod cache;
mod card;
mod config;
mod dataset;
mod error;
mod files;
mod labels;
mod loader;
mod paths;
mod read;
mod sampler;
mod split;
mod starter;
mod views;

pub use batches::{BatchMaker, BatchPlan};
pub use card::{BoxFormat, Boxes, Card, Class, MaskFormat, Masks, SplitSpec};
pub use config::{DataConfig, Jitter, OnBadSample, Photometric, PseudoLabels, StrongConfig, ViewsConfig};
pub use dataset::{Dataset, Sample, SplitStats};
pub use error::{BadSample, BadSamples, DataError};
pub use files::is_image_name;
pub use labels::{BoxCounts, BoxReader, LabelMap, PixelCounts, ReadLabels};
pub use loader::{EvalLoader, Loader};
pub use read::{
    BoxMistake, BoxMistakeKind, CocoBox, CocoCategory, CocoFound, CocoId, CocoImage, CocoResults, CocoTruth, read_image,
};
pub use split::{Entry, LabelFiles, Split};
pub use starter::{Starter, starter_card};
