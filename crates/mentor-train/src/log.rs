//! The log of a run: one JSON object a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use mentor_types::ScoreRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;

/// One line of the log. Two runs of one recipe differ in nothing but `time`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogLine {
    /// What a step did.
    Step {
        /// Steps done, this one included.
        step: u64,
        /// Learning rate of the backbone.
        lr: f64,
        /// The weighted sum of all terms.
        total: f64,
        /// Norm of all gradients before clipping.
        grad_norm: f64,
        /// Name to (weight, unweighted value).
        terms: BTreeMap<String, TermLine>,
        /// Numbers that train nothing.
        stats: BTreeMap<String, f64>,
        /// Seconds, images per second and the share of time spent waiting for data.
        time: Value,
    },
    /// What an evaluation found.
    Eval {
        /// After how many steps.
        step: u64,
        /// Which model.
        model: String,
        /// The number by which the best checkpoint is chosen.
        score: f64,
        /// All numbers.
        metrics: ScoreRecord,
        /// Seconds.
        time: Value,
    },
}

/// A term in the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermLine {
    /// Its factor in the sum.
    pub weight: f64,
    /// Its value before weighting.
    pub value: f64,
}

impl LogLine {
    /// Steps done when the line was written.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Self::Step { step, .. } | Self::Eval { step, .. } => *step,
        }
    }
}

/// The file that the lines go to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log for appending, cut back to `step`: later lines, and a line that a kill left
    /// half-written, go.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else than a log.
    pub fn open(path: impl Into<PathBuf>, step: u64) -> Result<Self, TrainError> {
        let path = path.into();
        let old = match fs::read_to_string(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(TrainError::io(&path)(error)),
        };
        let kept: String = old
            .split_inclusive('\n')
            .take_while(|line| {
                serde_json::from_str::<LogLine>(line).is_ok_and(|line| line.step() <= step) && line.ends_with('\n')
            })
            .collect();
        if kept.len() != old.len() {
            mentor_weights::write_atomically(&path, kept.as_bytes())?;
        }
        let file = File::options().create(true).append(true).open(&path).map_err(TrainError::io(&path))?;
        Ok(Self { path, file })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, line: &LogLine) -> Result<(), TrainError> {
        let mut text = serde_json::to_string(line).expect("a log line has a JSON form");
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(TrainError::io(&self.path))
    }

    /// All lines of a log file; a last line that is cut is left out.
    ///
    /// # Errors
    /// If the file cannot be read, or a line before the last is no log line.
    pub fn read(path: &Path) -> Result<Vec<LogLine>, TrainError> {
        let text = fs::read_to_string(path).map_err(TrainError::io(path))?;
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                Err(_) if number + 1 == text.lines().count() => {}
                Err(error) => {
                    let reason = format!("line {}: {error}", number + 1);
                    return Err(TrainError::Checkpoint { path: path.to_owned(), reason });
                }
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn line(step: u64) -> LogLine {
        let metrics = ScoreRecord::from_iter([("accuracy", json!(0.25))]);
        LogLine::Eval { step, model: "student".into(), score: 0.25, metrics, time: json!({}) }
    }

    #[test]
    fn a_resumed_log_is_cut_back_to_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(&path, 0).unwrap();
        for step in [10, 20, 30] {
            log.write(&line(step)).unwrap();
        }
        log.file.write_all(b"{\"step\": 40, \"mod").unwrap();
        drop(log);
        let mut log = Log::open(&path, 20).unwrap();
        log.write(&line(25)).unwrap();
        let steps: Vec<u64> = Log::read(&path).unwrap().iter().map(LogLine::step).collect();
        assert_eq!(steps, [10, 20, 25]);
    }

    #[test]
    fn lines_survive_the_file() {
        let step = LogLine::Step {
            step: 3,
            lr: 0.1,
            total: 1.5,
            grad_norm: 2.0,
            terms: BTreeMap::from([("cross_entropy".to_owned(), TermLine { weight: 1.0, value: 1.5 })]),
            stats: BTreeMap::new(),
            time: json!({"seconds": 1.0}),
        };
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<LogLine>(&text).unwrap(), step);
    }
}
