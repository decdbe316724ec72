//! What is done to the weights of a module: named by path, started by a seed, averaged, clipped by
//! their gradients, and kept in files that are whole or not there.
//!
//! Nothing here knows a net, a task or a recipe.

mod ema;
mod files;
mod grad;
mod named;
mod path;
mod seeded;
#[cfg(test)]
mod testing;

pub use ema::{Buffers, Ema};
pub use files::{
    FileError, remove_leftovers, rename_synced, sync_folder, write_atomically, write_parts_atomically, write_synced,
};
pub use grad::{clip_by_global_norm, global_norm};
pub use named::{NamedError, NamedTensors, from_safetensors, load_named, to_safetensors};
pub use path::{PathStack, is_buffer, named_weights, weights_fingerprint};
pub use seeded::{Fans, Fresh, Init};
