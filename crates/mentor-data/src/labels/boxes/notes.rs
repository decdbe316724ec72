//! What is odd in files of boxes that are read all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{BadSample, names};
use crate::read::{BoxMistake, BoxMistakeKind};

/// How many boxes of each kind are spelt out.
const SHOWN: usize = 5;

/// What was found in files of boxes, each file once: shared between threads.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<BTreeMap<PathBuf, Vec<BoxMistake>>>);

impl Notes {
    /// Notes what a file holds; once, however often it is read.
    pub(super) fn record(&self, path: &Path, mistakes: &[BoxMistake]) {
        if mistakes.is_empty() {
            return;
        }
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.contains_key(path) {
            files.insert(path.to_owned(), mistakes.to_vec());
        }
    }

    /// The files out of which boxes were left, with how many and the first of them.
    pub(super) fn left_out(&self) -> Vec<BadSample> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_file = |(path, mistakes): (&PathBuf, &Vec<BoxMistake>)| {
            let dropped: Vec<_> = mistakes.iter().filter(|mistake| mistake.is_dropped()).collect();
            let line = |mistake: &BoxMistake| mistake.line.map_or_else(String::new, |line| format!("line {line}: "));
            let shown = dropped.iter().map(|mistake| format!("{}{}", line(mistake), mistake.message));
            (!dropped.is_empty()).then(|| {
                BadSample::new(path, format!("{} left out: {}", boxes(dropped.len()), first(shown, dropped.len())))
            })
        };
        files.iter().filter_map(of_file).collect()
    }

    /// All of it for people, a line for each kind of thing.
    pub(super) fn lines(&self) -> Vec<String> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = || files.iter().flat_map(|(path, mistakes)| mistakes.iter().map(move |mistake| (path, mistake)));
        let place = |(path, mistake): (&PathBuf, &BoxMistake)| match mistake.line {
            Some(line) => format!("{}:{line}: {}", path.display(), mistake.message),
            None => format!("{}: {}", path.display(), mistake.message),
        };
        let of_kind = |kind: BoxMistakeKind| all().filter(move |(_, mistake)| mistake.kind == kind);
        let dropped = || all().filter(|(_, mistake)| mistake.is_dropped());
        let mut lines = Vec::new();
        match dropped().count() {
            0 => {}
            count => lines.push(format!("{} left out: {}", boxes(count), first(dropped().map(place), count))),
        }
        if let Some(leaves) = of_kind(BoxMistakeKind::Leaves).next() {
            let count = boxes(of_kind(BoxMistakeKind::Leaves).count());
            lines.push(format!("{count} beyond the edge of an image, cut off there, as {}", place(leaves)));
        }
        if let Some(other) = of_kind(BoxMistakeKind::FileName).next() {
            let count = of_kind(BoxMistakeKind::FileName).count();
            lines.push(format!(
                "{count} file(s) taken for the image of their path, not for the one they name, as {}",
                place(other)
            ));
        }
        let others: BTreeSet<&str> =
            of_kind(BoxMistakeKind::OtherClass).map(|(_, other)| other.message.as_str()).collect();
        if !others.is_empty() {
            lines.push(format!("objects that are of no class of the card are left out: {}", names(others)));
        }
        lines
    }
}

fn boxes(count: usize) -> String {
    if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") }
}

/// The first of some things, and how many more there are.
fn first(all: impl Iterator<Item = String>, count: usize) -> String {
    let shown = all.take(SHOWN).collect::<Vec<_>>().join("; ");
    if count > SHOWN { format!("{shown}; and {} more", count - SHOWN) } else { shown }
}
