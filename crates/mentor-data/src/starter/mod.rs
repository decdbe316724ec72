//! A first card for a folder of anyone's images, with masks or boxes.

mod boxes;
mod masks;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mentor_types::TaskName;

use crate::error::DataError;
use crate::files::{Below, read_text};
use crate::read::read_size;

/// What `mentor new` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starter {
    /// What can be learnt from the labels.
    pub task: TaskName,
    /// The text of `dataset.toml`.
    pub card: String,
    /// File names and texts of the split lists, to be written beside the card.
    pub lists: Vec<(String, String)>,
    /// Number of classes found.
    pub classes: usize,
    /// Images with labels, those of train and those of val.
    pub labelled: [usize; 2],
    /// Images without labels; where there are any the card has a split `unlabelled`.
    pub unlabelled: usize,
    /// A crop (height, width) that suits the images: multiples of 32, at most 512.
    pub crop_px: [usize; 2],
    /// A `[data]` and a `[views]` table for a recipe, given the path of the card.
    pub recipe_tables: String,
    /// What was found, and what of it was left out, a line each.
    pub said: Vec<String>,
}

/// Looks at a folder and writes a card for it. Masks: `images/` with `labels/` or `masks/`, or photos beside masks of the same
/// stem. Boxes: COCO JSON, Pascal VOC's XML or YOLO's text, wherever it lies. Where the folder holds both, `task` decides.
///
/// # Errors
/// Where there are no labels, or both kinds and no task; where a file is bad, or there are too many classes.
pub fn starter_card(folder: &Path, task: Option<TaskName>) -> Result<Starter, DataError> {
    let fail = |message: &str| DataError::Starter { folder: folder.to_owned(), message: message.to_owned() };
    if !folder.is_dir() {
        return Err(fail("is no folder"));
    }
    let wants = |other: TaskName| task.is_none_or(|task| task == other);
    let masks = masks::pair_up(folder)?;
    // A mask is no image that somebody forgot to label.
    let known: BTreeSet<&str> = masks.pairs.iter().map(|pair| pair.mask.as_str()).collect();
    let is_mask = |image: &str| known.contains(image);
    let boxes = if wants(TaskName::Det) { boxes::find(folder, &is_mask)? } else { None };
    match (Some(masks).filter(|found| wants(TaskName::Seg) && !found.pairs.is_empty()), boxes) {
        (Some(_), Some(found)) if !found.is_empty() => {
            let format = found.format_name();
            Err(fail(&format!("holds masks and boxes ({format}): say which with --task seg or --task det")))
        }
        (Some(masks), _) => masks::starter(folder, &masks),
        (None, Some(found)) => boxes::starter(folder, &found),
        (None, None) => Err(fail(match task {
            Some(TaskName::Seg) => NO_MASKS,
            Some(TaskName::Det) => NO_BOXES,
            None => NO_LABELS,
        })),
    }
}

const NO_MASKS: &str =
    "holds no image with a mask: put photos into `images/` and PNG masks of the same name into `labels/`";
const NO_BOXES: &str = "holds no image with boxes: neither COCO JSON, nor Pascal VOC's XML or YOLO's text files that are \
                        named as images are";
const NO_LABELS: &str = "holds no image with a mask or boxes: put photos into `images/` and PNG masks, or text files of YOLO, \
                         of the same name into `labels/`, XML of Pascal VOC into `Annotations/`, or COCO JSON beside them";

/// A split of a card and its list.
struct StarterSplit {
    name: String,
    /// The text of the list.
    list: String,
    images: usize,
    /// The file with all of its boxes.
    boxes: Option<String>,
    /// Whether it is every fifth image.
    is_fifth: bool,
}

impl StarterSplit {
    /// A split of images whose labels are found without a column for them.
    fn of<'a>(name: &str, images: impl IntoIterator<Item = &'a String>) -> Self {
        let lines: Vec<String> = images.into_iter().map(|image| list_line(image, None)).collect();
        let (name, images) = (name.to_owned(), lines.len());
        Self { name, list: lines.concat(), images, boxes: None, is_fifth: false }
    }

    fn list_name(&self, prefix: &str) -> String {
        format!("{prefix}{}.txt", self.name)
    }
}

/// A line of a list. Where a name begins as a comment does, its folder comes first.
fn list_line(image: &str, label: Option<&str>) -> String {
    let here = if image.starts_with('#') { "./" } else { "" };
    format!("{here}{image}\t{}\n", label.unwrap_or_default())
}

/// The splits and how large they are, for people.
fn splits_said(splits: &[StarterSplit]) -> String {
    let sizes = splits.iter().map(|split| {
        let fifth = if split.is_fifth { ", every fifth" } else { "" };
        format!("{} {} images{fifth}", split.name, split.images)
    });
    format!("splits: {}", sizes.collect::<Vec<_>>().join("; "))
}

/// How many of what is left out are named.
const SHOWN: usize = 3;

/// The first of some things, and how many more there are.
fn first(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > SHOWN { format!("{shown}; and {} more", all.len() - SHOWN) } else { shown }
}

/// Which split a path is said to be in by the names of its folders, or of itself: the last that says it.
fn part_of(path: &str) -> &'static str {
    let words = path.split(|letter: char| !letter.is_alphabetic());
    let part = |word: &str| match word.to_lowercase().as_str() {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" => Some("val"),
        "test" | "testing" => Some("test"),
        _ => None,
    };
    words.rev().find_map(part).unwrap_or_default()
}

/// The splits of images by their stems, from the lists in a folder of Pascal VOC, `ImageSets/Main` or `ImageSets/Segmentation`.
fn listed_parts(folder: &Path, lists: &str) -> Result<BTreeMap<String, &'static str>, DataError> {
    let is_list = |path: &Path| {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        path.parent().is_some_and(|folder| folder.ends_with(lists)) && ["train", "val", "test"].contains(&name)
    };
    let mut parts = BTreeMap::new();
    for file in Below::of(folder, folder, &is_list)?.files {
        let part = part_of(stem(file.rsplit('/').next().unwrap_or(&file)));
        let text = read_text(&folder.join(&file))?;
        parts.extend(text.lines().filter_map(|line| Some((line.split_whitespace().next()?.to_owned(), part))));
    }
    Ok(parts)
}

/// Whether a card can hold a class of this name.
fn is_class_name(name: &str) -> bool {
    name.trim() == name && !name.is_empty() && !name.contains([',', '\t', '\n']) && name.parse::<u64>().is_err()
}

fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// Those for train and those for val: every fifth, from the third on; with fewer than three the last one.
fn divide<T>(all: &[T]) -> [Vec<&T>; 2] {
    let for_val = |index: usize| if all.len() < 3 { index + 1 == all.len() } else { index % 5 == 2 };
    [false, true].map(|val| (0..all.len()).filter(|index| for_val(*index) == val).map(|index| &all[index]).collect())
}

/// The smaller sides of the first images, rounded down to multiples of 32.
fn crop<'a>(folder: &Path, images: impl Iterator<Item = &'a String>) -> Result<[usize; 2], DataError> {
    let mut least = [512_u32; 2];
    for image in images.take(20) {
        let (width, height) = read_size(&folder.join(image))?;
        least = [least[0].min(height), least[1].min(width)];
    }
    Ok(least.map(|side| (side as usize / 32 * 32).max(32)))
}

fn folder_name(folder: &Path) -> String {
    let path: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "my_images".to_owned() } else { name.to_owned() }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The files of the lists of some splits, with the names that they have after a prefix.
fn list_files(splits: &[StarterSplit], prefix: &str) -> Vec<(String, String)> {
    splits.iter().map(|split| (split.list_name(prefix), split.list.clone())).collect()
}

/// The text of a card with a table of labels (and a pairing, where it needs one).
fn card_text(folder: &Path, labels: &str, splits: &[StarterSplit], prefix: &str, classes: &str) -> String {
    let name = quoted(&folder_name(folder));
    let mut text = format!(
        "# A first card, made from the files in this folder: look through it and name the classes.\n\
         name = {name}\n\
         title = {name}\n\
         licence = \"unknown: write down whose images these are and what may be done with them\"\n\
         source = \"unknown\"\n\
         get = \"the images lie beside this card\"\n\n\
         {labels}\n\
         [splits]\n",
    );
    for split in splits {
        let StarterSplit { name, images, .. } = split;
        if split.is_fifth {
            text += "# Every fifth image. Where neighbours are alike (a video, tiles of one photo), choose others.\n";
        }
        let boxes = split.boxes.as_ref().map_or_else(String::new, |file| format!("boxes = {}, ", quoted(file)));
        let _ = writeln!(text, "{name} = {{ list = {}, {boxes}count = {images} }}", quoted(&split.list_name(prefix)));
    }
    text + classes
}

/// The entry of a class.
fn class_text(name: &str, colour: [u8; 3]) -> String {
    format!("\n[[classes]]\nname = {}\ncolor = {colour:?}\n", quoted(name))
}

/// The tables of a recipe that are about data; `skips` says that bad ones are to be left out.
fn recipe_tables(folder: &Path, unlabelled: bool, skips: bool, crop_px: [usize; 2]) -> String {
    let card = folder.join("dataset.toml");
    let mut text = format!("[data]\ncard = {}\nlabelled = \"train\"\n", quoted(&card.to_string_lossy()));
    if unlabelled {
        text += "# For a recipe with a term that learns from them: unlabelled = \"unlabelled\"\n";
    }
    text += "val = \"val\"\n";
    if skips {
        text += "# Some boxes are none: they are left out, counted and named.\non_bad_sample = \"skip\"\n";
    }
    let _ = write!(text, "\n[views]\ncrop_px = {crop_px:?}\n");
    text
}

/// Colours far apart from their neighbours: the index's bits, lowest first, go round the three channels from their
/// highest bit down, the colour map of PASCAL VOC.
fn display_colour(index: usize) -> [u8; 3] {
    let mut colour = [0_u8; 3];
    for level in 0..3 {
        for (channel, value) in colour.iter_mut().enumerate() {
            let bit = (index + 1) >> (3 * level + channel) & 1;
            *value |= (bit as u8) << (7 - level);
        }
    }
    colour
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::Card;
    use crate::config::OnBadSample;
    use crate::dataset::Dataset;
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use mentor_types::LabelMask;

    fn save_starter(folder: &Path, starter: &Starter) -> Dataset<LabelMask> {
        std::fs::write(folder.join("dataset.toml"), &starter.card).unwrap();
        for (name, text) in &starter.lists {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Dataset::new(Card::read(&folder.join("dataset.toml")).unwrap(), &[]).unwrap()
    }

    #[test]
    fn index_masks_in_their_own_folder_make_a_card_that_works() {
        let folder = tempfile::Builder::new().prefix("my photos ö").tempdir().unwrap();
        for sub in ["images/a b", "masks/a b"] {
            std::fs::create_dir_all(folder.path().join(sub)).unwrap();
        }
        for index in 0..12_u8 {
            let image = format!("images/a b/{index:02}.jpg");
            RgbImage::new(100, 70).save(folder.path().join(image)).unwrap();
            if index < 10 {
                let mask = GrayImage::from_fn(100, 70, |x, _| Luma([if x == 0 { 255 } else { index % 3 }]));
                mask.save(folder.path().join(format!("masks/a b/{index:02}_mask.png"))).unwrap();
            }
        }
        let starter = starter_card(folder.path(), None).unwrap();
        assert_eq!((starter.classes, starter.labelled, starter.unlabelled), (3, [8, 2], 2));
        assert_eq!(starter.crop_px, [64, 96]);
        assert_eq!(starter, starter_card(folder.path(), None).unwrap());
        let dataset = save_starter(folder.path(), &starter);
        let stats = dataset.verify_split(&dataset.split("train").unwrap(), OnBadSample::Fail, None).unwrap();
        assert_eq!((stats.images, stats.counts.ignored), (8, 8 * 70));
        assert_eq!(dataset.split("unlabelled").unwrap().len(), 2);
        // A split that nothing learns from would be refused in a recipe.
        let tables: toml::Table = starter.recipe_tables.parse().unwrap();
        assert!(
            tables["data"].get("unlabelled").is_none() && starter.recipe_tables.contains("unlabelled = \"unlabelled\"")
        );
    }

    #[test]
    fn colour_masks_beside_their_photos_make_a_card_that_works() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..3_u8 {
            RgbImage::new(40, 40).save(folder.path().join(format!("{index}.jpg"))).unwrap();
            let mask = RgbImage::from_fn(40, 40, |x, _| Rgb(if x < 9 { [200, 0, 0] } else { [0, 0, 200] }));
            mask.save(folder.path().join(format!("{index}.png"))).unwrap();
        }
        let starter = starter_card(folder.path(), None).unwrap();
        assert_eq!((starter.classes, starter.labelled), (2, [2, 1]));
        let dataset = save_starter(folder.path(), &starter);
        let stats = dataset.verify_split(&dataset.split("train").unwrap(), OnBadSample::Fail, None).unwrap();
        assert_eq!(stats.counts.classes, [2 * 31 * 40, 2 * 9 * 40]);
    }

    #[test]
    fn a_folder_without_masks_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(starter_card(&folder.path().join("none"), None).unwrap_err().to_string().ends_with("is no folder"));
        assert!(
            starter_card(folder.path(), None).unwrap_err().to_string().contains("holds no image with a mask or boxes")
        );
        RgbImage::new(4, 4).save(folder.path().join("a.jpg")).unwrap();
        RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, 0])).save(folder.path().join("a.png")).unwrap();
        RgbImage::new(4, 4).save(folder.path().join("b.jpg")).unwrap();
        assert!(starter_card(folder.path(), None).unwrap_err().to_string().contains("a single image"));
        RgbImage::new(4, 4).save(folder.path().join("b.png")).unwrap();
        let message = starter_card(folder.path(), None).unwrap_err().to_string();
        assert!(message.contains("a.png: has 4096 colours"), "{message}");
    }

    #[test]
    fn values_above_255_never_make_fewer_classes() {
        let folder = tempfile::tempdir().unwrap();
        for sub in ["images", "masks"] {
            std::fs::create_dir(folder.path().join(sub)).unwrap();
        }
        let masks = |values: [u16; 4]| {
            for index in 0..3 {
                RgbImage::new(40, 40).save(folder.path().join(format!("images/{index}.jpg"))).unwrap();
                let mask = image::ImageBuffer::from_fn(40, 40, |x, _| Luma([values[x as usize / 10]]));
                image::DynamicImage::ImageLuma16(mask).save(folder.path().join(format!("masks/{index}.png"))).unwrap();
            }
            starter_card(folder.path(), None)
        };
        assert_eq!(masks([0, 1, 2, 200]).unwrap().classes, 4);
        for (values, named) in
            [([0, 1, 2, 300], "value 300"), ([7, 8, 8, 26001], "26001"), ([0, 1000, 2000, 0], "1000")]
        {
            let message = masks(values).unwrap_err().to_string();
            assert!(message.contains("masks/0.png: value ") && message.contains(named), "{message}");
        }
    }
}
