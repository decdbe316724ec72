//! `mentor report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::activation::softmax;
use clap::Args;
use mentor_data::DataError;
use mentor_distill::TermTable;
use mentor_ops::resize_bilinear;
use mentor_recipe::{BuiltData, BuiltNets, Loaded, Recipe, RowResult, Which, mean, spread};
use mentor_report::{BadSample, Comparison, Example, Model, PseudoExample, ReportInput, html, pictures};
use mentor_seg::metrics::ConfusionMatrix;
use mentor_seg::nets::SegNet;
use mentor_seg::{SegMethod, predict_mask};
use mentor_train::Log;
use mentor_types::{LabelMask, UNKNOWN};
use mentor_weights::write_atomically;
use serde_json::Value;

use super::data::pictures_of;
use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::run_folder::RunFolder;
use crate::weights::net_of_run;

/// Write a run's report and pictures again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor report runs/quickstart")]
pub struct Report {
    /// The run folder.
    run: PathBuf,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Report {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let mut loaded = Recipe::read_earlier(&self.run.join("recipe.toml"))?;
        // Paths in the recipe are still those of where it was read from.
        loaded.path = RunFolder::info(&self.run)?.recipe;
        let (device, _) = device::choose(self.device.device)?;
        let data = BuiltData::open(&loaded.value, &self.places.places())?;
        let classes = data.dataset.card().classes.len();
        RunFolder::info(&self.run)?.run_classes().check_card(&self.run, &data.dataset)?;
        let nets = BuiltNets::new(&loaded, &data.dataset.card().class_names(), &device)?;
        let mut models = Vec::new();
        if loaded.value.ema.is_some() {
            models.push(("ema".to_owned(), net_of_run(&self.run, &loaded.value, classes, Which::Ema, false, &device)?));
        }
        models.push((
            "student".to_owned(),
            net_of_run(&self.run, &loaded.value, classes, Which::Student, false, &device)?,
        ));
        let job = Job {
            run: &self.run,
            loaded: &loaded,
            data: &data,
            method: &nets.method,
            models: &models,
            device: &device,
        };
        say!("{}", write_report(&job)?.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// What a report is made from.
#[derive(Debug)]
pub struct Job<'a> {
    /// The run folder.
    pub run: &'a Path,
    /// Its recipe.
    pub loaded: &'a Loaded<Recipe>,
    /// Its data.
    pub data: &'a BuiltData,
    /// Its method, for the teachers.
    pub method: &'a SegMethod,
    /// What it trained, the one that counts first.
    pub models: &'a [(String, SegNet)],
    /// Where predictions are computed.
    pub device: &'a Device,
}

/// Best and worst images in a report, of each.
const EXAMPLES: usize = 3;
/// Unlabelled images in a report.
const PSEUDO: usize = 6;

/// Writes `report.html` and `pictures/` into the run folder; returns the path of the report.
pub fn write_report(job: &Job<'_>) -> Result<PathBuf> {
    let path = job.run.join("result.json");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{}: the run is not finished", path.display()))?;
    let result: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let info = RunFolder::info(job.run)?;
    let card = job.data.dataset.card();
    let (confusion, examples) = judge(job)?;
    draw_examples(job, &examples)?;
    let input = ReportInput {
        title: job.run.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        recipe: job.loaded.resolved.clone(),
        info: vec![
            ("commit".to_owned(), info.commit.clone()),
            ("device".to_owned(), info.device.clone()),
            ("command".to_owned(), info.command.join(" ")),
            ("data".to_owned(), format!("{} ({})", card.title, info.data)),
        ]
        .into_iter()
        .chain(info.weights.iter().map(|(name, hash)| (format!("initial weights of {name}"), hash.clone())))
        .collect(),
        log: Log::read(&job.run.join("log.jsonl"))?,
        classes: card.classes.iter().map(|class| (class.name.clone(), class.color)).collect(),
        confusion: rows(&confusion),
        models: judged_models(&result),
        examples,
        pseudo: pseudo_examples(job)?,
        bad_samples: result["bad_samples"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|bad| BadSample {
                path: bad["path"].as_str().unwrap_or_default().to_owned(),
                reason: bad["reason"].as_str().unwrap_or_default().to_owned(),
            })
            .collect(),
        comparisons: comparisons(job.loaded, &result)?,
        result,
    };
    let path = job.run.join("report.html");
    write_atomically(&path, html(&input).as_bytes())?;
    Ok(path)
}

/// Predicts val once more, image by image; keeps the best and the worst images.
fn judge(job: &Job<'_>) -> Result<(ConfusionMatrix, Vec<Example>)> {
    let (dataset, val) = (&job.data.dataset, &job.data.val);
    let classes = dataset.card().classes.len();
    let (_, net) = job.models.first().context("a run trains a model")?;
    let config = &job.loaded.value.eval;
    let mut sum = ConfusionMatrix::new(classes);
    let mut scores = Vec::new();
    for index in 0..val.len() {
        // A bad sample that is skipped was named when val was evaluated.
        let sample = match dataset.sample(val, index) {
            Err(DataError::Bad(_)) => continue,
            sample => sample?,
        };
        let student = predict_mask(net, sample.image, config, job.device);
        let counts = ConfusionMatrix::from_masks(&student, &sample.mask, classes, sample.classes_labelled.as_deref())?;
        sum.add(&counts);
        scores.extend(counts.metrics().map(|metrics| (index, metrics.miou)));
    }
    let mut examples = Vec::new();
    for (index, miou) in best_and_worst(scores) {
        let sample = dataset.sample(val, index)?;
        let teacher = job.method.teachers.first();
        examples.push(Example {
            name: sample.name,
            miou,
            image: pictures_of(&sample.image).swap_remove(0),
            truth: sample.mask,
            teacher: teacher.map(|(_, net)| predict_mask(net.net(), sample.image.clone(), config, job.device)),
            student: predict_mask(net, sample.image, config, job.device),
        });
    }
    Ok((sum, examples))
}

/// The best and the worst images, the best first; each once.
fn best_and_worst(mut scores: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    if scores.len() > 2 * EXAMPLES {
        scores.drain(EXAMPLES..scores.len() - EXAMPLES);
    }
    scores
}

fn draw_examples(job: &Job<'_>, examples: &[Example]) -> Result<()> {
    let folder = job.run.join("pictures");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let card = job.data.dataset.card();
    let (names, colours) = (card.class_names(), card.class_colours());
    for (rank, example) in examples.iter().enumerate() {
        let draw = |mask: &LabelMask| pictures::overlay(&example.image, mask, &colours, 0.5);
        let (truth, student) = (draw(&example.truth), draw(&example.student));
        let teacher = example.teacher.as_ref().map(draw);
        let mut titled = vec![("image", &example.image), ("truth", &truth)];
        titled.extend(teacher.as_ref().map(|teacher| ("teacher", teacher)));
        titled.push(("student", &student));
        let shown = pictures::shown_labels(&[&example.truth, &example.student]);
        let picture = pictures::with_legend(&pictures::panel(&titled), &names, &colours, &shown);
        let name: String = example.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let path = folder.join(format!("{:02}_{name}.png", rank + 1));
        picture.save(&path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn rows(confusion: &ConfusionMatrix) -> Vec<Vec<u64>> {
    let classes = confusion.classes;
    (0..classes).map(|truth| (0..=classes).map(|prediction| confusion.count(truth, prediction)).collect()).collect()
}

fn judged_models(result: &Value) -> Vec<Model> {
    let first = result["val_model"].as_str().unwrap_or("student");
    let mut models = vec![Model { name: first.to_owned(), metrics: result["val"].clone() }];
    let others = |key: &str| result[key].as_object().cloned().unwrap_or_default();
    let rest = others("models").into_iter().filter(|(name, _)| name != first).chain(others("teachers"));
    models.extend(rest.map(|(name, metrics)| Model { name, metrics }));
    models
}

/// The results that the recipe names under `[compare]`.
pub fn compared_results(loaded: &Loaded<Recipe>) -> Result<Vec<Comparison>> {
    let mut compared = Vec::new();
    for (name, path) in &loaded.value.compare {
        let problem = |message: String| loaded.problem(&format!("compare.{name}"), message);
        let folder = loaded.path.parent().unwrap_or_else(|| Path::new(""));
        let places = [folder.join(path), PathBuf::from(path)];
        let paths = places.iter().map(|place| results_at(place)).find(|paths| !paths.is_empty()).unwrap_or_default();
        if paths.is_empty() {
            return Err(problem(format!("there is neither a result {path} nor {path}.seed0.json")).into());
        }
        let rows = paths.iter().map(|path| RowResult::load(path)).collect::<Result<Vec<_>, _>>();
        compared.push(comparison(name, &rows.map_err(|error| problem(error.to_string()))?));
    }
    Ok(compared)
}

/// A file of one result, or those of all seeds of a row of a study: `ROW.seed0.json` and so on.
fn results_at(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let of_seed = |seed: u64| path.with_file_name(format!("{name}.seed{seed}.json"));
    (0..).map(of_seed).take_while(|file| file.exists()).collect()
}

/// One row, or the mean over several seeds with its sample standard deviation.
fn comparison(name: &str, rows: &[RowResult]) -> Comparison {
    let values: Vec<f64> = rows.iter().map(|row| row.metrics.get("miou").copied().unwrap_or_default()).collect();
    let seeds = match (rows, spread(&values)) {
        ([one], _) => format!("seed {}", one.seed),
        (_, spread) => format!("mean of {} seeds, +- {:.2}", rows.len(), 100.0 * spread.unwrap_or_default()),
    };
    let about = rows.first().map(|row| format!(", {} steps, {} at {}", row.steps, row.device, row.commit));
    Comparison { name: name.to_owned(), miou: mean(&values), note: seeds + &about.unwrap_or_default(), this_run: false }
}

/// What a report and the table at the end show beside the run.
pub fn comparisons(loaded: &Loaded<Recipe>, result: &Value) -> Result<Vec<Comparison>> {
    let mut compared = Vec::new();
    for (name, metrics) in result["teachers"].as_object().into_iter().flatten() {
        compared.push(Comparison {
            name: format!("teacher {name}"),
            miou: metrics["miou"].as_f64().unwrap_or_default(),
            note: "verified before the first step".to_owned(),
            this_run: false,
        });
    }
    compared.extend(compared_results(loaded)?);
    compared.push(Comparison {
        name: "this run".to_owned(),
        miou: result["val"]["miou"].as_f64().unwrap_or_default(),
        note: format!(
            "{} after {} steps, {:.1} images/s",
            result["val_model"].as_str().unwrap_or_default(),
            result["steps"],
            result["images_per_second"].as_f64().unwrap_or_default()
        ),
        this_run: true,
    });
    Ok(compared)
}

/// Pseudo-labels of the first unlabelled images of the last step.
fn pseudo_examples(job: &Job<'_>) -> Result<Vec<PseudoExample>> {
    let recipe = &job.loaded.value;
    let threshold = match &recipe.unlabelled {
        unlabelled if unlabelled.terms().is_empty() => return Ok(Vec::new()),
        unlabelled => unlabelled.fixmatch.as_ref().map_or(0.0, |fixmatch| fixmatch.threshold as f32),
    };
    let (_, net) = job.models.first().context("a run trains a model")?;
    let net = net.valid();
    let mut examples = Vec::new();
    let mut step = recipe.train.steps.saturating_sub(1);
    while examples.len() < PSEUDO {
        let Some(pairs) = job.data.maker.make(step, 0)?.unlabelled else { break };
        let output = net.forward(mentor_seg::upload::images(pairs.weak.clone(), job.device), None);
        let probabilities = softmax(resize_bilinear(output.logits, output.image_size, false), 1);
        let (confidence, classes) = probabilities.max_dim_with_indices(1);
        let confidence = confidence.into_data().try_into_vec::<f32>().expect("f32 probabilities");
        let classes = classes.into_data().convert::<u8>().try_into_vec::<u8>().expect("converted to u8 above");
        let pixels = pairs.weak.height * pairs.weak.width;
        let views = pictures_of(&pairs.weak).into_iter().zip(pictures_of(&pairs.strong)).enumerate();
        for (index, (weak, strong)) in views {
            let at = index * pixels..(index + 1) * pixels;
            let labels = at.clone().map(|pixel| match pairs.targets[pixel] {
                UNKNOWN if confidence[pixel] >= threshold => classes[pixel],
                known => known,
            });
            let mask = |labels: Vec<u8>| LabelMask::new(pairs.weak.width, pairs.weak.height, labels);
            let (accepted, precision) =
                acceptance(&pairs.targets[at.clone()], &pairs.truth[at.clone()], labels.clone());
            examples.push(PseudoExample {
                name: format!("step {step}, image {index}"),
                weak,
                strong,
                labels: mask(labels.collect()),
                truth: Some(mask(pairs.truth[at].to_vec())),
                accepted,
                precision,
            });
        }
        step = step.saturating_sub(1);
        if step == 0 {
            break;
        }
    }
    examples.truncate(PSEUDO);
    Ok(examples)
}

/// The share of free pixels that took a pseudo-label, and the share of those that are right.
fn acceptance(targets: &[u8], truth: &[u8], labels: impl Iterator<Item = u8>) -> (f64, Option<f64>) {
    let (mut free, mut accepted, mut known, mut right) = (0u32, 0u32, 0u32, 0u32);
    for ((target, truth), label) in targets.iter().zip(truth).zip(labels) {
        let taken = *target == UNKNOWN && label != UNKNOWN;
        free += u32::from(*target == UNKNOWN);
        accepted += u32::from(taken);
        known += u32::from(taken && *truth < UNKNOWN);
        right += u32::from(taken && *truth == label);
    }
    let share = |part: u32, whole: u32| (whole > 0).then(|| f64::from(part) / f64::from(whole));
    (share(accepted, free).unwrap_or_default(), share(right, known))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn row(seed: u64, miou: f64) -> String {
        json!({
            "row": "alone", "seed": seed, "key": "k", "metrics": { "miou": miou }, "steps": 7, "device": "cpu", "commit": "c",
            "seconds": 1.0,
        })
        .to_string()
    }

    #[test]
    fn a_row_without_seed_is_the_mean_over_its_seeds() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (seed, miou) in [(0, 0.3), (1, 0.4), (2, 0.5)] {
            std::fs::write(at(&format!("alone.seed{seed}.json")), row(seed, miou)).unwrap();
        }
        let load = |name: &str| -> Vec<RowResult> {
            results_at(&at(name)).iter().map(|path| RowResult::load(path).unwrap()).collect()
        };
        let all = comparison("alone", &load("alone"));
        assert!((all.miou - 0.4).abs() < 1e-12);
        assert_eq!(all.note, "mean of 3 seeds, +- 10.00, 7 steps, cpu at c");
        assert_eq!(comparison("alone", &load("alone.seed1.json")).note, "seed 1, 7 steps, cpu at c");
        assert!(load("other").is_empty());
    }
}
