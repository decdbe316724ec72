//! What detection brings to the report of a run.

use anyhow::Result;
use mentor_data::DataError;
use mentor_det::metrics::DetMetrics;
use mentor_det::{Det, Judged, evaluate, found_in};
use mentor_report::{Class, Example, Gallery, Section, TILE_WIDTH, pictures};
use mentor_types::{BoxKind, BoxLabels, Detection, Scores};

use super::{explained, shown_boxes};
use crate::show::{Judge, Palette, Shown, best_and_worst, halves, pictures_of};

/// Val, predicted once more image by image.
pub fn shown(judge: &Judge<'_, Det>) -> Result<Shown> {
    let palette = Palette::of(judge.data.dataset.card());
    let (boxes, examples) = judged_val(judge)?;
    let all = boxes.iter().sum::<u64>();
    let share = |class: usize| (all > 0).then(|| boxes[class] as f64 / all as f64);
    let class = |(index, (name, colour)): (usize, (&String, &[u8; 3]))| Class {
        name: name.clone(),
        colour: *colour,
        share: share(index),
    };
    let classes = palette.names.iter().zip(&palette.colours).enumerate().map(class).collect();
    let picture = |example: &Predicted| {
        let tiles = example.tiles(&palette);
        let tiles: Vec<_> = tiles.iter().map(|(title, picture)| (title.as_str(), picture)).collect();
        let found: Vec<Detection> = example.teacher.iter().flatten().chain(&example.student).copied().collect();
        (example.name.clone(), explained(&palette, &pictures::panel(&tiles), &[&example.truth], &found))
    };
    Ok(Shown {
        classes,
        pictures: examples.iter().map(picture).collect(),
        sections: vec![Section::Gallery(gallery(&examples, &palette))],
    })
}

/// The objects of val by class, and its best and worst images.
fn judged_val(judge: &Judge<'_, Det>) -> Result<(Vec<u64>, Vec<Predicted>)> {
    let (dataset, val, config) = (&judge.data.dataset, &judge.data.val, &judge.recipe.eval);
    let (_, net) = judge.nets.judged();
    let mut boxes = vec![0; dataset.card().classes.len()];
    let mut scores = Vec::new();
    for index in 0..val.len() {
        // A bad sample that is skipped was named when val was evaluated.
        let sample = match dataset.sample(val, index) {
            Err(DataError::Bad(_)) => continue,
            sample => sample?,
        };
        let objects = sample.labels.boxes.iter().filter(|label| label.kind == BoxKind::Object);
        objects.for_each(|label| boxes[usize::from(label.class)] += 1);
        let judged = Judged { image: sample.image, truth: sample.labels };
        let of_image = evaluate(net, std::iter::once(Ok::<_, DataError>(judged)), config, judge.device)?;
        scores.extend(of_image.map(|metrics| (index, metrics.main())));
    }
    let mut examples = Vec::new();
    for (index, score) in best_and_worst(scores) {
        let sample = dataset.sample(val, index)?;
        let found = |net| shown_boxes(found_in(net, sample.image.clone(), config, judge.device));
        examples.push(Predicted {
            teacher: judge.teachers.first().map(|(_, teacher)| found(teacher.net())),
            student: found(net),
            photo: pictures_of(&sample.image).swap_remove(0),
            name: sample.name,
            score,
            truth: sample.labels,
        });
    }
    Ok((boxes, examples))
}

/// An image of val with what was found in it.
struct Predicted {
    name: String,
    score: f64,
    photo: image::RgbImage,
    truth: BoxLabels,
    teacher: Option<Vec<Detection>>,
    student: Vec<Detection>,
}

impl Predicted {
    fn tiles(&self, palette: &Palette) -> Vec<(String, image::RgbImage)> {
        let found = |boxes: &Vec<Detection>| pictures::detected_boxes(&self.photo, boxes, &palette.colours);
        let mut tiles = vec![
            ("image", pictures::without_boxes(&self.photo)),
            ("truth", pictures::labelled_boxes(&self.photo, &self.truth, &palette.colours)),
        ];
        tiles.extend(self.teacher.as_ref().map(|boxes| ("teacher", found(boxes))));
        tiles.push(("student", found(&self.student)));
        tiles.into_iter().map(|(title, picture)| (title.to_owned(), picture)).collect()
    }
}

fn gallery(examples: &[Predicted], palette: &Palette) -> Gallery {
    let example = |one: &Predicted| Example {
        name: one.name.clone(),
        scores: vec![(DetMetrics::NAMES.main[1].to_owned(), Some(one.score))],
        tiles: one
            .tiles(palette)
            .into_iter()
            .map(|(title, picture)| (title, pictures::shrink(&picture, TILE_WIDTH)))
            .collect(),
    };
    let classes: Vec<u8> = (0..=u8::MAX).take(palette.names.len()).collect();
    Gallery {
        id: "examples",
        short: "Images",
        heading: "Where it does best and worst".to_owned(),
        lead: "Validation images with their boxes: a dashed line is an object that need not be found, a striped box a crowd. \
               Of what a net found, boxes with a score of 30 % and more are drawn, with the score where there is room."
            .to_owned(),
        legend: pictures::box_legend(&palette.names, &palette.colours, &classes, false),
        groups: halves(examples.iter().map(example).collect()),
    }
}
