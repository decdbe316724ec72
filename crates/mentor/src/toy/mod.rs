//! A task of a handful of lines, on the same spine as the real ones: its recipe is read, it trains, it resumes bit for
//! bit, and it has a report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use image::RgbImage;
use mentor_data::{Dataset, PixelCounts, Sample};
use mentor_distill::{Column, Nothing, Sees, TermTable, check_terms, evaluate, terms};
use mentor_nets::{Fresh, Frozen, Grouped, Student, conv, images, score_conv};
use mentor_recipe::{Changes, NetTable, Parts, Places, Recipe, SupervisedTable, Table, Task};
use mentor_report::{Example, Gallery, Section};
use mentor_train::{Average, Log, LogLine, Losses, Method, Moment, take_up};
use mentor_types::{
    Batch, ClassScore, Found, Group, Images, LabelMask, LossTerms, ScoreNames, ScoreRecord, ScoreRow, Scores, Stats,
    Tap, TaskName,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::commands::job::Job;
use crate::commands::train::run_job;
use crate::run_folder::Mode;
use crate::show::{AskedTerm, Drawn, Judge, Labelling, Palette, Photo, Show, Shown};

/// One score for every class and pixel, by one convolution.
#[derive(Clone, Debug, PartialEq)]
struct Toy;

#[derive(Module, Debug)]
struct Point {
    score: Conv2d,
}

/// What its terms see.
struct Seen<'a> {
    student: &'a Tensor<4>,
    teacher: Option<&'a Tensor<4>>,
}

impl Sees for Toy {
    type Context<'a> = Seen<'a>;
    type Companion = Nothing;
    type Pseudo = ();
}

mod supervised {
    use super::Toy;
    mentor_distill::terms! {
        /// `[supervised]`: no loss of its own.
        #[derive(Default)]
        Supervised of Toy {
            ;
        }
    }
}

mod unlabelled {
    use super::Toy;
    mentor_distill::terms! {
        /// `[unlabelled]`: nothing.
        #[derive(Default)]
        Unlabelled of Toy {
            ;
        }
    }
}

terms! {
    /// `[distill]`.
    #[derive(Default)]
    Distill of Toy {
        ;
        level::Level,
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Net {
    Point(PointTable),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PointTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Eval {}

macro_rules! without_ranges {
    ($($Table:ty),*) => { $(impl Table for $Table { fn check(&self, _found: &mut Found) {} })* };
}

without_ranges!(Net, Eval, supervised::Supervised, unlabelled::Unlabelled);

impl Table for Distill {
    fn check(&self, found: &mut Found) {
        check_terms(self, found);
    }
}

impl Grouped for Point {}

impl NetTable for Net {
    type Net = Point;

    fn name(&self) -> &'static str {
        "point"
    }

    fn weights(&self) -> Option<&str> {
        let Self::Point(table) = self;
        table.weights.as_deref()
    }

    fn new_classes(&self) -> bool {
        false
    }

    fn init(&self, classes: usize, seed: u64, device: &Device) -> Point {
        Fresh::seeded(device, seed, |fresh| Point { score: score_conv(3, classes, fresh) })
    }
}

impl SupervisedTable<Toy> for supervised::Supervised {
    fn weight(&self) -> f64 {
        0.0
    }
}

/// How near all scores are to zero.
struct Nearness(f64);

impl Scores for Nearness {
    const NAMES: ScoreNames = ScoreNames {
        main: ["nearness", "nearness"],
        rows: &[ScoreRow { key: "nearness", name: "nearness", meaning: "how near all scores are to zero" }],
        by_class: ClassScore { key: "per_class", column: "nearness", name: "nearness" },
        counted: "pixels",
        reading: "Nearer is better.",
    };

    fn main(&self) -> f64 {
        self.0
    }

    fn record(&self, _classes: &[String]) -> ScoreRecord {
        ScoreRecord::from_iter([("nearness", json!(self.0))])
    }
}

fn size_of_scores(net: &Point, image: Images, device: &Device) -> f64 {
    let scores = conv(&net.score, images::normalised(image, device));
    f64::from(scores.abs().mean().into_scalar::<f32>())
}

impl Task for Toy {
    // A recipe can name no other; only `AnyRecipe` looks at it.
    const NAME: TaskName = TaskName::Seg;

    type Labels = LabelMask;
    type Net = Point;
    type NetConfig = Net;
    type Supervised = supervised::Supervised;
    type Distill = Distill;
    type Unlabelled = unlabelled::Unlabelled;
    type Eval = Eval;
    type Scores = Nearness;
    type DeviceBatch = Batch<LabelMask>;
    type Method = ToyMethod;

    fn macs(net: &Point, [height, width]: [usize; 2]) -> u64 {
        (net.score.weight.lazy_shape().num_elements() * height * width) as u64
    }

    fn tap_channels(net: &Point, tap: Tap) -> Option<usize> {
        (tap == Tap::Logits).then(|| net.score.weight.lazy_shape()[0])
    }

    fn method(parts: Parts<Self>, _: &Point) -> ToyMethod {
        ToyMethod { distill: parts.distill, teachers: parts.teachers, average: parts.average }
    }

    fn teachers(method: &ToyMethod) -> &[(String, Frozen<Point>)] {
        &method.teachers
    }

    fn average(method: &ToyMethod) -> Option<&Average<Point>> {
        method.average.as_ref()
    }

    fn upload(batch: Batch<LabelMask>, _device: &Device) -> Batch<LabelMask> {
        batch
    }

    fn evaluate<E>(
        net: &Point,
        samples: impl Iterator<Item = Result<Sample<LabelMask>, E>>,
        _config: &Eval,
        device: &Device,
    ) -> Result<Option<Nearness>, E> {
        let sizes = samples.map(|sample| Ok(size_of_scores(net, sample?.image, device)));
        let largest = sizes.collect::<Result<Vec<_>, E>>()?.into_iter().reduce(f64::max);
        Ok(largest.map(|largest| Nearness(1.0 / (1.0 + largest))))
    }
}

impl Show for Toy {
    fn batch(_: &Palette, _: &Batch<LabelMask>, _: Option<Labelling<'_, Self>>) -> Drawn {
        Drawn::default()
    }

    fn prediction(_: &Palette, net: &Point, image: Images, _: &Eval, device: &Device) -> RgbImage {
        let level = (255.0 * size_of_scores(net, image, device)).min(255.0) as u8;
        RgbImage::from_pixel(8, 8, image::Rgb([level; 3]))
    }

    fn label_names(_: &[PathBuf]) -> Vec<PathBuf> {
        Vec::new()
    }

    fn save_labels(_: &Dataset<LabelMask>, _: &Point, _: &[Photo], _: &Eval, _: &Device, _: &[PathBuf]) -> Result<()> {
        anyhow::bail!("it has no labels")
    }

    fn score_files(truth: &Path, _: &Path, _: &Dataset<LabelMask>) -> Result<Nearness> {
        anyhow::bail!("{}: it has no files of predictions", truth.display())
    }

    fn label_shares(_: &PixelCounts, _: &[String]) -> Vec<String> {
        Vec::new()
    }

    fn report(judge: &Judge<'_, Self>) -> Result<Shown> {
        let palette = Palette::of(judge.data.dataset.card());
        let sample = judge.data.dataset.sample(&judge.data.val, 0)?;
        let picture = Self::prediction(&palette, judge.nets.judged().1, sample.image, &judge.recipe.eval, judge.device);
        let example = Example { name: sample.name, scores: Vec::new(), tiles: vec![("level".to_owned(), picture)] };
        let gallery = Gallery {
            id: "levels",
            short: "Levels",
            heading: "How far from zero".to_owned(),
            groups: vec![(String::new(), vec![example])],
            ..Gallery::default()
        };
        Ok(Shown { sections: vec![Section::Gallery(gallery)], ..Shown::default() })
    }

    fn term(asked: &AskedTerm<'_, Self>) -> Result<Vec<(Column, f32)>> {
        anyhow::bail!("{}: it reads no files", asked.name)
    }
}

#[derive(Debug)]
struct ToyMethod {
    distill: Distill,
    teachers: Vec<(String, Frozen<Point>)>,
    average: Option<Average<Point>>,
}

impl Method for ToyMethod {
    type Model = Student<Point>;
    type Batch = Batch<LabelMask>;
    type Carry = ();

    fn losses(&self, model: &Student<Point>, batch: Batch<LabelMask>, moment: Moment) -> Losses<()> {
        let images = images::normalised(batch.labelled.images, &Device::flex());
        let student = conv(&model.net.score, images.clone());
        let mut terms = LossTerms::default();
        for (_, teacher) in &self.teachers {
            let teacher = conv(&teacher.net().score, images.clone());
            let seen = Seen { student: &student, teacher: Some(&teacher) };
            evaluate(&self.distill.terms(), &seen, moment.step, |column, weight, value| {
                terms.push(column.name.clone(), weight, value);
            });
        }
        Losses { terms, stats: Stats::default(), carry: () }
    }

    fn after_step(&mut self, model: &Student<Point>, _: Vec<()>, moment: Moment) -> Vec<(String, Tensor<1>)> {
        if let Some(average) = &mut self.average {
            average.update(&model.net, moment.step + 1);
        }
        Vec::new()
    }

    fn group(&self, path: &str, rank: usize) -> Group {
        Student::<Point>::group(path, rank)
    }

    fn save(&self) -> Vec<(String, Vec<u8>)> {
        self.average.iter().map(Average::save).collect()
    }

    fn load(&mut self, files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        take_up(files, |take| self.average.iter_mut().try_for_each(|average| average.load(take)))
    }
}

const RECIPE: &str = r#"
task = "seg"

[data]
card = "CARD"
labelled = "all"
val = "all"

[views]
crop_px = [8, 8]

[student.point]

[teachers.other.point]
weights = "other.safetensors"

[distill.level]
weight = 2.0

[ema]

[optimizer.sgd]
lr = 0.1

[train]
steps = 6
batch_labelled = 2
log_every_steps = 1
checkpoint_every_steps = 3
eval_every_steps = 3
"#;

/// A folder with two images, their masks, a card, a teacher and a recipe.
fn prepare(folder: &Path) -> PathBuf {
    for (name, level) in [("a", 40), ("b", 200)] {
        image::RgbImage::from_pixel(8, 8, image::Rgb([level, 9, 120]))
            .save(folder.join(format!("{name}.png")))
            .unwrap();
        image::GrayImage::new(8, 8).save(folder.join(format!("{name}_mask.png"))).unwrap();
    }
    std::fs::write(folder.join("all.txt"), "a.png a_mask.png\nb.png b_mask.png\n").unwrap();
    let card = "name = \"toy\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"t\"\n\
                splits = { all = { list = \"all.txt\" } }\nmasks = { format = \"index\" }\n\
                classes = [{ name = \"one\", color = [1, 0, 0] }, { name = \"two\", color = [0, 1, 0] }]\n";
    std::fs::write(folder.join("dataset.toml"), card).unwrap();
    let teacher = Net::Point(PointTable { weights: None }).init(2, 7, &Device::flex());
    mentor_nets::export_safetensors(&teacher, &folder.join("other.safetensors"), &BTreeMap::new(), false).unwrap();
    let path = folder.join("toy.toml");
    let card = folder.join("dataset.toml").display().to_string();
    std::fs::write(&path, RECIPE.replace("CARD", &card)).unwrap();
    path
}

/// Trains as `mentor train` does; says whether it came to the end.
fn run(recipe: &Path, out: &Path, mode: Mode, stop: bool) -> bool {
    let loaded = Recipe::<Toy>::read(recipe, &Changes::none()).unwrap();
    let job = Job {
        loaded: &loaded,
        device: (Device::flex(), "cpu".to_owned()),
        places: &Places::default(),
        out,
        mode,
        stop: &AtomicBool::new(stop),
        report: true,
    };
    run_job(&job).unwrap().result.is_some()
}

/// The log without its times, and the files of the last checkpoint.
fn left(out: &Path) -> (Vec<String>, Vec<Vec<u8>>) {
    let lines = Log::read(&out.join("log.jsonl")).unwrap().into_iter().map(|line| match line {
        LogLine::Step { step, lr, total, terms, .. } => format!("{step} {lr} {total} {terms:?}"),
        LogLine::Eval { step, model, score, .. } => format!("{step} {model} {score}"),
    });
    let checkpoint = out.join("checkpoints/step-00000006");
    let files = ["model", "optimizer", "ema"].map(|name| format!("{name}.safetensors"));
    (lines.collect(), files.iter().map(|name| std::fs::read(checkpoint.join(name)).unwrap()).collect())
}

#[test]
fn a_toy_task_trains_resumes_and_has_a_report_on_the_spine_of_the_real_ones() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let [whole, resumed] = ["whole", "resumed"].map(|name| folder.path().join(name));
    assert!(run(&recipe, &whole, Mode::New, false));
    assert!(!run(&recipe, &resumed, Mode::New, true));
    assert!(!resumed.join("report.html").exists());
    assert!(run(&recipe, &resumed, Mode::Resume, false));
    assert_eq!(left(&resumed), left(&whole));
    let (lines, _) = left(&whole);
    let total = |line: &str| line.split(' ').nth(2).unwrap().parse::<f64>().unwrap();
    let steps: Vec<&String> = lines.iter().filter(|line| !line.contains("student") && !line.contains("ema")).collect();
    assert!(steps.len() == 6 && total(steps[5]) < total(steps[0]) / 2.0, "{lines:#?}");
    let page = std::fs::read_to_string(whole.join("report.html")).unwrap();
    for part in ["How far from zero", "nearness", "teacher other", "a.png"] {
        assert!(page.contains(part), "{part}");
    }
    for foreign in ["mIoU", "mask"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_toy_recipe_has_its_own_keys_and_terms_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let mistakes = |set: &str| {
        let changes = Changes::set([set.to_owned()]);
        Recipe::<Toy>::read(&recipe, &changes).unwrap_err().to_string()
    };
    let term = mistakes("distill.pixel_wise.weight=1");
    assert!(term.contains("pixel_wise") && term.contains("level") && !term.contains("pair_wise"), "{term}");
    assert!(mistakes("distill.level.weight=-1").contains("at least 0"));
    assert_eq!(Distill::all().terms().len(), 1);
}
