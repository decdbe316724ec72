//! What a task shows to people: its batches, its predictions, its part of a report, its scores of files. One file for
//! each task; the commands call it and draw nothing themselves.

pub mod seg;

use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use mentor_report::{Class, Example, Section};
use mentor_types::Images;

/// The samples of a batch as pictures with legends.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// Of the labelled stream.
    pub labelled: Vec<RgbImage>,
    /// Of the unlabelled one.
    pub unlabelled: Vec<RgbImage>,
}

/// What a task brings to the report of a run.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The classes of the data.
    pub classes: Vec<Class>,
    /// The task's sections of the page.
    pub sections: Vec<Section>,
    /// Pictures for the run folder, by name, in the order shown.
    pub pictures: Vec<(String, RgbImage)>,
}

/// Best and worst images in a report, of each.
const EXAMPLES: usize = 3;

/// The best and the worst images by their scores, the best first; each once.
fn best_and_worst(mut scores: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    if scores.len() > 2 * EXAMPLES {
        scores.drain(EXAMPLES..scores.len() - EXAMPLES);
    }
    scores
}

/// Examples in order, the better half and the worse half.
fn halves(mut examples: Vec<Example>) -> Vec<(String, Vec<Example>)> {
    let worst = examples.split_off(examples.len().div_ceil(2));
    vec![("Best".to_owned(), examples), ("Worst".to_owned(), worst)]
}

/// The images of a batch, one by one.
fn pictures_of(images: &Images) -> Vec<RgbImage> {
    let (width, height) = (images.width as u32, images.height as u32);
    let bytes = images.height * images.width * 3;
    let picture = |bytes: &[u8]| RgbImage::from_raw(width, height, bytes.to_vec()).expect("bytes of one image");
    images.rgb.chunks_exact(bytes).map(picture).collect()
}

/// Writes a picture.
pub fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    picture.save(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_and_the_worst_are_shown_once_each_in_order() {
        let scores = |count: usize| (0..count).map(|index| (index, index as f64)).collect::<Vec<_>>();
        let indices = |count| best_and_worst(scores(count)).iter().map(|(index, _)| *index).collect::<Vec<_>>();
        assert_eq!(indices(9), [8, 7, 6, 2, 1, 0]);
        assert_eq!(indices(4), [3, 2, 1, 0]);
        let sizes = |count| halves(vec![Example::default(); count]).iter().map(|half| half.1.len()).collect::<Vec<_>>();
        assert_eq!([sizes(5), sizes(0)], [[3, 2], [0, 0]]);
    }
}
