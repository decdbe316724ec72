//! What can stop a run.

use std::path::PathBuf;

use mentor_weights::FileError;
use thiserror::Error;

/// What can stop a run. Nothing that was saved before is lost by any of these.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The loss, or the norm of its gradient, is not a finite number.
    #[error("{what} is not finite at step {step}; no checkpoint was written after it{table}")]
    NotFinite {
        /// The first bad step, counted from 1.
        step: u64,
        /// `the loss`, `the gradient`, or the loss of what the method trains beside the model; where the
        /// device was not asked at every step, `a loss or gradient`.
        what: String,
        /// Every term with its weight and value, each after a line break; empty where the device was
        /// not asked at every step.
        table: String,
    },
    /// No term of the recipe applies to a batch.
    #[error("step {step} has no loss: no term of the recipe applies to its batch")]
    NoLoss {
        /// The step, counted from 1.
        step: u64,
    },
    /// A file could not be written or read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint is damaged or does not fit.
    #[error("{path}: {reason}", path = path.display())]
    Checkpoint {
        /// The checkpoint folder or a file in it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The source of batches failed.
    #[error("{0}")]
    Data(String),
    /// An evaluation failed.
    #[error("evaluation after step {step}: {reason}")]
    Evaluation {
        /// The step.
        step: u64,
        /// What went wrong.
        reason: String,
    },
}

impl TrainError {
    /// Wraps what the system said about `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl From<FileError> for TrainError {
    fn from(FileError { path, source }: FileError) -> Self {
        Self::Io { path, source }
    }
}
