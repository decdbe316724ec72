//! What the kernels of the CPU are made of: vectors and the choice among them, memory, threads. Knows no operation.

mod alloc;
pub(crate) mod buffer;
pub(crate) mod exp;
pub(crate) mod flex;
pub(crate) mod gemm;
#[cfg(all(test, unix))]
mod guard;
pub(crate) mod instructions;
#[cfg(target_arch = "x86_64")]
pub(crate) mod lanes;
pub(crate) mod simd;
mod threads;

pub use alloc::tune_allocator;
pub use instructions::instructions;
pub use threads::start_threads;
