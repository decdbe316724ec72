//! Split lists: which images a split has, where their labels are, what was labelled in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::card::{Card, Pairing, SplitSpec};
use crate::error::{DataError, folders, hint, names};
use crate::files::Below;
use crate::paths::{Filled, Pattern, check_relative};

/// One image of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The image, relative to the split's root, with forward slashes; its name in reports.
    pub image: String,
    /// The file of its labels, relative to the root; `None` where there is none.
    pub label: Option<String>,
    /// The classes that were labelled in this image, sorted; `None` where all were.
    pub classes: Option<Vec<u8>>,
}

/// Where the files of images' labels lie, as a card says for one kind of label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelFiles<'c> {
    /// Their folder below the root, put before every path of theirs.
    pub root: &'c str,
    /// The path of an image's file, with an `{id}` to be filled in, for lists without a label column.
    pub path: Option<&'c str>,
    /// Whether `path` also replaces the label column of a line that has one.
    pub replace_column: bool,
    /// Whether all labels of a split are in one file, which the split names; a label column is then about others.
    pub one_a_split: bool,
}

/// The images of a split and the folder that holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its name in the card.
    pub name: String,
    /// The folder that its paths are relative to.
    pub root: PathBuf,
    /// Its images, in the order of the list.
    pub entries: Vec<Entry>,
}

impl Split {
    /// The number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The path of an image.
    #[must_use]
    pub fn image_path(&self, entry: &Entry) -> PathBuf {
        self.root.join(&entry.image)
    }

    /// The path of the file with an image's labels.
    #[must_use]
    pub(crate) fn label_path(&self, entry: &Entry) -> Option<PathBuf> {
        entry.label.as_ref().map(|label| self.root.join(label))
    }
}

impl Card {
    /// The images of a split, without looking for them on the disk, except those of folders, which are searched below
    /// `roots`, as lists are that do not lie beside the card.
    ///
    /// # Errors
    /// On an unknown split, a bad list line (with its place), a wrong count, or an empty split.
    pub fn entries(&self, split: &str, roots: &[PathBuf], files: LabelFiles<'_>) -> Result<Vec<Entry>, DataError> {
        let spec = self.split_spec(split)?;
        let fail = |message: String| DataError::Split { card: self.name.clone(), split: split.to_owned(), message };
        let entries = match &spec.all_of {
            None => {
                let lists = spec.list.iter().chain(&spec.lists);
                let lists = lists.map(|list| self.read_list(list, &self.find_list(split, list, roots)?, files));
                let folders = spec.folder.iter().chain(&spec.folders);
                let parts = lists.chain(folders.map(|folder| self.scan(split, folder, roots, files)));
                let entries = parts.collect::<Result<Vec<_>, _>>()?.concat();
                let mut known = BTreeSet::new();
                let twice = entries.iter().find(|entry| !spec.lists.is_empty() && !known.insert(&entry.image));
                if let Some(twice) = twice {
                    return Err(fail(format!("`{}` is in two of its lists", twice.image)));
                }
                entries
            }
            Some(all_of) => {
                let all = self.entries(all_of, roots, files)?;
                match (&spec.minus, spec.one_in) {
                    (Some(minus), _) => without(all, &self.entries(minus, roots, files)?)
                        .map_err(|image| fail(format!("`{image}` of `{minus}` is not in `{all_of}`")))?,
                    (None, one_in) => all.into_iter().step_by(one_in.unwrap_or(1)).collect(),
                }
            }
        };
        let entries = if files.one_a_split { with_file(entries, self.boxes_of(spec)) } else { entries };
        match spec.count {
            _ if entries.is_empty() => Err(fail("has no image".to_owned())),
            Some(count) if count != entries.len() => {
                Err(fail(format!("has {} images, the card says {count}", entries.len())))
            }
            _ => Ok(entries),
        }
    }

    /// The lists and folders that a split is made of.
    ///
    /// # Errors
    /// On an unknown split.
    pub fn sources(&self, split: &str) -> Result<Vec<&str>, DataError> {
        let spec = self.split_spec(split)?;
        let own = spec.list.iter().chain(&spec.lists).chain(&spec.folder).chain(&spec.folders);
        let mut sources: Vec<&str> = own.map(String::as_str).collect();
        for other in spec.all_of.iter().chain(&spec.minus) {
            sources.extend(self.sources(other)?);
        }
        Ok(sources)
    }

    /// The file of boxes of a split or, where that names none, of the split that it is taken from.
    fn boxes_of<'a>(&'a self, spec: &'a SplitSpec) -> Option<&'a String> {
        let parent = spec.all_of.as_ref().and_then(|name| self.splits.get(name));
        spec.boxes.as_ref().or_else(|| parent?.boxes.as_ref())
    }

    fn split_spec(&self, split: &str) -> Result<&SplitSpec, DataError> {
        self.splits.get(split).ok_or_else(|| DataError::UnknownSplit {
            card: self.name.clone(),
            name: split.to_owned(),
            hint: hint(split, self.splits.keys().map(String::as_str)),
            known: names(self.splits.keys().map(String::as_str)),
        })
    }

    /// Where a list lies: beside the card, or in the first root that has it.
    fn find_list(&self, split: &str, list: &str, roots: &[PathBuf]) -> Result<PathBuf, DataError> {
        let others = roots.iter().filter(|root| **root != self.folder);
        let places: Vec<&PathBuf> = [&self.folder].into_iter().chain(others).collect();
        let found = places.iter().map(|place| place.join(list)).find(|path| path.is_file());
        found.ok_or_else(|| DataError::NotFound {
            card: self.name.clone(),
            split: split.to_owned(),
            what: format!("the list `{list}`"),
            searched: folders(places),
            get: self.get.clone(),
        })
    }

    /// The images of a list; `list` is its path in the card, `path` where it lies.
    fn read_list(&self, list: &str, path: &Path, files: LabelFiles<'_>) -> Result<Vec<Entry>, DataError> {
        let folder = list.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
        let before =
            folder.filter(|_| self.pairing.as_ref().is_some_and(|pairing| pairing.with_list)).unwrap_or_default();
        let bytes = std::fs::read(path).map_err(|source| DataError::io(path, source))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            DataError::Line { path: path.to_owned(), line, message: "is no UTF-8 text".to_owned() }
        })?;
        let mut lines_by_image: BTreeMap<String, usize> = BTreeMap::new();
        let mut entries = Vec::new();
        for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            // A tab at the end says that the single column of this line may hold spaces.
            let text = text.trim_end_matches([' ', '\r']);
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let fail = |message: String| DataError::Line { path: path.to_owned(), line, message };
            let entry = self.parse_line(&before, text, files).map_err(fail)?;
            if let Some(before) = lines_by_image.insert(entry.image.clone(), line) {
                return Err(fail(format!("`{}` is already in line {before}", entry.image)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn parse_line(&self, before: &str, text: &str, files: LabelFiles<'_>) -> Result<Entry, String> {
        // Tabs separate where there are any, so that paths may hold spaces.
        let columns: Vec<&str> = if text.contains('\t') {
            text.split('\t').map(str::trim).collect()
        } else {
            text.split_whitespace().collect()
        };
        let (image, label, classes) = match columns[..] {
            [image] => (image, None, None),
            [image, label] => (image, Some(label), None),
            [image, label, classes] => (image, Some(label), Some(self.parse_classes(classes)?)),
            _ => {
                return Err(format!(
                    "{} columns, must be `image [label [classes]]`, with tabs between where a path has spaces",
                    columns.len()
                ));
            }
        };
        let label = label.filter(|label| !label.is_empty());
        if label.is_none() && classes.is_some() {
            return Err("names labelled classes but no label".to_owned());
        }
        self.entry(&format!("{before}{image}"), label, classes, files)
    }

    fn entry(
        &self,
        first: &str,
        label: Option<&str>,
        classes: Option<Vec<u8>>,
        files: LabelFiles<'_>,
    ) -> Result<Entry, String> {
        let (mut image, mut label) = (first.to_owned(), label.map(str::to_owned));
        let replaces = label.is_none() || files.replace_column;
        if let Some(pairing) = self.pairing.as_ref().filter(|_| replaces) {
            let parts = pairing.parts(first)?;
            if let Some(pattern) = &pairing.image {
                image = Pattern::new(pattern)?.fill(&parts);
            }
            if let Some(pattern) = files.path {
                label = Some(Pattern::new(pattern)?.fill(&parts));
            }
        }
        check_relative(&image)?;
        if let Some(label) = &label {
            check_relative(label)?;
        }
        let below = |root: &str, path: String| {
            if root.is_empty() { path } else { format!("{}/{path}", root.trim_end_matches('/')) }
        };
        Ok(Entry { image: below(&self.image_root, image), label: label.map(|label| below(files.root, label)), classes })
    }

    /// A third column: class names or indices, with commas.
    fn parse_classes(&self, column: &str) -> Result<Vec<u8>, String> {
        let (mut classes, mut named) = (BTreeSet::new(), false);
        for name in column.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            named = true;
            if self.without_labels.iter().any(|other| other == name) {
                continue;
            }
            let index = match name.parse::<usize>() {
                Ok(index) => Some(index).filter(|index| *index < self.classes.len()),
                Err(_) => self.classes.iter().position(|class| class.name == name),
            };
            let index = index.ok_or_else(|| {
                let hint = hint(name, self.classes.iter().map(|class| class.name.as_str()));
                format!("`{name}` is none of the {} classes{hint}", self.classes.len())
            })?;
            classes.insert(u8::try_from(index).unwrap_or(u8::MAX));
        }
        if !named {
            return Err("the third column names no class; leave it out where all classes were labelled".to_owned());
        }
        Ok(classes.into_iter().collect())
    }

    fn scan(
        &self,
        split: &str,
        folder: &str,
        roots: &[PathBuf],
        files: LabelFiles<'_>,
    ) -> Result<Vec<Entry>, DataError> {
        let below_root = Path::new(&self.image_root).join(folder);
        let Some(root) = roots.iter().find(|root| root.join(&below_root).is_dir()) else {
            return Err(DataError::NotFound {
                card: self.name.clone(),
                split: split.to_owned(),
                what: format!("`{}`", below_root.display()),
                searched: folders(roots),
                get: self.get.clone(),
            });
        };
        let start = root.join(&self.image_root);
        let images = Below::images(&start, &start.join(folder))?.files;
        let fail = |message: String| DataError::Split { card: self.name.clone(), split: split.to_owned(), message };
        images.iter().map(|image| self.entry(image, None, None, files).map_err(fail)).collect()
    }
}

impl Pairing {
    /// The parts of a list's first column.
    fn parts<'a>(&'a self, first: &'a str) -> Result<Filled<'a>, String> {
        for form in [&self.id].into_iter().chain(&self.also) {
            if let Some(parts) = Pattern::new(form)?.parts(first) {
                return Ok(parts);
            }
        }
        let forms: Vec<&str> = [&self.id].into_iter().chain(&self.also).map(String::as_str).collect();
        Err(format!("`{first}` is not of the form {}", names(forms)))
    }
}

/// Entries whose labels are all in one file.
fn with_file(entries: Vec<Entry>, file: Option<&String>) -> Vec<Entry> {
    entries.into_iter().map(|entry| Entry { label: file.cloned(), ..entry }).collect()
}

/// All entries but those taken away; an error names an image that was to be taken and is not there.
fn without(all: Vec<Entry>, taken: &[Entry]) -> Result<Vec<Entry>, String> {
    let known: BTreeSet<&str> = all.iter().map(|entry| entry.image.as_str()).collect();
    if let Some(missing) = taken.iter().find(|entry| !known.contains(entry.image.as_str())) {
        return Err(missing.image.clone());
    }
    let taken: BTreeSet<&str> = taken.iter().map(|entry| entry.image.as_str()).collect();
    Ok(all.into_iter().filter(|entry| !taken.contains(entry.image.as_str())).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::SplitSpec;
    use crate::card::tests::card;
    use crate::labels::ReadLabels;
    use mentor_types::LabelMask;

    fn entries(card: &Card, split: &str) -> Result<Vec<Entry>, DataError> {
        card.entries(split, &[], LabelMask::files(card))
    }

    fn read(list: &str) -> Result<Vec<Entry>, DataError> {
        read_with(list, |_| {})
    }

    fn read_with(list: &str, change: impl FnOnce(&mut Card)) -> Result<Vec<Entry>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.txt"), list).unwrap();
        let mut card = card("format = \"index\"", 3).unwrap();
        card.folder = folder.path().to_owned();
        change(&mut card);
        entries(&card, "train")
    }

    #[test]
    fn columns_are_split_at_spaces_or_at_tabs_and_comments_are_left_out() {
        let entries =
            read("\u{feff}# a comment\na.jpg a.png\r\n\nb.jpg\nc d/ö.jpg\tm m/ö.png\tclass_2, 0\ne.jpg e.png 1\nf g.jpg\t\r\n").unwrap();
        let entry = |image: &str, label: Option<&str>, classes: Option<&[u8]>| Entry {
            image: image.to_owned(),
            label: label.map(str::to_owned),
            classes: classes.map(<[u8]>::to_vec),
        };
        let expected = [
            entry("a.jpg", Some("a.png"), None),
            entry("b.jpg", None, None),
            entry("c d/ö.jpg", Some("m m/ö.png"), Some(&[0, 2])),
            entry("e.jpg", Some("e.png"), Some(&[1])),
            entry("f g.jpg", None, None),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn bad_lines_are_named_with_file_and_line() {
        for (list, expected) in [
            ("a.jpg a.png\n../b.jpg b.png", "train.txt:2: `../b.jpg` leads out of its folder with `..`"),
            ("a.jpg x/../../a.png", "train.txt:1: `x/../../a.png` leads out"),
            ("/etc/a.jpg a.png", "train.txt:1: `/etc/a.jpg` is an absolute path"),
            ("a.jpg C:\\a.png", "train.txt:1: `C:\\a.png` is an absolute path"),
            ("a.jpg\n\n# c\na.jpg", "train.txt:4: `a.jpg` is already in line 1"),
            ("my photo 1.jpg my mask 1.png", "train.txt:1: 6 columns"),
            ("a.jpg a.png class_9", "train.txt:1: `class_9` is none of the 3 classes, did you mean"),
            ("a.jpg a.png 3", "train.txt:1: `3` is none of the 3 classes"),
            ("a.jpg\t\t1", "train.txt:1: names labelled classes but no label"),
            ("a.jpg\ta.png\t,", "train.txt:1: the third column names no class"),
            ("# nothing\n", "split `train`: has no image"),
        ] {
            let message = read(list).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        }
    }

    #[test]
    fn a_list_that_is_no_text_or_is_missing_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let mut card = card("format = \"index\"", 3).unwrap();
        card.folder = folder.path().to_owned();
        let message = entries(&card, "train").unwrap_err().to_string();
        assert!(message.contains("the list `train.txt` is in none of "), "{message}");
        std::fs::write(folder.path().join("train.txt"), b"a.jpg\nb\xff.jpg").unwrap();
        assert!(entries(&card, "train").unwrap_err().to_string().contains("train.txt:2: is no UTF-8 text"));
        let message = entries(&card, "trian").unwrap_err().to_string();
        assert_eq!(message, "card `t` has no split `trian`, did you mean `train`?; it has `train`");
    }

    #[test]
    fn a_pairing_makes_masks_for_lines_without_a_label_column() {
        let pair = |card: &mut Card, replace_column: bool, root: &str| {
            card.pairing =
                Some(Pairing { id: "photo/{id}_photo.png".into(), also: Vec::new(), with_list: false, image: None });
            let masks = card.masks.as_mut().unwrap();
            (masks.path, masks.replace_column) = (Some("truth/{id}_truth.png".into()), replace_column);
            masks.root = root.into();
        };
        let list = "photo/a_photo.png\nphoto/b_photo.png other.png";
        let labels = |entries: Vec<Entry>| entries.into_iter().map(|e| e.label.unwrap()).collect::<Vec<_>>();
        let kept = read_with(list, |card| pair(card, false, "")).unwrap();
        assert_eq!(labels(kept), ["truth/a_truth.png", "other.png"]);
        let replaced = read_with(list, |card| pair(card, true, "deep/")).unwrap();
        assert_eq!(labels(replaced), ["deep/truth/a_truth.png", "deep/truth/b_truth.png"]);
        let message = read_with("a.png", |card| pair(card, false, "")).unwrap_err().to_string();
        assert!(message.contains(":1: `a.png` is not of the form `photo/{id}_photo.png`"), "{message}");
    }

    #[test]
    fn a_split_may_be_several_lists_whose_folders_say_where_their_images_are() {
        let folder = tempfile::tempdir().unwrap();
        for (list, text) in [("old/lists/a.txt", "1\n2\n"), ("new/lists/a.txt", "1\n"), ("new/lists/b.txt", "3\n1\n")] {
            let path = folder.path().join(list);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut card = card("format = \"index\"", 3).unwrap();
        card.folder = folder.path().to_owned();
        card.pairing = Some(Pairing {
            id: "{part}/lists/{id}".into(),
            also: Vec::new(),
            with_list: true,
            image: Some("{part}/photos/{id}.jpg".into()),
        });
        card.masks.as_mut().unwrap().path = Some("{part}/masks/{id}.png".into());
        let mut split = |name: &str, lists: &[&str]| {
            let lists = lists.iter().map(|list| (*list).to_owned()).collect();
            card.splits.insert(name.to_owned(), SplitSpec { lists, ..SplitSpec::default() });
        };
        split("both", &["old/lists/a.txt", "new/lists/a.txt"]);
        split("twice", &["new/lists/a.txt", "new/lists/b.txt"]);
        assert_eq!(card.sources("both").unwrap(), ["old/lists/a.txt", "new/lists/a.txt"]);
        let found: Vec<_> = entries(&card, "both").unwrap().into_iter().map(|e| (e.image, e.label.unwrap())).collect();
        let pair = |part: &str, id: u8| (format!("{part}/photos/{id}.jpg"), format!("{part}/masks/{id}.png"));
        assert_eq!(found, [pair("old", 1), pair("old", 2), pair("new", 1)]);
        let message = entries(&card, "twice").unwrap_err().to_string();
        assert!(message.ends_with("`new/photos/1.jpg` is in two of its lists"), "{message}");
    }

    #[test]
    fn a_split_may_be_the_rest_of_another() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.txt"), "a\nb\nc\n").unwrap();
        std::fs::write(folder.path().join("few.txt"), "b\n").unwrap();
        std::fs::write(folder.path().join("alien.txt"), "z\n").unwrap();
        let mut card = card("format = \"index\"", 3).unwrap();
        card.folder = folder.path().to_owned();
        let list = |name: &str| SplitSpec { list: Some(name.into()), ..SplitSpec::default() };
        let rest = |minus: &str, count| SplitSpec {
            all_of: Some("train".into()),
            minus: Some(minus.into()),
            count: Some(count),
            ..SplitSpec::default()
        };
        for (name, spec) in [
            ("few", list("few.txt")),
            ("alien", list("alien.txt")),
            ("rest", rest("few", 2)),
            ("short", rest("few", 3)),
            ("wrong", rest("alien", 2)),
        ] {
            card.splits.insert(name.into(), spec);
        }
        let images: Vec<String> = entries(&card, "rest").unwrap().into_iter().map(|e| e.image).collect();
        assert_eq!(images, ["a", "c"]);
        assert!(entries(&card, "short").unwrap_err().to_string().ends_with("has 2 images, the card says 3"));
        assert!(entries(&card, "wrong").unwrap_err().to_string().ends_with("`z` of `alien` is not in `train`"));
    }
}
