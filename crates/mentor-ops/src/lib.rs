//! Tensor operations that burn lacks or runs slowly, each with its gradient and a portable
//! fallback; the exponential moving average; and walks over a module's weights by path.
//!
//! Nothing here knows a task, a file or a recipe.

mod conv;
mod ema;
mod grad;
mod named;
mod norm;
mod reduce;
mod resize;
mod seeded;
mod weights;

pub use conv::conv2d;
pub use ema::{Buffers, Ema};
pub use grad::{clip_by_global_norm, global_norm};
pub use named::{NamedError, NamedTensors, from_safetensors, load_named, to_safetensors};
pub use norm::{batch_norm, batch_norm_relu};
pub use reduce::{mean_all, sum_all};
pub use resize::{bilinear_matrix, nearest_indices, resize_bilinear, resize_nearest_int};
pub use seeded::SeededInit;
pub use weights::{PathStack, is_buffer, named_weights, weights_fingerprint};
