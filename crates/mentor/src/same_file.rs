//! Whether two paths lead to one file.

use std::path::Path;

use anyhow::{Context, Result};

/// What tells a file from every other, whatever paths and links lead to it.
#[cfg(unix)]
pub fn identity(path: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What tells a file from every other, whatever paths lead to it.
#[cfg(not(unix))]
pub fn identity(path: &Path) -> Result<std::path::PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}
