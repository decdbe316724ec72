//! Sets that are drawn where they are first asked for, and kept for the next time.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::layout::{CARD, card, file_names};
use crate::set::{write_card, write_part};
use crate::spec::{Part, SetSpec};
use crate::writer::{HASHES, SetError, at, hash};

/// The name of the card inside a kept set.
const NAME: &str = "scenes";
/// How the names of folders begin in which parts are drawn.
const SCRATCH: &str = ".drawing-";

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

/// The folder of a set below a cache, of which some parts are drawn on the threads of the current pool if they are not
/// there or not as they were drawn: every file has a hash that is checked. Processes that ask at once draw a part once, and no
/// other sees a piece of it.
///
/// # Errors
/// A count or size that makes no set; a folder in its place that holds something else; what the system refuses, after what
/// was written is removed.
pub fn kept_set(
    cache: &Path,
    spec: &SetSpec,
    parts: &[Part],
    news: &(dyn Fn(News<'_>) + Sync),
) -> Result<PathBuf, SetError> {
    spec.check()?;
    let folder = spec.folder(cache);
    if is_whole(&folder, spec, parts)? {
        return Ok(folder);
    }
    let shelf = folder.parent().unwrap_or(cache);
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    fs::create_dir_all(shelf).map_err(at(shelf))?;
    let lock = lock(&shelf.join(format!(".{name}.lock")), &|| news(News::Waits(&folder)))?;
    // Who had the lock may have drawn what was missing.
    let found = card_state(&folder, spec)?;
    if let State::Wrong(what) = &found {
        news(News::Wrong(what));
        let parts = Part::ALL.map(|part| folder.join(part.as_str()));
        if let Some(foreign) = parts.iter().find(|part| part.exists() && !part.join(HASHES).exists()) {
            return Err(not_ours(foreign, HASHES));
        }
        parts.iter().try_for_each(|part| remove(part))?;
    }
    if found != State::Whole {
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        write_card(&folder, NAME, spec)?;
    }
    if lock.is_some() {
        remove_scratch(&folder)?;
    }
    for part in parts {
        match part_state(&folder, spec, *part)? {
            State::Whole => continue,
            State::Absent => {}
            State::Wrong(what) => news(News::Wrong(&what)),
        }
        draw_part(&folder, spec, *part, news)?;
    }
    Ok(folder)
}

/// Draws a part aside, and puts it in its place.
fn draw_part(folder: &Path, spec: &SetSpec, part: Part, news: &(dyn Fn(News<'_>) + Sync)) -> Result<(), SetError> {
    let place = folder.join(part.as_str());
    let scenes = spec.scenes(part);
    news(News::Begins(&place, scenes.end - scenes.start));
    let aside = folder.join(format!("{SCRATCH}{}-{}", part.as_str(), std::process::id()));
    let drawn = write_part(&aside, spec, part, &|| news(News::Scene));
    news(News::Ends);
    let placed = drawn.and_then(|()| remove(&place)).and_then(|()| fs::rename(&aside, &place).map_err(at(&place)));
    placed.or_else(|error| {
        let _ = fs::remove_dir_all(&aside);
        // Where nothing can be locked, another process may have been faster.
        if part_state(folder, spec, part)? == State::Whole { Ok(()) } else { Err(error) }
    })
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
fn remove_scratch(folder: &Path) -> Result<(), SetError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
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

/// How something kept is found.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Absent,
    Whole,
    /// Ours, and not as it was drawn: what is wrong first.
    Wrong(String),
}

/// Whether a set can be used as it is: its card and these parts.
fn is_whole(folder: &Path, spec: &SetSpec, parts: &[Part]) -> Result<bool, SetError> {
    if card_state(folder, spec)? != State::Whole {
        return Ok(false);
    }
    parts.iter().try_fold(true, |whole, part| Ok(whole && part_state(folder, spec, *part)? == State::Whole))
}

/// The card says which set a folder holds.
fn card_state(folder: &Path, spec: &SetSpec) -> Result<State, SetError> {
    let path = folder.join(CARD);
    match fs::read(&path) {
        Ok(bytes) if bytes == card(NAME, spec).as_bytes() => Ok(State::Whole),
        Ok(_) => Ok(wrong(&path, "is not the card of this set")),
        Err(error) if is_gone(&error) && is_empty(folder)? => Ok(State::Absent),
        Err(error) if is_gone(&error) => Err(not_ours(folder, CARD)),
        Err(error) => Err(at(&path)(error)),
    }
}

/// Whether a folder holds nothing, or is not there.
fn is_empty(folder: &Path) -> Result<bool, SetError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(at(folder)(error)),
    }
}

fn not_ours(folder: &Path, lacks: &str) -> SetError {
    SetError::Spec(format!(
        "{} has no {lacks}, so it is nothing that Mentor drew, and is left alone: move it away, or name another folder for \
         what is kept",
        folder.display()
    ))
}

fn part_state(folder: &Path, spec: &SetSpec, part: Part) -> Result<State, SetError> {
    let folder = folder.join(part.as_str());
    if !folder.exists() {
        return Ok(State::Absent);
    }
    let record = folder.join(HASHES);
    let hashes = match fs::read_to_string(&record) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(not_ours(&folder, HASHES)),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(wrong(&record, "is no text")),
        Err(error) => return Err(at(&record)(error)),
    };
    let hashes: BTreeMap<&str, &str> =
        hashes.lines().filter_map(|line| line.split_once("  ")).map(|(hash, name)| (name, hash)).collect();
    if let Some(name) = file_names(spec, part).iter().find(|name| !hashes.contains_key(name.as_str())) {
        return Ok(wrong(&record, &format!("does not name {name}")));
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
        let folder = kept_set(cache, &SPEC, &Part::ALL, &|news| match news {
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
        let image = fs::read(folder.join("unlabelled/images/000002.jpg")).unwrap();
        type Harm = fn(&Path);
        // What is harmed, and how many scenes are drawn for it.
        let harms: [(&str, u64, Harm); 5] = [
            ("unlabelled/images/000002.jpg was changed", 3, |path| fs::write(path, "x").unwrap()),
            ("train/scribbles/000000.png is missing", 1, |path| fs::remove_file(path).unwrap()),
            ("dataset.toml is not the card of this set", 6, |path| fs::write(path, "x").unwrap()),
            ("val/files.b3 does not name instances.json", 1, |path| fs::write(path, "x").unwrap()),
            ("test/files.b3 is no text", 1, |path| fs::write(path, b"\xff").unwrap()),
        ];
        for (expected, scenes, harm) in harms {
            harm(&folder.join(expected.split(' ').next().unwrap()));
            let (again, said, drawn) = ask(cache.path());
            assert_eq!((again, drawn), (Ok(folder.clone()), scenes), "{expected}");
            assert_eq!(said, [folder.join(expected).display().to_string()]);
        }
        // A set of another version in its place: the card is not the one that belongs there.
        let text = fs::read_to_string(folder.join(CARD)).unwrap().replace("world 1", "world 0");
        fs::write(folder.join(CARD), text).unwrap();
        let (_, said, drawn) = ask(cache.path());
        assert!(said[0].ends_with("dataset.toml is not the card of this set") && drawn == 6, "{said:?}");
        assert_eq!(fs::read(folder.join("unlabelled/images/000002.jpg")).unwrap(), image);
        // Nothing but the set and its lock is left.
        assert_eq!(fs::read_dir(cache.path().join("scenes")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 5);
    }

    #[test]
    fn parts_are_drawn_when_they_are_asked_for() {
        let cache = tempfile::tempdir().unwrap();
        let drawn = AtomicU64::new(0);
        let ask = |parts: &[Part]| {
            kept_set(cache.path(), &SPEC, parts, &|news| {
                drawn.fetch_add(u64::from(matches!(news, News::Scene)), Ordering::Relaxed);
            })
            .unwrap();
            drawn.load(Ordering::Relaxed)
        };
        assert_eq!(ask(&[Part::Val]), 1);
        assert_eq!(ask(&[Part::Val, Part::Test]), 2);
        assert_eq!(ask(&[Part::Train, Part::Val]), 3);
        assert_eq!(ask(&[]), 3);
        assert!(!SPEC.folder(cache.path()).join("unlabelled").exists());
    }

    #[test]
    fn a_folder_that_is_not_ours_is_left_alone() {
        let cache = tempfile::tempdir().unwrap();
        let folder = SPEC.folder(cache.path());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("thesis.txt"), "years of work").unwrap();
        let (answer, ..) = ask(cache.path());
        assert!(answer.unwrap_err().contains("is nothing that Mentor drew"));
        assert_eq!(fs::read_to_string(folder.join("thesis.txt")).unwrap(), "years of work");
        // Nor is a data set of somebody else's, whose folders have the names of ours.
        fs::write(folder.join(CARD), "name = \"mine\"").unwrap();
        fs::create_dir(folder.join("train")).unwrap();
        fs::write(folder.join("train/photo.jpg"), "a day in the sun").unwrap();
        let (answer, ..) = ask(cache.path());
        assert!(answer.unwrap_err().contains("is nothing that Mentor drew"));
        assert!(folder.join("train/photo.jpg").exists());
    }

    #[test]
    fn who_asks_at_once_gets_one_set_and_what_a_killed_process_left_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let (folder, ..) = ask(cache.path());
        let folder = folder.unwrap();
        let left = folder.join(".drawing-train-123456");
        fs::create_dir_all(left.join("images")).unwrap();
        fs::remove_dir_all(folder.join("train")).unwrap();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(cache.path()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().map(|(.., drawn)| drawn).sum::<u64>(), 1);
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
