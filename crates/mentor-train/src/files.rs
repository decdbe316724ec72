//! The names of the files that every checkpoint, or every method with an average, has.

/// The weights of what is trained: the student with its adapters.
pub const MODEL: &str = "model.safetensors";
/// The state of the optimizer.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The averaged net.
pub const AVERAGE: &str = "ema.safetensors";
