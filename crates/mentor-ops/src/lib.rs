//! Tensor operations that burn lacks or runs slowly, each with its gradient and a portable
//! fallback; the exponential moving average; and walks over a module's weights by path.
//!
//! Nothing here knows a task, a file or a recipe.

mod alloc;
mod bilinear;
mod buffer;
mod conv;
mod conv_columns;
mod conv_depthwise;
#[cfg(target_arch = "x86_64")]
mod conv_direct;
#[cfg(target_arch = "x86_64")]
mod conv_direct_input;
#[cfg(target_arch = "x86_64")]
mod conv_direct_weight;
mod conv_epilogue;
#[cfg(target_arch = "x86_64")]
mod conv_micro;
#[cfg(target_arch = "x86_64")]
mod conv_micro_taps;
mod conv_norm;
mod conv_paths;
#[cfg(target_arch = "x86_64")]
mod conv_pointwise;
mod conv_shape;
#[cfg(target_arch = "x86_64")]
mod conv_tasks;
mod conv_transpose;
mod cross_entropy;
mod ema;
mod exp;
mod flex;
mod gemm;
mod grad;
#[cfg(all(test, unix))]
mod guard;
mod instructions;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod max_pool;
mod named;
mod norm;
mod norm_composed;
mod norm_kernels;
mod optional;
mod padded;
mod pool;
mod reduce;
mod resize;
mod seeded;
mod simd;
mod softmax;
mod softmax_kernels;
#[cfg(test)]
mod test_maps;
mod threads;
mod update;
mod weights;
#[cfg(target_arch = "x86_64")]
mod winograd;
#[cfg(target_arch = "x86_64")]
mod winograd_filter;
#[cfg(target_arch = "x86_64")]
mod winograd_finish;
#[cfg(target_arch = "x86_64")]
mod winograd_gradient;
#[cfg(target_arch = "x86_64")]
mod winograd_maps;
#[cfg(target_arch = "x86_64")]
mod winograd_tiles;
#[cfg(target_arch = "x86_64")]
mod winograd_weights;

pub use alloc::tune_allocator;
pub use conv::conv2d;
pub use conv_epilogue::Activation;
pub use conv_norm::conv2d_norm;
pub use conv_transpose::conv_transpose2d;
pub use cross_entropy::pixel_cross_entropy;
pub use ema::{Buffers, Ema};
pub use grad::{clip_by_global_norm, global_norm};
pub use max_pool::max_pool2d;
pub use named::{NamedError, NamedTensors, from_safetensors, load_named, to_safetensors};
pub use norm::{batch_norm, batch_norm_relu};
pub use pool::adaptive_avg_pool2d;
pub use reduce::{mean_all, sum_all};
pub use resize::{bilinear_matrix, nearest_indices, resize_bilinear, resize_nearest_int};
pub use seeded::{Fans, Fresh, Init};
pub use softmax::{log_softmax, softmax};
pub use threads::start_threads;
pub use update::{AdamwStep, SgdStep, adamw_update, sgd_update};
pub use weights::{PathStack, is_buffer, named_weights, weights_fingerprint};
