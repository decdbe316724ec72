//! A first card for a folder of anyone's images and masks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::card::masks::MaskFormat;
use crate::error::{BadSample, DataError};
use crate::read::{decode_raw, images_below, read_size};

/// The folder names that are taken for images and for masks.
const IMAGE_FOLDERS: [&str; 6] = ["images", "image", "imgs", "img", "photos", "JPEGImages"];
const MASK_FOLDERS: [&str; 7] = ["labels", "label", "masks", "mask", "annotations", "gt", "SegmentationClass"];

/// The endings that tell a mask from a photo of the same stem.
const MASK_ENDINGS: [&str; 6] = ["_mask", "_label", "_labels", "_gt", "-mask", "_L"];

/// Most values of a mask that are listed as classes with every number up to the largest.
const DENSE_CLASSES: usize = 64;

/// What `mentor new` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starter {
    /// The text of `dataset.toml`.
    pub card: String,
    /// File names and texts of the split lists, to be written beside the card.
    pub lists: Vec<(String, String)>,
    /// Number of classes found.
    pub classes: usize,
    /// Images with a mask, those of train and those of val.
    pub labelled: [usize; 2],
    /// Images without a mask; where there are any the card has a split `unlabelled`.
    pub unlabelled: usize,
    /// A crop (height, width) that suits the images: multiples of 32, at most 512.
    pub crop_px: [usize; 2],
    /// A `[data]` and a `[views]` table for a recipe, given the path of the card.
    pub recipe_tables: String,
}

/// Looks at a folder (`images/` with `labels/` or `masks/`, or photos beside masks of the same stem) and writes a card
/// for it: index or colour masks, the values that occur, every fifth image for val.
///
/// # Errors
/// Where no image has a mask, a file is bad, or the masks hold too many values for classes.
pub fn starter_card(folder: &Path) -> Result<Starter, DataError> {
    let fail = |message: String| DataError::Starter { folder: folder.to_owned(), message };
    if !folder.is_dir() {
        return Err(fail("is no folder".to_owned()));
    }
    let found = pair_up(folder)?;
    if found.pairs.is_empty() {
        let message =
            "holds no image with a mask: put photos into `images/` and PNG masks of the same name into `labels/`";
        return Err(fail(message.to_owned()));
    }
    if found.pairs.len() < 2 {
        return Err(fail("holds a single image with a mask; train and val need one each".to_owned()));
    }
    let values = values_of(folder, &found.pairs)?;
    let labels = Labels::new(&values).map_err(fail)?;
    let (train, val) = divide(&found.pairs);
    let crop_px = crop(folder, &found.pairs)?;
    let name = folder_name(folder);
    let line = |(image, label): &&(String, String)| format!("{image}\t{label}\n");
    let mut lists = vec![
        ("train.txt".to_owned(), train.iter().map(line).collect()),
        ("val.txt".to_owned(), val.iter().map(line).collect()),
    ];
    if !found.alone.is_empty() {
        lists.push(("unlabelled.txt".to_owned(), found.alone.iter().map(|image| format!("{image}\t\n")).collect()));
    }
    let counts = [train.len(), val.len(), found.alone.len()];
    Ok(Starter {
        card: card_text(&name, &labels, counts),
        lists,
        classes: labels.classes.len(),
        labelled: [train.len(), val.len()],
        unlabelled: found.alone.len(),
        crop_px,
        recipe_tables: recipe_tables(folder, !found.alone.is_empty(), crop_px),
    })
}

/// Images with masks, and images alone; paths relative to the folder, sorted.
struct Found {
    pairs: Vec<(String, String)>,
    alone: Vec<String>,
}

fn pair_up(folder: &Path) -> Result<Found, DataError> {
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

fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
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

fn values_of(folder: &Path, pairs: &[(String, String)]) -> Result<Values, DataError> {
    let read = |(_, mask): &(String, String)| -> Result<Values, DataError> {
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

/// The `[masks]` table and the colours of the classes.
struct Labels {
    table: String,
    classes: Vec<[u8; 3]>,
}

impl Labels {
    fn new(values: &Values) -> Result<Self, String> {
        match values {
            Values::Colours(colours) if colours.len() > mentor_types::MAX_CLASSES => {
                Err(format!("the masks hold {} colours together, too many for classes", colours.len()))
            }
            Values::Colours(colours) => Ok(Self {
                table: "format = \"color\"\n\
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
        let mut table = "format = \"index\"\n".to_owned();
        if ignored {
            table += "# 255 occurs and is taken for \"ignore\".\nignore = [255]\n";
        }
        let count = if largest < DENSE_CLASSES {
            largest + 1
        } else {
            table += "# The values that occur in the masks, and the class that each means.\nvalues = [\n";
            for (class, value) in classes.iter().enumerate() {
                let _ = writeln!(table, "  {{ from = {value}, to = {class} }},");
            }
            table += "]\n";
            classes.len()
        };
        Self { table, classes: (0..count).map(display_colour).collect() }
    }
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

/// Every fifth image is for val, from the third on; with fewer than three the last one.
type Pair = (String, String);
fn divide(pairs: &[Pair]) -> (Vec<&Pair>, Vec<&Pair>) {
    let last = pairs.len() - 1;
    let for_val = |index: usize| if pairs.len() < 3 { index == last } else { index % 5 == 2 };
    let of = |val: bool| (0..pairs.len()).filter(|index| for_val(*index) == val).map(|index| &pairs[index]).collect();
    (of(false), of(true))
}

/// The smaller sides of the first images, rounded down to multiples of 32.
fn crop(folder: &Path, pairs: &[(String, String)]) -> Result<[usize; 2], DataError> {
    let mut least = [512_u32; 2];
    for (image, _) in pairs.iter().take(20) {
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

fn card_text(name: &str, labels: &Labels, [train, val, unlabelled]: [usize; 3]) -> String {
    let mut text = format!(
        "# A first card, made from the files in this folder: look through it and name the classes.\n\
         name = {}\n\
         title = {}\n\
         licence = \"unknown: write down whose images these are and what may be done with them\"\n\
         source = \"unknown\"\n\
         get = \"the images lie beside this card\"\n\n\
         [masks]\n{}\n\
         [splits]\n\
         train = {{ list = \"train.txt\", count = {train} }}\n\
         # Every fifth image. Where neighbours are alike (a video, tiles of one photo), choose others.\n\
         val = {{ list = \"val.txt\", count = {val} }}\n",
        quoted(name),
        quoted(name),
        labels.table,
    );
    if unlabelled > 0 {
        let _ = writeln!(text, "unlabelled = {{ list = \"unlabelled.txt\", count = {unlabelled} }}");
    }
    for (index, colour) in labels.classes.iter().enumerate() {
        let _ = write!(text, "\n[[classes]]\nname = \"class_{index}\"\ncolor = {colour:?}\n");
    }
    text
}

fn recipe_tables(folder: &Path, unlabelled: bool, crop_px: [usize; 2]) -> String {
    let card = folder.join("dataset.toml");
    let mut text = format!("[data]\ncard = {}\nlabelled = \"train\"\n", quoted(&card.to_string_lossy()));
    if unlabelled {
        text += "unlabelled = \"unlabelled\"\n";
    }
    let _ = write!(text, "val = \"val\"\n\n[views]\ncrop_px = {crop_px:?}\n");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::Card;
    use crate::config::OnBadSample;
    use crate::dataset::SegDataset;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn save_starter(folder: &Path, starter: &Starter) -> SegDataset {
        std::fs::write(folder.join("dataset.toml"), &starter.card).unwrap();
        for (name, text) in &starter.lists {
            std::fs::write(folder.join(name), text).unwrap();
        }
        SegDataset::new(Card::read(&folder.join("dataset.toml")).unwrap(), &[]).unwrap()
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
        let starter = starter_card(folder.path()).unwrap();
        assert_eq!((starter.classes, starter.labelled, starter.unlabelled), (3, [8, 2], 2));
        assert_eq!(starter.crop_px, [64, 96]);
        assert_eq!(starter, starter_card(folder.path()).unwrap());
        let dataset = save_starter(folder.path(), &starter);
        let stats = dataset.verify_split(&dataset.split("train").unwrap(), OnBadSample::Fail, None).unwrap();
        assert_eq!((stats.images, stats.ignored_pixels), (8, 8 * 70));
        assert_eq!(dataset.split("unlabelled").unwrap().len(), 2);
        let tables: toml::Table = starter.recipe_tables.parse().unwrap();
        assert_eq!(tables["data"]["unlabelled"].as_str(), Some("unlabelled"));
    }

    #[test]
    fn colour_masks_beside_their_photos_make_a_card_that_works() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..3_u8 {
            RgbImage::new(40, 40).save(folder.path().join(format!("{index}.jpg"))).unwrap();
            let mask = RgbImage::from_fn(40, 40, |x, _| Rgb(if x < 9 { [200, 0, 0] } else { [0, 0, 200] }));
            mask.save(folder.path().join(format!("{index}.png"))).unwrap();
        }
        let starter = starter_card(folder.path()).unwrap();
        assert_eq!((starter.classes, starter.labelled), (2, [2, 1]));
        let dataset = save_starter(folder.path(), &starter);
        let stats = dataset.verify_split(&dataset.split("train").unwrap(), OnBadSample::Fail, None).unwrap();
        assert_eq!(stats.class_pixels, [2 * 31 * 40, 2 * 9 * 40]);
    }

    #[test]
    fn binary_and_sparse_values_become_a_value_list() {
        let labels = Labels::of_indices(&BTreeSet::from([0, 255]));
        assert!(labels.table.contains("{ from = 255, to = 1 }") && labels.classes.len() == 2);
        let labels = Labels::of_indices(&BTreeSet::from([0, 128, 200, 255]));
        assert!(labels.table.contains("ignore = [255]") && labels.table.contains("{ from = 200, to = 2 }"));
        assert_eq!(Labels::of_indices(&BTreeSet::from([1, 5])).classes.len(), 6);
        let colours: BTreeSet<[u8; 3]> = (0..254).map(display_colour).collect();
        assert_eq!(colours.len(), 254);
    }

    #[test]
    fn a_folder_without_masks_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(starter_card(&folder.path().join("none")).unwrap_err().to_string().ends_with("is no folder"));
        assert!(starter_card(folder.path()).unwrap_err().to_string().contains("holds no image with a mask"));
        RgbImage::new(4, 4).save(folder.path().join("a.jpg")).unwrap();
        RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, 0])).save(folder.path().join("a.png")).unwrap();
        RgbImage::new(4, 4).save(folder.path().join("b.jpg")).unwrap();
        assert!(starter_card(folder.path()).unwrap_err().to_string().contains("a single image"));
        RgbImage::new(4, 4).save(folder.path().join("b.png")).unwrap();
        let message = starter_card(folder.path()).unwrap_err().to_string();
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
            starter_card(folder.path())
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
