//! What segmentation brings to the report of a run.

use anyhow::Result;
use image::RgbImage;
use mentor_data::DataError;
use mentor_distill::TermTable;
use mentor_report::{Class, Confusion, Example, Gallery, Section, TILE_WIDTH, pictures};
use mentor_seg::metrics::{ConfusionMatrix, SegMetrics};
use mentor_seg::nets::SegNet;
use mentor_seg::unlabelled::{Taught, TaughtView};
use mentor_seg::{Seg, predict_mask};
use mentor_types::{IGNORE, LabelMask, Pairs, Scores};

use super::masks::{OPACITY_OF_PREDICTIONS, explained, masks_of, painted, taught_by, title};
use crate::show::{Judge, Palette, Shown, best_and_worst, halves, pictures_of};

/// How strongly labels cover a photo on a page.
const OPACITY_ON_PAGE: f32 = 0.6;

/// Unlabelled images in a report.
const PSEUDO: usize = 6;

/// Val, predicted once more image by image, and what the unlabelled images were taught.
pub fn shown(judge: &Judge<'_, Seg>) -> Result<Shown> {
    let palette = Palette::of(judge.data.dataset.card());
    let (confusion, examples) = judged_val(judge)?;
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
            Section::Gallery(pseudo_gallery(judge, &palette)?),
        ],
    })
}

/// The counts over val, and its best and worst images.
fn judged_val(judge: &Judge<'_, Seg>) -> Result<(ConfusionMatrix, Vec<Predicted>)> {
    let (dataset, val) = (&judge.data.dataset, &judge.data.val);
    let classes = dataset.card().classes.len();
    let (_, net) = judge.nets.judged();
    let config = &judge.recipe.eval;
    let mut sum = ConfusionMatrix::new(classes);
    let mut scores = Vec::new();
    for index in 0..val.len() {
        // A bad sample that is skipped was named when val was evaluated.
        let sample = match dataset.sample(val, index) {
            Err(DataError::Bad(_)) => continue,
            sample => sample?,
        };
        let student = predict_mask(net, sample.image, config, judge.device);
        let labelled = sample.classes_labelled.as_deref();
        let counts = ConfusionMatrix::from_masks(&student, &sample.labels, classes, labelled)?;
        sum.add(&counts);
        scores.extend(counts.metrics().map(|metrics| (index, metrics.main())));
    }
    let mut examples = Vec::new();
    for (index, score) in best_and_worst(scores) {
        let sample = dataset.sample(val, index)?;
        let predict = |net: &SegNet| predict_mask(net, sample.image.clone(), config, judge.device);
        examples.push(Predicted {
            teacher: judge.teachers.first().map(|(_, teacher)| predict(teacher.net())),
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
fn pseudo_gallery(judge: &Judge<'_, Seg>, palette: &Palette) -> Result<Gallery> {
    let mut examples = Vec::new();
    let mut shown = Vec::new();
    let mut step = judge.recipe.train.steps;
    while examples.len() < PSEUDO && step > 0 && !judge.recipe.unlabelled.terms().is_empty() {
        step -= 1;
        let Some(pairs) = judge.data.maker.make(step, 0)?.unlabelled else { break };
        let taught = taught_by(&judge.labelling(), &pairs);
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
        lead:
            "The pseudo-labels come from the weak view and teach the student on the strong one, where they are drawn. \
               Striped pixels took none; grey ones show nothing of the weak view. Accepted is the share of the pixels \
               that took one; precision the share of these that is right, where the truth is known."
                .to_owned(),
        legend: pictures::legend(&palette.names, &palette.colours, &shown),
        groups: vec![(String::new(), examples)],
    })
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
        let draw = |mask: &LabelMask| painted(palette, &self.photo, mask, OPACITY_OF_PREDICTIONS);
        let (truth, student) = (draw(&self.truth), draw(&self.student));
        let teacher = self.teacher.as_ref().map(draw);
        let mut titled = vec![("image", &self.photo), ("truth", &truth)];
        titled.extend(teacher.as_ref().map(|teacher| ("teacher", teacher)));
        titled.push(("student", &student));
        let masks = [Some(&self.truth), self.teacher.as_ref(), Some(&self.student)];
        explained(palette, &pictures::panel(&titled), &masks.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Its card on the page.
    fn example(&self, palette: &Palette) -> Example {
        let photo = pictures::shrink(&self.photo, TILE_WIDTH);
        let [truth, student] = [&self.truth, &self.student].map(|mask| pictures::shrink_mask(mask, TILE_WIDTH));
        let teacher = self.teacher.as_ref().map(|mask| pictures::shrink_mask(mask, TILE_WIDTH));
        let painted = |mask: &LabelMask| painted(palette, &photo, mask, OPACITY_ON_PAGE);
        let mut tiles = vec![("image", photo.clone()), ("truth", painted(&truth))];
        tiles.extend(teacher.as_ref().map(|teacher| ("teacher", painted(teacher))));
        tiles.push(("student", painted(&student)));
        tiles.push(("mistakes", pictures::mistakes(&photo, &truth, &student)));
        Example {
            name: self.name.clone(),
            scores: vec![(SegMetrics::NAMES.main[1].to_owned(), Some(self.score))],
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
        |mask: &LabelMask| painted(palette, &strong, &pictures::shrink_mask(mask, TILE_WIDTH), OPACITY_ON_PAGE);
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
