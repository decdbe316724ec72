//! A card: what a data set is, where its files are, what its labels mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{DataError, folders, hint};
use crate::label_map::LabelMap;
use crate::split::{check_relative, fill};

/// The file name of a card inside its folder.
const FILE: &str = "dataset.toml";

/// The description of a data set, read from `dataset.toml`. A new data set is a new card and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name that recipes use; also the name of the folder below a data root.
    pub name: String,
    /// What it is for.
    pub task: Task,
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
    pub image_root: String,
    /// Folder of the masks below the root, put before every label path of a list. Default: the root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label_root: String,
    /// The card (a sibling folder) whose split lists this one shares. Default: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists_from: Option<String>,
    /// How masks are read.
    pub labels: LabelSpec,
    /// How a list's first column leads to image and mask, for lists without a label column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairing: Option<Pairing>,
    /// The splits by name.
    pub splits: BTreeMap<String, SplitSpec>,
    /// The classes, in the order of their indices.
    pub classes: Vec<Class>,
    /// The folder that the card was read from.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// What a data set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Semantic segmentation: one label per pixel.
    Seg,
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

/// How the pixels of a mask become labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelSpec {
    /// How a mask is stored.
    pub format: LabelFormat,
    /// Raw values that are ignored: no loss, no metric. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<u8>,
    /// Raw values that mean "nobody labelled this". Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<u8>,
    /// Colours that are ignored, for the format `color`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_colors: Vec<[u8; 3]>,
    /// Added to a raw value to give its class: -1 where 1 is the first class. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: i32,
    /// Raw values and their classes, one by one, instead of an offset. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ValueMap>,
    /// What a raw value is that none of the above names. Default `error`.
    #[serde(default)]
    pub other_values: OtherValues,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// How a mask is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelFormat {
    /// One channel (or the indices of a palette): the pixel is a number.
    Index,
    /// Red, green, blue: the pixel is the colour of its class.
    Color,
}

/// One raw value and its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueMap {
    /// The value in the mask.
    pub from: u8,
    /// The index of the class.
    pub to: u8,
}

/// What an unnamed raw value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherValues {
    /// An error that names value and pixel.
    #[default]
    Error,
    /// Ignored.
    Ignore,
}

/// How a list's first column leads to an image and its mask. `{id}` stands for the part that both share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pairing {
    /// The form of the first column, as `leftImg8bit/{id}_leftImg8bit.png`.
    pub id: String,
    /// The path of the image. Default: the first column itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The path of the mask.
    pub label: String,
    /// Whether it also replaces the label column of a line that has one. Default no.
    #[serde(default)]
    pub replace_labels: bool,
}

/// One split: exactly one of `list`, `folder` and `all_of` (with `minus`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// A list file beside the card: lines of `image [label [classes]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// A folder below the root: all images in it and below it, in the order of their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Everything of another split ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_of: Option<String>,
    /// ... without the images of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<String>,
    /// How many images it must have. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

impl Card {
    /// Reads and checks the card at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, is no valid card, or breaks a rule; with the place.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(path).map_err(|source| DataError::io(path, source))?;
        let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self::parse(&text, path, folder)
    }

    /// Reads a card from its text; `path` is named in errors, `folder` is where its lists are.
    ///
    /// # Errors
    /// As [`Card::read`].
    pub fn parse(text: &str, path: &Path, folder: PathBuf) -> Result<Self, DataError> {
        let mut card: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..start).unwrap_or(text);
            DataError::CardSyntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
                message: error.message().split('\n').collect::<Vec<_>>().join("; "),
            }
        })?;
        card.folder = folder;
        card.check().map_err(|(key, message)| DataError::CardRule { path: path.to_owned(), key, message })?;
        Ok(card)
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

    /// The folder that the card's lists are in.
    pub(crate) fn list_folder(&self) -> PathBuf {
        match &self.lists_from {
            Some(sibling) => self.folder.parent().unwrap_or_else(|| Path::new("..")).join(sibling),
            None => self.folder.clone(),
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, message: String| Err((key.to_owned(), message));
        if let Err(message) = single_name(&self.name) {
            return fail("name", message);
        }
        if let Some(Err(message)) = self.lists_from.as_deref().map(single_name) {
            return fail("lists_from", message);
        }
        for (key, path) in [("image_root", &self.image_root), ("label_root", &self.label_root)] {
            if !path.is_empty()
                && let Err(message) = check_relative(path)
            {
                return fail(key, message);
            }
        }
        self.check_classes()?;
        LabelMap::new(self).map_err(|message| ("labels".to_owned(), message))?;
        if let Some(pairing) = &self.pairing {
            pairing.check()?;
        }
        for (name, split) in &self.splits {
            split.check(name, &self.splits)?;
        }
        Ok(())
    }

    fn check_classes(&self) -> Result<(), (String, String)> {
        let fail = |message: String| Err(("classes".to_owned(), message));
        if !(1..=mentor_types::MAX_CLASSES).contains(&self.classes.len()) {
            return fail(format!("{} classes, must be from 1 to {}", self.classes.len(), mentor_types::MAX_CLASSES));
        }
        for (index, class) in self.classes.iter().enumerate() {
            // A third column separates classes by commas and may give them as numbers.
            if class.name.trim() != class.name || class.name.is_empty() || class.name.contains([',', '\t', '\n']) {
                return fail(format!("`{}` is no class name: no commas, tabs or outer spaces", class.name));
            }
            if class.name.parse::<u64>().is_ok() {
                return fail(format!("`{}` is no class name: it is a number", class.name));
            }
            if self.classes[..index].iter().any(|other| other.name == class.name) {
                return fail(format!("`{}` comes twice", class.name));
            }
        }
        Ok(())
    }
}

/// A name that is one part of a path, so that it cannot lead out of a root.
fn single_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(format!("`{name}` must be a plain name, without slashes or leading dots"));
    }
    Ok(())
}

impl Pairing {
    fn check(&self) -> Result<(), (String, String)> {
        let patterns = [("id", Some(&self.id)), ("image", self.image.as_ref()), ("label", Some(&self.label))];
        for (key, pattern) in patterns.into_iter().filter_map(|(key, pattern)| Some((key, pattern?))) {
            let key = format!("pairing.{key}");
            if pattern.matches("{id}").count() != 1 {
                return Err((key, format!("`{pattern}` must hold `{{id}}` once")));
            }
            check_relative(&fill(pattern, "x")).map_err(|message| (key, message))?;
        }
        Ok(())
    }
}

impl SplitSpec {
    fn check(&self, name: &str, splits: &BTreeMap<String, Self>) -> Result<(), (String, String)> {
        let key = |field: &str| format!("splits.{name}{}{field}", if field.is_empty() { "" } else { "." });
        let ways = [&self.list, &self.folder, &self.all_of].into_iter().flatten().count();
        if ways != 1 || self.all_of.is_some() != self.minus.is_some() {
            let message = "must have exactly one of `list`, `folder`, `all_of` with `minus`".to_owned();
            return Err((key(""), message));
        }
        for (field, path) in [("list", &self.list), ("folder", &self.folder)] {
            if let Some(path) = path {
                check_relative(path).map_err(|message| (key(field), message))?;
            }
        }
        for (field, other) in [("all_of", &self.all_of), ("minus", &self.minus)] {
            let Some(other) = other else { continue };
            match splits.get(other) {
                None => {
                    let hint = hint(other, splits.keys().map(String::as_str));
                    return Err((key(field), format!("there is no split `{other}`{hint}")));
                }
                // One level is enough in practice and rules out circles.
                Some(split) if split.all_of.is_some() => {
                    return Err((key(field), format!("`{other}` must itself be a list or a folder")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(replace: &str, by: &str) -> String {
        let text = r#"
name = "tiny"
task = "seg"
title = "Tiny"
licence = "CC0"
source = "made up"
get = "make it up"
[labels]
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
        assert!(text.contains(replace));
        text.replacen(replace, by, 1)
    }

    fn parse(replace: &str, by: &str) -> Result<Card, DataError> {
        Card::parse(&text(replace, by), Path::new("tiny/dataset.toml"), PathBuf::from("tiny"))
    }

    #[test]
    fn a_card_round_trips() {
        let card = parse("tiny", "tiny").unwrap();
        let again = Card::parse(&toml::to_string(&card).unwrap(), Path::new("x"), PathBuf::from("tiny")).unwrap();
        assert_eq!(card, again);
        assert_eq!(card.class_colours(), [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn every_mistake_in_a_card_is_named_with_its_place() {
        for (replace, by, expected) in [
            ("title =", "titel =", "tiny/dataset.toml:4:1: unknown field `titel`"),
            ("ignore = [255]", "ignore = 255", "tiny/dataset.toml:10:10: invalid type"),
            ("name = \"tiny\"", "name = \"../tiny\"", "name: `../tiny` must be a plain name"),
            ("list = \"train.txt\"", "list = \"/train.txt\"", "splits.train.list: `/train.txt` is an absolute path"),
            ("list = \"train.txt\"", "list = \"../t.txt\"", "splits.train.list: `../t.txt` leads out of its folder"),
            ("minus = \"few\"", "minus = \"fow\"", "splits.rest.minus: there is no split `fow`, did you mean `few`?"),
            (", minus = \"few\"", "", "splits.rest: must have exactly one of"),
            ("name = \"b\"", "name = \"a\"", "classes: `a` comes twice"),
            ("name = \"b\"", "name = \"7\"", "classes: `7` is no class name"),
            ("ignore = [255]", "ignore = [1]", "labels: value 1 is"),
            ("ignore = [255]", "values = [{ from = 0, to = 2 }]", "labels: values: class 2"),
        ] {
            let message = parse(replace, by).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` does not say `{expected}`");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_card_is_found_by_name_and_by_path_and_a_typo_gets_the_nearest_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tiny");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(FILE), text("tiny", "tiny")).unwrap();
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
