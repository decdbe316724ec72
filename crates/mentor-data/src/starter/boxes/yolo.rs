//! YOLO's text files among the files of a folder.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use super::pairs::{Layout, pair_up};
use super::yaml::{self, DataYaml};
use super::{FoundBoxes, folder_of, is_class_name, part_of, read_each, usable};
use crate::card::BoxFormat;
use crate::error::DataError;
use crate::files::read_text;
use crate::read::read_yolo;

/// Text files of boxes beside the images, or in a folder of their own; `about` are files of the endings `yaml` and `names`.
/// `None` where there are none.
pub(super) fn find(
    folder: &Path,
    images: &[String],
    files: &[String],
    about: &[String],
) -> Result<Option<FoundBoxes>, DataError> {
    let Some(layout) = pair_up(images, files, "txt") else { return Ok(None) };
    let Some(most) = numbers(folder, &layout)? else { return Ok(None) };
    let (data, from) = described(folder, files, about)?;
    let mut found = FoundBoxes::new(BoxFormat::Yolo);
    found.is_numbered = true;
    found.classes = class_names(&data.names, most, &mut found.said);
    match from {
        Some(from) => found.said.push(format!("the names of the classes are those of {from}")),
        None => found.said.push(
            "there is neither data.yaml nor classes.txt: name the classes in the card, in the order of their numbers"
                .to_owned(),
        ),
    }
    let read = read_each(folder, &layout, |path, size| read_yolo(path, &found.classes, size))?;
    let lists = lists(folder, &data)?;
    let part = |image: &str| {
        let said = lists.iter().find(|(_, place)| place.holds(image)).map(|(part, _)| *part);
        said.unwrap_or_else(|| part_of(folder_of(image)))
    };
    found.take(&layout, read, part);
    Ok(Some(found))
}

/// The largest number of a class, at least as large as any that occurs in a line of numbers; `None` where no file has such a
/// line.
fn numbers(folder: &Path, layout: &Layout) -> Result<Option<usize>, DataError> {
    let one = |(_, label): &(String, String)| {
        let Ok(text) = usable(read_text(&folder.join(label)))? else { return Ok(None) };
        let number = |line: &str| {
            let columns: Option<Vec<f64>> = line.split_whitespace().map(|column| column.parse().ok()).collect();
            let columns = columns.filter(|columns| columns.len() >= 5)?;
            (columns[0] >= 0.0 && columns[0].fract() == 0.0).then_some(columns[0] as usize)
        };
        Ok(text.lines().filter_map(number).max())
    };
    let all: Result<Vec<_>, DataError> = layout.pairs.par_iter().map(one).collect();
    Ok(all?.into_iter().flatten().max())
}

/// What `data.yaml`, `classes.txt` or `obj.names` say, and which of them; the one that lies nearest to the top.
fn described(folder: &Path, texts: &[String], about: &[String]) -> Result<(DataYaml, Option<String>), DataError> {
    let named = |path: &&String| ["classes.txt", "obj.names"].contains(&path.rsplit('/').next().unwrap_or(path));
    let is_names = |path: &str| path.ends_with(".names");
    let mut files: Vec<&String> = about.iter().chain(texts.iter().filter(named)).collect();
    files.sort_by_key(|path| (path.matches('/').count(), !path.ends_with("ml"), path.as_str()));
    for file in files {
        let text = read_text(&folder.join(file))?;
        let data = if file.ends_with(".txt") || is_names(file) {
            let names = text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
            DataYaml { names, ..DataYaml::default() }
        } else {
            yaml::read(&text)
        };
        if !data.names.is_empty() {
            return Ok((data, Some(file.clone())));
        }
    }
    Ok((DataYaml::default(), None))
}

/// The names that a card can hold; where none are known one for each number up to `most`.
fn class_names(names: &[String], most: usize, said: &mut Vec<String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut classes = Vec::new();
    let count = if names.is_empty() { most.min(10_000) + 1 } else { names.len() };
    for number in 0..count {
        let name = names.get(number).map(|name| name.trim().to_owned());
        match name.filter(|name| is_class_name(name) && known.insert(name.clone())) {
            Some(name) => classes.push(name),
            None => {
                let instead = format!("class_{number}");
                if let Some(name) = names.get(number) {
                    said.push(format!("class {number} is called `{instead}`: `{name}` is no name, or that of another"));
                }
                classes.push(instead);
            }
        }
    }
    classes
}

/// Where the images of a split lie.
enum Place {
    Folder(String),
    Images(BTreeSet<String>),
}

impl Place {
    fn holds(&self, image: &str) -> bool {
        match self {
            Self::Folder(folder) => {
                let inside = folder_of(image);
                inside == folder || inside.starts_with(&format!("{folder}/"))
            }
            Self::Images(images) => images.contains(image),
        }
    }
}

/// The splits of `data.yaml` whose folder or list is there.
fn lists(folder: &Path, data: &DataYaml) -> Result<Vec<(&'static str, Place)>, DataError> {
    let mut places = Vec::new();
    for (name, path) in &data.splits {
        let path = clean(path);
        // The paths in it begin at a folder that is often another by now.
        let ends = std::iter::once(path.as_str()).chain(path.match_indices('/').map(|(at, _)| &path[at + 1..]));
        let Some(there) = ends.into_iter().find(|end| !end.is_empty() && folder.join(end).exists()) else { continue };
        if folder.join(there).is_dir() {
            places.push((part_of(name), Place::Folder(there.to_owned())));
            continue;
        }
        let Ok(text) = usable(read_text(&folder.join(there)))? else { continue };
        let images = text.lines().filter_map(|line| {
            let line = clean(line);
            let ends = std::iter::once(line.as_str()).chain(line.match_indices('/').map(|(at, _)| &line[at + 1..]));
            ends.into_iter().find(|end| folder.join(end).is_file()).map(str::to_owned)
        });
        places.push((part_of(name), Place::Images(images.collect())));
    }
    Ok(places)
}

/// A path without what leads up, with forward slashes.
fn clean(path: &str) -> String {
    let path = path.trim().replace('\\', "/");
    path.split('/').filter(|part| !["", ".", ".."].contains(part)).collect::<Vec<_>>().join("/")
}
