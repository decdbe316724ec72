//! Sets that are drawn where they are first asked for, and kept for the next time.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::layout::{CARD, card, image_name, lists, mask_name};
use crate::set::write_aside;
use crate::spec::SetSpec;
use crate::writer::{HASHES, SetError, at, hash};

/// The name of the card inside a kept set.
const NAME: &str = "scenes";

/// What happens while somebody waits for a set.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// Another process draws it, and is waited for.
    Waits(&'a Path),
    /// It was there and is not as it was drawn: this is wrong with it, and it is drawn anew.
    Wrong(&'a str),
    /// It is being drawn into a folder, so many scenes.
    Begins(&'a Path, u64),
    /// Another scene is drawn.
    Scene,
    /// All are.
    Ends,
}

/// The folder of a set below a cache, drawn on the threads of the current pool if it is not there or not as it was drawn:
/// every file has a hash that is checked. Processes that ask at once draw it once, and no other sees a part of it.
///
/// # Errors
/// A count or size that makes no set; a folder in its place that holds something else; what the system refuses, after what
/// was written is removed.
pub fn kept_set(cache: &Path, spec: &SetSpec, news: &(dyn Fn(News<'_>) + Sync)) -> Result<PathBuf, SetError> {
    spec.check()?;
    let folder = spec.folder(cache);
    let shelf = folder.parent().unwrap_or(cache);
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if state(&folder, spec)? == State::Whole {
        return Ok(folder);
    }
    fs::create_dir_all(shelf).map_err(at(shelf))?;
    let lock = lock(&shelf.join(format!(".{name}.lock")), &|| news(News::Waits(&folder)))?;
    // Who had the lock may have drawn it.
    match state(&folder, spec)? {
        State::Whole => return Ok(folder),
        State::Absent => {}
        State::Wrong(what) => news(News::Wrong(&what)),
    }
    let part = format!(".{name}.part");
    if lock.is_some() {
        remove_parts(shelf, &part)?;
    }
    news(News::Begins(&folder, spec.count));
    let aside = shelf.join(format!("{part}{}", std::process::id()));
    write_aside(&aside, NAME, spec, &|| news(News::Scene))?;
    let placed = remove(&folder).and_then(|()| fs::rename(&aside, &folder).map_err(at(&folder)));
    if let Err(error) = placed {
        let _ = fs::remove_dir_all(&aside);
        // Where nothing can be locked, another process may have been faster.
        return if state(&folder, spec)? == State::Whole { Ok(folder) } else { Err(error) };
    }
    news(News::Ends);
    Ok(folder)
}

/// Holds a lock as long as the file lives; `None` where the file system knows no locks.
fn lock(path: &Path, waits: &dyn Fn()) -> Result<Option<File>, SetError> {
    let file = File::create(path).map_err(at(path))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            waits();
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// Removes what processes left behind that were killed while they drew.
fn remove_parts(shelf: &Path, part: &str) -> Result<(), SetError> {
    for entry in fs::read_dir(shelf).map_err(at(shelf))? {
        let entry = entry.map_err(at(shelf))?;
        if entry.file_name().to_string_lossy().starts_with(part) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), SetError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

/// How a kept set is found.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Absent,
    Whole,
    /// Ours, and not as it was drawn: what is wrong first.
    Wrong(String),
}

fn state(folder: &Path, spec: &SetSpec) -> Result<State, SetError> {
    if !folder.exists() {
        return Ok(State::Absent);
    }
    let record = folder.join(HASHES);
    let hashes = match fs::read_to_string(&record) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = folder.display();
            let message = format!(
                "{folder} has no {HASHES}, so it is no set that Mentor drew, and is left alone: move it away, or name another \
                 folder for what is kept"
            );
            return Err(SetError::Spec(message));
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(wrong(&record, "is no text")),
        Err(error) => return Err(at(&record)(error)),
    };
    let hashes: BTreeMap<&str, &str> =
        hashes.lines().filter_map(|line| line.split_once("  ")).map(|(hash, name)| (name, hash)).collect();
    if let Some(name) = file_names(spec).iter().find(|name| !hashes.contains_key(name.as_str())) {
        return Ok(wrong(&record, &format!("does not name {name}")));
    }
    if hashes[CARD] != hash(card(NAME, spec).as_bytes()) {
        return Ok(wrong(&folder.join(CARD), "is that of another set"));
    }
    let files: Vec<(&str, &str)> = hashes.into_iter().collect();
    let found = files.par_iter().map(|(name, hash)| broken(&folder.join(name), hash)).collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().flatten().next().unwrap_or(State::Whole))
}

fn wrong(path: &Path, what: &str) -> State {
    State::Wrong(format!("{} {what}", path.display()))
}

/// What is wrong with a file, if anything is.
fn broken(path: &Path, expected: &str) -> Result<Option<State>, SetError> {
    match fs::read(path) {
        Ok(bytes) if hash(&bytes) == expected => Ok(None),
        Ok(_) => Ok(Some(wrong(path, "was changed"))),
        Err(error) if is_gone(&error) => Ok(Some(wrong(path, "is missing"))),
        Err(error) => Err(at(path)(error)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory)
}

/// The names of all files of a set that have hashes.
fn file_names(spec: &SetSpec) -> Vec<String> {
    let splits = spec.splits();
    let boxes = splits.iter().map(|(name, _)| *name).chain(["train_half"]);
    let mut names: Vec<String> = boxes.map(|name| format!("instances_{name}.json")).collect();
    names.push(CARD.to_owned());
    names.extend(lists(spec).into_iter().map(|(name, ..)| format!("{name}.txt")));
    for index in 0..spec.count {
        names.extend([image_name(index), mask_name("masks", index)]);
    }
    for index in splits[0].1.clone() {
        names.extend(["masks_rest_as_ground", "scribbles"].map(|folder| mask_name(folder, index)));
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use mentor_types::Season;

    use super::*;

    const SPEC: SetSpec = SetSpec { seed: 1, count: 6, size: 32, season: Season::Summer };

    /// Asks for the set: its folder, what was said, and how many scenes were drawn.
    fn ask(cache: &Path) -> (Result<PathBuf, String>, Vec<String>, u64) {
        let (said, drawn) = (Mutex::new(Vec::new()), AtomicU64::new(0));
        let folder = kept_set(cache, &SPEC, &|news| match news {
            News::Wrong(what) => said.lock().unwrap().push(what.to_owned()),
            News::Scene => {
                drawn.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        });
        (folder.map_err(|error| error.to_string()), said.into_inner().unwrap(), drawn.into_inner())
    }

    #[test]
    fn a_set_is_drawn_once_and_anew_where_a_file_is_not_as_it_was() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, said, drawn) = ask(cache.path());
        let folder = folder.unwrap();
        assert_eq!((said.len(), drawn), (0, 6));
        assert_eq!(ask(cache.path()), (Ok(folder.clone()), vec![], 0));
        let image = fs::read(folder.join("images/000002.jpg")).unwrap();
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 5] = [
            ("images/000002.jpg was changed", |path| fs::write(path, "x").unwrap()),
            ("masks/000001.png is missing", |path| fs::remove_file(path).unwrap()),
            ("dataset.toml was changed", |path| fs::write(path, "x").unwrap()),
            ("files.b3 does not name instances_train.json", |path| fs::write(path, "x").unwrap()),
            ("files.b3 is no text", |path| fs::write(path, b"\xff").unwrap()),
        ];
        for (expected, harm) in harms {
            harm(&folder.join(expected.split(' ').next().unwrap()));
            let (again, said, drawn) = ask(cache.path());
            assert_eq!((again, drawn), (Ok(folder.clone()), 6), "{expected}");
            assert_eq!(said, [folder.join(expected).display().to_string()]);
        }
        // A set of another version in its place: the card is not the one that belongs there.
        let text = fs::read_to_string(folder.join(CARD)).unwrap().replace("world 1", "world 0");
        let hashes = fs::read_to_string(folder.join(HASHES)).unwrap();
        let old = hashes.lines().find(|line| line.ends_with(CARD)).unwrap();
        fs::write(folder.join(HASHES), hashes.replace(old, &format!("{}  {CARD}", hash(text.as_bytes())))).unwrap();
        fs::write(folder.join(CARD), text).unwrap();
        let (_, said, drawn) = ask(cache.path());
        assert!(said[0].ends_with("dataset.toml is that of another set") && drawn == 6, "{said:?}");
        assert_eq!(fs::read(folder.join("images/000002.jpg")).unwrap(), image);
        // Nothing but the set and its lock is left.
        assert_eq!(fs::read_dir(cache.path().join("scenes")).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_is_not_ours_is_left_alone() {
        let cache = tempfile::tempdir().unwrap();
        let folder = SPEC.folder(cache.path());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("thesis.txt"), "years of work").unwrap();
        let (answer, ..) = ask(cache.path());
        assert!(answer.unwrap_err().contains("is no set that Mentor drew"));
        assert_eq!(fs::read_to_string(folder.join("thesis.txt")).unwrap(), "years of work");
    }

    #[test]
    fn who_asks_at_once_gets_one_set_and_what_a_killed_process_left_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let folder = SPEC.folder(cache.path());
        let name = folder.file_name().unwrap().to_str().unwrap();
        let left = folder.with_file_name(format!(".{name}.part123456"));
        fs::create_dir_all(left.join("images")).unwrap();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(cache.path()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().map(|(.., drawn)| drawn).sum::<u64>(), 6);
        assert!(answers.iter().all(|(folder, said, _)| folder.is_ok() && said.is_empty()), "{answers:?}");
        assert!(!left.exists());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_an_error_that_names_it() {
        let cache = tempfile::tempdir().unwrap();
        let file = cache.path().join("file");
        fs::write(&file, "").unwrap();
        let (answer, ..) = ask(&file);
        assert!(answer.unwrap_err().contains("file"));
    }
}
