//! Masks among the files of a folder.

mod names;
mod pairs;
mod values;

use std::path::Path;

use mentor_types::TaskName;

use super::{
    Starter, StarterSplit, card_text, class_text, crop, divide, list_files, list_line, recipe_tables, splits_said,
};
use crate::error::DataError;

use names::Names;
use pairs::{Found, Pair};
use values::{MaskTable, values_of};

pub(super) use pairs::pair_up;

/// The starter for images with masks: index or colour masks, the values that occur. The splits that the folder tells apart are
/// kept; what it lacks of train and val is every fifth image.
///
/// # Errors
/// A single image with a mask, a bad file, too many values for classes, and values that are likely none.
pub(super) fn starter(folder: &Path, found: &Found) -> Result<Starter, DataError> {
    let fail = |message: String| DataError::Starter { folder: folder.to_owned(), message };
    if found.pairs.len() < 2 {
        return Err(fail("holds a single image with a mask; train and val need one each".to_owned()));
    }
    let values = values_of(folder, &found.pairs)?;
    let table = MaskTable::new(&values);
    let names = Names::find(folder)?;
    let crop_px = crop(folder, found.pairs.iter().map(|pair| &pair.image))?;
    let mut splits = splits(&found.pairs);
    let [train, val] = ["train", "val"].map(|name| splits.iter().find(|split| split.name == name));
    let labelled = [train, val].map(|split| split.map_or(0, |split| split.images));
    if !found.alone.is_empty() {
        splits.push(StarterSplit::of("unlabelled", &found.alone));
    }
    let colours = table.classes.iter().enumerate();
    let classes = colours.map(|(index, colour)| class_text(&names.of(&table, index), *colour)).collect::<String>();
    let mut said = vec![format!("{} images with a mask, {} without", found.pairs.len(), found.alone.len())];
    said.push(values::said(&values));
    said.extend(table.said.clone());
    said.extend(names.said(&table));
    said.push(splits_said(&splits));
    said.extend(found.said.iter().cloned());
    Ok(Starter {
        task: TaskName::Seg,
        card: card_text(folder, &format!("[masks]\n{}", table.text), &splits, "", &classes),
        lists: list_files(&splits, ""),
        classes: table.classes.len(),
        labelled,
        unlabelled: found.alone.len(),
        crop_px,
        recipe_tables: recipe_tables(folder, !found.alone.is_empty(), false, crop_px),
        said,
    })
}

/// The splits: those that the images are said to be in; train and val in any case, where train has every fifth image less.
fn splits(pairs: &[Pair]) -> Vec<StarterSplit> {
    let of_part = |part: &str| pairs.iter().filter(|pair| pair.part == part).collect::<Vec<_>>();
    let [train, val, test, rest] = ["train", "val", "test", ""].map(of_part);
    let split = |name: &str, pairs: &[&Pair], is_fifth| StarterSplit {
        name: name.to_owned(),
        list: pairs.iter().map(|pair| list_line(&pair.image, Some(&pair.mask))).collect(),
        images: pairs.len(),
        boxes: None,
        is_fifth,
    };
    let mut splits = Vec::new();
    let mut others = vec![("test", test), ("rest", rest)];
    if !train.is_empty() && !val.is_empty() {
        splits.extend([split("train", &train, false), split("val", &val, false)]);
    } else {
        // The largest of what there is is divided.
        others.extend([("rest_of_train", train), ("rest_of_val", val)]);
        let largest = (0..others.len()).max_by_key(|index| (others[*index].1.len(), *index)).unwrap_or_default();
        let (_, whole) = others.remove(largest);
        let [train, val] = divide(&whole);
        let [train, val] = [train, val].map(|pairs| pairs.into_iter().copied().collect::<Vec<_>>());
        splits.extend([split("train", &train, false), split("val", &val, true)]);
    }
    let others = others.into_iter().filter(|(_, pairs)| !pairs.is_empty());
    splits.extend(others.map(|(name, pairs)| split(name, &pairs, false)));
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_splits_are_kept_and_what_is_missing_is_every_fifth() {
        let pairs = |parts: &[(&'static str, usize)]| -> Vec<Pair> {
            let of = |(part, count): &(&'static str, usize)| {
                let (part, count) = (*part, *count);
                (0..count).map(move |i| Pair { image: format!("{part}/{i}.jpg"), mask: format!("{i}.png"), part })
            };
            parts.iter().flat_map(of).collect()
        };
        let sizes = |parts: &[(&'static str, usize)]| -> Vec<(String, usize, bool)> {
            splits(&pairs(parts)).into_iter().map(|split| (split.name, split.images, split.is_fifth)).collect()
        };
        let split = |name: &str, images, is_fifth| (name.to_owned(), images, is_fifth);
        let kept = sizes(&[("train", 5), ("val", 2), ("test", 3), ("", 1)]);
        assert_eq!(
            kept,
            [split("train", 5, false), split("val", 2, false), split("test", 3, false), split("rest", 1, false)]
        );
        assert_eq!(sizes(&[("", 10)]), [split("train", 8, false), split("val", 2, true)]);
        let without_val = sizes(&[("train", 10), ("test", 3)]);
        assert_eq!(without_val, [split("train", 8, false), split("val", 2, true), split("test", 3, false)]);
    }
}
