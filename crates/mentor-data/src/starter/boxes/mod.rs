//! Boxes among the files of a folder.

mod coco;
mod pairs;
mod voc;
mod yaml;
mod yolo;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mentor_types::TaskName;
use rayon::prelude::*;

use self::pairs::Layout;
use super::{
    Starter, StarterSplit, card_text, class_text, crop, display_colour, divide, first, is_class_name, list_files,
    part_of, quoted, recipe_tables, splits_said,
};
use crate::card::BoxFormat;
use crate::error::DataError;
use crate::files::{Below, is_image_name};
use crate::read::{ImageBoxes, read_size};

/// Images with boxes of one format.
pub(super) struct FoundBoxes {
    format: BoxFormat,
    /// The form of the path of an image's file, where each has one.
    path: Option<String>,
    /// The form of the images' paths, which leads to that.
    id: Option<String>,
    first_pixel: u8,
    classes: Vec<String>,
    /// Whether a class has its place in the list by its number in the files.
    is_numbered: bool,
    images: Vec<FoundImage>,
    /// Images that nobody labelled, sorted.
    alone: Vec<String>,
    /// Boxes that are none.
    broken: Vec<String>,
    /// What else is left out, and why.
    left_out: Vec<String>,
    /// What else is to be said.
    said: Vec<String>,
}

/// An image that somebody labelled.
struct FoundImage {
    path: String,
    /// `train`, `val`, `test`, or nothing that is known.
    part: &'static str,
    /// The file of boxes that also has those of others.
    file: Option<String>,
    /// The class of each of its boxes.
    boxes: Vec<u8>,
}

impl FoundBoxes {
    fn new(format: BoxFormat) -> Self {
        Self {
            format,
            path: None,
            id: None,
            first_pixel: 0,
            classes: Vec::new(),
            is_numbered: false,
            images: Vec::new(),
            alone: Vec::new(),
            broken: Vec::new(),
            left_out: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Whether no image has boxes that can be used; what was wrong is known then.
    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    pub(super) fn format_name(&self) -> &'static str {
        match self.format {
            BoxFormat::Coco => "COCO JSON",
            BoxFormat::Voc => "Pascal VOC's XML",
            BoxFormat::Yolo => "YOLO's text",
        }
    }

    /// Takes over what the files of a layout hold.
    fn take(&mut self, layout: &Layout, read: Vec<Result<ImageBoxes, String>>, part: impl Fn(&str) -> &'static str) {
        for ((image, label), read) in layout.pairs.iter().zip(read) {
            let found = match read {
                Ok(found) => found,
                Err(reason) => {
                    self.left_out.push(reason);
                    continue;
                }
            };
            for mistake in found.mistakes.iter().filter(|mistake| mistake.is_dropped()) {
                let line = mistake.line.map_or_else(String::new, |line| format!("{line}: "));
                self.broken.push(format!("{label}:{line}{}", mistake.message));
            }
            let boxes = found.boxes.iter().map(|label| label.class).collect();
            self.images.push(FoundImage { path: image.clone(), part: part(image), file: None, boxes });
        }
        self.alone.clone_from(&layout.alone);
        (self.id, self.path) = (Some(layout.id.clone()), Some(layout.path.clone()));
        let stray = layout.stray.iter().map(|file| format!("{file}: does not lie as the other files of boxes do"));
        self.left_out.extend(stray);
        if layout.outside > 0 {
            self.left_out.push(format!("{} images whose path is not of the form {}", layout.outside, layout.id));
        }
    }
}

/// The boxes of a folder, in that format in which most images have some; masks are none of its images.
pub(super) fn find(folder: &Path, is_mask: &dyn Fn(&str) -> bool) -> Result<Option<FoundBoxes>, DataError> {
    let list = |is_wanted: &dyn Fn(&Path) -> bool| Ok::<_, DataError>(Below::of(folder, folder, is_wanted)?.files);
    let ending = |ending: &'static str| {
        move |path: &Path| path.extension().is_some_and(|other| other.eq_ignore_ascii_case(ending))
    };
    let mut images = list(&is_image_name)?;
    images.retain(|image| !is_mask(image));
    let about = list(&|path| ["yaml", "yml", "names"].iter().any(|kind| ending(kind)(path)))?;
    let found = [
        coco::find(folder, &images, list(&ending("json"))?)?,
        voc::find(folder, &images, &list(&ending("xml"))?)?,
        yolo::find(folder, &images, &list(&ending("txt"))?, &about)?,
    ];
    let mut found: Vec<FoundBoxes> = found.into_iter().flatten().collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.images.len()));
    let mut found = found.into_iter();
    let Some(mut best) = found.next() else { return Ok(None) };
    let others = found
        .filter(|other| !other.is_empty())
        .map(|other| format!("not used: boxes of {} images in {}", other.images.len(), other.format_name()));
    best.said.extend(others);
    Ok(Some(best))
}

/// The starter for images with boxes. The splits that the folder tells apart are kept; what it lacks of train and val is made
/// of every fifth image.
///
/// # Errors
/// Too few images with boxes, too many classes, an image that cannot be read.
pub(super) fn starter(folder: &Path, found: &FoundBoxes) -> Result<Starter, DataError> {
    let fail = |message: String| DataError::Starter { folder: folder.to_owned(), message };
    if found.classes.len() > mentor_types::MAX_CLASSES {
        let most = mentor_types::MAX_CLASSES;
        return Err(fail(format!("has boxes of {} classes, more than {most}", found.classes.len())));
    }
    if found.images.iter().filter(|image| !image.boxes.is_empty()).count() < 2 {
        let why: Vec<String> = found.broken.iter().chain(&found.left_out).cloned().collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", first(&why)) };
        return Err(fail(format!("holds fewer than two images with boxes{why}; train and val need one each")));
    }
    let mut splits = splits(found);
    let [train, val] = ["train", "val"].map(|name| splits.iter().find(|split| split.name == name));
    let labelled = [train, val].map(|split| split.map_or(0, |split| split.images));
    if !found.alone.is_empty() {
        splits.push(StarterSplit::of("unlabelled", &found.alone));
    }
    // Sets in YOLO's form have such lists of their own.
    let is_there = |split: &StarterSplit| folder.join(split.list_name("")).exists();
    let prefix = if splits.iter().any(is_there) && !folder.join("dataset.toml").exists() { "mentor_" } else { "" };
    let crop_px = crop(folder, found.images.iter().map(|image| &image.path))?;
    let classes = found.classes.iter().enumerate().map(|(index, name)| class_text(name, display_colour(index)));
    let unlabelled = found.alone.len();
    Ok(Starter {
        task: TaskName::Det,
        card: card_text(folder, &tables(found), &splits, prefix, &classes.collect::<String>()),
        lists: list_files(&splits, prefix),
        classes: found.classes.len(),
        labelled,
        unlabelled,
        crop_px,
        recipe_tables: recipe_tables(folder, unlabelled > 0, !found.broken.is_empty(), crop_px),
        said: said(found, &splits),
    })
}

/// The tables `[boxes]` and `[pairing]`.
fn tables(found: &FoundBoxes) -> String {
    let format = match found.format {
        BoxFormat::Coco => "coco",
        BoxFormat::Voc => "voc",
        BoxFormat::Yolo => "yolo",
    };
    let mut text = format!("[boxes]\nformat = \"{format}\"\n");
    if let Some(path) = &found.path {
        text += &format!("path = {}\n", quoted(path));
    }
    if found.format == BoxFormat::Voc {
        text += "# What the first column of an image is called: 1 in Pascal VOC itself, 0 by most tools.\n";
        text += &format!("first_pixel = {}\n", found.first_pixel);
    }
    if found.is_numbered {
        text += "# The classes have the numbers of the files in the order of this card.\n";
    }
    if let Some(id) = &found.id {
        text += &format!("\n[pairing]\nid = {}\n", quoted(id));
    }
    text
}

/// The splits: those that the images are said to be in; train and val in any case.
fn splits(found: &FoundBoxes) -> Vec<StarterSplit> {
    // Images of one split may have their boxes in several files, which a split has not: each file is a split then.
    let mut parts: BTreeMap<(&str, Option<&String>), Vec<&FoundImage>> = BTreeMap::new();
    for image in &found.images {
        parts.entry((image.part, image.file.as_ref())).or_default().push(image);
    }
    let largest = |part: &str| {
        let of_part = parts.iter().filter(|((other, _), _)| *other == part);
        of_part.max_by_key(|(_, images)| images.len()).map(|(key, _)| *key)
    };
    let [train, val, rest] = ["train", "val", ""].map(largest);
    let mut splits = Vec::new();
    let mut split = |name: &str, file: Option<&String>, images: &[&FoundImage], is_fifth| {
        let of_images = StarterSplit::of(name, images.iter().map(|image| &image.path));
        splits.push(StarterSplit { boxes: file.cloned(), is_fifth, ..of_images });
    };
    let mut used = BTreeSet::new();
    if let (Some(train), Some(val)) = (train, val) {
        split("train", train.1, &parts[&train], false);
        split("val", val.1, &parts[&val], false);
        used.extend([train, val]);
    } else if let Some(whole) = train.or(rest).or(val).or_else(|| largest("test")) {
        let (with, without): (Vec<_>, Vec<_>) =
            parts[&whole].iter().copied().partition(|image: &&FoundImage| !image.boxes.is_empty());
        // Each kind by itself, so that val has images with boxes.
        let (with, without): ([Vec<&&FoundImage>; 2], [Vec<&&FoundImage>; 2]) = (divide(&with), divide(&without));
        for ((name, with), without) in ["train", "val"].into_iter().zip(with).zip(without) {
            let mut images: Vec<&FoundImage> = with.into_iter().chain(without).copied().collect();
            images.sort_by_key(|image| &image.path);
            split(name, whole.1, &images, name == "val");
        }
        used.insert(whole);
    }
    let mut names: BTreeSet<String> = ["train", "val", "unlabelled"].map(str::to_owned).into();
    for ((part, file), images) in parts.iter().filter(|(key, _)| !used.contains(*key)) {
        let wanted = if part.is_empty() { "rest" } else { part };
        let name = (1..).map(|n| if n == 1 { wanted.to_owned() } else { format!("{wanted}_{n}") });
        let Some(name) = name.into_iter().find(|name| !names.contains(name)) else { continue };
        split(&name, *file, images, false);
        names.insert(name);
    }
    splits
}

/// What was found, for people.
fn said(found: &FoundBoxes, splits: &[StarterSplit]) -> Vec<String> {
    let mut said = vec![format!("boxes in {} for {} images", found.format_name(), found.images.len())];
    let mut counts = vec![0_u64; found.classes.len()];
    found.images.iter().flat_map(|image| &image.boxes).for_each(|class| counts[usize::from(*class)] += 1);
    let of_class = found.classes.iter().zip(&counts).map(|(name, count)| format!("{name} {count}"));
    said.push(format!("boxes by class: {}", of_class.collect::<Vec<_>>().join(", ")));
    match found.images.iter().filter(|image| image.boxes.is_empty()).count() {
        0 => {}
        empty => said.push(format!("{empty} images without a box: all of them is background")),
    }
    said.push(splits_said(splits));
    if !found.alone.is_empty() {
        said.push(format!("{} images that nobody labelled are the split `unlabelled`", found.alone.len()));
    }
    let alike = found.classes.iter().enumerate().filter_map(|(index, name)| {
        let other = found.classes[..index].iter().find(|other| other.to_lowercase() == name.to_lowercase())?;
        Some(format!("`{other}` and `{name}` differ by capitals alone and are two classes"))
    });
    said.extend(alike);
    said.extend(found.said.iter().cloned());
    if !found.broken.is_empty() {
        let message = "boxes are none, and are left out by on_bad_sample = \"skip\" in the recipe";
        said.push(format!("{} {message}: {}", found.broken.len(), first(&found.broken)));
    }
    if !found.left_out.is_empty() {
        said.push(format!("left out: {}", first(&found.left_out)));
    }
    said
}

/// What the file of each image of a layout holds, given the image's height and width, or why it cannot be used.
fn read_each(
    folder: &Path,
    layout: &Layout,
    read: impl Fn(&Path, [usize; 2]) -> Result<ImageBoxes, DataError> + Sync,
) -> Result<Vec<Result<ImageBoxes, String>>, DataError> {
    let one = |(image, label): &(String, String)| {
        let size = match image_size(folder, image)? {
            Ok(size) => size,
            Err(reason) => return Ok(Err(reason)),
        };
        let found = read(&folder.join(label), size);
        let said = |error: DataError| short(folder, &error);
        match usable(found)? {
            Ok(found) if found.size.is_some_and(|said| said != size) => {
                Ok(Err(format!("{label}: is about an image of another size than {image}")))
            }
            Ok(found) => Ok(Ok(found)),
            Err(error) => Ok(Err(said(error))),
        }
    };
    layout.pairs.par_iter().map(one).collect::<Vec<_>>().into_iter().collect()
}

/// The height and width of an image, or why it is none.
fn image_size(folder: &Path, image: &str) -> Result<Result<[usize; 2], String>, DataError> {
    let size = usable(read_size(&folder.join(image)))?;
    Ok(size.map(|(width, height)| [height as usize, width as usize]).map_err(|error| short(folder, &error)))
}

/// Takes apart what a file holds and what the system refuses, which stops everything.
fn usable<T>(read: Result<T, DataError>) -> Result<Result<T, DataError>, DataError> {
    match read {
        Err(error @ DataError::Io { .. }) => Err(error),
        read => Ok(read),
    }
}

/// An error with its path from the folder.
fn short(folder: &Path, error: &DataError) -> String {
    let folder = folder.display().to_string();
    error.to_string().replacen(&format!("{}/", folder.trim_end_matches('/')), "", 1)
}

/// The folder of a path.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests;
