//! Which of the images in a folder are masks, and of which others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::{first, listed_parts, part_of, stem};
use crate::error::DataError;
use crate::files::Below;

/// The names of folders, in lower case, that hold images.
const IMAGE_FOLDERS: [&str; 12] =
    ["images", "image", "imgs", "img", "img_dir", "photos", "photo", "jpegimages", "leftimg8bit", "rgb", "inputs", "x"];

/// The names of folders, in lower case, that hold masks; of two masks of a photo the first by name is taken.
const MASK_FOLDERS: [&str; 20] = [
    "labels",
    "label",
    "masks",
    "mask",
    "annotations",
    "annotation",
    "annots",
    "ann_dir",
    "trimaps",
    "gt",
    "gtfine",
    "groundtruth",
    "ground_truth",
    "segmentationclass",
    "segmentationobject",
    "segmentations",
    "segmentation",
    "seg",
    "targets",
    "y",
];

/// The endings, in lower case, that tell a mask from the photo of the same name.
const MASK_ENDINGS: [&str; 15] = [
    "_gtfine_labelids",
    "_masks",
    "_mask",
    "-mask",
    ".mask",
    "_labels",
    "_label",
    "_gt",
    "_segmentation",
    "_seg",
    "_trimap",
    "_annotation",
    "_target",
    "_manual1",
    "_l",
];

/// The endings, in lower case, of photos whose masks have none or another.
const IMAGE_ENDINGS: [&str; 7] = ["_leftimg8bit", "_image", "_img", "_rgb", "_sat", "_photo", "-image"];

/// Images with masks, and images alone; paths relative to the folder, sorted.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    pub pairs: Vec<Pair>,
    pub alone: Vec<String>,
    /// What was left out, and what was seen, for people.
    pub said: Vec<String>,
}

/// An image and its mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Pair {
    pub image: String,
    pub mask: String,
    /// `train`, `val`, `test`, or nothing that is known.
    pub part: &'static str,
}

/// What a file's folders say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Image,
    Mask,
    Unknown,
}

/// A file by its place: what its folders say, and its path without them and without its extension, which photo and mask share.
struct Placed<'a> {
    file: &'a str,
    role: Role,
    key: String,
}

impl<'a> Placed<'a> {
    fn of(file: &'a str) -> Self {
        let (mut role, mut key) = (Role::Unknown, Vec::new());
        let parts: Vec<&str> = file.split('/').collect();
        let (name, folders) = parts.split_last().unwrap_or((&file, &[]));
        for folder in folders {
            match folder.to_lowercase().as_str() {
                name if MASK_FOLDERS.contains(&name) => role = Role::Mask,
                name if IMAGE_FOLDERS.contains(&name) && role == Role::Unknown => role = Role::Image,
                name if IMAGE_FOLDERS.contains(&name) => {}
                _ => key.push((*folder).to_owned()),
            }
        }
        key.push(stem(name).to_owned());
        Self { file, role, key: key.join("/") }
    }

    /// The key without an ending, where it has one of these.
    fn without(&self, endings: &[&str]) -> Option<String> {
        let lower = self.key.to_lowercase();
        // Lower case may have another number of bytes: such a name has none of these endings.
        let fits = |ending: &&&str| lower.len() == self.key.len() && lower.ends_with(**ending);
        let ending = endings.iter().find(fits)?;
        let rest = &self.key[..self.key.len() - ending.len()];
        (!rest.is_empty() && !rest.ends_with('/')).then(|| rest.to_owned())
    }
}

/// The photos of a folder, each with the mask that is named after it: the same path but for folders as `images` and `masks`;
/// an equal name first, then one without endings as `_mask`. Splits are those of the folders, or of `ImageSets/Segmentation`.
///
/// # Errors
/// A folder that cannot be read, and two photos that have one mask.
pub(in super::super) fn pair_up(folder: &Path) -> Result<Found, DataError> {
    let below = Below::images(folder, folder)?;
    let placed: Vec<Placed<'_>> = below.files.iter().map(|file| Placed::of(file)).collect();
    let is_mask = masks_of(&placed);
    let (masks, photos): (Vec<_>, Vec<_>) = placed.iter().zip(is_mask).partition(|(_, is_mask)| *is_mask);
    let [masks, photos] = [masks, photos].map(|all| all.into_iter().map(|(placed, _)| placed).collect::<Vec<_>>());
    let fail = |message: String| DataError::Starter { folder: folder.to_owned(), message };
    let (matched, unused) = matched(&photos, &masks).map_err(fail)?;
    let parts = listed_parts(folder, "ImageSets/Segmentation")?;
    let part = |file: &str| {
        let name = stem(file.rsplit('/').next().unwrap_or(file));
        let folders = file.rsplit_once('/').map_or("", |(folders, _)| folders);
        parts.get(name).copied().unwrap_or_else(|| part_of(folders))
    };
    let mut found = Found { said: said(&below, &unused), ..Found::default() };
    for (index, photo) in photos.iter().enumerate() {
        let image = photo.file.to_owned();
        match matched.get(&index) {
            Some(mask) => found.pairs.push(Pair { part: part(&image), image, mask: masks[*mask].file.to_owned() }),
            None => found.alone.push(image),
        }
    }
    Ok(found)
}

/// Which files are masks: those in folders for masks; of files whose folders say nothing, those with the ending of a mask whose
/// photo is there, and PNGs and GIFs beside a photo of the same name.
fn masks_of(placed: &[Placed<'_>]) -> Vec<bool> {
    let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
    placed.iter().for_each(|one| *keys.entry(one.key.as_str()).or_default() += 1);
    let photos: BTreeSet<&str> =
        placed.iter().filter(|one| !may_hold_labels(one.file)).map(|one| one.key.as_str()).collect();
    let photo_keys: BTreeSet<String> =
        placed.iter().flat_map(|one| one.without(&IMAGE_ENDINGS).into_iter().chain([one.key.clone()])).collect();
    let is_mask = |one: &Placed<'_>| match one.role {
        Role::Mask => true,
        Role::Image => false,
        Role::Unknown if !may_hold_labels(one.file) => false,
        // A photo of the very same name: `000_L.jpg` beside `000_L.png`.
        Role::Unknown if keys[one.key.as_str()] > 1 => photos.contains(one.key.as_str()),
        Role::Unknown => one.without(&MASK_ENDINGS).is_some_and(|key| photo_keys.contains(&key)),
    };
    placed.iter().map(is_mask).collect()
}

fn may_hold_labels(file: &str) -> bool {
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    ["png", "gif", "bmp", "tif", "tiff"].iter().any(|kind| extension.eq_ignore_ascii_case(kind))
}

/// The masks of photos, both by their places in the lists; and the masks that belong to none.
type Matched<'a> = (BTreeMap<usize, usize>, Vec<&'a str>);

fn matched<'a>(photos: &[&Placed<'a>], masks: &[&Placed<'a>]) -> Result<Matched<'a>, String> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, photo) in photos.iter().enumerate() {
        by_key.entry(photo.key.clone()).or_default().push(index);
    }
    for (index, photo) in photos.iter().enumerate() {
        if let Some(key) = photo.without(&IMAGE_ENDINGS) {
            by_key.entry(key).or_insert_with(|| vec![index]);
        }
    }
    let (mut matched, mut open): (BTreeMap<usize, usize>, Vec<usize>) = (BTreeMap::new(), Vec::new());
    let mut take = |key: &str, mask: usize| -> Result<bool, String> {
        match by_key.get(key).map(Vec::as_slice) {
            Some([photo]) if !matched.contains_key(photo) => {
                matched.insert(*photo, mask);
                Ok(true)
            }
            Some([first, second, ..]) => {
                let [first, second] = [first, second].map(|index| photos[*index].file);
                Err(format!("{first} and {second} have the same name, and one mask: {}", masks[mask].file))
            }
            _ => Ok(false),
        }
    };
    for (index, mask) in masks.iter().enumerate() {
        if !take(&mask.key, index)? {
            open.push(index);
        }
    }
    let mut unused = Vec::new();
    for index in open {
        match masks[index].without(&MASK_ENDINGS) {
            Some(key) if take(&key, index)? => {}
            _ => unused.push(index),
        }
    }
    by_name_alone(photos, masks, &mut matched, &mut unused);
    Ok((matched, unused.into_iter().map(|index| masks[index].file).collect()))
}

/// Where photos and masks lie in other folders: those of a name that no other photo and no other mask has.
fn by_name_alone(
    photos: &[&Placed<'_>],
    masks: &[&Placed<'_>],
    matched: &mut BTreeMap<usize, usize>,
    unused: &mut Vec<usize>,
) {
    let name = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
    let mut free: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, photo) in photos.iter().enumerate() {
        free.entry(name(&photo.key)).or_default().push(index);
    }
    let mut wanted: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for index in unused.iter() {
        let mask = masks[*index];
        let own = name(&mask.key);
        let own = if free.contains_key(&own) { own } else { name(&mask.without(&MASK_ENDINGS).unwrap_or_default()) };
        wanted.entry(own).or_default().push(*index);
    }
    for (name, masks) in wanted {
        if let (Some([photo]), [mask]) = (free.get(&name).map(Vec::as_slice), masks.as_slice())
            && !matched.contains_key(photo)
        {
            matched.insert(*photo, *mask);
            unused.retain(|index| index != mask);
        }
    }
}

/// What was left out.
fn said(below: &Below, unused: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    if below.hidden > 0 {
        let what = if below.hidden == 1 { "file" } else { "files" };
        said.push(format!("left out: {} hidden {what}, as systems and notebooks leave them", below.hidden));
    }
    if !below.broken.is_empty() {
        said.push(format!("left out: links that lead nowhere: {}", first(&below.broken)));
    }
    if !unused.is_empty() {
        let unused: Vec<String> = unused.iter().map(|file| (*file).to_owned()).collect();
        said.push(format!("left out: masks of no photo, or of one that has another: {}", first(&unused)));
    }
    said
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(files: &[&str]) -> Result<Found, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        pair_up(folder.path()).map_err(|error| error.to_string())
    }

    fn found(files: &[&str]) -> Vec<(String, String, &'static str)> {
        let found = pairs(files).unwrap();
        found.pairs.into_iter().map(|pair| (pair.image, pair.mask, pair.part)).collect()
    }

    #[test]
    fn the_usual_layouts_are_read_and_their_splits_kept() {
        for (image, mask, part) in [
            ("images/a.jpg", "masks/a.png", ""),
            ("Images/a.JPG", "Masks/a.PNG", ""),
            ("img_dir/train/a.jpg", "ann_dir/train/a.png", "train"),
            ("train/images/a.jpg", "train/labels/a.png", "train"),
            ("images/validation/a.jpg", "annotations/validation/a.png", "val"),
            ("images/a.jpg", "annotations/trimaps/a.png", ""),
            ("leftImg8bit/val/b/b_0_1_leftImg8bit.png", "gtFine/val/b/b_0_1_gtFine_labelIds.png", "val"),
            ("test/a_b.jpg", "test/a_b_mask.png", "test"),
            ("JPEGImages/a.jpg", "SegmentationClass/a.png", ""),
            ("1_sat.jpg", "1_mask.png", ""),
            ("images/00_training.tif", "masks/00_training_mask.gif", ""),
            ("images/x/a.jpg", "masks/y/a.png", ""),
            ("a.jpg", "a.png", ""),
            ("a.v2.jpg", "a.v2.png", ""),
        ] {
            assert_eq!(found(&[image, mask]), [(image.to_owned(), mask.to_owned(), part)]);
        }
    }

    #[test]
    fn an_equal_name_comes_before_one_without_an_ending() {
        let names = |files: &[&str]| found(files).into_iter().map(|(_, mask, _)| mask).collect::<Vec<_>>();
        assert_eq!(names(&["0_L.jpg", "0_L.png", "0_R.jpg", "0_R.png"]), ["0_L.png", "0_R.png"]);
        assert_eq!(names(&["images/f_mask.jpg", "masks/f_mask.png"]), ["masks/f_mask.png"]);
        assert_eq!(names(&["f_mask.jpg", "f_mask.png"]), ["f_mask.png"]);
        let both = pairs(&["images/f.jpg", "masks/f.png", "masks/f_mask.png"]).unwrap();
        assert_eq!(both.pairs[0].mask, "masks/f.png");
        assert!(both.said[0].contains("masks/f_mask.png"), "{:?}", both.said);
    }

    #[test]
    fn masks_of_instances_are_no_photos() {
        let voc = pairs(&["JPEGImages/a.jpg", "SegmentationObject/a.png", "SegmentationClass/a.png"]).unwrap();
        assert_eq!((voc.pairs[0].mask.as_str(), voc.alone.len()), ("SegmentationClass/a.png", 0));
        assert!(voc.said[0].contains("SegmentationObject/a.png"), "{:?}", voc.said);
    }

    #[test]
    fn one_mask_of_two_photos_is_an_error() {
        let message = pairs(&["images/a.jpg", "images/a.bmp", "masks/a.png"]).unwrap_err();
        assert!(message.contains("images/a.bmp and images/a.jpg have the same name, and one mask: masks/a.png"));
        // The same name in two splits is none.
        assert_eq!(found(&["train/images/a.jpg", "train/masks/a.png", "val/images/a.jpg", "val/masks/a.png"]).len(), 2);
    }

    #[test]
    fn photos_without_a_mask_and_masks_without_a_photo_are_told_apart() {
        let found = pairs(&["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png", "images/.c.jpg"]).unwrap();
        assert_eq!((found.pairs.len(), found.alone), (1, vec!["images/b.jpg".to_owned()]));
        assert!(found.said[0].contains("1 hidden file,") && found.said[1].contains("masks/c.png"), "{:?}", found.said);
    }

    #[test]
    fn lists_of_pascal_voc_say_the_splits() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["JPEGImages/a.jpg", "SegmentationClass/a.png", "JPEGImages/b.jpg", "SegmentationClass/b.png"] {
            std::fs::create_dir_all(folder.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        std::fs::create_dir_all(folder.path().join("ImageSets/Segmentation")).unwrap();
        std::fs::write(folder.path().join("ImageSets/Segmentation/val.txt"), "a\n").unwrap();
        std::fs::write(folder.path().join("ImageSets/Segmentation/train.txt"), "b\r\n").unwrap();
        let parts: Vec<_> = pair_up(folder.path()).unwrap().pairs.into_iter().map(|pair| pair.part).collect();
        assert_eq!(parts, ["val", "train"]);
    }
}
