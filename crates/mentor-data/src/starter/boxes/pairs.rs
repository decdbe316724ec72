//! Images and the files of their labels: which belongs to which, and how one path leads to the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::Pattern;
use crate::starter::stem;

/// Images with a file of labels each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The form of an image's path, for a card's pairing.
    pub id: String,
    /// The form of its file of labels.
    pub path: String,
    /// Images and their files, sorted.
    pub pairs: Vec<(String, String)>,
    /// Images of that form without a file, sorted.
    pub alone: Vec<String>,
    /// Files that are named as images are, but lie otherwise.
    pub stray: Vec<String>,
    /// Images whose path is not of that form.
    pub outside: usize,
}

/// Parts that stand for folders whose names do not matter.
const ANY: [&str; 3] = ["{folder}", "{folder_2}", "{folder_3}"];

/// How the folders of an image and of its file differ: what both begin with, then that of each.
type Differ<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);

/// What pairs of one form have alike: how many folders an image and its file begin with, then the folders of each.
type Form<'a> = (usize, Vec<&'a str>, Vec<&'a str>);

/// Pairs images with files of labels of the same stem, and finds how their paths differ, as most of them do; `None` where no
/// file is named as an image is.
pub(super) fn pair_up(images: &[String], labels: &[String], ending: &str) -> Option<Layout> {
    let mut by_stem: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    images.iter().for_each(|image| by_stem.entry(stem(name(image))).or_default().push(image));
    let mut groups: BTreeMap<Form<'_>, Vec<(&String, &String)>> = BTreeMap::new();
    for label in labels {
        let candidates = by_stem.get(stem(name(label))).into_iter().flatten();
        // Of those that are equally near the first.
        let Some(image) = candidates.rev().max_by_key(|image| alike(&folders(image), &folders(label))) else {
            continue;
        };
        let (image_at, label_at) = (folders(image), folders(label));
        let (before, mut of_image, of_label) = differ(&image_at, &label_at);
        // Folders of images, as one for each split, that those of the files have no counterpart of.
        for (folder, any) in of_image.iter_mut().skip(of_label.len()).zip(ANY) {
            *folder = any;
        }
        // Where they lie side by side, how deep does not matter.
        let depth = if image_at == label_at { 0 } else { before.len() };
        groups.entry((depth, of_image, of_label)).or_default().push((image, label));
    }
    let ((depth, of_image, of_label), found) = groups.iter().max_by_key(|(_, found)| found.len())?;
    let before: Vec<String> = (0..*depth).map(|at| before_part(found, at)).collect();
    let form = |folders: &[&str], file: &str| {
        before.iter().map(String::as_str).chain(folders.iter().copied()).chain([file]).collect::<Vec<_>>().join("/")
    };
    let (id, path) = (form(of_image, "{id}.{ext}"), form(of_label, &format!("{{id}}.{ending}")));
    let (id_form, path_form) = (Pattern::new(&id).ok()?, Pattern::new(&path).ok()?);
    let leads_to = |image: &str| Some(path_form.fill(&id_form.parts(image)?));
    let known: BTreeSet<&String> = labels.iter().collect();
    let mut layout = Layout::default();
    for image in images {
        match leads_to(image) {
            Some(label) if known.contains(&label) => layout.pairs.push((image.clone(), label)),
            Some(_) => layout.alone.push(image.clone()),
            None => layout.outside += 1,
        }
    }
    let used: BTreeSet<&String> = layout.pairs.iter().map(|(_, label)| label).collect();
    let named = groups.values().flatten().map(|(_, label)| *label);
    layout.stray = named.filter(|label| !used.contains(label)).cloned().collect();
    layout.stray.sort();
    Some(Layout { id, path, ..layout })
}

/// The folder at a depth: as it is called, or a part to fill in where it has several names.
fn before_part(found: &[(&String, &String)], at: usize) -> String {
    let names: BTreeSet<&str> = found.iter().filter_map(|(image, _)| folders(image).get(at).copied()).collect();
    match names.first() {
        Some(only) if names.len() == 1 => (*only).to_owned(),
        _ if at == 0 => "{part}".to_owned(),
        _ => format!("{{part_{}}}", at + 1),
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn folders(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    parts
}

/// How many folders two paths begin and end with alike.
fn alike(one: &[&str], other: &[&str]) -> usize {
    let (before, of_one, _) = differ(one, other);
    // Those of the same folder first.
    if one == other { usize::MAX } else { one.len() - of_one.len() + before.len() }
}

fn differ<'a>(one: &[&'a str], other: &[&'a str]) -> Differ<'a> {
    let before = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one_rest, other_rest) = (&one[before..], &other[before..]);
    let behind = one_rest.iter().rev().zip(other_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = |rest: &[&'a str]| rest[..rest.len() - behind].to_vec();
    (one[..before].to_vec(), middle(one_rest), middle(other_rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn layout(images: &[&str], labels: &[&str]) -> Layout {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        pair_up(&owned(images), &owned(labels), "txt").unwrap()
    }

    #[test]
    fn every_usual_layout_is_found() {
        for (images, labels, id, path) in [
            (["a.jpg", "b.png"], ["a.txt", "b.txt"], "{id}.{ext}", "{id}.txt"),
            (["x/a.jpg", "y/b.png"], ["x/a.txt", "y/b.txt"], "{id}.{ext}", "{id}.txt"),
            (
                ["images/a.jpg", "images/b.jpg"],
                ["labels/a.txt", "labels/b.txt"],
                "images/{id}.{ext}",
                "labels/{id}.txt",
            ),
            (
                ["images/train/a.jpg", "images/val/a.jpg"],
                ["labels/train/a.txt", "labels/val/a.txt"],
                "images/{id}.{ext}",
                "labels/{id}.txt",
            ),
            (
                ["train/images/a.jpg", "val/images/a.jpg"],
                ["train/labels/a.txt", "val/labels/a.txt"],
                "{part}/images/{id}.{ext}",
                "{part}/labels/{id}.txt",
            ),
            (
                ["d/train/images/a.jpg", "d/val/images/a.jpg"],
                ["d/train/labels/a.txt", "d/val/labels/a.txt"],
                "d/{part_2}/images/{id}.{ext}",
                "d/{part_2}/labels/{id}.txt",
            ),
            (
                ["images/train/a.jpg", "images/val/b.jpg"],
                ["Annotations/a.txt", "Annotations/b.txt"],
                "images/{folder}/{id}.{ext}",
                "Annotations/{id}.txt",
            ),
            (["i/a.jpg", "i/b.jpg"], ["i/l/a.txt", "i/l/b.txt"], "i/{id}.{ext}", "i/l/{id}.txt"),
        ] {
            let found = layout(&images, &labels);
            assert_eq!((found.id.as_str(), found.path.as_str()), (id, path));
            let pairs: Vec<_> = images.iter().zip(labels).map(|(a, b)| ((*a).to_owned(), b.to_owned())).collect();
            assert_eq!(found.pairs, pairs);
            assert!(found.alone.is_empty() && found.stray.is_empty() && found.outside == 0);
        }
    }

    #[test]
    fn what_does_not_fit_most_is_named() {
        let images = ["images/a.jpg", "images/b.jpg", "images/c.jpg", "old/d.jpg"];
        let found = layout(&images, &["labels/a.txt", "labels/b.txt", "old/d.txt", "readme.txt"]);
        assert_eq!(
            (found.alone, found.stray, found.outside),
            (vec!["images/c.jpg".to_owned()], vec!["old/d.txt".to_owned()], 1)
        );
        assert_eq!(pair_up(&["a.jpg".to_owned()], &["b.txt".to_owned()], "txt"), None);
    }
}
