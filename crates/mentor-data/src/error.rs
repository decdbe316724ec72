//! What can go wrong with cards, lists and images, each mistake in one line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mentor_toml::nearest;

/// Why data could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of a card is wrong: all that was found, a line each.
    #[error(transparent)]
    CardFile(#[from] mentor_toml::Problems),
    /// A card does not serve what is asked of it.
    #[error("card `{card}` {message}")]
    Card {
        /// The card.
        card: String,
        /// What is wrong.
        message: String,
    },
    /// No card of that name.
    #[error("no card `{name}`{hint}; looked in {searched}")]
    UnknownCard {
        /// The name asked for.
        name: String,
        /// The nearest known name, or nothing.
        hint: String,
        /// The folders searched.
        searched: String,
    },
    /// A card has no split of that name.
    #[error("card `{card}` has no split `{name}`{hint}; it has {known}")]
    UnknownSplit {
        /// The card.
        card: String,
        /// The name asked for.
        name: String,
        /// The nearest known name, or nothing.
        hint: String,
        /// All splits of the card.
        known: String,
    },
    /// A split list, or a file of boxes, has a bad line.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A split as a whole cannot be used.
    #[error("card `{card}`, split `{split}`: {message}")]
    Split {
        /// The card.
        card: String,
        /// The split.
        split: String,
        /// What is wrong.
        message: String,
    },
    /// The list of a split, or its images, are nowhere.
    #[error("card `{card}`, split `{split}`: {what} is in none of {searched}; {get}")]
    NotFound {
        /// The card.
        card: String,
        /// The split.
        split: String,
        /// The list, or the first image.
        what: String,
        /// Every folder that was searched, in order.
        searched: String,
        /// The card's word on where to get them.
        get: String,
    },
    /// One sample is bad.
    #[error(transparent)]
    Bad(#[from] BadSample),
    /// A file of boxes is no JSON, or another than it should be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A file of boxes cannot be used.
    #[error("{}: {message}", path.display())]
    Boxes {
        /// The file.
        path: PathBuf,
        /// Where in it, and what is wrong there.
        message: String,
    },
    /// A folder that a starter card cannot be made for.
    #[error("{}: {message}", folder.display())]
    Starter {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        message: String,
    },
    /// A setting that cannot be followed.
    #[error("{key}: {message}")]
    Setting {
        /// The key of the recipe.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// The loader has handed out every batch, or has stopped after an error.
    #[error("the loader has no further batch")]
    NoMoreBatches,
}

impl DataError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// An image or mask that cannot be used for what it holds, or because it is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct BadSample {
    /// The file.
    pub path: PathBuf,
    /// One line.
    pub reason: String,
}

impl BadSample {
    pub(crate) fn new(path: &Path, reason: impl Into<String>) -> Self {
        // Decoders of other crates may answer with several lines; an error of ours is one.
        let reason: String = reason.into();
        let reason = reason.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        Self { path: path.to_owned(), reason: reason.trim_end_matches('.').to_owned() }
    }
}

/// The bad samples that were skipped so far: shared between threads, each path once.
#[derive(Clone, Debug, Default)]
pub struct BadSamples(Arc<Mutex<BTreeMap<PathBuf, String>>>);

impl BadSamples {
    /// Notes a bad sample.
    pub fn record(&self, bad: &BadSample) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.entry(bad.path.clone()).or_insert_with(|| bad.reason.clone());
    }

    /// All of them, by path.
    #[must_use]
    pub fn list(&self) -> Vec<BadSample> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.iter().map(|(path, reason)| BadSample { path: path.clone(), reason: reason.clone() }).collect()
    }
}

/// `, did you mean ...?` where a known name is near enough, else nothing.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |known| format!(", did you mean `{known}`?"))
}

/// Names in backticks, with commas.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Folders with commas.
pub(crate) fn folders<'a>(folders: impl IntoIterator<Item = &'a PathBuf>) -> String {
    let list = folders.into_iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    if list.is_empty() { "no folder at all".to_owned() } else { list }
}
