//! A task of a handful of lines, on the same spine as the real ones: its recipe is read, its nets are built, it trains, and
//! it resumes bit for bit.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use mentor_data::Card;
use mentor_distill::{Companion, Sees, TermTable, check_terms, evaluate, terms};
use mentor_nets::{Fresh, Frozen, Student, conv, score_conv};
use mentor_recipe::{Changes, NetTable, Parts, Places, Prepared, Recipe, SupervisedTable, Table, Task};
use mentor_seg::upload;
use mentor_train::{Average, Checkpoints, Evaluation, Log, LogLine, Losses, Method, Moment, Progress, Run, train};
use mentor_types::{Batch, Found, LabelMask, LossTerms, Stats, Tap, TaskName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One score for every class and pixel, by one convolution.
#[derive(Clone, Debug, PartialEq)]
struct Toy;

#[derive(Module, Debug)]
struct Point {
    score: Conv2d,
}

/// What its terms see.
struct Scores<'a> {
    student: &'a Tensor<4>,
    teacher: Option<&'a Tensor<4>>,
}

/// What its terms keep: nothing.
#[derive(Debug)]
enum Nothing {}

impl Sees for Toy {
    type Context<'a> = Scores<'a>;
    type Companion = Nothing;
    type Pseudo = ();
}

impl Companion<Toy> for Nothing {
    type Example = ();

    fn example(&self, _scores: &Scores<'_>) {
        match *self {}
    }

    fn update(&mut self, _examples: Vec<()>, _lr_factor: f64) -> Option<Tensor<1>> {
        match *self {}
    }

    fn save(&self) -> Vec<u8> {
        match *self {}
    }

    fn load(&mut self, _bytes: &[u8]) -> Result<(), String> {
        match *self {}
    }
}

mod supervised {
    use crate::Toy;
    mentor_distill::terms! {
        /// `[supervised]`: no loss of its own.
        #[derive(Default)]
        Supervised of Toy {
            ;
        }
    }
}

mod unlabelled {
    use crate::Toy;
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

    fn check_classes(&self, _classes: usize, _found: &mut Found) {}
}

impl Task for Toy {
    // A recipe can name no other yet; only `AnyRecipe` looks at it.
    const NAME: TaskName = TaskName::Seg;
    const LABELS: &'static str = "masks";

    type Net = Point;
    type NetConfig = Net;
    type Supervised = supervised::Supervised;
    type Distill = Distill;
    type Unlabelled = unlabelled::Unlabelled;
    type Eval = Eval;
    type Method = ToyMethod;

    fn is_offered_by(card: &Card) -> bool {
        card.masks.is_some()
    }

    fn tap_channels(net: &Point, tap: Tap) -> Option<usize> {
        (tap == Tap::Logits).then(|| net.score.weight.lazy_shape()[0])
    }

    fn method(parts: Parts<Self>) -> ToyMethod {
        ToyMethod { distill: parts.distill, teachers: parts.teachers, average: parts.average }
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
        let images = upload::images(batch.labelled.images, &Device::flex());
        let student = conv(&model.net.score, images.clone());
        let mut terms = LossTerms::default();
        for (_, teacher) in &self.teachers {
            let teacher = conv(&teacher.net().score, images.clone());
            let scores = Scores { student: &student, teacher: Some(&teacher) };
            evaluate(&self.distill.terms(), &scores, moment.step, |column, weight, value| {
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

    fn is_head(&self, path: &str) -> bool {
        Student::<Point>::is_head(path)
    }

    fn save(&self) -> Vec<(String, Vec<u8>)> {
        self.average.iter().map(Average::save).collect()
    }

    fn load(&mut self, files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        let mut files: BTreeMap<String, Vec<u8>> = files.into_iter().collect();
        let mut take = |name: &str| files.remove(name).ok_or_else(|| format!("{name} is missing"));
        self.average.iter_mut().try_for_each(|average| average.load(&mut take))
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

/// Trains up to a step, from the last checkpoint in `out` where there is one.
fn run(recipe: &Path, out: &Path, steps: u64) {
    let loaded = Recipe::<Toy>::read(recipe, &Changes::set([format!("train.steps={steps}")])).unwrap();
    let prepared = Prepared::open(&loaded, &Places::default(), None).unwrap();
    let device = Device::flex();
    let nets = prepared.nets(&device).unwrap();
    let folder = out.join("checkpoints");
    let resume = folder.is_dir().then(|| Checkpoints::open_existing(&folder).unwrap().last().unwrap().unwrap().0);
    let mut at = resume.as_ref().map_or(0, |checkpoint| checkpoint.state.step);
    let mut batches = || {
        at += 1;
        Ok(vec![prepared.data.maker.make(at - 1, 0).unwrap()])
    };
    let mut judge = |_: &ToyMethod, _: &Student<Point>, step: u64| {
        let score = step as f64;
        Ok(vec![Evaluation { model: "ema".into(), score, shown: String::new(), metrics: serde_json::json!({}) }])
    };
    let recipe = &loaded.value;
    let outcome = train(Run {
        method: nets.method,
        model: nets.model,
        optimizer: recipe.optimizer.clone(),
        schedule: recipe.schedule.clone(),
        train: recipe.train.clone(),
        seed: recipe.seed,
        device,
        folder: out,
        resume,
        stop: &AtomicBool::new(false),
        batches: &mut batches,
        evaluate: &mut judge,
        progress: &Progress::new(0, steps),
    });
    assert_eq!(outcome.unwrap().step, steps);
}

/// The log without its times, and the files of the last checkpoint.
fn left(out: &Path, steps: u64) -> (Vec<String>, Vec<Vec<u8>>) {
    let lines = Log::read(&out.join("log.jsonl")).unwrap().into_iter().map(|line| match line {
        LogLine::Step { step, lr, total, terms, .. } => format!("{step} {lr} {total} {terms:?}"),
        LogLine::Eval { step, model, score, .. } => format!("{step} {model} {score}"),
    });
    let checkpoint = out.join(format!("checkpoints/step-{steps:08}"));
    let files = ["model", "optimizer", "ema"].map(|name| format!("{name}.safetensors"));
    (lines.collect(), files.iter().map(|name| std::fs::read(checkpoint.join(name)).unwrap()).collect())
}

#[test]
fn a_toy_task_trains_and_resumes_on_the_spine_of_the_real_ones() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let [whole, resumed] = ["whole", "resumed"].map(|name| folder.path().join(name));
    run(&recipe, &whole, 6);
    // The schedule goes by the steps of the whole run, so the first half is one that is cut off.
    let half = folder.path().join("whole/checkpoints/step-00000003");
    let to = resumed.join("checkpoints/step-00000003");
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(half).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::copy(whole.join("log.jsonl"), resumed.join("log.jsonl")).unwrap();
    run(&recipe, &resumed, 6);
    assert_eq!(left(&resumed, 6), left(&whole, 6));
    let (lines, _) = left(&whole, 6);
    let total = |line: &str| line.split(' ').nth(2).unwrap().parse::<f64>().unwrap();
    assert!(lines.len() == 8 && total(&lines[6]) < total(&lines[0]) / 2.0, "{lines:#?}");
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
