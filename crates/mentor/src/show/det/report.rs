//! What detection brings to the report of a run.

use anyhow::Result;
use mentor_data::DataError;
use mentor_det::metrics::{CocoScores, DetMetrics, FoundBox, ImageTruth, Mistakes, RECALLS};
use mentor_det::unlabelled::{Taught, truth_of};
use mentor_det::{Det, Judged, Weighed, found_in, weighed};
use mentor_distill::TermTable;
use mentor_report::{
    Class, Example, Gallery, LineChart, PlotLine, Plots, Section, TILE_WIDTH, Tally, TallyRow, pictures,
};
use mentor_types::{BoxKind, BoxLabels, Detection, Scores};

use super::{explained, shown_boxes, taught_by, title};
use crate::show::{Judge, Palette, Shown, best_and_worst, halves, pictures_of};

/// Val, predicted once more image by image.
pub fn shown(judge: &Judge<'_, Det>) -> Result<Shown> {
    let palette = Palette::of(judge.data.dataset.card());
    let Val { boxes, scores, mistakes, examples } = judged_val(judge)?;
    let all = boxes.iter().sum::<u64>();
    let share = |class: usize| (all > 0).then(|| boxes[class] as f64 / all as f64);
    let class = |(index, (name, colour)): (usize, (&String, &[u8; 3]))| Class {
        name: name.clone(),
        colour: *colour,
        share: share(index),
    };
    let classes = palette.names.iter().zip(&palette.colours).enumerate().map(class).collect();
    // A row of pictures for what was found, and one for each term.
    let picture = |name: String, example: &Predicted, tiles: Vec<(String, image::RgbImage)>| {
        let term = |tile: &(String, image::RgbImage)| tile.0.split_once('@').map(|(term, _)| term.to_owned());
        let row = |tiles: &[(String, image::RgbImage)]| {
            pictures::panel(&tiles.iter().map(|(title, picture)| (title.as_str(), picture)).collect::<Vec<_>>())
        };
        let rows: Vec<_> = tiles.chunk_by(|a, b| term(a) == term(b)).map(row).collect();
        let found: Vec<Detection> = example.teacher.iter().flatten().chain(&example.student).copied().collect();
        (name, explained(&palette, &pictures::grid(&rows, 1), &[&example.truth], &found))
    };
    let of_boxes = examples.iter().map(|example| picture(example.name.clone(), example, example.tiles(&palette)));
    let weighing = examples.iter().filter(|example| !example.weighed.is_empty());
    let of_weights =
        weighing.map(|example| picture(format!("{} weights", example.name), example, example.weighed_tiles(&palette)));
    let mut sections = vec![
        Section::Plots(curves(&scores, &palette.names)),
        Section::Tally(tally(&mistakes)),
        Section::Gallery(gallery(&examples, &palette)),
    ];
    sections.extend(weights_gallery(&examples, &palette).map(Section::Gallery));
    sections.push(Section::Gallery(pseudo_gallery(judge, &palette)?));
    Ok(Shown { classes, pictures: of_boxes.chain(of_weights).collect(), sections })
}

/// With more classes a chart shows their mean, and the best and worst of them.
const MOST_LINES: usize = 8;
/// How many of the best, and of the worst.
const FEW: usize = 3;

/// Precision over recall of each class.
fn curves(scores: &CocoScores, names: &[String]) -> Plots {
    let chart = |title: &str, threshold: usize| {
        let of_class = |(class, name): (usize, &String)| {
            let precisions = scores.curve(class, threshold)?;
            let points: Vec<(f64, f64)> =
                precisions.iter().enumerate().map(|(at, precision)| (at as f64 / 100.0, *precision)).collect();
            let area = precisions.iter().sum::<f64>() / precisions.len() as f64;
            Some((area, PlotLine { name: format!("{name} {:.1} %", 100.0 * area), points }))
        };
        let mut lines: Vec<_> = names.iter().enumerate().filter_map(of_class).collect();
        if lines.len() > MOST_LINES {
            let count = lines.len() as f64;
            let mean_at = |at: usize| lines.iter().map(|(_, line)| line.points[at].1).sum::<f64>() / count;
            let mean: Vec<(f64, f64)> = (0..RECALLS).map(|at| (at as f64 / 100.0, mean_at(at))).collect();
            let area = lines.iter().map(|(area, _)| area).sum::<f64>() / count;
            lines.sort_by(|a, b| b.0.total_cmp(&a.0));
            lines.drain(FEW..lines.len() - FEW);
            lines.insert(0, (area, PlotLine { name: format!("mean {:.1} %", 100.0 * area), points: mean }));
        }
        let lines = lines.into_iter().map(|(_, line)| line).collect();
        LineChart { title: title.to_owned(), note: "precision over recall".to_owned(), lines }
    };
    Plots {
        id: "precision",
        short: "Precision",
        heading: "Precision over recall".to_owned(),
        lead: "From left to right more and more of the objects of val are found, as less and less sure boxes are taken; the height \
               says which part of the boxes taken is right, and beside a name stands the area under its line, its average \
               precision at this overlap."
            .to_owned(),
        over: "recall",
        charts: vec![chart("An overlap of 0.5 is enough", 0), chart("An overlap of 0.75 is needed", 5)],
    }
}

/// Why boxes are wrong.
fn tally(mistakes: &Mistakes) -> Tally {
    let row = |name, meaning, count| TallyRow { name, meaning, count };
    Tally {
        id: "mistakes",
        short: "Mistakes",
        heading: "Why boxes are wrong".to_owned(),
        lead: "All boxes on val with a score of 30 % and more, at most 100 of an image, each counted once; and the objects that none \
               of them found."
            .to_owned(),
        rows: vec![
            row("right", "overlaps an object of its class by 0.5 and more", mistakes.right),
            row("localisation", "overlaps an object of its class, but by 0.1 to 0.5 only", mistakes.localisation),
            row("classification", "on an object of another class", mistakes.classification),
            row("both", "near an object of another class", mistakes.both),
            row("duplicate", "on an object that a surer box found already", mistakes.duplicate),
            row("background", "on nothing", mistakes.background),
            row("missed", "an object that no box is on or near", mistakes.missed),
        ],
    }
}

/// What is known of val.
struct Val {
    /// Objects by class.
    boxes: Vec<u64>,
    scores: CocoScores,
    mistakes: Mistakes,
    examples: Vec<Predicted>,
}

/// Val, predicted image by image.
fn judged_val(judge: &Judge<'_, Det>) -> Result<Val> {
    let (dataset, val, config) = (&judge.data.dataset, &judge.data.val, &judge.recipe.eval);
    let (_, net) = judge.nets.judged();
    let classes = dataset.card().classes.len();
    let mut boxes = vec![0; classes];
    let limit = config.detections.max(CocoScores::LIMIT);
    let (mut all, mut mistakes, mut scores) = (CocoScores::new(classes, limit), Mistakes::default(), Vec::new());
    for index in 0..val.len() {
        // A bad sample that is skipped was named when val was evaluated.
        let sample = match dataset.sample(val, index) {
            Err(DataError::Bad(_)) => continue,
            sample => sample?,
        };
        let objects = sample.labels.boxes.iter().filter(|label| label.kind == BoxKind::Object);
        objects.for_each(|label| boxes[usize::from(label.class)] += 1);
        let found = found_in(net, sample.image, config, judge.device);
        let truth = ImageTruth::from(&sample.labels);
        let as_scored = |found: &[Detection]| found.iter().map(FoundBox::from).collect::<Vec<_>>();
        let mut alone = CocoScores::new(classes, limit);
        alone.push(&truth, &as_scored(&found));
        scores.extend(alone.scores().ap.map(|ap| (index, ap)));
        all.push(&truth, &as_scored(&found));
        mistakes.push(&truth, &as_scored(&shown_boxes(found)));
    }
    let mut examples = Vec::new();
    for (index, score) in best_and_worst(scores) {
        let sample = dataset.sample(val, index)?;
        let found = |net| shown_boxes(found_in(net, sample.image.clone(), config, judge.device));
        let judged = Judged { image: sample.image.clone(), truth: sample.labels.clone() };
        let recipe = judge.recipe;
        let assign = recipe.supervised.assign.clone().unwrap_or_else(|| judge.nets.student.assign());
        let weighed_by = |(_, teacher): &(String, _)| {
            weighed(&recipe.distill, &assign, &judge.nets.student, teacher, &judged, judge.device)
        };
        examples.push(Predicted {
            weighed: judge.teachers.first().map_or_else(Vec::new, weighed_by),
            teacher: judge.teachers.first().map(|(_, teacher)| found(teacher.net())),
            student: found(net),
            photo: pictures_of(&sample.image).swap_remove(0),
            name: sample.name,
            score,
            truth: sample.labels,
        });
    }
    Ok(Val { boxes, scores: all, mistakes, examples })
}

/// An image of val with what was found in it.
struct Predicted {
    name: String,
    score: f64,
    photo: image::RgbImage,
    truth: BoxLabels,
    teacher: Option<Vec<Detection>>,
    student: Vec<Detection>,
    /// Where the terms that weigh places looked.
    weighed: Vec<Weighed>,
}

impl Predicted {
    /// Beside the boxes the weights of the places in each column.
    fn weighed_tiles(&self, palette: &Palette) -> Vec<(String, image::RgbImage)> {
        let heat = |one: &Weighed| {
            let most = one.weights.iter().fold(0.0f32, |most, weight| most.max(*weight));
            let most = match most {
                0.0 => "nowhere".to_owned(),
                0.01.. => format!("up to {most:.2}"),
                _ => format!("up to {most:.0e}"),
            };
            (format!("{}, {most}", one.column), pictures::heat(&self.photo, &one.weights, one.size, one.stride))
        };
        self.tiles(palette).into_iter().skip(1).chain(self.weighed.iter().map(heat)).collect()
    }

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

/// An image with its score and tiles as wide as a page takes them.
fn example_of(one: &Predicted, tiles: Vec<(String, image::RgbImage)>) -> Example {
    Example {
        name: one.name.clone(),
        scores: vec![(DetMetrics::NAMES.main[1].to_owned(), Some(one.score))],
        tiles: tiles.into_iter().map(|(title, picture)| (title, pictures::shrink(&picture, TILE_WIDTH))).collect(),
    }
}

/// Where the terms looked that weigh places; nothing where none does.
fn weights_gallery(examples: &[Predicted], palette: &Palette) -> Option<Gallery> {
    if examples.iter().all(|one| one.weighed.is_empty()) {
        return None;
    }
    let classes: Vec<u8> = (0..=u8::MAX).take(palette.names.len()).collect();
    Some(Gallery {
        id: "weights",
        short: "Weights",
        heading: "Where the imitation looked".to_owned(),
        lead: "How much each place of each level counts in the terms that pull the student's features towards the teacher's: the \
               brighter the more, compared with the largest weight, which stands in the title; dark where it is 0. The weights \
               are those of the student as it is now, on the same images of val as above."
            .to_owned(),
        legend: pictures::box_legend(&palette.names, &palette.colours, &classes, false),
        groups: halves(examples.iter().map(|one| example_of(one, one.weighed_tiles(palette))).collect()),
    })
}

fn gallery(examples: &[Predicted], palette: &Palette) -> Gallery {
    let example = |one: &Predicted| example_of(one, one.tiles(palette));
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

/// Unlabelled images in a report.
const PSEUDO: usize = 6;

/// What the terms of the last steps taught about their unlabelled images, by the nets of the run.
fn pseudo_gallery(judge: &Judge<'_, Det>, palette: &Palette) -> Result<Gallery> {
    let mut examples = Vec::new();
    let mut step = judge.recipe.train.steps;
    while examples.len() < PSEUDO && step > 0 && !judge.recipe.unlabelled.terms().is_empty() {
        step -= 1;
        let Some(pairs) = judge.data.maker.make(step, 0)?.unlabelled else { break };
        let taught = taught_by(&judge.labelling(), &pairs);
        let views = pictures_of(&pairs.weak).into_iter().zip(pictures_of(&pairs.strong));
        for ((index, views), truth) in views
            .enumerate()
            .zip(truth_of(&pairs, judge.recipe.views.visible_share(), judge.device))
            .take(PSEUDO - examples.len())
        {
            let drawn = |labels: &BoxLabels| pictures::labelled_boxes(&views.1, labels, &palette.colours);
            let mut tiles = vec![("weak view".to_owned(), pictures::without_boxes(&views.0))];
            if !truth.boxes.is_empty() {
                tiles.push(("truth".to_owned(), drawn(&truth)));
            }
            tiles.extend(taught.iter().map(|term| (title(&taught, term), drawn(&term.views[index]))));
            let tiles = tiles.into_iter().map(|(title, tile)| (title, pictures::shrink(&tile, TILE_WIDTH))).collect();
            let count =
                |term: &Taught| term.views[index].boxes.iter().filter(|one| one.kind == BoxKind::Object).count();
            let found: Vec<String> = taught.iter().map(|term| count(term).to_string()).collect();
            let name = format!("step {}, image {index}: {} boxes taught", step + 1, found.join(" and "));
            examples.push(Example { name, scores: Vec::new(), tiles });
        }
    }
    let classes: Vec<u8> = (0..=u8::MAX).take(palette.names.len()).collect();
    Ok(Gallery {
        id: "pseudo",
        short: "Pseudo-labels",
        heading: "What unlabelled images were taught".to_owned(),
        lead: "Boxes that were found in the weak view, or before the run, teach the student on the strong one, where they are drawn; inside of dashed \
               ones nothing is learnt."
            .to_owned(),
        legend: pictures::box_legend(&palette.names, &palette.colours, &classes, false),
        groups: vec![(String::new(), examples)],
    })
}
