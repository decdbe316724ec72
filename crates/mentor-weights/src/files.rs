//! Files and folders that are whole or not there.
//!
//! One guarantee for all that is written to be read again: whoever reads the path, while it is written, after a kill at any
//! moment or after a power failure, finds what stood there before or all of the new bytes, never a part; and the new bytes
//! once the write has returned without an error. Several writers of one path do not meet: the last rename holds.
//!
//! The bytes go to a file of this writer's own beside the path, which is synced and renamed; then the folder is synced, since
//! a rename is on disk only once its folder is. (Only Unix can sync a folder: elsewhere a power failure may bring back what
//! stood there before.) A write that fails removes what it left; a killed one leaves `NAME.PROCESS-NUMBER.part`, which
//! nobody reads, until [`remove_leftovers`].
//!
//! A folder is written whole by the same steps: [`write_synced`] for each of its files, [`sync_folder`], [`rename_synced`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// What the names of files aside end with.
const ASIDE: &str = ".part";

/// What the system said about a file or folder.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// Writes a file whole or not at all, with the guarantee of this module. Its folder must be there.
///
/// # Errors
/// If it cannot be written; what stood there before stays, unless only the folder could not be synced at last.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_parts_atomically(path, &[bytes])
}

/// [`write_atomically`] of a file that lies in memory in several parts.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_parts_atomically(path: &Path, parts: &[&[u8]]) -> Result<(), FileError> {
    let write = || {
        // Opened first: a folder that cannot be synced is found out before anything changes.
        let folder = open_folder(folder_of(path))?;
        let (aside, file) = create_aside(path)?;
        let renamed = write_and_sync(file, parts).and_then(|()| fs::rename(&aside, path));
        if renamed.is_err() {
            // What was written is worthless; that it cannot be removed adds nothing to the first error.
            let _ = fs::remove_file(&aside);
        }
        renamed.and_then(|()| folder.map_or(Ok(()), |folder| folder.sync_all()))
    };
    write().map_err(FileError::at(path))
}

/// Writes a file and waits until its bytes are on disk; a reader may see a part of them.
///
/// # Errors
/// If it cannot be written.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    File::create(path).and_then(|file| write_and_sync(file, &[bytes])).map_err(FileError::at(path))
}

/// Waits until the names in a folder are on disk.
///
/// # Errors
/// If the folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    let sync = || open_folder(path)?.map_or(Ok(()), |folder| folder.sync_all());
    sync().map_err(FileError::at(path))
}

/// Gives a file or folder whose contents are synced another name in the same folder, and waits until that is on disk.
///
/// # Errors
/// If it cannot be renamed, or the folder not be synced.
pub fn rename_synced(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::at(to))?;
    sync_folder(folder_of(to))
}

/// Removes what killed writers left in a folder that nobody is writing to.
///
/// # Errors
/// If the folder cannot be read, or a file not be removed.
pub fn remove_leftovers(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).map_err(FileError::at(folder))? {
        let entry = entry.map_err(FileError::at(folder))?;
        if entry.file_name().to_str().is_some_and(is_aside) {
            fs::remove_file(entry.path()).map_err(FileError::at(&entry.path()))?;
        }
    }
    Ok(())
}

/// A new file beside `path` that no other writer has, whatever killed ones left.
fn create_aside(path: &Path) -> io::Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}-{}{ASIDE}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        let aside = path.with_file_name(name);
        match File::create_new(&aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (aside, file)),
        }
    }
}

/// Whether [`create_aside`] makes such names.
fn is_aside(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let tail = name.strip_suffix(ASIDE).and_then(|name| name.rsplit_once('.')?.1.split_once('-'));
    tail.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn write_and_sync(mut file: File, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// The folder in which a path is a name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A folder to be synced, where the system can do that.
fn open_folder(path: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) { File::open(path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The names in a folder, in order.
    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b ö.json");
        write_atomically(&path, b"old and longer").unwrap();
        write_parts_atomically(&path, &[b"n", b"", b"ew"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a b ö.json"]);
    }

    #[test]
    fn what_cannot_be_written_stays_as_it_was_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in its place stands for any failure after the bytes were written.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("inside"), "old").unwrap();
        let message = write_atomically(&taken, b"new").unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: ", taken.display())), "{message}");
        assert_eq!(names(folder.path()), ["taken"]);
        assert_eq!(fs::read(taken.join("inside")).unwrap(), b"old");

        let nowhere = folder.path().join("no folder").join("file");
        let message = write_atomically(&nowhere, b"new").unwrap_err().to_string();
        assert!(message.contains("no folder"), "{message}");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn readers_and_several_writers_of_one_file_never_meet_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let contents: Vec<Vec<u8>> = (1..=3u8).map(|digit| vec![digit; usize::from(digit) * 100_000]).collect();
        write_atomically(&path, &contents[0]).unwrap();
        std::thread::scope(|scope| {
            let writers: Vec<_> = contents
                .iter()
                .map(|bytes| scope.spawn(|| (0..20).for_each(|_| write_atomically(&path, bytes).unwrap())))
                .collect();
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                assert!(contents.contains(&fs::read(&path).unwrap()), "a part was seen");
            }
        });
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn leftovers_of_killed_writers_do_no_harm_and_are_removed_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        // Of another process, and of one that had the number of this one.
        let left = [format!("log.jsonl.1-0{ASIDE}"), format!("log.jsonl.{}-0{ASIDE}", std::process::id())];
        let kept = ["a.part", "b.1-.part", "c.x-1.part", "d.1-2.part.txt", "e-1-2.part"];
        for name in left.iter().map(String::as_str).chain(kept) {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        write_atomically(&path, b"whole").unwrap();
        remove_leftovers(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [kept.as_slice(), &["log.jsonl"]].concat());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_folder_is_written_aside_and_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let [aside, path] = ["aside", "whole"].map(|name| folder.path().join(name));
        fs::create_dir(&aside).unwrap();
        write_synced(&aside.join("file"), b"bytes").unwrap();
        sync_folder(&aside).unwrap();
        rename_synced(&aside, &path).unwrap();
        assert_eq!(fs::read(path.join("file")).unwrap(), b"bytes");
        assert!(rename_synced(&aside, &path).unwrap_err().to_string().contains("whole"));
        assert!(sync_folder(&aside).unwrap_err().to_string().contains("aside"));
    }

    #[test]
    fn a_name_alone_lies_in_the_current_folder() {
        assert_eq!([folder_of(Path::new("file")), folder_of(Path::new("a/file"))], [".", "a"].map(Path::new));
    }
}
