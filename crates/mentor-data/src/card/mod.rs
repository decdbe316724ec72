//! A card: what a data set is, where its files are, what its labels mean.

mod boxes;
pub(crate) mod masks;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mentor_toml::{Changes, Moved, TomlFile, show_key};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::boxes::{BoxFormat, Boxes};
pub use self::masks::{MaskFormat, Masks};
pub use self::scenes::Scenes;
use crate::error::{DataError, folders, hint};
use crate::labels::LabelMap;
use crate::paths::{Pattern, check_name, check_pattern, check_relative};

/// The file name of a card inside its folder.
const FILE: &str = "dataset.toml";

/// What a check found: key and message.
type Found = Vec<(String, String)>;

/// The description of a data set, read from `dataset.toml`. A new data set is a new card and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name that recipes use; also the name of the folder below a data root.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// The licence, with its limits.
    pub licence: String,
    /// Where it comes from: address, paper, authors.
    pub source: String,
    /// How to get the files and lay them out; shown where they are not found.
    pub get: String,
    /// Folder of the images below the root, put before every image path of a list. Default: the root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) image_root: String,
    /// Labels of pixels, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<Masks>,
    /// Labels of objects, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Boxes>,
    /// Which scenes are drawn where the set is first used. Default: the files are somebody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenes: Option<Scenes>,
    /// How a list's first column leads to the image and to its labels, for lists without a label column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pairing: Option<Pairing>,
    /// The splits by name.
    pub splits: BTreeMap<String, SplitSpec>,
    /// The classes, in the order of their indices.
    pub classes: Vec<Class>,
    /// The names of classes that have no labels of the kind that is read: a list may name them, which says nothing.
    #[serde(skip)]
    pub(crate) without_labels: Vec<String>,
    /// The folder that the card was read from, or that its scenes are drawn in.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name in tables and third columns.
    pub name: String,
    /// Its colour in pictures, and in masks of the format `color`: red, green, blue.
    pub color: [u8; 3],
}

/// How a list's first column leads to an image and to its labels: parts in braces, as `{id}`, are taken out of the one
/// path and put into the others. `{id}` may hold slashes, a part of another name none; `{ext}` holds no dot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pairing {
    /// The form of the first column, as `leftImg8bit/{id}_leftImg8bit.png`.
    pub(crate) id: String,
    /// Other forms that it has in some lists. The first that fits holds. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<String>,
    /// Whether the folder of a list stands before each of its lines, as `VOC2007/ImageSets/Main/000005`, so that lists in several
    /// folders lead to images in several. Default: it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) with_list: bool,
    /// The path of the image. Default: the first column itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
}

/// One split: exactly one of `list`, `lists`, `folder`, `folders` and `all_of` (with `minus` or `one_in`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// A list file beside the card, or below the root: lines of `image [label [classes]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) list: Option<String>,
    /// Several lists, one after the other; no image stands in two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lists: Vec<String>,
    /// A folder below the root: all images in it and below it, in the order of their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Several folders, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) folders: Vec<String>,
    /// Everything of another split ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) all_of: Option<String>,
    /// ... of which every so many-th image is taken, beginning with the first ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) one_in: Option<usize>,
    /// ... or without the images of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) minus: Option<String>,
    /// The file with the boxes of its images, below the root, in the card's format. Default: that of the split that this one
    /// is taken from; without one nobody labelled boxes in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boxes: Option<String>,
    /// How many images it must have. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

impl Card {
    /// Reads and checks the card at `path`.
    ///
    /// # Errors
    /// Where it cannot be read; all that is wrong with it, with places.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Ok(Self { folder, ..mentor_toml::read::<Self>(path, &Changes::none())?.value })
    }

    /// Reads a card from its text; `path` is named in errors, `folder` is where its lists are.
    ///
    /// # Errors
    /// All that is wrong with it, with places.
    pub fn parse(text: &str, path: &Path, folder: PathBuf) -> Result<Self, DataError> {
        Ok(Self { folder, ..mentor_toml::parse::<Self>(text, path, &Changes::none())?.value })
    }

    /// Finds a card by name in the folders that hold cards, or by the path of a `dataset.toml` or of its folder.
    ///
    /// # Errors
    /// Where there is none (with the nearest name), or as [`Card::read`].
    pub fn find(name_or_path: &str, card_roots: &[PathBuf]) -> Result<Self, DataError> {
        let path = Path::new(name_or_path);
        if name_or_path.contains(['/', '\\']) || path.extension().is_some_and(|extension| extension == "toml") {
            return Self::read(&if path.is_dir() { path.join(FILE) } else { path.to_owned() });
        }
        let is_name = !name_or_path.is_empty() && name_or_path != "." && name_or_path != "..";
        let found = card_roots.iter().map(|root| root.join(name_or_path).join(FILE)).find(|file| file.is_file());
        match found.filter(|_| is_name) {
            Some(file) => Self::read(&file),
            None => {
                let known = Self::names(card_roots);
                Err(DataError::UnknownCard {
                    name: name_or_path.to_owned(),
                    hint: hint(name_or_path, known.iter().map(String::as_str)),
                    searched: folders(card_roots),
                })
            }
        }
    }

    /// The names of all cards in some folders, sorted.
    #[must_use]
    pub fn names(card_roots: &[PathBuf]) -> Vec<String> {
        let mut names: Vec<String> = card_roots
            .iter()
            .filter_map(|root| std::fs::read_dir(root).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter(|entry| entry.path().join(FILE).is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The display colours, by class.
    #[must_use]
    pub fn class_colours(&self) -> Vec<[u8; 3]> {
        self.classes.iter().map(|class| class.color).collect()
    }

    /// The class names, by class.
    #[must_use]
    pub fn class_names(&self) -> Vec<String> {
        self.classes.iter().map(|class| class.name.clone()).collect()
    }

    /// Whether a split can be read without its data: its list lies beside the card.
    #[must_use]
    pub fn is_listed(&self, split: &str) -> bool {
        let Some(spec) = self.splits.get(split) else { return true };
        let others = [&spec.all_of, &spec.minus].into_iter().flatten();
        let own = spec.list.iter().chain(&spec.lists).all(|list| self.folder.join(list).is_file());
        own && spec.folder.is_none() && spec.folders.is_empty() && others.into_iter().all(|other| self.is_listed(other))
    }

    /// What the values in its masks mean.
    ///
    /// # Errors
    /// Where it has no masks, or gives a value two meanings.
    pub fn label_map(&self) -> Result<LabelMap, DataError> {
        let fail = |message: &str| DataError::Card { card: self.name.clone(), message: message.to_owned() };
        let masks = self.masks.as_ref().ok_or_else(|| fail("has no [masks]"))?;
        LabelMap::new(masks, &self.class_colours()).map_err(|found| {
            let found: Vec<String> = found.iter().map(|(key, message)| format!("`{key}`: {message}")).collect();
            fail(&found.join("; "))
        })
    }

    fn check_masks(&self, masks: &Masks, found: &mut Found) {
        let mut report = |key: &str, message: String| found.push((key.to_owned(), message));
        if let Err(message) = check_root(&masks.root) {
            report("masks.root", message);
        }
        match &masks.path {
            // What it is made of is checked with the pairing.
            Some(_) if self.pairing.is_none() => {
                report("masks.path", "needs [pairing], which says what `{id}` is".to_owned());
            }
            Some(_) => {}
            None if masks.replace_column => report("masks.replace_column", "has no effect without `path`".to_owned()),
            None => {}
        }
        if let Err(more) = LabelMap::new(masks, &self.class_colours()) {
            found.extend(more);
        }
    }

    fn check_boxes(&self, boxes: &Boxes, found: &mut Found) {
        let mut report = |key: &str, message: &str| found.push((format!("boxes.{key}"), message.to_owned()));
        if let Err(message) = check_root(&boxes.root) {
            report("root", &message);
        }
        match boxes.format {
            BoxFormat::Voc | BoxFormat::Yolo if boxes.path.is_none() => {
                report("path", "missing: it says where an image's file is");
            }
            BoxFormat::Voc | BoxFormat::Yolo if self.pairing.is_none() => {
                report("path", "needs [pairing], which says what `{id}` is");
            }
            BoxFormat::Voc if boxes.first_pixel > 1 => report("first_pixel", "must be 0 or 1"),
            BoxFormat::Yolo if boxes.first_pixel > 0 => report("first_pixel", "has no effect on fractions"),
            BoxFormat::Coco if boxes.path.is_some() => report("path", "has no effect: a split's `boxes` is its file"),
            BoxFormat::Coco if !boxes.root.is_empty() => report("root", "has no effect: a split's `boxes` is its file"),
            BoxFormat::Coco if boxes.first_pixel > 0 => report("first_pixel", "has no effect on COCO JSON"),
            _ => {}
        }
        for (index, name) in boxes.classes.iter().enumerate() {
            let key = format!("boxes.classes[{index}]");
            if boxes.classes[..index].contains(name) {
                found.push((key, format!("`{name}` comes twice")));
            } else if !self.classes.iter().any(|class| class.name == *name) {
                let hint = hint(name, self.classes.iter().map(|class| class.name.as_str()));
                found.push((key, format!("the card has no class `{name}`{hint}")));
            }
        }
    }

    fn check_pairing(&self, pairing: &Pairing, found: &mut Found) {
        let mut known: Option<BTreeSet<&str>> = None;
        let forms = pairing.also.iter().enumerate().map(|(index, form)| (format!("pairing.also[{index}]"), form));
        for (key, form) in [("pairing.id".to_owned(), &pairing.id)].into_iter().chain(forms) {
            // Only what comes of a form is a path here.
            match Pattern::new(form) {
                Ok(form) => known = Some(known.iter().fold(form.names(), |all, known| &all & known)),
                Err(message) => found.push((key, message)),
            }
        }
        let masks = self.masks.as_ref().and_then(|masks| masks.path.as_ref());
        let boxes = self.boxes.as_ref().and_then(|boxes| boxes.path.as_ref());
        let paths = [("pairing.image", pairing.image.as_ref()), ("masks.path", masks), ("boxes.path", boxes)];
        for (key, path) in paths {
            let Some(path) = path else { continue };
            match (check_pattern(path), Pattern::new(path), &known) {
                (Err(message), ..) => found.push((key.to_owned(), message)),
                (Ok(()), Ok(pattern), Some(known)) => {
                    let missing = pattern.names().into_iter().find(|name| !known.contains(name));
                    found.extend(
                        missing.map(|name| {
                            (key.to_owned(), format!("`{{{name}}}` is no part of every form in [pairing]"))
                        }),
                    );
                }
                _ => {}
            }
        }
        if paths.iter().all(|(_, path)| path.is_none()) {
            let message = "has no effect without `image` or the `path` of [masks] or [boxes]";
            found.push(("pairing".to_owned(), message.to_owned()));
        }
        if pairing.image.is_none() && !pairing.also.is_empty() {
            found.push(("pairing.also".to_owned(), "needs `image`, the one path of all forms".to_owned()));
        }
    }

    fn check_classes(&self, found: &mut Found) {
        let most = mentor_types::MAX_CLASSES;
        if !(1..=most).contains(&self.classes.len()) {
            found.push(("classes".to_owned(), format!("{} classes, must be from 1 to {most}", self.classes.len())));
        }
        for (index, class) in self.classes.iter().enumerate() {
            let name = &class.name;
            let mut report = |message: String| found.push((format!("classes[{index}].name"), message));
            // A third column separates classes by commas and may give them as numbers.
            if name.trim() != name || name.is_empty() || name.contains([',', '\t', '\n']) {
                report(format!("`{name}` is no class name: no commas, tabs or outer spaces"));
            } else if name.parse::<u64>().is_ok() {
                report(format!("`{name}` is no class name: it is a number"));
            } else if self.classes[..index].iter().any(|other| other.name == *name) {
                report(format!("`{name}` comes twice"));
            }
        }
    }
}

impl TomlFile for Card {
    const MOVED: &'static [Moved] = &[
        Moved::gone("task"),
        Moved::gone("lists_from"),
        Moved::to("labels", "masks"),
        Moved::to("label_root", "masks.root"),
        Moved::to("pairing.label", "masks.path"),
        Moved::to("pairing.replace_labels", "masks.replace_column"),
    ];

    fn check(&self, found: &mut Found) {
        if let Err(message) = check_name(&self.name) {
            found.push(("name".to_owned(), message));
        }
        if let Err(message) = check_root(&self.image_root) {
            found.push(("image_root".to_owned(), message));
        }
        self.check_classes(found);
        match (&self.masks, &self.boxes) {
            (None, None) => {
                let message = "missing: a card says which labels its images have, here or in [boxes]";
                found.push(("masks".to_owned(), message.to_owned()));
            }
            (masks, boxes) => {
                masks.iter().for_each(|masks| self.check_masks(masks, found));
                boxes.iter().for_each(|boxes| self.check_boxes(boxes, found));
            }
        }
        if let Some(pairing) = &self.pairing {
            self.check_pairing(pairing, found);
        }
        for (name, split) in &self.splits {
            split.check(name, &self.splits, found);
            let is_one_file = |boxes: &Boxes| boxes.format == BoxFormat::Coco;
            if split.boxes.is_some() && !self.boxes.as_ref().is_some_and(is_one_file) {
                let message = "has no effect without a table [boxes] whose format has one file for a split";
                found.push((format!("splits.{}.boxes", show_key(name)), message.to_owned()));
            }
        }
    }
}

/// A folder below the root, which may be the root itself.
fn check_root(root: &str) -> Result<(), String> {
    if root.is_empty() { Ok(()) } else { check_relative(root) }
}

impl SplitSpec {
    fn check(&self, name: &str, splits: &BTreeMap<String, Self>, found: &mut Found) {
        let place = format!("splits.{}", show_key(name));
        let ways = [&self.list, &self.folder, &self.all_of].into_iter().flatten().count();
        let ways = ways + usize::from(!self.folders.is_empty()) + usize::from(!self.lists.is_empty());
        let parts = usize::from(self.minus.is_some()) + usize::from(self.one_in.is_some());
        if ways != 1 || parts != usize::from(self.all_of.is_some()) {
            let message = "must have exactly one of `list`, `lists`, `folder`, `folders`, `all_of` with `minus`, `all_of` with `one_in`";
            found.push((place.clone(), message.to_owned()));
        }
        if self.one_in.is_some_and(|one_in| one_in < 2) {
            found.push((format!("{place}.one_in"), "must be at least 2".to_owned()));
        }
        let several = |key: &'static str, paths: &'_ [String]| {
            let paths = paths.iter().enumerate();
            paths.map(|(index, path)| (format!("{key}[{index}]"), path.clone())).collect::<Vec<_>>()
        };
        let several = [several("folders", &self.folders), several("lists", &self.lists)].concat();
        let one = [("list", &self.list), ("folder", &self.folder), ("boxes", &self.boxes)];
        let one = one.into_iter().filter_map(|(field, path)| Some((field.to_owned(), path.clone()?)));
        for (field, path) in one.chain(several) {
            if let Err(message) = check_relative(&path) {
                found.push((format!("{place}.{field}"), message));
            }
        }
        for (field, other) in [("all_of", &self.all_of), ("minus", &self.minus)] {
            let Some(other) = other else { continue };
            let message = match splits.get(other) {
                None => format!("there is no split `{other}`{}", hint(other, splits.keys().map(String::as_str))),
                // What is taken away may be a part of a list; more levels are of no use, and none makes a circle.
                Some(split) if field == "minus" && split.one_in.is_some() => continue,
                Some(split) if split.all_of.is_some() => format!("`{other}` must itself be a list or a folder"),
                Some(_) => continue,
            };
            found.push((format!("{place}.{field}"), message));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A card with some `[masks]` and as many classes.
    pub(crate) fn card(masks: &str, classes: usize) -> Result<Card, DataError> {
        let mut text = format!(
            "name = \"t\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"fetch it\"\n\
             splits = {{ train = {{ list = \"train.txt\" }} }}\n[masks]\n{masks}\n"
        );
        for class in 0..classes {
            text += &format!("[[classes]]\nname = \"class_{class}\"\ncolor = [{class}, 10, 20]\n");
        }
        Card::parse(&text, Path::new("t/dataset.toml"), PathBuf::from("t"))
    }

    const TEXT: &str = r#"# A data set.
name = "tiny"
title = "Tiny"
licence = "CC0"
source = "made up"
get = "make it up"
[masks]
format = "index"
ignore = [255]
[splits]
train = { list = "train.txt" }
few = { list = "few.txt" }
rest = { all_of = "train", minus = "few" }
[[classes]]
name = "a"
color = [1, 2, 3]
[[classes]]
name = "b"
color = [4, 5, 6]
"#;

    fn parse(text: &str) -> Result<Card, DataError> {
        Card::parse(text, Path::new("tiny/dataset.toml"), PathBuf::from("tiny"))
    }

    /// The mistakes of the card after pieces of it were replaced.
    fn mistakes(replaced: &[(&str, &str)]) -> Vec<String> {
        let text = replaced.iter().fold(TEXT.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replacen(old, new, 1)
        });
        parse(&text).unwrap_err().to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_card_round_trips() {
        let card = parse(TEXT).unwrap();
        let again = Card::parse(&toml::to_string(&card).unwrap(), Path::new("x"), PathBuf::from("tiny")).unwrap();
        assert_eq!(card, again);
        assert_eq!(card.class_colours(), [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn a_card_with_five_mistakes_names_five_with_their_places() {
        let found = mistakes(&[
            ("name = \"tiny\"", "name = \"../tiny\""),
            ("title =", "titel ="),
            ("ignore = [255]", "ignore = [1]"),
            ("minus = \"few\"", "minus = \"fow\""),
            ("name = \"b\"", "name = \"a\""),
        ]);
        let expected = [
            "tiny/dataset.toml:2:1: `name`: `../tiny` must be a plain name, without slashes or leading dots",
            "tiny/dataset.toml:3:1: unknown key `titel` at the top level; did you mean `title`?",
            "tiny/dataset.toml:9:11: `masks.ignore[0]`: value 1 is ignored and a class too",
            "tiny/dataset.toml:13:28: `splits.rest.minus`: there is no split `fow`, did you mean `few`?",
            "tiny/dataset.toml:18:1: `classes[1].name`: `a` comes twice",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "`{found}` does not begin with `{expected}`");
        }
    }

    #[test]
    fn every_rule_of_a_card_is_named_at_its_key() {
        for (old, new, expected) in [
            ("ignore = [255]", "ignore = 255", "9:10: `masks.ignore`: expected an array, found the integer 255"),
            ("list = \"train.txt\"", "list = \"../t.txt\"", "11:11: `splits.train.list`: `../t.txt` leads out of its"),
            (
                "list = \"few.txt\"",
                "lists = [\"a.txt\", \"../b.txt\"]",
                "12:27: `splits.few.lists[1]`: `../b.txt` leads",
            ),
            ("list = \"few.txt\"", "list = \"a\", lists = [\"b\"]", "12:1: `splits.few`: must have exactly one of"),
            (", minus = \"few\"", "", "13:1: `splits.rest`: must have exactly one of"),
            ("minus = \"few\"", "minus = \"rest\"", "13:28: `splits.rest.minus`: `rest` must itself be a list"),
            ("name = \"b\"", "name = \"7\"", "18:1: `classes[1].name`: `7` is no class name: it is a number"),
            ("name = \"b\"", "name = \"x,y\"", "18:1: `classes[1].name`: `x,y` is no class name"),
            ("ignore = [255]", "values = [{ from = 0, to = 2 }]", "9:23: `masks.values[0].to`: class 2 of value 0,"),
            ("ignore = [255]", "root = \"/m\"", "9:1: `masks.root`: `/m` is an absolute path"),
            ("ignore = [255]", "path = \"m/{id}.png\"", "9:1: `masks.path`: needs [pairing]"),
            ("ignore = [255]", "replace_column = true", "9:1: `masks.replace_column`: has no effect without `path`"),
            ("[splits]", "[pairing]\nid = \"{id}\"\n[splits]", "10:1: `pairing`: has no effect without `image`"),
            ("[splits]", "[pairing]\nid = \"a\"\nimage = \"{id}\"\n[splits]", "11:1: `pairing.id`: `a` must hold"),
            ("[masks]\nformat = \"index\"\nignore = [255]\n", "", "1:1: `masks`: missing: a card says which labels"),
            ("[masks]", "[mask]", "7:2: unknown key `mask` at the top level; did you mean `masks`?"),
        ] {
            let found = mistakes(&[(old, new)]);
            let expected = format!("tiny/dataset.toml:{expected}");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:#?} is not `{expected}`");
        }
    }

    #[test]
    fn a_card_from_before_masks_is_told_where_its_keys_are_now() {
        let found = mistakes(&[
            ("title =", "task = \"seg\"\nlabel_root = \"m\"\ntitle ="),
            ("[masks]", "[labels]"),
            ("[splits]", "[pairing]\nid = \"{id}\"\nlabel = \"{id}.png\"\nreplace_labels = true\n[splits]"),
        ]);
        let expected = [
            "tiny/dataset.toml:3:1: `task` is no key any more: remove it",
            "tiny/dataset.toml:4:1: `label_root` has moved: write `masks.root`",
            "tiny/dataset.toml:9:2: `labels` has moved: write `masks`",
            "tiny/dataset.toml:14:1: `pairing.label` has moved: write `masks.path`",
            "tiny/dataset.toml:15:1: `pairing.replace_labels` has moved: write `masks.replace_column`",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_card_is_found_by_name_and_by_path_and_a_typo_gets_the_nearest_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tiny");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(FILE), TEXT).unwrap();
        let roots = [root.path().join("nowhere"), root.path().to_owned()];
        assert_eq!(Card::find("tiny", &roots).unwrap().folder, folder);
        assert_eq!(Card::find(folder.to_str().unwrap(), &[]).unwrap().name, "tiny");
        assert_eq!(Card::find(folder.join(FILE).to_str().unwrap(), &[]).unwrap().name, "tiny");
        let message = Card::find("tinny", &roots).unwrap_err().to_string();
        assert!(message.starts_with("no card `tinny`, did you mean `tiny`?; looked in "), "{message}");
        assert!(Card::find("", &roots).is_err());
        assert!(Card::find("..", &roots).is_err());
    }
}
