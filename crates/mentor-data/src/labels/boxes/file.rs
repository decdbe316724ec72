//! A file with the boxes of many images.

use std::collections::BTreeMap;
use std::path::Path;

use mentor_types::{BoxKind, BoxLabels, LabelBox};

use crate::config::PseudoLabels;
use crate::error::{DataError, names};
use crate::read::{BoxMistake, BoxMistakeKind, CocoBox, CocoImage, CocoTruth};

/// What a file says of an image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Described {
    /// Height and width in pixels, where it says them.
    pub(super) size: Option<[usize; 2]>,
    /// Its labels.
    pub(super) labels: BoxLabels,
}

/// The images of a file, by their names there.
#[derive(Clone, Debug, Default)]
pub(super) struct BoxFile {
    images: BTreeMap<String, Described>,
    /// What is wrong with single boxes, which are left out, and what is odd.
    pub(super) mistakes: Vec<BoxMistake>,
}

impl BoxFile {
    /// Reads COCO JSON; `classes` are the names of the classes, in their order. A category of the file that is none of these is
    /// left out; a class that is no category of the file was not looked for in its images. Where its boxes are `pseudo`-labels,
    /// their scores say what each of them is, and one without a score is a mistake; else nobody looks at scores.
    ///
    /// # Errors
    /// As [`CocoTruth::read`]; two images of one name; that no category is a class.
    pub(super) fn read_coco(path: &Path, classes: &[String], pseudo: Option<&PseudoLabels>) -> Result<Self, DataError> {
        let truth = CocoTruth::read(path)?;
        let class_of = |name: &String| classes.iter().position(|class| class == name).map(|class| class as u8);
        let known: Vec<Option<u8>> = truth.categories.iter().map(|category| class_of(&category.name)).collect();
        let fail = |message: String| DataError::Boxes { path: path.to_owned(), message };
        if known.iter().all(Option::is_none) {
            let categories = truth.class_names();
            let (theirs, ours) =
                (names(categories.iter().map(String::as_str)), names(classes.iter().map(String::as_str)));
            return Err(fail(format!("none of its categories ({theirs}) is a class of the card ({ours})")));
        }
        let mut images = BTreeMap::new();
        for image in &truth.images {
            let Some(name) = &image.file_name else { continue };
            let described = describe(image, &known, classes.len(), pseudo);
            if images.insert(name.trim_start_matches("./").to_owned(), described).is_some() {
                return Err(fail(format!("two of its images are called `{name}`")));
            }
        }
        let mut mistakes = truth.mistakes;
        if pseudo.is_some() {
            let boxes = truth.images.iter().flat_map(|image| &image.boxes);
            mistakes.extend(boxes.filter(|found| found.score.is_none()).map(without_score));
        }
        for (category, _) in truth.categories.iter().zip(&known).filter(|(_, class)| class.is_none()) {
            let (kind, message) = BoxMistake::of_other_class(&category.name, classes);
            let is_wrong = kind != BoxMistakeKind::OtherClass;
            let message = if is_wrong { format!("category `{}` {message}", category.name) } else { message };
            mistakes.push(BoxMistake { kind, line: None, message });
        }
        Ok(Self { images, mistakes })
    }

    /// What it says of the image at a path of a split: that of the longest end of the path, cut at slashes, which the file
    /// names, since files name images from a folder of theirs.
    pub(super) fn image(&self, path: &str) -> Option<&Described> {
        let ends = std::iter::once(path).chain(path.match_indices('/').map(|(slash, _)| &path[slash + 1..]));
        ends.filter_map(|end| self.images.get(end)).next()
    }
}

fn without_score(found: &CocoBox) -> BoxMistake {
    let id = found.id.as_ref().map_or_else(String::new, |id| format!(" {id}"));
    let message = format!("annotation{id}: has no score, which says whether a pseudo-label counts");
    BoxMistake { kind: BoxMistakeKind::Numbers, line: None, message }
}

/// What a pseudo-label of this score is; nothing where it is not sure enough.
fn kind_of(score: f64, pseudo: &PseudoLabels) -> Option<BoxKind> {
    match score {
        _ if score >= pseudo.min_score => Some(BoxKind::Object),
        _ if score >= pseudo.ignored_from => Some(BoxKind::Difficult),
        _ => None,
    }
}

/// What a file says of an image; `known` is the class of each of its categories.
fn describe(image: &CocoImage, known: &[Option<u8>], classes: usize, pseudo: Option<&PseudoLabels>) -> Described {
    let size = image.height.zip(image.width).map(|(height, width)| [height as usize, width as usize]);
    let (width, height) = (image.width.unwrap_or(f64::INFINITY), image.height.unwrap_or(f64::INFINITY));
    let label = |found: &CocoBox| {
        Some(LabelBox {
            edges: found.edges_within(width, height),
            class: known[found.class]?,
            kind: match pseudo {
                _ if found.is_crowd => BoxKind::Crowd,
                None => BoxKind::Object,
                Some(pseudo) => kind_of(found.score?, pseudo)?,
            },
            area: found.area as f32,
        })
    };
    let looked_for = image.looked_for(known.len()).unwrap_or_else(|| (0..known.len()).collect());
    let mut looked_for: Vec<u8> = looked_for.into_iter().filter_map(|category| known[category]).collect();
    looked_for.sort_unstable();
    let looked_for = (looked_for.len() < classes).then_some(looked_for);
    Described { size, labels: BoxLabels { boxes: image.boxes.iter().filter_map(label).collect(), looked_for } }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FILE: &str = r#"{"images": [
        {"id": 7, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 9, "file_name": "./sub/b.jpg", "width": 64, "height": 48, "not_exhaustive_category_ids": [30]},
        {"id": 11, "file_name": "sub/a.jpg", "width": 10, "height": 10}],
        "annotations": [
        {"id": 1, "image_id": 7, "category_id": 30, "bbox": [10, 10, 20, 10], "area": 150, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 90, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}],
        "categories": [{"id": 30, "name": "car"}, {"id": 90, "name": "bird"}, {"id": 5, "name": "tree"}]}"#;

    fn read(text: &str, classes: &[&str]) -> Result<BoxFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, text).unwrap();
        let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
        BoxFile::read_coco(&path, &classes, None)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "a.json"))
    }

    #[test]
    fn classes_are_known_by_name_and_those_of_which_a_file_is_silent_are_unknown() {
        let file = read(FILE, &["tree", "car"]).unwrap();
        let first = file.image("photos/a.jpg").unwrap();
        assert_eq!((first.size, &first.labels.looked_for), (Some([48, 64]), &None));
        let label = |edges, class, kind, area| LabelBox { edges, class, kind, area };
        assert_eq!(
            first.labels.boxes,
            [
                label([10.0, 10.0, 30.0, 20.0], 1, BoxKind::Object, 150.0),
                label([0.0, 0.0, 5.0, 5.0], 0, BoxKind::Crowd, 25.0)
            ]
        );
        // There may be more cars; and nobody looked for boats in any image.
        assert_eq!(file.image("photos/sub/b.jpg").unwrap().labels.looked_for, Some(vec![0]));
        let with_boats = read(FILE, &["boat", "tree", "car"]).unwrap();
        assert_eq!(with_boats.image("a.jpg").unwrap().labels.looked_for, Some(vec![1, 2]));
        // The longest end of a path is the image.
        assert_eq!(file.image("x/sub/a.jpg").unwrap().size, Some([10, 10]));
        assert_eq!(file.image("x/c.jpg"), None);
    }

    #[test]
    fn scores_say_what_pseudo_labels_are_and_nobody_else_looks_at_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("found.json");
        let scored = |id, rest: &str| {
            format!("{{\"id\": {id}, \"image_id\": 7, \"category_id\": 30, \"bbox\": [{id}, 0, 5, 5]{rest}}}")
        };
        let all = [scored(1, ", \"score\": 0.9"), scored(2, ", \"score\": 0.89"), scored(3, ", \"score\": 0.2")];
        let read = |annotations: &[String], pseudo: Option<&PseudoLabels>| {
            let text = FILE.split("\"annotations\": [").next().unwrap().to_owned()
                + &format!(
                    "\"annotations\": [{}], \"categories\": [{{\"id\": 30, \"name\": \"car\"}}]}}",
                    annotations.join(", ")
                );
            let text = text.replace(", \"not_exhaustive_category_ids\": [30]", "");
            std::fs::write(&path, text).unwrap();
            BoxFile::read_coco(&path, &["car".to_owned()], pseudo).unwrap()
        };
        let kinds = |file: &BoxFile| {
            let labels = file.image("a.jpg").unwrap().labels.clone();
            assert_eq!(labels.looked_for, None);
            labels.boxes.iter().map(|label| (label.edges[0], label.kind)).collect::<Vec<_>>()
        };
        let pseudo = |min_score, ignored_from| PseudoLabels { file: String::new(), min_score, ignored_from };
        let (object, difficult) = (BoxKind::Object, BoxKind::Difficult);
        assert_eq!(kinds(&read(&all, Some(&pseudo(0.9, 1.0)))), [(1.0, object)]);
        assert_eq!(kinds(&read(&all, Some(&pseudo(0.9, 0.5)))), [(1.0, object), (2.0, difficult)]);
        assert_eq!(kinds(&read(&all, None)), [(1.0, object), (2.0, object), (3.0, object)]);
        let lacking = read(&[all[0].clone(), scored(2, "")], Some(&pseudo(0.1, 1.0)));
        assert_eq!(kinds(&lacking), [(1.0, object)]);
        let said = &lacking.mistakes[0];
        assert!(said.is_dropped() && said.message.starts_with("annotation 2: has no score"), "{}", said.message);
    }

    #[test]
    fn boxes_that_are_none_and_classes_that_the_card_does_not_name_are_left_out_and_noted() {
        let reversed = FILE.replace("[10, 10, 20, 10]", "[10, 10, -20, 10]");
        let file = read(&reversed, &["Tree", "car"]).unwrap();
        assert!(file.image("a.jpg").unwrap().labels.boxes.is_empty());
        let said: Vec<_> =
            file.mistakes.iter().map(|mistake| (mistake.is_dropped(), mistake.message.as_str())).collect();
        assert!(said[0].0 && said[0].1.contains("negative width"), "{said:?}");
        let rest = [
            (false, "bird"),
            (true, "category `tree` is no class of the card, but `Tree` is: change one of them, or name both"),
        ];
        assert_eq!(said[1..], rest);
    }

    #[test]
    fn what_makes_a_file_useless_is_said() {
        let message = read(FILE, &["boat"]).unwrap_err();
        assert!(message.starts_with("a.json: none of its categories (") && message.contains("(`boat`)"), "{message}");
        let twice = FILE.replace("\"sub/a.jpg\"", "\"a.jpg\"");
        assert!(read(&twice, &["car"]).unwrap_err().ends_with("two of its images are called `a.jpg`"));
    }
}
