//! The result of one row of a study with one seed: a small JSON file that can be committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mentor_weights::{FileError, write_atomically};
use serde::{Deserialize, Serialize};

use crate::study::job_name;

/// What a job of a study measured, and what it ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowResult {
    /// The row's name.
    pub row: String,
    /// The seed.
    pub seed: u64,
    /// The key of what was run, see [`row_key`].
    pub key: String,
    /// Metrics by name; each finite.
    pub metrics: BTreeMap<String, f64>,
    /// Optimizer steps taken.
    pub steps: u64,
    /// The device in words.
    pub device: String,
    /// The commit of the code.
    pub commit: String,
    /// Wall time of the run in seconds.
    pub seconds: f64,
    /// What each image that was judged adds to the score, see [`crate::shares_line`]; empty where nobody kept it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// Why a result could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The file could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a row's result.
    #[error("{}:{}:{}: not a row's result: {source}", path.display(), source.line(), source.column())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        source: serde_json::Error,
    },
    /// The file could not be written; what was there before still is.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A number that JSON cannot hold.
    #[error("row {row}: `{name}` is {value}, expected a finite number")]
    NotFinite {
        /// The row.
        row: String,
        /// The metric, or `seconds`.
        name: String,
        /// What it was.
        value: f64,
    },
}

impl RowResult {
    /// `ROW.seedN.json`, the name under which a study keeps a result.
    pub fn file_name(row: &str, seed: u64) -> String {
        format!("{}.json", job_name(row, seed))
    }

    /// Writes the result as indented JSON, whole or not at all; makes its folder where absent.
    ///
    /// # Errors
    /// A number that is not finite; a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ResultError> {
        let mut numbers =
            self.metrics.iter().map(|(name, value)| (name.as_str(), *value)).chain([("seconds", self.seconds)]);
        if let Some((name, value)) = numbers.find(|(_, value)| !value.is_finite()) {
            return Err(ResultError::NotFinite { row: self.row.clone(), name: name.to_string(), value });
        }
        let failed = |source| ResultError::Write { path: path.to_path_buf(), source };
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        text.push('\n');
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        write_atomically(path, text.as_bytes())
            .map_err(|FileError { path, source }| ResultError::Write { path, source })
    }

    /// Reads a result.
    ///
    /// # Errors
    /// A file that cannot be read or is something else.
    pub fn load(path: &Path) -> Result<Self, ResultError> {
        let bytes = std::fs::read(path).map_err(|source| ResultError::Read { path: path.to_path_buf(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| ResultError::Malformed { path: path.to_path_buf(), source })
    }

    /// Reads a result if it is there and of this key; `None` means that the row is to be run.
    ///
    /// # Errors
    /// A file that is there and cannot be read or is something else.
    pub fn load_if_current(path: &Path, key: &str) -> Result<Option<Self>, ResultError> {
        match Self::load(path) {
            Ok(result) => Ok(Some(result).filter(|result| result.key == key)),
            Err(ResultError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The key of a job: a hash over everything that decides its result.
///
/// `recipe` is the recipe in its shortest form ([`crate::Loaded::minimal`], read with [`crate::Job::changes_for_key`]), so
/// that a key with a default that comes to recipes changes no key of a row; `data` a fingerprint of the images and labels, `code` the code's version, `needed` the keys of the jobs whose students it takes
/// over, in the order of [`crate::Job::needs`]. 64 hexadecimal digits of BLAKE3.
pub fn row_key(recipe: &str, data: &str, code: &str, needed: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [recipe, data, code].into_iter().chain(needed.iter().map(String::as_str)) {
        // The length before each part keeps ("ab", "c") apart from ("a", "bc").
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn result() -> RowResult {
        RowResult {
            row: "teacher".into(),
            seed: 1,
            key: row_key("a", "b", "c", &[]),
            metrics: [("miou".to_string(), 0.1 + 0.2)].into(),
            steps: 400,
            device: "cpu".into(),
            commit: "0123abc".into(),
            seconds: 12.5,
            images: vec!["1/2 0/0".into()],
        }
    }

    #[test]
    fn a_result_is_read_back_bit_for_bit_and_leaves_nothing_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results").join(RowResult::file_name("teacher", 1));
        result().save(&path).unwrap();
        result().save(&path).unwrap();
        assert_eq!(RowResult::load(&path).unwrap(), result());
        let names: Vec<_> =
            std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["teacher.seed1.json"]);
    }

    #[test]
    fn a_result_of_another_key_or_none_means_that_the_row_is_to_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(RowResult::load_if_current(&path, "x").unwrap(), None);
        result().save(&path).unwrap();
        assert_eq!(RowResult::load_if_current(&path, "x").unwrap(), None);
        assert_eq!(RowResult::load_if_current(&path, &result().key).unwrap(), Some(result()));
    }

    #[test]
    fn a_broken_result_and_a_number_that_is_not_finite_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "{\n  \"row\": 3 }").unwrap();
        let message = RowResult::load(&path).unwrap_err().to_string();
        assert!(message.contains("a.json:2:10: not a row's result: invalid type: integer `3`"), "{message}");
        let mut bad = result();
        bad.metrics.insert("miou".into(), f64::NAN);
        assert_eq!(bad.save(&path).unwrap_err().to_string(), "row teacher: `miou` is NaN, expected a finite number");
        assert!(result().save(folder.path()).is_err());
    }

    #[test]
    fn a_key_changes_with_every_part_and_with_where_one_part_ends() {
        let keys = [
            row_key("ab", "c", "d", &[]),
            row_key("a", "bc", "d", &[]),
            row_key("ab", "c", "e", &[]),
            row_key("ab", "c", "d", &["x".to_string()]),
            row_key("ab", "c", "d", &["y".to_string()]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.len(), 64);
            assert!(!keys[..index].contains(key));
        }
        assert_eq!(keys[0], row_key("ab", "c", "d", &[]));
    }
}
