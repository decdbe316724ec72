//! What occurs in masks, and what it may mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use mentor_types::MAX_CLASSES;
use rayon::prelude::*;

use super::super::display_colour;
use super::pairs::Pair;
use crate::card::MaskFormat;
use crate::error::{BadSample, DataError};
use crate::files::read_file;
use crate::read::{RawMask, decode_raw, has_alpha_alone};

/// Most values of a mask that are listed as classes with every number up to the largest.
const DENSE_CLASSES: usize = 64;

/// How many values are named.
const SHOWN: usize = 12;

/// The share of all pixels from which on a value is no in-between one; so are the most frequent, together up to the other share.
const COMMON: f64 = 0.02;
const MOST: f64 = 0.8;

/// Of the pixels of rare values, the share near lower and higher ones from which on they are in-between ones; and the share
/// amid their like up to which they are.
const ON_EDGES: f64 = 0.9;
const AMID: f64 = 0.02;

/// How often each value occurs in all masks.
#[derive(Debug)]
pub(super) enum Values {
    Index(BTreeMap<u8, u64>),
    Colours(BTreeMap<[u8; 3], u64>),
}

/// Counts the values of masks.
///
/// # Errors
/// A bad file, masks of two kinds, more values than classes can be, a single value, and values that look like the smoothing
/// of a resize.
pub(super) fn values_of(folder: &Path, pairs: &[Pair]) -> Result<Values, DataError> {
    let read = |pair: &Pair| count(&folder.join(&pair.mask));
    let all: Vec<Result<Values, DataError>> = pairs.par_iter().map(read).collect();
    let mut sum: Option<Values> = None;
    for (values, pair) in all.into_iter().zip(pairs) {
        sum = Some(match (sum, values?) {
            (None, values) => values,
            (Some(Values::Index(sum)), Values::Index(values)) => Values::Index(add(sum, values)),
            (Some(Values::Colours(sum)), Values::Colours(values)) => Values::Colours(add(sum, values)),
            _ => {
                let reason = "is of another kind than the masks before it: some hold indices, some colours";
                return Err(BadSample::new(&folder.join(&pair.mask), reason).into());
            }
        });
    }
    let values = sum.unwrap_or(Values::Index(BTreeMap::new()));
    check(&values, folder, pairs)?;
    Ok(values)
}

fn add<K: Ord>(mut sum: BTreeMap<K, u64>, values: BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    values.into_iter().for_each(|(value, count)| *sum.entry(value).or_default() += count);
    sum
}

fn count(path: &Path) -> Result<Values, DataError> {
    let RawMask { format, bytes, .. } = decode_raw(path)?;
    match format {
        MaskFormat::Index => {
            let mut counts = [0_u64; 256];
            bytes.iter().for_each(|value| counts[usize::from(*value)] += 1);
            let there = (0..=255).zip(counts).filter(|(_, count)| *count > 0);
            Ok(Values::Index(there.collect()))
        }
        MaskFormat::Color => {
            let mut counts = BTreeMap::new();
            for colour in bytes.as_chunks::<3>().0 {
                *counts.entry(*colour).or_default() += 1;
            }
            if counts.len() > MAX_CLASSES {
                let reason = format!(
                    "has {} colours, more than {MAX_CLASSES} classes; is it a mask? One that was resized with smoothing, or \
                     was a JPEG once, has such",
                    counts.len()
                );
                return Err(BadSample::new(path, reason).into());
            }
            Ok(Values::Colours(counts))
        }
    }
}

fn check(values: &Values, folder: &Path, pairs: &[Pair]) -> Result<(), DataError> {
    let fail = |message: String| Err(DataError::Starter { folder: folder.to_owned(), message });
    match values {
        Values::Colours(colours) if colours.len() > MAX_CLASSES => {
            fail(format!("the masks hold {} colours together, too many for classes", colours.len()))
        }
        Values::Colours(colours) if colours.len() == 1 => fail(single(values, folder, pairs)?),
        Values::Index(counts) if counts.len() == 1 => fail(single(values, folder, pairs)?),
        Values::Index(counts) => match in_between(counts, folder, pairs)? {
            None => Ok(()),
            Some(message) => fail(message),
        },
        Values::Colours(_) => Ok(()),
    }
}

/// Of masks that hold one value.
fn single(values: &Values, folder: &Path, pairs: &[Pair]) -> Result<String, DataError> {
    for pair in pairs {
        let path = folder.join(&pair.mask);
        if has_alpha_alone(&path, &read_file(&path)?)? {
            return Ok(format!(
                "{}: what differs is the alpha channel alone, which is not read: write it as the mask itself",
                pair.mask
            ));
        }
    }
    let [(value, _)] = &shares(values)[..] else { return Ok("the masks hold a single value".to_owned()) };
    Ok(format!("all masks hold a single value, {value}: there is nothing to tell apart"))
}

/// What to say of values that lie between others in number and in place, as a resize with smoothing makes them.
fn in_between(counts: &BTreeMap<u8, u64>, folder: &Path, pairs: &[Pair]) -> Result<Option<String>, DataError> {
    let all: u64 = counts.values().sum();
    let mut by_count: Vec<(u8, u64)> = counts.iter().map(|(value, count)| (*value, *count)).collect();
    by_count.sort_by_key(|(value, count)| (std::cmp::Reverse(*count), *value));
    let mut before = 0;
    let is_common = |(_, count): &&(u8, u64)| {
        let is_common = (before as f64) < MOST * all as f64 || *count as f64 >= COMMON * all as f64;
        before += count;
        is_common
    };
    let common: BTreeSet<u8> = by_count.iter().take_while(is_common).map(|(value, _)| *value).collect();
    let rare: BTreeSet<u8> = counts.keys().copied().filter(|value| !common.contains(value)).collect();
    let (Some(least), Some(most)) = (common.first(), common.last()) else { return Ok(None) };
    let between = rare.iter().filter(|value| (least..most).contains(value)).count();
    if between < 3 || between <= common.len() {
        return Ok(None);
    }
    let on_edges = |pair: &Pair| -> Result<[u64; 3], DataError> {
        let RawMask { width, height, bytes, .. } = decode_raw(&folder.join(&pair.mask))?;
        Ok(rare_on_edges(&bytes, [width, height], &common))
    };
    let found: Result<Vec<[u64; 3]>, DataError> = pairs.par_iter().map(on_edges).collect();
    let [there, at_edges, amid] =
        found?.into_iter().fold([0; 3], |sum, of_mask| [0, 1, 2].map(|at| sum[at] + of_mask[at]));
    if (at_edges as f64) < ON_EDGES * there as f64 || amid as f64 > AMID * there as f64 {
        return Ok(None);
    }
    let named: Vec<String> = common.iter().map(u8::to_string).collect();
    Ok(Some(format!(
        "{} values of the masks look like interpolation: they lie on thin edges between {}, and between them in number ({} of \
         {all} pixels). Were the masks resized with smoothing? Make them again with the nearest neighbour; or write a card by \
         hand that says what each value means",
        rare.len(),
        named.join(", "),
        there
    )))
}

/// How many pixels have no common value; of how many of these a lower and a higher common one is near; and how many of them have
/// their own value on all sides.
fn rare_on_edges(labels: &[u8], [width, height]: [usize; 2], common: &BTreeSet<u8>) -> [u64; 3] {
    const NEAR: usize = 8;
    let mut counts = [0; 3];
    for (place, value) in labels.iter().enumerate().filter(|(_, value)| !common.contains(value)) {
        let (x, y) = (place % width, place / width);
        let rows = y.saturating_sub(NEAR)..(y + NEAR + 1).min(height);
        let near = rows.flat_map(|row| {
            let columns = x.saturating_sub(NEAR)..(x + NEAR + 1).min(width);
            columns.map(move |column| labels[row * width + column])
        });
        let (mut lower, mut higher) = (false, false);
        for other in near.filter(|other| common.contains(other)) {
            lower |= other < *value;
            higher |= other > *value;
        }
        let inside = x > 0 && x + 1 < width && y > 0 && y + 1 < height;
        let is_amid =
            inside && [place - 1, place + 1, place - width, place + width].iter().all(|at| labels[*at] == *value);
        counts[0] += 1;
        counts[1] += u64::from(lower && higher);
        counts[2] += u64::from(is_amid);
    }
    counts
}

/// The values, as they are written, with their pixels.
fn shares(values: &Values) -> Vec<(String, u64)> {
    match values {
        Values::Index(counts) => counts.iter().map(|(value, count)| (value.to_string(), *count)).collect(),
        Values::Colours(counts) => counts.iter().map(|(colour, count)| (format!("{colour:?}"), *count)).collect(),
    }
}

/// The values and their shares, for people.
pub(super) fn said(values: &Values) -> String {
    let shares = shares(values);
    let all = shares.iter().map(|(_, count)| *count).sum::<u64>().max(1);
    let share = |(value, count): &(String, u64)| format!("{value} {:.2} %", 100.0 * *count as f64 / all as f64);
    let shown: Vec<String> = shares.iter().take(SHOWN).map(share).collect();
    let more = if shares.len() > SHOWN { format!("; and {} more", shares.len() - SHOWN) } else { String::new() };
    format!("values of the masks: {}{more}", shown.join(", "))
}

/// The `[masks]` of a card, and the classes that they tell apart.
#[derive(Debug)]
pub(super) struct MaskTable {
    /// The keys of `[masks]`.
    pub text: String,
    /// The colours of the classes.
    pub classes: Vec<[u8; 3]>,
    /// The value of each class in index masks.
    pub values: Vec<u8>,
    /// What was taken for what, for people.
    pub said: Option<String>,
}

impl MaskTable {
    pub fn new(values: &Values) -> Self {
        match values {
            Values::Colours(colours) => Self {
                text: "format = \"color\"\n\
                       # Move here the colours of what is no class:\n\
                       ignore_colors = []\n"
                    .to_owned(),
                classes: colours.keys().copied().collect(),
                values: Vec::new(),
                said: None,
            },
            Values::Index(counts) => Self::of_indices(&counts.keys().copied().collect()),
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
        let values: Vec<u8> = if largest < DENSE_CLASSES {
            (0..=largest as u8).collect()
        } else {
            text += "# The values that occur in the masks, and the class that each means.\nvalues = [\n";
            for (class, value) in classes.iter().enumerate() {
                let _ = writeln!(text, "  {{ from = {value}, to = {class} }},");
            }
            text += "]\n";
            classes.clone()
        };
        let missing: Vec<String> = values.iter().filter(|value| !classes.contains(value)).map(u8::to_string).collect();
        let mut said = Vec::new();
        if ignored {
            said.push("255 is taken for \"ignore\"".to_owned());
        }
        if !missing.is_empty() {
            said.push(format!("classes without a pixel: {}", missing.join(", ")));
        }
        let said = (!said.is_empty()).then(|| said.join("; "));
        Self { text, classes: (0..values.len()).map(display_colour).collect(), values, said }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use image::{GrayImage, Luma};

    /// A folder of masks that a function draws.
    fn masks(draw: impl Fn(u32, u32) -> u8) -> Result<Values, String> {
        let folder = tempfile::tempdir().unwrap();
        let pair = |index: usize| Pair { image: format!("{index}.jpg"), mask: format!("{index}.png"), part: "" };
        let pairs = [pair(0), pair(1)];
        for pair in &pairs {
            GrayImage::from_fn(64, 64, |x, y| Luma([draw(x, y)])).save(folder.path().join(&pair.mask)).unwrap();
        }
        values_of(folder.path(), &pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn binary_and_sparse_values_become_a_value_list() {
        let table = MaskTable::of_indices(&BTreeSet::from([0, 255]));
        assert!(table.text.contains("{ from = 255, to = 1 }") && table.classes.len() == 2 && table.said.is_none());
        let table = MaskTable::of_indices(&BTreeSet::from([0, 128, 200, 255]));
        assert!(table.text.contains("ignore = [255]") && table.text.contains("{ from = 200, to = 2 }"));
        assert_eq!((table.values, table.said.unwrap().as_str()), (vec![0, 128, 200], "255 is taken for \"ignore\""));
        let table = MaskTable::of_indices(&BTreeSet::from([1, 5]));
        assert_eq!((table.classes.len(), table.said.unwrap().as_str()), (6, "classes without a pixel: 0, 2, 3, 4"));
    }

    #[test]
    fn edges_that_were_smoothed_are_refused_and_many_small_classes_are_not() {
        // A disc whose edge fades over four pixels, between 0 and 255, and between 0, 10 and 20.
        let distance = |x: u32, y: u32| (f64::from(x) - 31.5).hypot(f64::from(y) - 31.5);
        let disc = |x, y, radius: f64| ((radius - distance(x, y)) / 4.0 + 0.5).clamp(0.0, 1.0);
        let message = masks(|x, y| (255.0 * disc(x, y, 20.0)) as u8).unwrap_err();
        assert!(message.contains("look like interpolation") && message.contains("between 0, 255"), "{message}");
        let message = masks(|x, y| (10.0 * disc(x, y, 28.0) + 10.0 * disc(x, y, 14.0)) as u8).unwrap_err();
        assert!(message.contains("look like interpolation"), "{message}");
        // Without the fading it is a mask, and so is one with ten classes of a few squares each.
        assert!(masks(|x, y| 255 * u8::from(distance(x, y) < 20.0)).is_ok());
        let squares = |x: u32, y: u32| match (x / 4, y / 4) {
            (column, 3) if column < 10 && x % 4 < 3 && y % 4 < 3 => 1 + column as u8,
            (_, row) => {
                if row > 8 {
                    200
                } else {
                    0
                }
            }
        };
        let Values::Index(counts) = masks(squares).unwrap() else { panic!("indices") };
        assert_eq!((counts.len(), counts[&4]), (12, 18));
    }

    #[test]
    fn a_single_value_is_refused_and_shares_are_said() {
        assert!(masks(|_, _| 7).unwrap_err().contains("all masks hold a single value, 7"));
        let values = masks(|x, _| u8::from(x < 16)).unwrap();
        assert_eq!(said(&values), "values of the masks: 0 75.00 %, 1 25.00 %");
    }

    #[test]
    fn labels_in_the_alpha_channel_alone_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair { image: "0.jpg".to_owned(), mask: "0.png".to_owned(), part: "" };
        let mask = image::RgbaImage::from_fn(8, 8, |x, _| image::Rgba([9, 9, 9, if x < 3 { 255 } else { 0 }]));
        mask.save(folder.path().join("0.png")).unwrap();
        let message = values_of(folder.path(), &[pair]).unwrap_err().to_string();
        assert!(message.contains("0.png: what differs is the alpha channel alone"), "{message}");
    }
}
