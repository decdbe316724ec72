//! Files of a set on their way to the disk, and what becomes of them there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image::ImageError;
use thiserror::Error;

/// The file that holds the hash of each other, as `b3sum` writes and checks them.
pub(crate) const HASHES: &str = "files.b3";

/// Why there is no set.
#[derive(Debug, Error)]
pub enum SetError {
    /// A count or size that makes no set; a folder in the way.
    #[error("{0}")]
    Spec(String),
    /// What the system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A picture that could not be encoded.
    #[error("{}: {source}", path.display())]
    Image {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> SetError {
    move |source| SetError::Io { path: path.to_owned(), source }
}

/// Writes files below a folder, on any threads, and keeps their hashes.
pub(crate) struct Writer<'a> {
    folder: &'a Path,
    hashes: Mutex<BTreeMap<String, String>>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(folder: &'a Path) -> Self {
        Self { folder, hashes: Mutex::default() }
    }

    /// Writes the file of this name.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<(), SetError> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(at(&path))?;
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), hash(bytes));
        Ok(())
    }

    /// Writes a picture, encoded by `encode`.
    pub(crate) fn picture(
        &self,
        name: &str,
        encode: impl FnOnce(&mut io::Cursor<Vec<u8>>) -> Result<(), ImageError>,
    ) -> Result<(), SetError> {
        let mut bytes = io::Cursor::new(Vec::new());
        encode(&mut bytes).map_err(|source| SetError::Image { path: self.folder.join(name), source })?;
        self.put(name, bytes.get_ref())
    }

    /// Writes the hashes of all files.
    pub(crate) fn finish(self) -> Result<(), SetError> {
        let hashes = self.hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lines: String = hashes.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        let path = self.folder.join(HASHES);
        fs::write(&path, lines).map_err(at(&path))
    }
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
