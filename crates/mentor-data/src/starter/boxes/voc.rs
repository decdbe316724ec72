//! Pascal VOC's XML among the files of a folder.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use super::pairs::{Layout, pair_up};
use super::{FoundBoxes, folder_of, is_class_name, part_of, read_each, usable};
use crate::card::BoxFormat;
use crate::error::DataError;
use crate::files::read_text;
use crate::read::{BoxMistakeKind, read_voc};
use crate::starter::{listed_parts, stem};

/// XML beside the images, or in a folder of its own; `None` where there is none.
pub(super) fn find(folder: &Path, images: &[String], files: &[String]) -> Result<Option<FoundBoxes>, DataError> {
    let Some(layout) = pair_up(images, files, "xml") else { return Ok(None) };
    let mut found = FoundBoxes::new(BoxFormat::Voc);
    for name in class_names(folder, &layout)? {
        if is_class_name(&name) {
            found.classes.push(name);
        } else {
            found.left_out.push(format!("objects called `{name}`, which no class can be"));
        }
    }
    if found.classes.is_empty() {
        return Ok(None);
    }
    found.first_pixel = u8::from(is_of_pascal(folder, &layout)?);
    let read = read_each(folder, &layout, |path, size| read_voc(path, &found.classes, found.first_pixel, size))?;
    let lists = listed_parts(folder, "ImageSets/Main")?;
    let part = |image: &str| {
        let name = stem(image.rsplit('/').next().unwrap_or(image));
        lists.get(name).copied().unwrap_or_else(|| part_of(folder_of(image)))
    };
    found.take(&layout, read, part);
    Ok(Some(found))
}

/// The classes of all objects, sorted.
fn class_names(folder: &Path, layout: &Layout) -> Result<BTreeSet<String>, DataError> {
    // Without any class every object is of another.
    let one = |(_, label): &(String, String)| {
        let read = usable(read_voc(&folder.join(label), &[], 0, [1, 1]))?;
        let others = read.into_iter().flat_map(|found| found.mistakes);
        let others = others.filter(|mistake| mistake.kind == BoxMistakeKind::OtherClass);
        Ok(others.map(|mistake| mistake.message).collect::<BTreeSet<String>>())
    };
    let all: Result<Vec<_>, DataError> = layout.pairs.par_iter().map(one).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// Whether a file says that it is of Pascal VOC itself, which counts columns and rows from 1. Other tools leave no trace of
/// theirs.
fn is_of_pascal(folder: &Path, layout: &Layout) -> Result<bool, DataError> {
    let Some((_, file)) = layout.pairs.first() else { return Ok(false) };
    let text = usable(read_text(&folder.join(file)))?.unwrap_or_default();
    Ok(text.split_once("<database>").is_some_and(|(_, name)| name.trim_start().starts_with("The VOC")))
}
