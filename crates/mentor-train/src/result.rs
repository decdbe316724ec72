//! `result.json`: what came out of a run.

use std::collections::BTreeMap;
use std::path::Path;

use mentor_types::ScoreRecord;
use mentor_weights::write_atomically;
use serde::{Deserialize, Serialize};

use crate::{Best, TrainError};

/// What came out of a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The scores on val of the model that the run is judged by.
    pub val: ScoreRecord,
    /// Which model that is: `ema`, `student`.
    pub val_model: String,
    /// The scores on val of every model that was trained, by name.
    pub models: BTreeMap<String, ScoreRecord>,
    /// The scores on val of every teacher, by name, before the first step.
    pub teachers: BTreeMap<String, ScoreRecord>,
    /// The best evaluation.
    pub best: Best,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Images that went through a second of training.
    pub images_per_second: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// The device in words.
    pub device: String,
    /// The commit of the code.
    pub commit: String,
    /// Samples that were left out.
    pub bad_samples: Vec<SkippedSample>,
}

/// A sample that was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedSample {
    /// Its file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl RunResult {
    /// Its name in a run folder.
    pub const FILE: &str = "result.json";

    /// The result of the run in a folder.
    ///
    /// # Errors
    /// If the run is not finished, or the file is something else.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(Self::FILE);
        let fail = |reason: String| TrainError::Checkpoint { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => fail("the run is not finished".to_owned()),
            _ => fail(error.to_string()),
        })?;
        serde_json::from_str(&text).map_err(|error| fail(format!("not the result of a run: {error}")))
    }

    /// Writes it into a run folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        write_json(&folder.join(Self::FILE), self)
    }

    /// Every model that was judged, the one that the run is judged by first, teachers last.
    pub fn judged(&self) -> impl Iterator<Item = (&str, &ScoreRecord)> {
        let others = self.models.iter().filter(|(name, _)| **name != self.val_model).chain(&self.teachers);
        std::iter::once((self.val_model.as_str(), &self.val)).chain(others.map(|(name, val)| (name.as_str(), val)))
    }
}

/// Writes indented JSON, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let fail = |error: serde_json::Error| TrainError::Checkpoint { path: path.to_owned(), reason: error.to_string() };
    Ok(write_atomically(path, &serde_json::to_vec_pretty(value).map_err(fail)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As it was written when the file had no type.
    const OLD: &str = r#"{
  "bad_samples": [{"path": "images/a.jpg", "reason": "no image"}],
  "best": {"score": 0.0642, "step": 5},
  "commit": "6585a15828d6",
  "device": "cpu (AMD EPYC, 2 threads)",
  "images_per_second": 133.48344481086423,
  "models": {
    "ema": {"recall": null, "accuracy": 0.03715097702781815, "per_class": {"road": 0.5}, "counted": 1013489},
    "student": {"accuracy": 0.0368, "per_class": {"road": null}, "counted": 1013489}
  },
  "seconds": 7.2,
  "steps": 20,
  "teachers": {"big": {"accuracy": 0.075}},
  "val": {"recall": null, "accuracy": 0.03715097702781815, "per_class": {"road": 0.5}, "counted": 1013489},
  "val_model": "ema"
}"#;

    #[test]
    fn a_result_from_before_it_had_a_type_is_read_and_written_with_the_same_keys() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RunResult::FILE), OLD).unwrap();
        let result = RunResult::read(folder.path()).unwrap();
        assert_eq!((result.steps, result.val.get("accuracy")), (20, Some(0.037_150_977_027_818_15)));
        assert_eq!(result.judged().map(|(name, _)| name).collect::<Vec<_>>(), ["ema", "student", "big"]);
        result.write(folder.path()).unwrap();
        let again = std::fs::read_to_string(folder.path().join(RunResult::FILE)).unwrap();
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&again), value(OLD));
    }

    #[test]
    fn a_result_without_its_steps_is_an_error_and_no_zero() {
        let folder = tempfile::tempdir().unwrap();
        let read = || RunResult::read(folder.path()).unwrap_err().to_string();
        assert!(read().ends_with("result.json: the run is not finished"), "{}", read());
        std::fs::write(folder.path().join(RunResult::FILE), OLD.replace("\"steps\": 20,", "")).unwrap();
        assert!(read().contains("result.json: not the result of a run: missing field `steps`"), "{}", read());
    }
}
