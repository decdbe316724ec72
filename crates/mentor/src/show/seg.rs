//! What segmentation shows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use image::{GrayImage, RgbImage};
use mentor_data::{DataError, Dataset, MaskFormat};
use mentor_distill::TermTable;
use mentor_nets::Frozen;
use mentor_recipe::{BuiltData, Recipe};
use mentor_report::{Class, Confusion, Example, Gallery, Section, TILE_WIDTH, pictures};
use mentor_seg::Seg;
use mentor_seg::metrics::{ConfusionMatrix, SegMetrics};
use mentor_seg::nets::SegNet;
use mentor_seg::unlabelled::{Taught, TaughtView, pseudo_of};
use mentor_seg::{EvalConfig, predict_mask};
use mentor_types::{Batch, IGNORE, Images, LabelMask, Pairs, ScoreNames, Scores};

use super::{Drawn, Shown, best_and_worst, halves, pictures_of};
use crate::weights::RunNets;

/// What the scores are called.
pub const SCORES: ScoreNames = SegMetrics::NAMES;

/// How strongly labels cover a photo on a page, and in a picture of its own.
const OPACITY_ON_PAGE: f32 = 0.6;
const OPACITY: f32 = 0.55;
const OPACITY_OF_PREDICTIONS: f32 = 0.5;

/// Unlabelled images in a report.
const PSEUDO: usize = 6;

/// Names and colours of the classes.
#[derive(Clone, Debug)]
pub struct Palette {
    names: Vec<String>,
    colours: Vec<[u8; 3]>,
}

impl Palette {
    /// In the order of the classes.
    pub fn new(names: Vec<String>, colours: Vec<[u8; 3]>) -> Self {
        Self { names, colours }
    }

    fn of_data(dataset: &Dataset<LabelMask>) -> Self {
        let card = dataset.card();
        Self::new(card.class_names(), card.class_colours())
    }

    fn painted(&self, photo: &RgbImage, mask: &LabelMask, opacity: f32) -> RgbImage {
        pictures::overlay(photo, mask, &self.colours, opacity)
    }

    /// The picture with a legend of the labels that occur in `masks`.
    fn explained(&self, picture: &RgbImage, masks: &[&LabelMask]) -> RgbImage {
        let shown = pictures::shown_labels(masks);
        pictures::with_legend(picture, &pictures::legend(&self.names, &self.colours, &shown))
    }

    /// Every sample of a batch as the networks see it: labelled ones with their labels, unlabelled ones with what
    /// each term teaches about them.
    pub fn batch(&self, batch: &Batch<LabelMask>, taught: &[Taught]) -> Drawn {
        let samples = &batch.labelled;
        let masks = masks_of(&samples.targets, &samples.images);
        let labelled = pictures_of(&samples.images).into_iter().zip(&masks).map(|(image, mask)| {
            let overlay = self.painted(&image, mask, OPACITY);
            self.explained(&pictures::panel(&[("view", &image), ("labels", &overlay)]), &[mask])
        });
        let unlabelled = batch.unlabelled.as_ref().map(|pairs| self.pairs(pairs, taught)).unwrap_or_default();
        Drawn { labelled: labelled.collect(), unlabelled }
    }

    fn pairs(&self, pairs: &Pairs<LabelMask>, taught: &[Taught]) -> Vec<RgbImage> {
        let views = pictures_of(&pairs.weak).into_iter().zip(pictures_of(&pairs.strong)).enumerate();
        let draw = |(index, (weak, strong)): (usize, (RgbImage, RgbImage))| {
            let masks: Vec<(String, &LabelMask)> =
                taught.iter().map(|term| (title(taught, term), &term.views[index].labels)).collect();
            let painted: Vec<RgbImage> = masks.iter().map(|(_, mask)| self.painted(&strong, mask, OPACITY)).collect();
            let titles = masks.iter().map(|(title, _)| title.as_str()).zip(&painted);
            let tiles: Vec<_> = [("weak view", &weak), ("strong view", &strong)].into_iter().chain(titles).collect();
            let shown: Vec<&LabelMask> = masks.iter().map(|(_, mask)| *mask).collect();
            self.explained(&pictures::panel(&tiles), &shown)
        };
        views.map(draw).collect()
    }

    /// What a net says of an image, painted over it.
    pub fn prediction(&self, net: &SegNet, image: Images, config: &EvalConfig, device: &Device) -> RgbImage {
        let picture = pictures_of(&image).swap_remove(0);
        let mask = predict_mask(net, image, config, device);
        self.explained(&self.painted(&picture, &mask, OPACITY_OF_PREDICTIONS), &[&mask])
    }
}

/// Over the pseudo-labels of a term: its name, where there are several.
fn title(taught: &[Taught], term: &Taught) -> String {
    if taught.len() > 1 { format!("pseudo-labels of {}", term.term) } else { "pseudo-labels".to_owned() }
}

fn masks_of(labels: &[u8], images: &Images) -> Vec<LabelMask> {
    let mask = |labels: &[u8]| LabelMask::new(images.width, images.height, labels.to_vec());
    labels.chunks_exact(images.height * images.width).map(mask).collect()
}

/// Writes what a net says of an image in the card's own format.
pub fn save_labels(
    net: &SegNet,
    image: Images,
    config: &EvalConfig,
    dataset: &Dataset<LabelMask>,
    path: &Path,
    device: &Device,
) -> Result<()> {
    let mask = predict_mask(net, image, config, device);
    let (width, height) = (mask.width() as u32, mask.height() as u32);
    let map = dataset.label_map();
    let failed = || format!("cannot write {}", path.display());
    match map.format() {
        MaskFormat::Index => {
            let raw: Option<Vec<u8>> = mask.labels().iter().map(|label| map.raw_value(*label)).collect();
            let raw = raw.with_context(|| format!("{}: a class has no value in masks of this card", path.display()))?;
            GrayImage::from_raw(width, height, raw).with_context(failed)?.save(path).with_context(failed)
        }
        MaskFormat::Color => {
            let colours = dataset.card().class_colours();
            let mut rgb = Vec::with_capacity(3 * mask.labels().len());
            for label in mask.labels() {
                let colour = colours.get(usize::from(*label)).with_context(|| {
                    format!("{}: class {label} has no colour, the card has {} classes", path.display(), colours.len())
                })?;
                rgb.extend(colour);
            }
            RgbImage::from_raw(width, height, rgb).with_context(failed)?.save(path).with_context(failed)
        }
    }
}

/// The metrics of what was counted.
pub fn scored(matrix: &ConfusionMatrix) -> Result<SegMetrics> {
    matrix.metrics().context("no pixel with a label was compared")
}

/// The scores of a folder of predicted masks against a folder of true ones.
pub fn score_files(truth: &Path, predictions: &Path, dataset: &Dataset<LabelMask>) -> Result<SegMetrics> {
    let classes = dataset.card().classes.len();
    let mut names: Vec<_> = std::fs::read_dir(truth)
        .with_context(|| truth.display().to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .filter(|name| PathBuf::from(name).extension().is_some_and(|extension| extension == "png"))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{}: holds no .png masks", truth.display());
    }
    let mut matrix = ConfusionMatrix::new(classes);
    for name in names {
        let read = |folder: &Path| -> Result<LabelMask> { Ok(dataset.read_mask(&folder.join(&name))?) };
        let counts = ConfusionMatrix::from_masks(&read(predictions)?, &read(truth)?, classes, None);
        matrix.add(&counts.with_context(|| predictions.join(&name).display().to_string())?);
    }
    scored(&matrix)
}

/// What a part of a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The recipe of the run.
    pub recipe: &'a Recipe<Seg>,
    /// Its data.
    pub data: &'a BuiltData,
    /// Its teachers, by name.
    pub teachers: &'a [(String, Frozen<SegNet>)],
    /// What it trained.
    pub nets: &'a RunNets,
    /// Where predictions are computed.
    pub device: &'a Device,
}

impl Judge<'_> {
    /// What segmentation brings to the report of a run. Val is predicted once more, image by image.
    pub fn shown(&self) -> Result<Shown> {
        let palette = Palette::of_data(&self.data.dataset);
        let (confusion, examples) = self.val()?;
        let counts = rows(&confusion);
        let all: u64 = counts.iter().flatten().sum();
        let share = |class: usize| (all > 0).then(|| counts[class].iter().sum::<u64>() as f64 / all as f64);
        let classes = palette.names.iter().zip(&palette.colours).enumerate();
        let class = |(class, (name, colour)): (usize, (&String, &[u8; 3]))| Class {
            name: name.clone(),
            colour: *colour,
            share: share(class),
        };
        Ok(Shown {
            classes: classes.map(class).collect(),
            pictures: examples.iter().map(|example| (example.name.clone(), example.picture(&palette))).collect(),
            sections: vec![
                Section::Confusion(Confusion(counts)),
                Section::Gallery(examples_gallery(&examples, &palette)),
                Section::Gallery(self.pseudo_labels(&palette)?),
            ],
        })
    }

    /// The counts over val, and its best and worst images.
    fn val(&self) -> Result<(ConfusionMatrix, Vec<Predicted>)> {
        let (dataset, val) = (&self.data.dataset, &self.data.val);
        let classes = dataset.card().classes.len();
        let (_, net) = self.nets.judged();
        let config = &self.recipe.eval;
        let mut sum = ConfusionMatrix::new(classes);
        let mut scores = Vec::new();
        for index in 0..val.len() {
            // A bad sample that is skipped was named when val was evaluated.
            let sample = match dataset.sample(val, index) {
                Err(DataError::Bad(_)) => continue,
                sample => sample?,
            };
            let student = predict_mask(net, sample.image, config, self.device);
            let labelled = sample.classes_labelled.as_deref();
            let counts = ConfusionMatrix::from_masks(&student, &sample.labels, classes, labelled)?;
            sum.add(&counts);
            scores.extend(counts.metrics().map(|metrics| (index, metrics.main())));
        }
        let mut examples = Vec::new();
        for (index, score) in best_and_worst(scores) {
            let sample = dataset.sample(val, index)?;
            let predict = |net: &SegNet| predict_mask(net, sample.image.clone(), config, self.device);
            examples.push(Predicted {
                teacher: self.teachers.first().map(|(_, teacher)| predict(teacher.net())),
                student: predict(net),
                photo: pictures_of(&sample.image).swap_remove(0),
                name: sample.name,
                score,
                truth: sample.labels,
            });
        }
        Ok((sum, examples))
    }

    /// What the terms of the last steps taught about their unlabelled images, by the nets of the run.
    fn pseudo_labels(&self, palette: &Palette) -> Result<Gallery> {
        let mut examples = Vec::new();
        let mut shown = Vec::new();
        let mut step = self.recipe.train.steps;
        while examples.len() < PSEUDO && step > 0 && !self.recipe.unlabelled.terms().is_empty() {
            step -= 1;
            let Some(pairs) = self.data.maker.make(step, 0)?.unlabelled else { break };
            let nets = self.nets.labellers(self.recipe.train.precision.dtype());
            let taught = pseudo_of(&self.recipe.unlabelled, nets, &pairs, self.device);
            let truth = masks_of(&strong_truth(&pairs), &pairs.strong);
            let views = pictures_of(&pairs.weak).into_iter().zip(pictures_of(&pairs.strong)).zip(truth);
            for (index, ((weak, strong), truth)) in views.enumerate().take(PSEUDO - examples.len()) {
                let terms: Vec<_> = taught.iter().map(|term| (term, &term.views[index])).collect();
                let name = format!("step {}, image {index}", step + 1);
                examples.push(pseudo_example(name, palette, [weak, strong], &truth, &terms, &taught));
                shown.push(truth);
                shown.extend(terms.iter().map(|(_, view)| view.labels.clone()));
            }
        }
        let shown = pictures::shown_labels(&shown.iter().collect::<Vec<_>>());
        Ok(Gallery {
            id: "pseudo",
            short: "Pseudo-labels",
            heading: "What unlabelled images were taught".to_owned(),
            lead: "The pseudo-labels come from the weak view and teach the student on the strong one, where they are drawn. \
                   Striped pixels took none; grey ones show nothing of the weak view. Accepted is the share of the pixels \
                   that took one; precision the share of these that is right, where the truth is known."
                .to_owned(),
            legend: pictures::legend(&palette.names, &palette.colours, &shown),
            groups: vec![(String::new(), examples)],
        })
    }
}

fn rows(confusion: &ConfusionMatrix) -> Vec<Vec<u64>> {
    let classes = confusion.classes;
    (0..classes).map(|truth| (0..=classes).map(|prediction| confusion.count(truth, prediction)).collect()).collect()
}

/// An image of val with what was said about it; all masks have the image's size.
struct Predicted {
    name: String,
    score: f64,
    photo: RgbImage,
    truth: LabelMask,
    teacher: Option<LabelMask>,
    student: LabelMask,
}

impl Predicted {
    /// A picture of its own.
    fn picture(&self, palette: &Palette) -> RgbImage {
        let draw = |mask: &LabelMask| palette.painted(&self.photo, mask, OPACITY_OF_PREDICTIONS);
        let (truth, student) = (draw(&self.truth), draw(&self.student));
        let teacher = self.teacher.as_ref().map(draw);
        let mut titled = vec![("image", &self.photo), ("truth", &truth)];
        titled.extend(teacher.as_ref().map(|teacher| ("teacher", teacher)));
        titled.push(("student", &student));
        let masks = [Some(&self.truth), self.teacher.as_ref(), Some(&self.student)];
        palette.explained(&pictures::panel(&titled), &masks.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Its card on the page.
    fn example(&self, palette: &Palette) -> Example {
        let photo = pictures::shrink(&self.photo, TILE_WIDTH);
        let [truth, student] = [&self.truth, &self.student].map(|mask| pictures::shrink_mask(mask, TILE_WIDTH));
        let teacher = self.teacher.as_ref().map(|mask| pictures::shrink_mask(mask, TILE_WIDTH));
        let painted = |mask: &LabelMask| palette.painted(&photo, mask, OPACITY_ON_PAGE);
        let mut tiles = vec![("image", photo.clone()), ("truth", painted(&truth))];
        tiles.extend(teacher.as_ref().map(|teacher| ("teacher", painted(teacher))));
        tiles.push(("student", painted(&student)));
        tiles.push(("mistakes", pictures::mistakes(&photo, &truth, &student)));
        Example {
            name: self.name.clone(),
            scores: vec![(SCORES.main[1].to_owned(), Some(self.score))],
            tiles: tiles.into_iter().map(|(title, picture)| (title.to_owned(), picture)).collect(),
        }
    }
}

fn examples_gallery(examples: &[Predicted], palette: &Palette) -> Gallery {
    let masks = examples.iter().flat_map(|one| [Some(&one.truth), one.teacher.as_ref(), Some(&one.student)]);
    let shown = pictures::shown_labels(&masks.flatten().collect::<Vec<_>>());
    Gallery {
        id: "examples",
        short: "Images",
        heading: "Where it does best and worst".to_owned(),
        lead:
            "Validation images with the classes painted over them. In the last picture every red pixel is a mistake of \
               the student; dark pixels have no truth and count neither way."
                .to_owned(),
        legend: pictures::legend(&palette.names, &palette.colours, &shown),
        groups: halves(examples.iter().map(|example| example.example(palette)).collect()),
    }
}

/// The truth of the weak views where the strong ones show it; ignored where they show nothing.
fn strong_truth(pairs: &Pairs<LabelMask>) -> Vec<u8> {
    let truth = |weak: &i32| usize::try_from(*weak).map_or(IGNORE, |weak| pairs.truth[weak]);
    pairs.link.iter().map(truth).collect()
}

fn pseudo_example(
    name: String,
    palette: &Palette,
    [weak, strong]: [RgbImage; 2],
    truth: &LabelMask,
    terms: &[(&Taught, &TaughtView)],
    taught: &[Taught],
) -> Example {
    let [weak, strong] = [weak, strong].map(|view| pictures::shrink(&view, TILE_WIDTH));
    let painted =
        |mask: &LabelMask| palette.painted(&strong, &pictures::shrink_mask(mask, TILE_WIDTH), OPACITY_ON_PAGE);
    let labels = terms.iter().map(|(term, view)| (title(taught, term), painted(&view.labels)));
    let labels: Vec<_> = labels.chain([("truth".to_owned(), painted(truth))]).collect();
    let of = |term: &Taught, share: &str| {
        if taught.len() > 1 { format!("{} {share}", term.term) } else { share.to_owned() }
    };
    let scores = terms.iter().flat_map(|(term, view)| {
        let precision = view.precision.map(|precision| (of(term, "precision"), Some(precision)));
        [Some((of(term, "accepted"), view.accepted)), precision].into_iter().flatten()
    });
    Example {
        name,
        scores: scores.collect(),
        tiles: [("weak view".to_owned(), weak), ("strong view".to_owned(), strong)].into_iter().chain(labels).collect(),
    }
}
