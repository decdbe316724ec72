//! A first card for a folder of anyone's images and masks.

mod masks;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use self::masks::{MaskTable, pair_up, values_of};
use crate::error::DataError;
use crate::read::read_size;

/// The folder names that are taken for images.
const IMAGE_FOLDERS: [&str; 6] = ["images", "image", "imgs", "img", "photos", "JPEGImages"];

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
    let table = MaskTable::new(&values).map_err(fail)?;
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
        card: card_text(&name, &table, counts),
        lists,
        classes: table.classes.len(),
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

fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// An image and its mask.
type Pair = (String, String);

/// Every fifth image is for val, from the third on; with fewer than three the last one.
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

fn card_text(name: &str, table: &MaskTable, [train, val, unlabelled]: [usize; 3]) -> String {
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
        table.text,
    );
    if unlabelled > 0 {
        let _ = writeln!(text, "unlabelled = {{ list = \"unlabelled.txt\", count = {unlabelled} }}");
    }
    for (index, colour) in table.classes.iter().enumerate() {
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
        let starter = starter_card(folder.path()).unwrap();
        assert_eq!((starter.classes, starter.labelled, starter.unlabelled), (3, [8, 2], 2));
        assert_eq!(starter.crop_px, [64, 96]);
        assert_eq!(starter, starter_card(folder.path()).unwrap());
        let dataset = save_starter(folder.path(), &starter);
        let stats = dataset.verify_split(&dataset.split("train").unwrap(), OnBadSample::Fail, None).unwrap();
        assert_eq!((stats.images, stats.counts.ignored), (8, 8 * 70));
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
        assert_eq!(stats.counts.classes, [2 * 31 * 40, 2 * 9 * 40]);
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
