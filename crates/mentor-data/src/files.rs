//! Files of data sets, on disks that may be busy, far away or forbidden.
//!
//! A sample is bad by what its file holds, or because it is not there. What else the system says (no permission, a disk
//! that fails, too many open files, a handle gone stale) says nothing about the sample: it is asked again for half a
//! second, and then everything stops, whatever `on_bad_sample` is. Else a busy machine would change what is learnt and
//! what is measured.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{BadSample, DataError};

/// The extensions of images, in lower case.
pub(crate) const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "gif"];

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

/// What lies in a folder and below it. Linked folders are followed, each folder once.
#[derive(Debug, Default)]
pub(crate) struct Below {
    /// The paths of the files, relative to a start, with forward slashes, sorted.
    pub files: Vec<String>,
    /// How many files are left out because systems and tools leave them behind: what begins with a dot, as `._photo.jpg` or
    /// what is in `.ipynb_checkpoints`, and what is in `__MACOSX`.
    pub hidden: usize,
    /// Links that lead nowhere.
    pub broken: Vec<String>,
}

impl Below {
    /// The images in `folder` and below it, with paths relative to `start`.
    pub(crate) fn images(start: &Path, folder: &Path) -> Result<Self, DataError> {
        Self::of(start, folder, &is_image_name)
    }

    /// The files of some names in `folder` and below it, with paths relative to `start`.
    pub(crate) fn of(start: &Path, folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<Self, DataError> {
        let mut walk = Walk { start, is_wanted, found: Self::default(), seen: BTreeSet::new(), links: Vec::new() };
        walk.folder(folder, false)?;
        // Last, so that a folder that is here is found where it is, and not where something links to it.
        while let Some(link) = walk.links.pop() {
            walk.folder(&link, false)?;
        }
        walk.found.files.sort();
        walk.found.broken.sort();
        Ok(walk.found)
    }
}

/// A walk through folders.
struct Walk<'a> {
    start: &'a Path,
    is_wanted: &'a dyn Fn(&Path) -> bool,
    found: Below,
    /// The folders where it was, as they are without links.
    seen: BTreeSet<PathBuf>,
    /// The links to folders that it met.
    links: Vec<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, is_hidden: bool) -> Result<(), DataError> {
        let io = |path: &Path, source| DataError::io(path, source);
        if !self.seen.insert(folder.canonicalize().map_err(|source| io(folder, source))?) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|source| io(folder, source))? {
            let entry = entry.map_err(|source| io(folder, source))?;
            entries.push((entry.path(), entry.file_type().map_err(|source| io(&entry.path(), source))?));
        }
        entries.sort_by(|(path, _), (other, _)| path.cmp(other));
        for (path, kind) in entries {
            let is_hidden = is_hidden || is_left_behind(&path);
            match kind.is_symlink().then(|| std::fs::metadata(&path)) {
                _ if kind.is_dir() => self.folder(&path, is_hidden)?,
                Some(Ok(target)) if target.is_dir() && !is_hidden => self.links.push(path),
                Some(Ok(target)) if target.is_dir() => {}
                Some(Err(_)) if (self.is_wanted)(&path) && !is_hidden => {
                    let path = self.relative(&path)?;
                    self.found.broken.push(path);
                }
                _ if !(self.is_wanted)(&path) => {}
                _ if is_hidden => self.found.hidden += 1,
                _ => {
                    let path = self.relative(&path)?;
                    self.found.files.push(path);
                }
            }
        }
        Ok(())
    }

    fn relative(&self, path: &Path) -> Result<String, DataError> {
        let relative = path.strip_prefix(self.start).unwrap_or(path);
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        Ok(parts.ok_or_else(|| BadSample::new(path, "its name is no UTF-8 text"))?.join("/"))
    }
}

/// Whether systems and tools leave files of such a name behind.
fn is_left_behind(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.starts_with('.') || name == "__MACOSX"
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

    #[cfg(unix)]
    #[test]
    fn linked_folders_are_followed_once_and_what_systems_leave_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        for sub in ["start/a", "start/.ipynb_checkpoints", "start/__MACOSX", "elsewhere/deep"] {
            std::fs::create_dir_all(folder.path().join(sub)).unwrap();
        }
        let files = ["a/1.png", "a/._1.png", "a/2.txt", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/1.png"];
        files.iter().for_each(|file| std::fs::write(start.join(file), "").unwrap());
        std::fs::write(folder.path().join("elsewhere/deep/3.JPG"), "").unwrap();
        let link = |target: &str, link: &str| std::os::unix::fs::symlink(target, start.join(link)).unwrap();
        // Another folder, the start itself, a folder that is here anyway, a file, and nothing.
        link("../elsewhere", "other");
        link("..", "a/round");
        link("a", "0");
        link("a/1.png", "4.png");
        link("nowhere.png", "5.png");
        link("nowhere.txt", "5.txt");
        let below = Below::images(&start, &start).unwrap();
        let found: Vec<&str> = below.files.iter().map(String::as_str).collect();
        assert!(found.contains(&"a/1.png") && found.contains(&"4.png") && found.len() == 3, "{found:?}");
        assert_eq!(found.iter().filter(|file| file.ends_with("deep/3.JPG")).count(), 1, "{found:?}");
        assert_eq!((below.hidden, below.broken), (3, vec!["5.png".to_owned()]));
    }
}
