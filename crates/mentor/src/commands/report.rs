//! `mentor report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Args;
use mentor_recipe::{AnyRecipe, BuiltData, Loaded, Prepared, Recipe, RowResult, Task, mean, spread};
use mentor_report::{Comparison, Model, ReportInput, html};
use mentor_train::{Log, RunInfo, RunResult};
use mentor_types::{ScoreNames, Scores};
use mentor_weights::write_atomically;

use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::show::{Judge, Show, Shown, save};
use crate::tasks::{OnRecipe, on_recipe};
use crate::weights::RunNets;

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
        on_recipe(self, AnyRecipe::read_earlier(&self.run.join("recipe.toml"))?)
    }
}

impl OnRecipe for Report {
    type Out = ExitCode;

    fn on<T: Show>(&self, mut loaded: Loaded<Recipe<T>>) -> Result<ExitCode> {
        // Paths in the recipe are still those of where it was read from.
        loaded.path = RunInfo::read(&self.run)?.recipe;
        let result = RunResult::read(&self.run)?;
        let (device, _) = device::choose(self.device.device)?;
        let prepared = Prepared::open(&loaded, &self.places.places(), Some(&self.run))?;
        let built = prepared.nets(&device)?;
        let nets = RunNets::load(&self.run, &loaded.value, prepared.classes.len(), &device)?;
        let job = Job {
            run: &self.run,
            loaded: &loaded,
            data: &prepared.data,
            method: &built.method,
            nets: &nets,
            device: &device,
            result: &result,
        };
        say!("{}", write_report(&job)?.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// What a report is made from.
#[derive(Debug)]
pub struct Job<'a, T: Task> {
    /// The run folder.
    pub run: &'a Path,
    /// Its recipe.
    pub loaded: &'a Loaded<Recipe<T>>,
    /// Its data.
    pub data: &'a BuiltData<T::Labels>,
    /// Its method, for the teachers.
    pub method: &'a T::Method,
    /// What it trained.
    pub nets: &'a RunNets<T>,
    /// Where predictions are computed.
    pub device: &'a Device,
    /// What came out of it.
    pub result: &'a RunResult,
}

/// Writes `report.html` and `pictures/` into the run folder; returns the path of the report.
pub fn write_report<T: Show>(job: &Job<'_, T>) -> Result<PathBuf> {
    let info = RunInfo::read(job.run)?;
    let judge = Judge {
        recipe: &job.loaded.value,
        data: job.data,
        teachers: T::teachers(job.method),
        nets: job.nets,
        device: job.device,
    };
    let Shown { classes, sections, pictures } = T::report(&judge)?;
    let folder = job.run.join("pictures");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (rank, (name, picture)) in pictures.iter().enumerate() {
        let name: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        save(picture, &folder.join(format!("{:02}_{name}.png", rank + 1)))?;
    }
    let model = |(name, scores): (&str, &_)| Model { name: name.to_owned(), scores: Clone::clone(scores) };
    let input = ReportInput {
        title: job.run.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        recipe: job.loaded.resolved.clone(),
        info: origin(&info, &job.data.dataset.card().title),
        log: Log::read(&job.run.join("log.jsonl"))?,
        scores: T::Scores::NAMES,
        classes,
        models: job.result.judged().map(model).collect(),
        sections,
        comparisons: comparisons(job.loaded, job.result)?,
        result: Some(job.result.clone()),
    };
    let path = job.run.join("report.html");
    write_atomically(&path, html(&input).as_bytes())?;
    Ok(path)
}

/// What made the run, line by line.
fn origin(info: &RunInfo, data: &str) -> Vec<(String, String)> {
    let lines = [
        ("commit", info.commit.clone()),
        ("device", info.device.clone()),
        ("command", info.command.join(" ")),
        ("data", format!("{data} ({})", info.data)),
    ];
    let weights = info.weights.iter().map(|(name, hash)| (format!("initial weights of {name}"), hash.clone()));
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(weights).collect()
}

/// The results that the recipe names under `[compare]`, by the score that models are judged by.
///
/// # Errors
/// At the key of the one that is missing or lacks that score.
pub fn compared_results<T: Task>(loaded: &Loaded<Recipe<T>>) -> Result<Vec<Comparison>> {
    let mut compared = Vec::new();
    for (name, path) in &loaded.value.compare {
        let problem = |message: String| loaded.problem(&format!("compare.{name}"), message);
        let folder = loaded.path.parent().unwrap_or_else(|| Path::new(""));
        let places = [folder.join(path), PathBuf::from(path)];
        let paths = places.iter().map(|place| results_at(place)).find(|paths| !paths.is_empty()).unwrap_or_default();
        compared.push(comparison(name, path, &paths, T::Scores::NAMES).map_err(problem)?);
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
fn comparison(name: &str, path: &str, files: &[PathBuf], scores: ScoreNames) -> Result<Comparison, String> {
    let [key, _] = scores.main;
    let load = |file: &PathBuf| -> Result<(RowResult, f64), String> {
        let row = RowResult::load(file).map_err(|error| error.to_string())?;
        let score = row.metrics.get(key).copied().ok_or_else(|| {
            let found: Vec<String> = row.metrics.keys().map(|key| format!("`{key}`")).collect();
            format!(
                "{}: has no `{key}`, by which runs of this task are judged, but {}",
                file.display(),
                found.join(", ")
            )
        })?;
        Ok((row, score))
    };
    let rows = files.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let Some((first, _)) = rows.first() else {
        return Err(format!("there is neither a result {path} nor {path}.seed0.json"));
    };
    let values: Vec<f64> = rows.iter().map(|(_, score)| *score).collect();
    let seeds = match spread(&values) {
        Some(spread) => format!("mean of {} seeds, +- {:.2}", rows.len(), 100.0 * spread),
        None => format!("seed {}", first.seed),
    };
    let note = format!("{seeds}, {} steps, {} at {}", first.steps, first.device, first.commit);
    Ok(Comparison { name: name.to_owned(), score: Some(mean(&values)), note, this_run: false })
}

/// What a report and the table at the end show beside the run.
pub fn comparisons<T: Task>(loaded: &Loaded<Recipe<T>>, result: &RunResult) -> Result<Vec<Comparison>> {
    let [key, printed] = T::Scores::NAMES.main;
    let row = |name: String, score: Option<f64>, note: String, this_run| {
        let missing = if score.is_none() { format!("; its result has no {printed}") } else { String::new() };
        Comparison { name, score, note: note + &missing, this_run }
    };
    let teachers = result.teachers.iter().map(|(name, verified)| {
        row(format!("teacher {name}"), verified.get(key), "verified before the first step".to_owned(), false)
    });
    let mut compared: Vec<Comparison> = teachers.collect();
    compared.extend(compared_results(loaded)?);
    let note = format!("{} after {} steps, {:.1} images/s", result.val_model, result.steps, result.images_per_second);
    compared.push(row("this run".to_owned(), result.val.get(key), note, true));
    Ok(compared)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_recipe::Changes;
    use mentor_seg::Seg;
    use mentor_seg::metrics::SegMetrics;
    use serde_json::json;

    const RECIPE: &str = r#"
task = "seg"

[data]
card = "scenes"
labelled = "train_1_8"
val = "val"

[views]
crop_px = [64, 64]

[student.fcn]
backbone = "resnet18"

[optimizer.sgd]
lr = 0.02

[train]
steps = 3
batch_labelled = 2
log_every_steps = 1
checkpoint_every_steps = 10
eval_every_steps = 1000
"#;

    fn row(seed: u64, metrics: &serde_json::Value) -> String {
        json!({
            "row": "alone", "seed": seed, "key": "k", "metrics": metrics, "steps": 7, "device": "cpu", "commit": "c",
            "seconds": 1.0,
        })
        .to_string()
    }

    #[test]
    fn a_row_without_seed_is_the_mean_over_its_seeds() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (seed, miou) in [(0, 0.3), (1, 0.4), (2, 0.5)] {
            std::fs::write(at(&format!("alone.seed{seed}.json")), row(seed, &json!({"miou": miou}))).unwrap();
        }
        let load = |name: &str| comparison("alone", name, &results_at(&at(name)), SegMetrics::NAMES);
        let all = load("alone").unwrap();
        assert!((all.score.unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(all.note, "mean of 3 seeds, +- 10.00, 7 steps, cpu at c");
        assert_eq!(load("alone.seed1.json").unwrap().note, "seed 1, 7 steps, cpu at c");
        assert_eq!(load("other").unwrap_err(), "there is neither a result other nor other.seed0.json");
    }

    #[test]
    fn a_result_of_another_task_is_an_error_and_no_zero() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("boxes.json");
        std::fs::write(&file, row(0, &json!({"ap": 0.3, "ap50": 0.5}))).unwrap();
        let error = comparison("boxes", "boxes.json", std::slice::from_ref(&file), SegMetrics::NAMES).unwrap_err();
        let reason = "has no `miou`, by which runs of this task are judged, but `ap`, `ap50`";
        assert_eq!(error, format!("{}: {reason}", file.display()));
    }

    #[test]
    fn a_score_that_a_run_did_not_measure_is_none() {
        let result: RunResult = serde_json::from_value(json!({
            "val": {"miou": 0.25}, "val_model": "student", "models": {}, "teachers": {"big": {"ap": 0.5}},
            "best": {"step": 3, "score": 0.25}, "steps": 3, "images_per_second": 1.0, "seconds": 1.0,
            "device": "cpu", "commit": "c", "bad_samples": [],
        }))
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, RECIPE).unwrap();
        let recipe = Recipe::<Seg>::read(&path, &Changes::none()).unwrap();
        let rows = comparisons(&recipe, &result).unwrap();
        assert_eq!(rows.iter().map(|row| row.score).collect::<Vec<_>>(), [None, Some(0.25)]);
        assert_eq!(rows[0].note, "verified before the first step; its result has no mIoU");
    }
}
