//! COCO JSON among the files of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use super::{FoundBoxes, FoundImage, first, folder_of, image_size, is_class_name, part_of, short, usable};
use crate::card::BoxFormat;
use crate::error::DataError;
use crate::read::{CocoImage, CocoTruth};

/// Annotations of images that are there; of two files that name the same image the first, where those called `instances` come
/// first. `None` where there are none.
pub(super) fn find(folder: &Path, images: &[String], mut files: Vec<String>) -> Result<Option<FoundBoxes>, DataError> {
    let mut by_name: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    images.iter().for_each(|image| by_name.entry(name_of(image)).or_default().push(image));
    files.sort_by_key(|file| (!file.contains("instances"), file.clone()));
    let mut found = FoundBoxes::new(BoxFormat::Coco);
    let mut taken: BTreeMap<&String, String> = BTreeMap::new();
    for file in files {
        let truth = match usable(CocoTruth::read(&folder.join(&file)))? {
            Ok(truth) => truth,
            Err(error) => {
                found.left_out.push(short(folder, &error));
                continue;
            }
        };
        let places: Vec<Option<&String>> = truth.images.iter().map(|image| place(image, &file, &by_name)).collect();
        if let Some(other) = places.iter().flatten().find_map(|image| taken.get(image)) {
            found.left_out.push(format!("{file}: names images that {other} names, too"));
            continue;
        }
        match (places.iter().flatten().count(), places.iter().filter(|place| place.is_none()).count()) {
            (0, _) => {
                found.left_out.push(format!("{file}: none of the images that it names is here"));
                continue;
            }
            (_, 0) => {}
            (_, missing) => found.left_out.push(format!("{missing} images that {file} names and that are not here")),
        }
        taken.extend(places.iter().flatten().map(|image| (*image, file.clone())));
        add(&mut found, folder, &file, &truth, &places)?;
    }
    found.alone = images.iter().filter(|image| !taken.contains_key(image)).cloned().collect();
    check_classes(&mut found);
    Ok((!found.images.is_empty() || !found.left_out.is_empty()).then_some(found))
}

/// Adds the images of a file that are there.
fn add(
    found: &mut FoundBoxes,
    folder: &Path,
    file: &str,
    truth: &CocoTruth,
    places: &[Option<&String>],
) -> Result<(), DataError> {
    let mut class = |name: &String| {
        let known = found.classes.iter().position(|class| class == name);
        known.unwrap_or_else(|| {
            found.classes.push(name.clone());
            found.classes.len() - 1
        })
    };
    let classes: Vec<usize> = truth.categories.iter().map(|category| class(&category.name)).collect();
    let broken = truth.mistakes.iter().filter(|mistake| mistake.is_dropped());
    found.broken.extend(broken.map(|mistake| format!("{file}: {}", mistake.message)));
    let sizes: Vec<_> =
        places.par_iter().map(|image| image.map(|image| image_size(folder, image)).transpose()).collect();
    for ((image, path), size) in truth.images.iter().zip(places).zip(sizes) {
        let (Some(path), Some(size)) = (path, size?) else { continue };
        let said = image.height.zip(image.width).map(|(height, width)| [height as usize, width as usize]);
        match size {
            Err(reason) => found.left_out.push(reason),
            Ok(size) if said.is_some_and(|said| said != size) => {
                found.left_out.push(format!("{path}: has another size than {file} says"));
            }
            Ok(_) => {
                let boxes = image.boxes.iter().map(|label| classes[label.class] as u8).collect();
                let (path, file) = ((*path).clone(), Some(file.to_owned()));
                found.images.push(FoundImage { path, part: part_of(file.as_deref().unwrap_or_default()), file, boxes });
            }
        }
    }
    Ok(())
}

/// Leaves out classes that no card can name, and says which have no box, as the group that some tools write as a category.
fn check_classes(found: &mut FoundBoxes) {
    let keep: Vec<bool> = found.classes.iter().map(|name| is_class_name(name)).collect();
    let places: Vec<u8> =
        (0..keep.len()).map(|class| keep[..class].iter().filter(|keep| **keep).count() as u8).collect();
    for image in &mut found.images {
        image.boxes.retain(|class| keep[usize::from(*class)]);
        image.boxes.iter_mut().for_each(|class| *class = places[usize::from(*class)]);
    }
    for (name, _) in found.classes.iter().zip(&keep).filter(|(_, keep)| !**keep) {
        found.left_out.push(format!("category `{name}`, which is no name of a class"));
    }
    let mut keep = keep.into_iter();
    found.classes.retain(|_| keep.next().unwrap_or_default());
    let used: BTreeSet<u8> = found.images.iter().flat_map(|image| image.boxes.iter().copied()).collect();
    let without = (0..).zip(&found.classes).filter(|(class, _)| !used.contains(class)).map(|(_, name)| name.as_str());
    let without: Vec<String> = without.map(|name| format!("`{name}`")).collect();
    if !without.is_empty() {
        found.said.push(format!("without any box: {} (take out of the card what is no class)", first(&without)));
    }
}

/// Where the image of a file lies: the path ends with its name there; of several in the split of the file, or nearest to it.
fn place<'i>(image: &CocoImage, file: &str, by_name: &BTreeMap<&str, Vec<&'i String>>) -> Option<&'i String> {
    let name = image.file_name.as_deref()?;
    let ends_so = |path: &&&String| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    let near = |path: &&&String| {
        let alike = folder_of(path).split('/').zip(folder_of(file).split('/')).take_while(|(a, b)| a == b).count();
        (part_of(path) == part_of(file), alike)
    };
    by_name.get(name_of(name))?.iter().filter(ends_so).max_by_key(near).copied()
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
