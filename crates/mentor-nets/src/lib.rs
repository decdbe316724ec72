//! Backbones and the blocks they are built of, adapters between widths, students and frozen teachers, and
//! weights in and out of files.
//!
//! Every net mirrors torchvision's, field by field, so that weights go by name:
//!
//! - a field that is an entry of a `Sequential` ends in its index (`conv_0` is `0` there);
//! - variants of enums do not appear in names;
//! - a convolution called `score` or `cls_logits`, and what is in a `box_predictor`, makes class scores: its weights depend on
//!   the number of classes.
//!
//! Every layer says how its weights start ([`Init`]), as its net's reference has it; [`Fresh`] draws them
//! from the seed, or a file fills them, so that no weight ever comes from a process-wide generator.

mod adapter;
mod backbone;
mod blocks;
mod fpn;
mod frozen;
mod full;
pub mod images;
mod mobilenet;
mod names;
mod pafpn;
mod resnet;
mod student;
pub mod weights;

pub use adapter::Adapter;
pub use backbone::{Backbone, BackboneKind, BackboneSpec};
pub use blocks::{BatchNormMode, ConvNorm, ConvSpec, Cost, conv, conv_norm, conv_norm_relu, freeze_norms, score_conv};
pub use fpn::{ExtraLevels, Fpn, FpnConv, Level, P6From, PyramidSpec, check_levels};
pub use frozen::Frozen;
pub use full::FullyConnected;
pub use mentor_weights::{Fans, Fresh, Init};
pub use mobilenet::{InvertedResidual, MobileNetLayer, MobileNetV2, Step};
pub use names::{fill_weights, num_params, pytorch_name, pytorch_shapes};
pub use pafpn::{PyramidKind, StepUp};
pub use resnet::{BasicBlock, Block, Bottleneck, ResNet};
pub use student::{Grouped, NET, Student};
pub use weights::{
    LoadOptions, LoadReport, Scope, WeightsError, export_burnpack, export_safetensors, load_tensors, load_weights,
    tensor_shapes,
};
