//! The training loop and what surrounds it: optimizers, schedules, checkpoints, logs.
//!
//! Knows no task: what a batch holds, which losses it gives and how a model is judged is the
//! business of a [`Method`] and of the closures that the caller hands in.

mod average;
mod checkpoint;
mod clock;
mod config;
mod error;
mod events;
pub mod files;
mod finite;
mod info;
mod log;
mod machine;
mod method;
mod optimizer;
mod progress;
mod record;
mod result;
mod rival;
mod schedule;
mod train;

pub use average::Average;
pub use checkpoint::{Best, Checkpoint, CheckpointState, Checkpoints};
pub use config::{BuffersConfig, EmaConfig, Precision, TrainConfig};
pub use error::TrainError;
pub use info::RunInfo;
pub use log::{Log, LogLine, TermLine};
pub use machine::cpu_name;
pub use method::{Evaluation, Losses, Method, Moment, Take, take_up};
pub use optimizer::{AdamwConfig, Optimizer, OptimizerConfig, SgdConfig};
pub use progress::Progress;
pub use result::{RunResult, SkippedSample};
pub use rival::{RivalConfig, RivalNet};
pub use schedule::{CosineSchedule, PolySchedule, ScheduleConfig, StepSchedule};
pub use train::{Outcome, Run, train};
