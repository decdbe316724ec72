//! What a task shows to people: its batches, its predictions, its part of a report, its scores of files. One file for
//! each task; the commands call it and draw nothing themselves.

pub mod det;
pub mod seg;
mod tensors;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use image::RgbImage;
use mentor_data::{Card, Dataset, ReadLabels};
use mentor_distill::{Column, Term};
use mentor_nets::Frozen;
use mentor_recipe::{BuiltData, Recipe, Task};
use mentor_report::{Class, Example, Section};
use mentor_types::{Batch, Images};

use crate::weights::RunNets;

/// A task as people see it.
pub trait Show: Task {
    /// Every sample of a batch as the networks see it: labelled ones with their labels, unlabelled ones with what each
    /// term teaches about them, where there are nets that say it.
    fn batch(palette: &Palette, batch: &Batch<Self::Labels>, nets: Option<Labelling<'_, Self>>) -> Drawn;

    /// What a net says of an image, drawn over it.
    fn prediction(palette: &Palette, net: &Self::Net, image: Images, config: &Self::Eval, device: &Device) -> RgbImage;

    /// The names of the files that the labels of some images are written to.
    fn label_names(images: &[PathBuf]) -> Vec<PathBuf>;

    /// Writes what a net says of images in the card's own format, to files of these names.
    fn save_labels(
        dataset: &Dataset<Self::Labels>,
        net: &Self::Net,
        images: &[Photo],
        config: &Self::Eval,
        device: &Device,
        files: &[PathBuf],
    ) -> Result<()>;

    /// The scores of files of predictions against files of the truth.
    fn score_files(truth: &Path, predictions: &Path, dataset: &Dataset<Self::Labels>) -> Result<Self::Scores>;

    /// What the labels of the images that a recipe learns from hold, a line for each class and for what has none.
    fn label_shares(counts: &<Self::Labels as ReadLabels>::Counts, classes: &[String]) -> Vec<String>;

    /// What it brings to the report of a run. Val is predicted once more, image by image.
    fn report(judge: &Judge<'_, Self>) -> Result<Shown>;

    /// The columns of a term with their unweighted values on tensors from a file.
    fn term(asked: &AskedTerm<'_, Self>) -> Result<Vec<(Column, f32)>>;
}

/// An image that is predicted.
#[derive(Clone, Debug)]
pub struct Photo {
    /// Where it lies.
    pub path: PathBuf,
    /// What a file of labels calls it.
    pub name: String,
}

/// Names and colours of the classes, in their order.
#[derive(Clone, Debug)]
pub struct Palette {
    /// Their names.
    pub names: Vec<String>,
    /// Their colours.
    pub colours: Vec<[u8; 3]>,
}

impl Palette {
    /// That of a card.
    pub fn of(card: &Card) -> Self {
        Self { names: card.class_names(), colours: card.class_colours() }
    }
}

/// The nets of a run as its terms ask them about unlabelled images.
#[derive(Debug)]
pub struct Labelling<'a, T: Task> {
    /// The recipe of the run.
    pub recipe: &'a Recipe<T>,
    /// What it trained.
    pub nets: &'a RunNets<T>,
    /// Where predictions are computed.
    pub device: &'a Device,
}

/// What a part of a report is made from.
#[derive(Debug)]
pub struct Judge<'a, T: Task> {
    /// The recipe of the run.
    pub recipe: &'a Recipe<T>,
    /// Its data.
    pub data: &'a BuiltData<T::Labels>,
    /// Its teachers, by name.
    pub teachers: &'a [(String, Frozen<T::Net>)],
    /// What it trained.
    pub nets: &'a RunNets<T>,
    /// Where predictions are computed.
    pub device: &'a Device,
}

impl<T: Task> Judge<'_, T> {
    /// The nets as the terms ask them.
    pub fn labelling(&self) -> Labelling<'_, T> {
        Labelling { recipe: self.recipe, nets: self.nets, device: self.device }
    }
}

/// In which table of a recipe a term stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermKind {
    /// `[supervised]`.
    Supervised,
    /// `[distill]`.
    Distill,
    /// `[unlabelled]`.
    Unlabelled,
}

/// A term that is asked for its value.
#[derive(Debug)]
pub struct AskedTerm<'a, T: Task> {
    /// Where it stands.
    pub kind: TermKind,
    /// Its name.
    pub name: &'static str,
    /// The term.
    pub term: &'a dyn Term<T>,
    /// The file with what it reads.
    pub input: &'a Path,
    /// Where to write the gradient with respect to the student's tensors.
    pub grad: Option<&'a Path>,
    /// The seed of weights of its own.
    pub seed: u64,
}

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

/// The name of a picture of each image: the image's own, with the ending `.png`.
pub fn picture_names(images: &[PathBuf]) -> Vec<PathBuf> {
    let name = |image: &PathBuf| format!("{}.png", image.file_stem().unwrap_or_default().to_string_lossy()).into();
    images.iter().map(name).collect()
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
