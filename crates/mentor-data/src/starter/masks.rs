//! Masks among the files of a folder, and what their values may mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;

use mentor_types::TaskName;

use super::{
    Starter, StarterSplit, card_text, class_text, crop, display_colour, divide, list_files, recipe_tables, stem,
};
use crate::card::MaskFormat;
use crate::error::{BadSample, DataError};
use crate::files::images_below;
use crate::read::decode_raw;

/// The folder names that are taken for images.
const IMAGE_FOLDERS: [&str; 6] = ["images", "image", "imgs", "img", "photos", "JPEGImages"];

/// The folder names that are taken for masks.
const MASK_FOLDERS: [&str; 7] = ["labels", "label", "masks", "mask", "annotations", "gt", "SegmentationClass"];

/// The endings that tell a mask from a photo of the same stem.
const MASK_ENDINGS: [&str; 6] = ["_mask", "_label", "_labels", "_gt", "-mask", "_L"];

/// Most values of a mask that are listed as classes with every number up to the largest.
const DENSE_CLASSES: usize = 64;

/// Images with masks, and images alone; paths relative to the folder, sorted.
pub(super) struct Found {
    pub pairs: Vec<Pair>,
    pub alone: Vec<String>,
}

/// An image and its mask.
type Pair = (String, String);

/// The starter for images with masks: index or colour masks, the values that occur, every fifth image for val.
///
/// # Errors
/// A single image with a mask, a bad file, or too many values for classes.
pub(super) fn starter(folder: &Path, found: &Found) -> Result<Starter, DataError> {
    let fail = |message: String| DataError::Starter { folder: folder.to_owned(), message };
    if found.pairs.len() < 2 {
        return Err(fail("holds a single image with a mask; train and val need one each".to_owned()));
    }
    let values = values_of(folder, &found.pairs)?;
    let table = MaskTable::new(&values).map_err(fail)?;
    let [train, val] = divide(&found.pairs);
    let crop_px = crop(folder, found.pairs.iter().map(|(image, _)| image))?;
    let line = |(image, label): &&Pair| format!("{image}\t{label}\n");
    let split = |name: &str, pairs: &[&Pair]| StarterSplit {
        name: name.to_owned(),
        list: pairs.iter().map(line).collect(),
        images: pairs.len(),
        boxes: None,
        is_fifth: name == "val",
    };
    let mut splits = vec![split("train", &train), split("val", &val)];
    if !found.alone.is_empty() {
        splits.push(StarterSplit::of("unlabelled", &found.alone));
    }
    let colours = table.classes.iter().enumerate();
    let classes = colours.map(|(index, colour)| class_text(&format!("class_{index}"), *colour)).collect::<String>();
    Ok(Starter {
        task: TaskName::Seg,
        card: card_text(folder, &format!("[masks]\n{}", table.text), &splits, "", &classes),
        lists: list_files(&splits, ""),
        classes: table.classes.len(),
        labelled: [train.len(), val.len()],
        unlabelled: found.alone.len(),
        crop_px,
        recipe_tables: recipe_tables(folder, !found.alone.is_empty(), false, crop_px),
        said: Vec::new(),
    })
}

/// The photos of a folder, with those masks that are named after them.
pub(super) fn pair_up(folder: &Path) -> Result<Found, DataError> {
    let named = |names: &[&'static str]| names.iter().copied().find(|name| folder.join(name).is_dir());
    let mut photos = Vec::new();
    let mut masks: BTreeMap<String, String> = BTreeMap::new();
    if let (Some(images), Some(labels)) = (named(&IMAGE_FOLDERS), named(&MASK_FOLDERS)) {
        images_below(&folder.join(images), &folder.join(images), &mut photos)?;
        let mut files = Vec::new();
        images_below(&folder.join(labels), &folder.join(labels), &mut files)?;
        masks.extend(files.into_iter().map(|file| (mask_stem(&file).to_owned(), format!("{labels}/{file}"))));
        photos.sort();
        return Ok(split_by_mask(photos, &masks, &format!("{images}/")));
    }
    let mut files = Vec::new();
    images_below(folder, folder, &mut files)?;
    files.sort();
    let photo_stems: BTreeSet<String> =
        files.iter().filter(|file| !is_png(file)).map(|file| stem(file).to_owned()).collect();
    for file in files {
        // Of two files with one stem the PNG is the mask; else its ending must say so.
        if is_png(&file) && (photo_stems.contains(stem(&file)) || mask_stem(&file) != stem(&file)) {
            masks.insert(mask_stem(&file).to_owned(), file);
        } else {
            photos.push(file);
        }
    }
    Ok(split_by_mask(photos, &masks, ""))
}

fn split_by_mask(photos: Vec<String>, masks: &BTreeMap<String, String>, prefix: &str) -> Found {
    let mut found = Found { pairs: Vec::new(), alone: Vec::new() };
    for photo in photos {
        match masks.get(stem(&photo)) {
            Some(mask) => found.pairs.push((format!("{prefix}{photo}"), mask.clone())),
            None => found.alone.push(format!("{prefix}{photo}")),
        }
    }
    found
}

fn is_png(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

fn mask_stem(file: &str) -> &str {
    let stem = stem(file);
    MASK_ENDINGS.iter().find_map(|ending| stem.strip_suffix(ending)).unwrap_or(stem)
}

/// What occurs in the masks.
enum Values {
    Index(BTreeSet<u8>),
    Colours(BTreeSet<[u8; 3]>),
}

fn values_of(folder: &Path, pairs: &[Pair]) -> Result<Values, DataError> {
    let read = |(_, mask): &Pair| -> Result<Values, DataError> {
        let path = folder.join(mask);
        let (format, bytes) = decode_raw(&path)?;
        match format {
            MaskFormat::Index => Ok(Values::Index(bytes.into_iter().collect())),
            MaskFormat::Color => {
                let colours: BTreeSet<[u8; 3]> = bytes.as_chunks::<3>().0.iter().copied().collect();
                let most = mentor_types::MAX_CLASSES;
                if colours.len() > most {
                    let reason = format!("has {} colours, more than {most} classes; is it a mask?", colours.len());
                    return Err(BadSample::new(&path, reason).into());
                }
                Ok(Values::Colours(colours))
            }
        }
    };
    let all: Vec<Result<Values, DataError>> = pairs.par_iter().map(read).collect();
    let mut all = all.into_iter().zip(pairs);
    let mut sum = match all.next() {
        Some((first, _)) => first?,
        None => Values::Index(BTreeSet::new()),
    };
    for (values, (_, mask)) in all {
        match (&mut sum, values?) {
            (Values::Index(sum), Values::Index(values)) => sum.extend(values),
            (Values::Colours(sum), Values::Colours(values)) => sum.extend(values),
            _ => {
                let reason = "is of another kind than the masks before it: some hold indices, some colours";
                return Err(BadSample::new(&folder.join(mask), reason).into());
            }
        }
    }
    Ok(sum)
}

/// The `[masks]` of a card, and the classes that they tell apart.
struct MaskTable {
    /// The keys of `[masks]`.
    text: String,
    /// The colours of the classes.
    classes: Vec<[u8; 3]>,
}

impl MaskTable {
    fn new(values: &Values) -> Result<Self, String> {
        match values {
            Values::Colours(colours) if colours.len() > mentor_types::MAX_CLASSES => {
                Err(format!("the masks hold {} colours together, too many for classes", colours.len()))
            }
            Values::Colours(colours) => Ok(Self {
                text: "format = \"color\"\n\
                        # Move here the colours of what is no class:\n\
                        ignore_colors = []\n"
                    .to_owned(),
                classes: colours.iter().copied().collect(),
            }),
            Values::Index(values) => Ok(Self::of_indices(values)),
        }
    }

    fn of_indices(values: &BTreeSet<u8>) -> Self {
        let binary = values.len() == 2 && values.contains(&0) && values.contains(&255);
        let ignored = values.contains(&255) && !binary;
        let classes: Vec<u8> = values.iter().copied().filter(|value| !(ignored && *value == 255)).collect();
        let largest = classes.last().map_or(0, |value| usize::from(*value));
        let mut text = "format = \"index\"\n".to_owned();
        if ignored {
            text += "# 255 occurs and is taken for \"ignore\".\nignore = [255]\n";
        }
        let count = if largest < DENSE_CLASSES {
            largest + 1
        } else {
            text += "# The values that occur in the masks, and the class that each means.\nvalues = [\n";
            for (class, value) in classes.iter().enumerate() {
                let _ = writeln!(text, "  {{ from = {value}, to = {class} }},");
            }
            text += "]\n";
            classes.len()
        };
        Self { text, classes: (0..count).map(display_colour).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_sparse_values_become_a_value_list() {
        let table = MaskTable::of_indices(&BTreeSet::from([0, 255]));
        assert!(table.text.contains("{ from = 255, to = 1 }") && table.classes.len() == 2);
        let table = MaskTable::of_indices(&BTreeSet::from([0, 128, 200, 255]));
        assert!(table.text.contains("ignore = [255]") && table.text.contains("{ from = 200, to = 2 }"));
        assert_eq!(MaskTable::of_indices(&BTreeSet::from([1, 5])).classes.len(), 6);
        let colours: BTreeSet<[u8; 3]> = (0..254).map(display_colour).collect();
        assert_eq!(colours.len(), 254);
    }
}
