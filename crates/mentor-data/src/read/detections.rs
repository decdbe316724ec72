//! Boxes that a detector found, as the JSON of COCO's results: a list of `{image_id, category_id, bbox, score}`.

use std::path::Path;

use serde::Deserialize;

use super::coco::{CocoTruth, Index};
use super::json::{CocoId, Number, read_json};
use super::mistakes::{BoxMistake, BoxMistakeKind, check_extent};
use crate::error::DataError;

/// A box that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CocoFound {
    /// Its category, as a place in [`CocoTruth::categories`].
    pub class: usize,
    /// Left, top, width and height in pixels; width and height may be 0.
    pub extent: [f64; 4],
    /// How sure the detector is: any finite number, only the order counts.
    pub score: f64,
}

/// What a file of results holds, without its mistakes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CocoResults {
    /// What was found in each image of the truth, in the order of the file.
    pub images: Vec<Vec<CocoFound>>,
    /// What is wrong with single boxes, all of which are left out, in the order of the file.
    pub mistakes: Vec<BoxMistake>,
}

#[derive(Deserialize)]
struct RawFound {
    image_id: Option<CocoId>,
    category_id: Option<CocoId>,
    bbox: Option<Vec<Number>>,
    score: Option<Number>,
}

impl CocoResults {
    /// Reads what was found in the images of a file of annotations.
    ///
    /// # Errors
    /// The file cannot be read or is no such JSON, with line and column. What is wrong with single boxes, such as an id that
    /// the truth does not have, is in [`Self::mistakes`].
    pub fn read(path: &Path, truth: &CocoTruth) -> Result<Self, DataError> {
        let list: Vec<RawFound> = read_json(path, "a list of {image_id, category_id, bbox, score}")?;
        let wrong = |message: String| DataError::Boxes { path: path.to_owned(), message };
        let images = Index::of("image", truth.images.iter().map(|image| &image.id)).map_err(wrong)?;
        let classes = Index::of("category", truth.categories.iter().map(|category| &category.id)).map_err(wrong)?;
        let mut results = Self { images: vec![Vec::new(); truth.images.len()], mistakes: Vec::new() };
        for (at, raw) in list.iter().enumerate() {
            match checked(raw, &images, &classes) {
                Ok((image, found)) => results.images[image].push(found),
                Err((kind, message)) => {
                    results.mistakes.push(BoxMistake {
                        kind,
                        line: None,
                        message: format!("entry {} of the list: {message}", at + 1),
                    });
                }
            }
        }
        Ok(results)
    }
}

fn checked(raw: &RawFound, images: &Index, classes: &Index) -> Result<(usize, CocoFound), (BoxMistakeKind, String)> {
    let find = |kind, key: &str, id: &Option<CocoId>, index: &Index| {
        let id = id.as_ref().ok_or_else(|| (kind, format!("has no {key}")))?;
        index.get(id).ok_or_else(|| (kind, format!("{key} {id} is not in the truth")))
    };
    let image = find(BoxMistakeKind::Image, "image_id", &raw.image_id, images)?;
    let class = find(BoxMistakeKind::Category, "category_id", &raw.category_id, classes)?;
    let extent = check_extent(raw.bbox.as_deref())?;
    let score = raw.score.ok_or((BoxMistakeKind::Numbers, "has no score".to_owned()))?.0;
    if !score.is_finite() {
        return Err((BoxMistakeKind::Numbers, format!("score {score} is not finite")));
    }
    Ok((image, CocoFound { class, extent, score }))
}
