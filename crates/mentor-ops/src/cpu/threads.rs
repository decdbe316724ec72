//! The threads that CPU operations share.

use std::num::NonZero;
use std::thread::available_parallelism;

use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};

/// Starts the threads that CPU operations share, the calling one among them: `count`, or else what the environment
/// variable `RAYON_NUM_THREADS` says, or else one for each processor. Returns how many there are.
///
/// Without it they start by themselves and the caller sleeps while they work. That costs two switches an operation;
/// and where two of them end up on one processor while the caller's stands idle, all goes half as fast for a while.
/// Call it once, in the thread that will compute, before any operation.
///
/// A single thread is not the caller: what other threads compute must go on while the caller waits for them.
///
/// # Errors
/// If the threads were started before, or the system gives no more.
pub fn start_threads(count: Option<NonZero<usize>>) -> Result<usize, ThreadPoolBuildError> {
    let named = || std::env::var("RAYON_NUM_THREADS").ok().and_then(|number| number.parse().ok());
    let count = count.or_else(named).or_else(|| available_parallelism().ok()).map_or(1, NonZero::get);
    let builder = ThreadPoolBuilder::new().num_threads(count);
    if count == 1 { builder } else { builder.use_current_thread() }.build_global()?;
    Ok(count)
}
