//! The JSON of COCO: images, categories and annotations, as COCO, LVIS and many tools write them.
//!
//! Boxes are `[left, top, width, height]` in pixels and stay f64, as pycocotools computes with them. A class is its name; ids
//! only lead from one part of the file to another.

use std::collections::BTreeMap;
use std::path::Path;

use mentor_types::Edges;
use serde::Deserialize;

use super::json::{CocoId, MarkedNumber, Number, read_json};
use super::mistakes::{BoxMistake, BoxMistakeKind, check_extent};
use crate::error::DataError;

/// How far a box may reach out of its image before it is said, in pixels: tools round.
const ROUNDING_PX: f64 = 1.0;

/// What a file of annotations holds, without its mistakes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CocoTruth {
    /// Its categories, in the order of the file; classes are places in this list.
    pub categories: Vec<CocoCategory>,
    /// Its images, in the order of the file; one without boxes is one of them.
    pub images: Vec<CocoImage>,
    /// What is wrong with single annotations, in the order of the file. All but those that merely leave their image
    /// ([`BoxMistakeKind::Leaves`]) are left out of `images`.
    pub mistakes: Vec<BoxMistake>,
}

/// A category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CocoCategory {
    /// Its id: any, in any order, with gaps.
    pub id: CocoId,
    /// Its name, which no other category has.
    pub name: String,
}

/// An image and its annotations.
#[derive(Clone, Debug, PartialEq)]
pub struct CocoImage {
    /// Its id.
    pub id: CocoId,
    /// Its file, with forward slashes; `None` where the file of annotations does not say.
    pub file_name: Option<String>,
    /// Width in pixels, where the file says it.
    pub width: Option<f64>,
    /// Height in pixels, where the file says it.
    pub height: Option<f64>,
    /// Its boxes, in the order of the file.
    pub boxes: Vec<CocoBox>,
    /// The classes that were looked for and are not there (`neg_category_ids` of LVIS), sorted; `None` where the file does not
    /// say.
    pub absent: Option<Vec<usize>>,
    /// The classes of which not every object has a box (`not_exhaustive_category_ids` of LVIS), sorted.
    pub not_exhaustive: Vec<usize>,
}

impl CocoImage {
    /// The classes that were looked for in the whole image, sorted, of `classes` that there are; `None` where all were. Where the
    /// file says which are absent, these and those that have boxes; without those that are not labelled exhaustively.
    #[must_use]
    pub fn looked_for(&self, classes: usize) -> Option<Vec<usize>> {
        let mut known: Vec<usize> = match &self.absent {
            None if self.not_exhaustive.is_empty() => return None,
            None => (0..classes).collect(),
            Some(absent) => absent.iter().copied().chain(self.boxes.iter().map(|found| found.class)).collect(),
        };
        known.sort_unstable();
        known.dedup();
        known.retain(|class| self.not_exhaustive.binary_search(class).is_err());
        Some(known)
    }
}

/// An annotation.
#[derive(Clone, Debug, PartialEq)]
pub struct CocoBox {
    /// Its id, where it has one.
    pub id: Option<CocoId>,
    /// Its category, as a place in [`CocoTruth::categories`].
    pub class: usize,
    /// Left, top, width and height in pixels as they are written: of some size, and at least in part inside the image.
    pub extent: [f64; 4],
    /// `area` in square pixels, that of the outline in COCO; width times height where the file does not say it.
    pub area: f64,
    /// Whether it stands for any number of objects.
    pub is_crowd: bool,
    /// How sure the detector is that found it, where one did.
    pub score: Option<f64>,
}

impl CocoBox {
    /// Its edges in an image of this size in pixels, cut off where it ends.
    #[must_use]
    pub fn edges_within(&self, width: f64, height: f64) -> Edges {
        let [left, top, w, h] = self.extent;
        [left.max(0.0), top.max(0.0), (left + w).min(width), (top + h).min(height)].map(|edge| edge as f32)
    }
}

impl CocoTruth {
    /// Reads a file of annotations.
    ///
    /// Ids may be whole numbers, whole floats (`7.0`) or texts; `"7"` is 7. Numbers may be texts. What annotations hold besides
    /// (outlines, key points, `ignore`, which pycocotools does not heed either) is not looked at.
    ///
    /// # Errors
    /// The file cannot be read or is no such JSON, with line and column; two images or categories with one id, a name with two
    /// ids. What is wrong with single annotations is in [`Self::mistakes`].
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let file: File = read_json(path, "an object with `images`, `annotations` and `categories`")?;
        let wrong = |message: String| DataError::Boxes { path: path.to_owned(), message };
        let categories = Index::of("category", file.categories.iter().map(|category| &category.id)).map_err(wrong)?;
        let mut names = BTreeMap::new();
        for category in &file.categories {
            if let Some(other) = names.insert(category.name.as_str(), &category.id) {
                let name = &category.name;
                return Err(wrong(format!("categories {other} and {} are both called `{name}`", category.id)));
            }
        }
        let images = Index::of("image", file.images.iter().map(|image| &image.id)).map_err(wrong)?;
        let mut reading = Reading { categories, images, seen: BTreeMap::new(), mistakes: Vec::new() };
        let mut read: Vec<CocoImage> = file.images.into_iter().map(|image| reading.image(image)).collect();
        for (at, annotation) in file.annotations.into_iter().enumerate() {
            if let Some((image, found)) = reading.annotation(at, annotation, &read) {
                read[image].boxes.push(found);
            }
        }
        let category = |category: RawCategory| CocoCategory { id: category.id, name: category.name };
        let categories = file.categories.into_iter().map(category).collect();
        Ok(Self { categories, images: read, mistakes: reading.mistakes })
    }

    /// The names of the categories, in order.
    #[must_use]
    pub fn class_names(&self) -> Vec<String> {
        self.categories.iter().map(|category| category.name.clone()).collect()
    }
}

/// A file as it stands.
#[derive(Deserialize)]
struct File {
    images: Vec<RawImage>,
    categories: Vec<RawCategory>,
    annotations: Vec<RawAnnotation>,
}

#[derive(Deserialize)]
struct RawCategory {
    id: CocoId,
    name: String,
}

#[derive(Deserialize)]
struct RawImage {
    id: CocoId,
    file_name: Option<String>,
    width: Option<Number>,
    height: Option<Number>,
    neg_category_ids: Option<Vec<CocoId>>,
    #[serde(default)]
    not_exhaustive_category_ids: Vec<CocoId>,
}

#[derive(Deserialize)]
struct RawAnnotation {
    id: Option<CocoId>,
    image_id: Option<CocoId>,
    category_id: Option<CocoId>,
    bbox: Option<Vec<Number>>,
    area: Option<Number>,
    iscrowd: Option<MarkedNumber>,
    score: Option<Number>,
}

/// Places by id.
pub(super) struct Index(BTreeMap<CocoId, usize>);

impl Index {
    /// Of a list of ids; the error names the first that is there twice.
    pub(super) fn of<'a>(what: &str, ids: impl Iterator<Item = &'a CocoId>) -> Result<Self, String> {
        let mut places = BTreeMap::new();
        for (at, id) in ids.enumerate() {
            if let Some(other) = places.insert(id.clone(), at) {
                return Err(format!("{what} {id} is there twice, as number {} and {} of its list", other + 1, at + 1));
            }
        }
        Ok(Self(places))
    }

    pub(super) fn get(&self, id: &CocoId) -> Option<usize> {
        self.0.get(id).copied()
    }
}

/// A file on its way to be read.
struct Reading {
    categories: Index,
    images: Index,
    /// Annotations by id.
    seen: BTreeMap<CocoId, usize>,
    mistakes: Vec<BoxMistake>,
}

impl Reading {
    fn image(&mut self, image: RawImage) -> CocoImage {
        let id = image.id;
        let mut classes = |key: &str, ids: Vec<CocoId>| -> Vec<usize> {
            let mut classes = Vec::new();
            for category in ids {
                match self.categories.get(&category) {
                    Some(class) => classes.push(class),
                    None => self.mistakes.push(BoxMistake {
                        kind: BoxMistakeKind::Category,
                        line: None,
                        message: format!("image {id}: {key} has {category}, which is no category"),
                    }),
                }
            }
            classes.sort_unstable();
            classes
        };
        let absent = image.neg_category_ids.map(|ids| classes("neg_category_ids", ids));
        let not_exhaustive = classes("not_exhaustive_category_ids", image.not_exhaustive_category_ids);
        let size = |number: Option<Number>| number.map(|number| number.0).filter(|size| *size > 0.0);
        let file_name = image.file_name.map(|name| {
            // Written on Windows, and by some tools with every backslash twice.
            name.replace('\\', "/").split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
        });
        let (width, height) = (size(image.width), size(image.height));
        CocoImage { id, file_name, width, height, boxes: Vec::new(), absent, not_exhaustive }
    }

    /// The image that an annotation belongs to and its box; nothing where it is wrong, which is noted.
    fn annotation(&mut self, at: usize, raw: RawAnnotation, images: &[CocoImage]) -> Option<(usize, CocoBox)> {
        let place = match &raw.id {
            Some(id) => format!("annotation {id}"),
            None => format!("annotation without an id, number {} of its list", at + 1),
        };
        match self.checked(at, raw, images) {
            Ok((image, found, leaves)) => {
                self.mistakes.extend(leaves.map(|message| BoxMistake {
                    kind: BoxMistakeKind::Leaves,
                    line: None,
                    message: format!("{place}: {message}"),
                }));
                Some((image, found))
            }
            Err((kind, message)) => {
                self.mistakes.push(BoxMistake { kind, line: None, message: format!("{place}: {message}") });
                None
            }
        }
    }

    /// The image, the box, and whether it leaves the image.
    fn checked(
        &mut self,
        at: usize,
        raw: RawAnnotation,
        images: &[CocoImage],
    ) -> Result<(usize, CocoBox, Option<String>), (BoxMistakeKind, String)> {
        if let Some(other) = raw.id.as_ref().and_then(|id| self.seen.insert(id.clone(), at)) {
            let text = format!("the id is there twice, as number {} and {} of its list", other + 1, at + 1);
            return Err((BoxMistakeKind::Id, text));
        }
        let id = raw.image_id.ok_or((BoxMistakeKind::Image, "has no image_id".to_owned()))?;
        let unknown = |kind, key: &str, id: &CocoId| (kind, format!("{key} {id} is in no entry of the file"));
        let image = self.images.get(&id).ok_or_else(|| unknown(BoxMistakeKind::Image, "image_id", &id))?;
        let id = raw.category_id.ok_or((BoxMistakeKind::Category, "has no category_id".to_owned()))?;
        let class = self.categories.get(&id).ok_or_else(|| unknown(BoxMistakeKind::Category, "category_id", &id))?;
        let extent = check_extent(raw.bbox.as_deref())?;
        let [left, top, width, height] = extent;
        if width == 0.0 || height == 0.0 {
            return Err((BoxMistakeKind::NoSize, format!("bbox {extent:?} has no size")));
        }
        let (of_image, infinite) = (&images[image], f64::INFINITY);
        let size = [of_image.width.unwrap_or(infinite), of_image.height.unwrap_or(infinite)];
        let outside = format!("bbox {extent:?} in an image of {}x{} pixels", size[0], size[1]);
        if left >= size[0] || top >= size[1] || left + width <= 0.0 || top + height <= 0.0 {
            return Err((BoxMistakeKind::Outside, format!("{outside} lies outside of it")));
        }
        let beyond = (-left).max(-top).max(left + width - size[0]).max(top + height - size[1]);
        let leaves = (beyond > ROUNDING_PX).then(|| format!("{outside} reaches {beyond} pixels out of it"));
        let area = raw.area.map_or(width * height, |area| area.0);
        if !(area.is_finite() && area >= 0.0) {
            return Err((BoxMistakeKind::Area, format!("area {area} is no area")));
        }
        let is_crowd = match raw.iscrowd.map_or(0.0, |mark| mark.0) {
            0.0 => false,
            1.0 => true,
            other => return Err((BoxMistakeKind::Crowd, format!("iscrowd is {other}, expected 0 or 1"))),
        };
        Ok((
            image,
            CocoBox { id: raw.id, class, extent, area, is_crowd, score: raw.score.map(|score| score.0) },
            leaves,
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<CocoTruth, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gt.json");
        std::fs::write(&path, text).unwrap();
        CocoTruth::read(&path)
    }

    fn annotated(annotations: &str) -> CocoTruth {
        read(&format!(
            r#"{{"images": [{{"id": 0, "width": 64, "height": 48}}], "categories": [{{"id": 9, "name": "cat"}}],
                "annotations": [{annotations}]}}"#
        ))
        .unwrap()
    }

    fn kinds(annotations: &str) -> Vec<BoxMistakeKind> {
        annotated(annotations).mistakes.iter().map(|mistake| mistake.kind).collect()
    }

    fn with_box(bbox: &str) -> String {
        format!(r#"{{"id": 0, "image_id": 0, "category_id": 9, "bbox": [{bbox}]}}"#)
    }

    #[test]
    fn images_stay_and_classes_are_places_by_id() {
        let truth = read(
            r#"{"licenses": 3, "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "sign"}],
            "images": [{"id": 5, "file_name": "a\\\\b\\c.jpg", "width": 8, "height": 8}, {"id": "4", "file_name": "d.jpg"}],
            "annotations": [
                {"id": 0, "image_id": 4, "category_id": 13, "bbox": [1, 2, 3, 4], "area": 7.5, "iscrowd": 1,
                 "segmentation": [[1, 2, 3, 4, 5, 6]], "caption": null},
                {"id": "x", "image_id": "4", "category_id": 90.0, "bbox": [1, 2, "3", 4.5]}]}"#,
        )
        .unwrap();
        assert_eq!(truth.class_names(), ["brush", "person", "sign"]);
        assert_eq!(truth.images.iter().map(|image| image.boxes.len()).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(truth.images[0].file_name.as_deref(), Some("a/b/c.jpg"));
        assert_eq!([truth.images[0].width, truth.images[1].height], [Some(8.0), None]);
        let [first, second] = &truth.images[1].boxes[..] else { panic!("two boxes") };
        assert_eq!((first.class, first.area, first.is_crowd, &first.id), (2, 7.5, true, &Some(CocoId::Number(0))));
        assert_eq!((second.class, second.area, second.is_crowd), (0, 13.5, false));
        assert_eq!(second.id, Some(CocoId::Text("x".to_owned())));
        assert!(truth.mistakes.is_empty() && truth.images[1].looked_for(3).is_none());
    }

    #[test]
    fn every_mistake_has_its_kind_and_leaves_its_box_out() {
        use BoxMistakeKind::{Area, Category, Crowd, Id, Image, Leaves, NoSize, Numbers, Outside, Reversed};
        let good = with_box("5, 5, 20, 20");
        for (wrong, kind) in [
            (with_box("5, 5, 0, 20"), NoSize),
            (with_box("5, 5, -4, 6"), Reversed),
            (with_box("64, 5, 5, 5"), Outside),
            (with_box("-5, 5, 5, 5"), Outside),
            (with_box("5, 5, 5"), Numbers),
            (with_box("5, 5, 5, \"nan\""), Numbers),
            (with_box("5, 5, 5, 5").replace("\"bbox\"", "\"box\""), Numbers),
            (good.replace("\"image_id\": 0", "\"image_id\": 1"), Image),
            (good.replace("9", "8"), Category),
            (good.replace("}", ", \"area\": -24}"), Area),
            (good.replace("}", ", \"iscrowd\": 2}"), Crowd),
        ] {
            let truth = annotated(&wrong);
            assert_eq!(truth.mistakes.iter().map(|mistake| mistake.kind).collect::<Vec<_>>(), [kind], "{wrong}");
            assert!(truth.images[0].boxes.is_empty() && truth.mistakes[0].message.starts_with("annotation 0: "));
            let error = BoxMistake::refuse(&truth.mistakes, Path::new("gt.json")).unwrap_err().to_string();
            assert!(error.starts_with("gt.json: annotation 0: "), "{error}");
        }
        assert_eq!(kinds(&format!("{good}, {good}")), [Id]);
        // What leaves its image is kept, and cut off where pixels are asked for; a rounded edge is none of it.
        let truth = annotated(&with_box("60, 40, 20, 20"));
        assert_eq!((truth.mistakes[0].kind, truth.images[0].boxes[0].extent), (Leaves, [60.0, 40.0, 20.0, 20.0]));
        assert_eq!(truth.images[0].boxes[0].edges_within(64.0, 48.0), [60.0, 40.0, 64.0, 48.0]);
        assert!(BoxMistake::refuse(&truth.mistakes, Path::new("gt.json")).is_ok());
        assert_eq!(kinds(&with_box("-0.4, 0, 64.5, 48.3")), []);
    }

    #[test]
    fn ids_that_are_there_twice_are_errors() {
        for (images, categories, said) in [
            (r#"{"id": 1}, {"id": "1"}"#, r#"{"id": 1, "name": "cat"}"#, "image 1 is there twice, as number 1 and 2"),
            (r#"{"id": 1}"#, r#"{"id": 1, "name": "cat"}, {"id": 1, "name": "cat"}"#, "category 1 is there twice"),
            (r#"{"id": 1}"#, r#"{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}"#, "both called `cat`"),
        ] {
            let text = format!(r#"{{"images": [{images}], "categories": [{categories}], "annotations": []}}"#);
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("gt.json: "), "{error}");
        }
    }

    #[test]
    fn what_lvis_looked_for_is_what_is_there_or_is_not_there() {
        let truth = read(
            r#"{"categories": [{"id": 2, "name": "a"}, {"id": 3, "name": "b"}, {"id": 4, "name": "c"}, {"id": 5, "name": "d"}],
            "images": [{"id": 1, "neg_category_ids": [5, 3], "not_exhaustive_category_ids": [4]},
                       {"id": 2, "not_exhaustive_category_ids": [4]}, {"id": 3, "neg_category_ids": [77]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
                            {"id": 2, "image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]}]}"#,
        )
        .unwrap();
        let looked_for: Vec<_> = truth.images.iter().map(|image| image.looked_for(4).unwrap()).collect();
        assert_eq!(looked_for, [vec![0, 1, 3], vec![0, 1, 3], vec![]]);
        assert_eq!(truth.mistakes[0].kind, BoxMistakeKind::Category);
    }
}
