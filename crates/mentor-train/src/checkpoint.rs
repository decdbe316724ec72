//! Checkpoints: folders that are written aside, synced, and renamed whole.
//!
//! ```text
//! checkpoints/
//!   step-00000040/     model.safetensors  optimizer.safetensors  method files  state.json  manifest.json
//!   best-00000030/     the same, at the best evaluation
//! ```
//! `manifest.json` holds the size and hash of every other file; whatever differs from it is refused.
//!
//! Only a run that goes on may fall back to the checkpoint before a damaged one, and says so: it does the
//! steps between once more. Where weights are taken, or a step is replayed, the newest checkpoint is meant
//! and no other, so that a damaged one is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mentor_weights::{rename_synced, sync_folder, write_synced};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The best evaluation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After which step.
    pub step: u64,
    /// Its score.
    pub score: f64,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// Optimizer steps done.
    pub step: u64,
    /// The best evaluation up to here.
    pub best: Option<Best>,
}

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What it says of itself.
    pub state: CheckpointState,
    /// File name to contents, without `state.json` and `manifest.json`.
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.json";
/// Regular checkpoints that stay: the last one, and one before it should the last be damaged.
const KEEP: usize = 2;

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The checkpoints under `folder`, which is made where absent.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(TrainError::io(&folder))?;
        Ok(Self { folder })
    }

    /// The checkpoints under a `folder` that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn open_existing(folder: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let folder = folder.into();
        if !folder.is_dir() {
            return Err(TrainError::Checkpoint { path: folder, reason: "there are no checkpoints".to_owned() });
        }
        Ok(Self { folder })
    }

    /// Writes a regular checkpoint; then drops all but the last two of them, and every best one
    /// but the current.
    ///
    /// # Errors
    /// If a file cannot be written; every earlier checkpoint is whole then.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        let path = self.write("step", checkpoint)?;
        let steps = self.steps("step")?;
        for step in steps.iter().rev().skip(KEEP) {
            self.remove("step", *step)?;
        }
        let best = checkpoint.state.best.as_ref().map(|best| best.step);
        for step in self.steps("best")?.into_iter().filter(|step| Some(*step) != best) {
            self.remove("best", step)?;
        }
        Ok(path)
    }

    /// Writes the checkpoint of the best evaluation beside the regular ones.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub(crate) fn save_best(&self, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        self.write("best", checkpoint)
    }

    /// The newest regular checkpoint that is whole, and what is wrong with newer ones: where a run goes on.
    ///
    /// # Errors
    /// If there are checkpoints and none of them is whole, or the system does not give one of them out.
    pub fn last(&self) -> Result<Option<(Checkpoint, Vec<String>)>, TrainError> {
        let mut damaged = Vec::new();
        for step in self.steps("step")?.into_iter().rev() {
            match self.read(&self.path("step", step)) {
                Ok(checkpoint) => return Ok(Some((checkpoint, damaged))),
                // Whoever may not read a file cannot know that it is damaged.
                Err(error @ TrainError::Io { .. }) => return Err(error),
                Err(error) => damaged.push(error.to_string()),
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        let reason = format!("no whole checkpoint is left\n{}", damaged.join("\n"));
        Err(TrainError::Checkpoint { path: self.folder.clone(), reason })
    }

    /// The newest checkpoint of either kind after fewer than `step` steps, which must be whole; `None`
    /// where there is none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn before(&self, step: u64) -> Result<Option<Checkpoint>, TrainError> {
        let mut found = Vec::new();
        for kind in ["best", "step"] {
            found.extend(self.steps(kind)?.into_iter().filter(|at| *at < step).map(|at| (at, kind)));
        }
        let newest = found.into_iter().max();
        newest.map(|(at, kind)| self.read(&self.path(kind, at))).transpose()
    }

    /// The checkpoint of the best evaluation.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn best(&self) -> Result<Checkpoint, TrainError> {
        self.newest_of("best")
    }

    /// The newest regular checkpoint.
    ///
    /// # Errors
    /// If there is none, or it is damaged: the one before it has other weights.
    pub fn newest(&self) -> Result<Checkpoint, TrainError> {
        self.newest_of("step")
    }

    fn newest_of(&self, kind: &str) -> Result<Checkpoint, TrainError> {
        let mut steps = self.steps(kind)?;
        let Some(newest) = steps.pop() else {
            let reason = "there is no checkpoint".to_owned();
            return Err(TrainError::Checkpoint { path: self.folder.clone(), reason });
        };
        let path = self.path(kind, newest);
        let before = steps.into_iter().rev().find(|step| self.read(&self.path(kind, *step)).is_ok());
        self.read(&path).map_err(|error| match (error, before) {
            (TrainError::Checkpoint { path: file, reason }, Some(before)) => TrainError::Checkpoint {
                path: file,
                reason: format!("{reason}; to take the one after step {before}, remove {}", path.display()),
            },
            (error, _) => error,
        })
    }

    fn path(&self, kind: &str, step: u64) -> PathBuf {
        self.folder.join(format!("{kind}-{step:08}"))
    }

    fn steps(&self, kind: &str) -> Result<Vec<u64>, TrainError> {
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(TrainError::io(&self.folder))? {
            let name = entry.map_err(TrainError::io(&self.folder))?.file_name();
            let step: Option<u64> =
                name.to_str().and_then(|name| name.strip_prefix(kind)?.strip_prefix('-')?.parse().ok());
            steps.extend(step);
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn remove(&self, kind: &str, step: u64) -> Result<(), TrainError> {
        // Renamed first, so that a kill in the middle never leaves half a checkpoint under its name.
        let (path, aside) = (self.path(kind, step), self.folder.join(".removed"));
        remove_if_there(&aside)?;
        fs::rename(&path, &aside).map_err(TrainError::io(&path))?;
        remove_if_there(&aside)
    }

    fn write(&self, kind: &str, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        let aside = self.folder.join(".writing");
        remove_if_there(&aside)?;
        fs::create_dir(&aside).map_err(TrainError::io(&aside))?;
        let state = json(&checkpoint.state);
        let mut manifest = BTreeMap::new();
        for (name, bytes) in
            checkpoint.files.iter().map(|(name, bytes)| (name.as_str(), bytes)).chain([(STATE, &state)])
        {
            write_synced(&aside.join(name), bytes)?;
            let hash = blake3::hash(bytes).to_hex().to_string();
            manifest.insert(name.to_owned(), Entry { bytes: bytes.len() as u64, blake3: hash });
        }
        write_synced(&aside.join(MANIFEST), &json(&manifest))?;
        sync_folder(&aside)?;
        let path = self.path(kind, checkpoint.state.step);
        remove_if_there(&path)?;
        rename_synced(&aside, &path)?;
        Ok(path)
    }

    fn read(&self, path: &Path) -> Result<Checkpoint, TrainError> {
        let fail = |file: &str, reason: String| TrainError::Checkpoint { path: path.join(file), reason };
        let read = |file: &str| {
            fs::read(path.join(file)).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => fail(file, "is missing".to_owned()),
                _ => TrainError::io(path.join(file))(error),
            })
        };
        let manifest: BTreeMap<String, Entry> =
            serde_json::from_slice(&read(MANIFEST)?).map_err(|error| fail(MANIFEST, error.to_string()))?;
        let mut files = BTreeMap::new();
        for (name, entry) in manifest {
            let bytes = read(&name)?;
            if bytes.len() as u64 != entry.bytes {
                return Err(fail(&name, format!("has {} bytes, expected {}: it is cut", bytes.len(), entry.bytes)));
            }
            if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
                return Err(fail(&name, "differs from its checksum: it is damaged".to_owned()));
            }
            files.insert(name, bytes);
        }
        let state = files.remove(STATE).ok_or_else(|| fail(STATE, "is not in the manifest".to_owned()))?;
        let state = serde_json::from_slice(&state).map_err(|error| fail(STATE, error.to_string()))?;
        Ok(Checkpoint { state, files })
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data has a JSON form");
    bytes.push(b'\n');
    bytes
}

fn remove_if_there(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checkpoint(step: u64, best: Option<u64>) -> Checkpoint {
        let best = best.map(|step| Best { step, score: 0.5 });
        let files = BTreeMap::from([("model.safetensors".to_owned(), vec![step as u8; 100])]);
        Checkpoint { state: CheckpointState { step, best }, files }
    }

    fn folder() -> (tempfile::TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path().join("checkpoints")).unwrap();
        (folder, checkpoints)
    }

    #[test]
    fn the_last_two_and_the_best_stay() {
        let (_folder, checkpoints) = folder();
        for step in 1..=5 {
            if step == 2 || step == 3 {
                checkpoints.save_best(&checkpoint(step, Some(step))).unwrap();
            }
            checkpoints.save(&checkpoint(step, (step >= 2).then_some(step.min(3)))).unwrap();
        }
        assert_eq!(checkpoints.steps("step").unwrap(), [4, 5]);
        assert_eq!(checkpoints.steps("best").unwrap(), [3]);
        assert_eq!(checkpoints.best().unwrap().state.step, 3);
        let (last, damaged) = checkpoints.last().unwrap().unwrap();
        assert_eq!((last.state.step, last.files["model.safetensors"][0], damaged.len()), (5, 5, 0));
    }

    #[test]
    fn a_damaged_checkpoint_is_named_and_the_one_before_is_taken() {
        let (_folder, checkpoints) = folder();
        for step in [1, 2] {
            checkpoints.save(&checkpoint(step, None)).unwrap();
        }
        let file = checkpoints.path("step", 2).join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        bytes[50] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let (last, damaged) = checkpoints.last().unwrap().unwrap();
        assert_eq!(last.state.step, 1);
        assert!(damaged[0].contains("model.safetensors: differs from its checksum"), "{}", damaged[0]);
        fs::write(&file, &bytes[..50]).unwrap();
        assert!(checkpoints.last().unwrap().unwrap().1[0].contains("has 50 bytes, expected 100"));
        fs::remove_dir_all(checkpoints.path("step", 1)).unwrap();
        assert!(checkpoints.last().unwrap_err().to_string().contains("no whole checkpoint is left"));
    }

    #[test]
    fn a_damaged_newest_checkpoint_is_not_passed_over_where_weights_are_taken() {
        let (_folder, checkpoints) = folder();
        for step in [1, 2] {
            checkpoints.save(&checkpoint(step, None)).unwrap();
        }
        for step in [1, 2] {
            checkpoints.save_best(&checkpoint(step, Some(step))).unwrap();
        }
        for (kind, step) in [("step", 1), ("best", 1), ("step", 2), ("best", 2)] {
            let file = checkpoints.path(kind, step).join("model.safetensors");
            let take = || if kind == "best" { checkpoints.best() } else { checkpoints.newest() };
            let good = fs::read(&file).unwrap();
            let mut bad = good.clone();
            bad[50] ^= 1;
            fs::write(&file, bad).unwrap();
            // What is older does not matter.
            if step == 1 {
                assert_eq!(take().unwrap().state.step, 2);
            } else {
                let message = take().unwrap_err().to_string();
                assert!(message.starts_with(&format!("{}: differs from", file.display())), "{message}");
                assert!(
                    message.ends_with(&format!("{kind}-00000002")) && message.contains("after step 1"),
                    "{message}"
                );
                fs::remove_file(&file).unwrap();
                assert!(take().unwrap_err().to_string().contains("model.safetensors: is missing; to take"));
            }
            fs::write(&file, good).unwrap();
        }
    }

    #[test]
    fn what_a_kill_left_half_written_is_ignored_and_cleared() {
        let (_folder, checkpoints) = folder();
        checkpoints.save(&checkpoint(1, None)).unwrap();
        let half = checkpoints.folder.join(".writing");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("model.safetensors"), b"half").unwrap();
        assert_eq!(checkpoints.last().unwrap().unwrap().0.state.step, 1);
        checkpoints.save(&checkpoint(2, None)).unwrap();
        assert!(!half.exists());
        assert_eq!(checkpoints.last().unwrap().unwrap().0.state.step, 2);
    }

    #[test]
    fn a_folder_that_cannot_be_written_keeps_what_it_has() {
        let (_folder, checkpoints) = folder();
        checkpoints.save(&checkpoint(1, None)).unwrap();
        // A file where the scratch folder should be stands for any failure while writing.
        let mut broken = checkpoint(2, None);
        broken.files.insert("no/such/folder".to_owned(), vec![1]);
        assert!(checkpoints.save(&broken).unwrap_err().to_string().contains("no/such/folder"));
        assert_eq!(checkpoints.last().unwrap().unwrap().0.state.step, 1);
    }
}
