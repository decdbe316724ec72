//! Files of data sets, on disks that may be busy, far away or forbidden.
//!
//! A sample is bad by what its file holds, or because it is not there. What else the system says (no permission, a disk
//! that fails, too many open files, a handle gone stale) says nothing about the sample: it is asked again for half a
//! second, and then everything stops, whatever `on_bad_sample` is. Else a busy machine would change what is learnt and
//! what is measured.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::time::Duration;

use crate::error::{BadSample, DataError};

/// The extensions of images, in lower case.
pub(crate) const IMAGE_EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp"];

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// How long is waited before each further try.
const WAITS: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];

/// Whether a file is an image by its name, in upper or lower case.
#[must_use]
pub fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

/// Asks the system about `path`, again where the answer may be another in a moment.
pub(crate) fn ask<T>(path: &Path, call: impl Fn() -> std::io::Result<T>) -> Result<T, DataError> {
    let mut waits = WAITS.iter();
    loop {
        let error = match call() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if is_missing(&error) {
            return Err(BadSample::new(path, "does not exist").into());
        }
        match waits.next().filter(|_| error.kind() != ErrorKind::PermissionDenied) {
            Some(wait) => std::thread::sleep(*wait),
            None => return Err(DataError::io(path, error)),
        }
    }
}

/// Whether nothing lies at a path, or nothing ever could.
fn is_missing(error: &Error) -> bool {
    use ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidInput | InvalidFilename)
}

/// Whether anything lies at `path`.
pub(crate) fn exists(path: &Path) -> Result<bool, DataError> {
    match ask(path, || std::fs::metadata(path)) {
        Ok(_) => Ok(true),
        Err(DataError::Bad(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses what is no file, empty, or too large to be read.
pub(crate) fn check_file(path: &Path) -> Result<(), DataError> {
    match len_of(path)? {
        0 => Err(BadSample::new(path, "is empty (0 bytes)").into()),
        _ => Ok(()),
    }
}

/// The bytes that a file has, which are not too many to be read.
fn len_of(path: &Path) -> Result<u64, DataError> {
    let metadata = ask(path, || std::fs::metadata(path))?;
    let bad = |reason: String| Err(BadSample::new(path, reason).into());
    match metadata.len() {
        _ if metadata.is_dir() => bad("is a folder, not a file".to_owned()),
        bytes if bytes > MAX_FILE_BYTES => bad(format!("has {bytes} bytes, more than the limit of {MAX_FILE_BYTES}")),
        bytes => Ok(bytes),
    }
}

/// The bytes of a file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    check_file(path)?;
    ask(path, || std::fs::read(path))
}

/// The text of a file, which may be empty, without a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    len_of(path)?;
    let mut bytes = ask(path, || std::fs::read(path))?;
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        BadSample::new(path, format!("line {line} is no UTF-8 text")).into()
    })
}

/// The paths of all images in `folder` and below it, relative to `start`, with forward slashes, in no order.
pub(crate) fn images_below(start: &Path, folder: &Path, images: &mut Vec<String>) -> Result<(), DataError> {
    files_below(start, folder, &is_image_name, images)
}

/// The paths of all files with some names in `folder` and below it, as [`images_below`].
pub(crate) fn files_below(
    start: &Path,
    folder: &Path,
    is_wanted: &dyn Fn(&Path) -> bool,
    files: &mut Vec<String>,
) -> Result<(), DataError> {
    for entry in std::fs::read_dir(folder).map_err(|source| DataError::io(folder, source))? {
        let entry = entry.map_err(|source| DataError::io(folder, source))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|source| DataError::io(&path, source))?;
        // Linked folders are not followed: they could lead round in a circle.
        if kind.is_dir() {
            files_below(start, &path, is_wanted, files)?;
        }
        if kind.is_dir() || !is_wanted(&path) {
            continue;
        }
        let relative = path.strip_prefix(start).unwrap_or(&path);
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        let parts = parts.ok_or_else(|| BadSample::new(&path, "its name is no UTF-8 text"))?;
        files.push(parts.join("/"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_may_pass_is_tried_again_and_what_stays_stops_with_its_reason() {
        let path = Path::new("far/away.png");
        let tries = Cell::new(0);
        let failing = |times: usize, error: i32| {
            tries.set(0);
            ask(path, || {
                tries.set(tries.get() + 1);
                if tries.get() > times { Ok("there") } else { Err(Error::from_raw_os_error(error)) }
            })
        };
        // EIO and EMFILE on every Unix, as a network disk and a busy machine give them.
        assert_eq!((failing(2, 5).unwrap(), tries.get()), ("there", 3));
        let error = failing(9, 24).unwrap_err();
        assert!(matches!(&error, DataError::Io { .. }) && error.to_string().starts_with("far/away.png: "), "{error}");
        assert_eq!(tries.get(), 4);
        // EACCES does not pass, ENOENT is the sample's own fault.
        assert!(matches!((failing(9, 13).unwrap_err(), tries.get()), (DataError::Io { .. }, 1)));
        assert!(matches!((failing(9, 2).unwrap_err(), tries.get()), (DataError::Bad(_), 1)));
    }

    #[test]
    fn endings_are_known_in_any_case() {
        assert!(is_image_name(Path::new("a/b.JPEG")) && is_image_name(Path::new("b.tif")));
        assert!(!is_image_name(Path::new("png")) && !is_image_name(Path::new("a.txt")));
    }
}
