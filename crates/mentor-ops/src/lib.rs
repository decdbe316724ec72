//! Tensor operations that burn lacks or runs slowly, each with its gradient and a portable
//! fallback.
//!
//! Nothing here knows a module's weights, a task, a file or a recipe.

mod boxes;
mod conv;
mod cpu;
mod norm;
mod optional;
mod pool;
mod reduce;
mod resize;
mod softmax;
#[cfg(test)]
mod test_maps;
mod update;

pub use boxes::{RoiAlign, roi_align, roi_align_levels};
pub use conv::{Activation, conv_transpose2d, conv2d, conv2d_norm};
pub use cpu::{instructions, start_threads, tune_allocator};
pub use norm::{batch_norm, batch_norm_relu, group_norm_relu};
pub use pool::{adaptive_avg_pool2d, max_pool2d};
pub use reduce::{mean_all, sum_all};
pub use resize::{bilinear_matrix, nearest_indices, resize_bilinear, resize_nearest_int};
pub use softmax::{log_softmax, pixel_cross_entropy, softmax};
pub use update::{AdamwStep, SgdStep, adamw_update, moved_average, sgd_update};
