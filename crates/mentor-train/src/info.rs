//! `run.json`: what made a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// What made a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The commit of the code.
    pub commit: String,
    /// The device.
    pub device: String,
    /// The command line.
    pub command: Vec<String>,
    /// The recipe, by an absolute path: paths in it may be relative to its folder.
    pub recipe: PathBuf,
    /// A hash of images, labels and lists.
    pub data: String,
    /// Hashes of the weights that were loaded, by who loaded them.
    pub weights: BTreeMap<String, String>,
    /// The card of the data.
    pub card: String,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// What stands for each in the labels; empty in runs of before this was kept.
    #[serde(default)]
    pub class_values: Vec<String>,
    /// Their colours.
    pub colours: Vec<[u8; 3]>,
}

impl RunInfo {
    /// Its name in a run folder.
    pub const FILE: &str = "run.json";

    /// What made the run in a folder.
    ///
    /// # Errors
    /// If the folder does not say.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(Self::FILE);
        let fail = |reason: String| TrainError::Checkpoint { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(|error| fail(format!("not the folder of a run: {error}")))?;
        serde_json::from_str(&text).map_err(|error| fail(error.to_string()))
    }

    /// Writes it into a run folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        crate::result::write_json(&folder.join(Self::FILE), self)
    }
}
