//! Tensor operations that burn lacks or runs slowly, each with its gradient and a portable
//! fallback; the exponential moving average; and walks over a module's weights by path.
//!
//! Nothing here knows a task, a file or a recipe.

mod conv;
mod cpu;
mod ema;
mod grad;
mod named;
mod norm;
mod optional;
mod pool;
mod reduce;
mod resize;
mod seeded;
mod softmax;
#[cfg(test)]
mod test_maps;
mod update;
mod weights;

pub use conv::{Activation, conv_transpose2d, conv2d, conv2d_norm};
pub use cpu::{start_threads, tune_allocator};
pub use ema::{Buffers, Ema};
pub use grad::{clip_by_global_norm, global_norm};
pub use named::{NamedError, NamedTensors, from_safetensors, load_named, to_safetensors};
pub use norm::{batch_norm, batch_norm_relu};
pub use pool::{adaptive_avg_pool2d, max_pool2d};
pub use reduce::{mean_all, sum_all};
pub use resize::{bilinear_matrix, nearest_indices, resize_bilinear, resize_nearest_int};
pub use seeded::SeededInit;
pub use softmax::{log_softmax, pixel_cross_entropy, softmax};
pub use update::{AdamwStep, SgdStep, adamw_update, sgd_update};
pub use weights::{PathStack, is_buffer, named_weights, weights_fingerprint};
