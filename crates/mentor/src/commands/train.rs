//! `mentor train`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use burn::tensor::Device;
use clap::Args;
use mentor_data::{BadSample, Loader};
use mentor_nets::Student;
use mentor_recipe::{BuiltNets, Loaded, Prepared, Recipe, RunClasses, Task};
use mentor_train::{
    Evaluation, Method, Outcome, Precision, Progress, Run, RunInfo, RunResult, SkippedSample, TrainError,
};
use mentor_types::{ScoreRecord, Scores};
use mentor_weights::weights_fingerprint;

use super::job::Job;
use super::replay::replay;
use super::report::{Job as ReportJob, compared_results, comparisons, write_report};
use super::{DeviceArgs, PlaceArgs, RecipeArgs};
use crate::device;
use crate::print::{note, say};
use crate::run_folder::{COMMIT, Mode, RunFolder};
use crate::scores::print_comparison;
use crate::show::Show;
use crate::tasks::{OnRecipe, on_recipe};
use crate::weights::RunNets;

/// Train what a recipe describes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor train recipes/quickstart.toml\n  mentor train recipes/quickstart.toml \
    --set train.steps=50 --out runs/short\n  mentor train recipes/quickstart.toml --resume\n  mentor train recipes/quickstart.toml --replay 41")]
pub struct Train {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// The run folder. Default: runs/NAME of the recipe.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint in the run folder.
    #[arg(long, conflicts_with = "again")]
    resume: bool,
    /// Compute a step of the run in --out again, counted from 1, from the last checkpoint before it:
    /// every term is logged and the step's images are drawn, under replay/ in the run folder.
    #[arg(long, value_name = "STEP", conflicts_with_all = ["resume", "again"])]
    replay: Option<u64>,
    /// Throw away what this recipe left in the run folder, and start anew.
    #[arg(long)]
    again: bool,
    /// Make no report and no pictures at the end.
    #[arg(long)]
    no_report: bool,
}

/// How a job ended.
#[derive(Debug)]
pub struct Finished {
    /// What came out; `None` where it was stopped.
    pub result: Option<RunResult>,
}

impl Train {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        on_recipe(self, self.recipe.read()?)
    }
}

impl OnRecipe for Train {
    type Out = ExitCode;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<ExitCode> {
        let stop = stop_on_ctrl_c()?;
        let out = self.out.clone().unwrap_or_else(|| default_out(&loaded.path));
        let mode = match (self.resume, self.again) {
            (true, _) => Mode::Resume,
            (_, true) => Mode::Again,
            _ => Mode::New,
        };
        let device = device::choose(self.device.device)?;
        let places = self.places.places();
        let report = !self.no_report;
        let job = Job { loaded: &loaded, device, places: &places, out: &out, mode, stop: &stop, report };
        if let Some(step) = self.replay {
            say!("images and log  {}", replay(&job, step)?.display());
            return Ok(ExitCode::SUCCESS);
        }
        let finished = run_job(&job)?;
        Ok(match finished.result {
            Some(_) => ExitCode::SUCCESS,
            // What a shell reports for a program that Ctrl-C ended.
            None => ExitCode::from(130),
        })
    }
}

fn default_out(recipe: &Path) -> PathBuf {
    Path::new("runs").join(recipe.file_stem().unwrap_or_default())
}

/// Signals within so long are one wish: what closes a terminal sends several.
const ONE_WISH: Duration = Duration::from_secs(1);

/// A flag that the first Ctrl-C sets, or what closes the terminal or the job; the second ends the program at once.
pub fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, mut asked) = (stop.clone(), None::<Instant>);
    let ignores_hangup = ignores_hangup();
    ctrlc::set_handler(move || match asked {
        Some(at) if at.elapsed() < ONE_WISH => {}
        Some(_) => std::process::exit(130),
        None => {
            asked = Some(Instant::now());
            flag.store(true, Ordering::Relaxed);
            note!("\nstopping after this step; again to stop at once");
        }
    })?;
    if ignores_hangup {
        ignore_hangup();
    }
    Ok(stop)
}

/// Whether a terminal that closes is to change nothing, as under `nohup`.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    // SAFETY: all bytes zero is a valid `sigaction`, and a call without a new action only writes to it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Undoes what the handler for all signals did to `nohup`.
#[cfg(unix)]
fn ignore_hangup() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

#[cfg(not(unix))]
fn ignores_hangup() -> bool {
    false
}

#[cfg(not(unix))]
fn ignore_hangup() {}

/// Trains one recipe into one run folder.
pub fn run_job<T: Show>(job: &Job<'_, T>) -> Result<Finished> {
    let start = Instant::now();
    let recipe = &job.loaded.value;
    if job.report {
        compared_results(job.loaded)?;
    }
    check_precision(recipe.train.precision, &job.device)?;
    let resumed = (job.mode == Mode::Resume && job.out.join(RunInfo::FILE).exists()).then_some(job.out);
    let prepared = Prepared::open(job.loaded, job.places, resumed)?;
    let data = &prepared.data;
    let counts =
        data.dataset.verify_split(&data.dataset.split(&recipe.data.labelled)?, recipe.data.on_bad_sample, None)?;
    data.dataset.verify_split(&data.val, recipe.data.on_bad_sample, None)?;
    let nets = prepared.nets(&job.device.0)?;
    let info = run_info(job, &prepared, &nets)?;
    let (folder, resume) = RunFolder::open(job.out, job.mode, job.loaded, &info)?;
    let first = resume.as_ref().map_or(0, |checkpoint| checkpoint.state.step);
    let progress = Progress::new(first, recipe.train.steps);
    introduce(&progress, job, &prepared, &nets, counts.labelled_images, first);

    let teachers = verify_teachers(&progress, &prepared, &nets.method, &job.device.0)?;
    let device = job.device.0.clone();
    let upload = move |batch| T::upload(batch, &device);
    let mut loader = Loader::start(data.maker.clone(), first..recipe.train.steps, &recipe.data, upload)?;
    let bad = data.maker.bad_samples().clone();
    let accumulate = recipe.train.accumulate;
    let mut batches = || (0..accumulate).map(|_| loader.next().map_err(|error| error.to_string())).collect();
    let mut evaluate = |method: &T::Method, model: &Student<T::Net>, _step: u64| {
        evaluations(&prepared, &RunNets::of(method, model), &job.device.0).map_err(|error| format!("{error:#}"))
    };
    let outcome = mentor_train::train(Run {
        method: nets.method,
        model: nets.model,
        optimizer: recipe.optimizer.clone(),
        schedule: recipe.schedule.clone(),
        train: recipe.train.clone(),
        seed: recipe.seed,
        device: job.device.0.clone(),
        folder: folder.path(),
        resume,
        stop: job.stop,
        batches: &mut batches,
        evaluate: &mut evaluate,
        progress: &progress,
    });
    let outcome = outcome.map_err(|error| with_way_on(error, job))?;
    if outcome.stopped {
        say_stopped(job, outcome.step);
        return Ok(Finished { result: None });
    }
    let skipped = bad.list().iter().chain(&data.dataset.left_out()).map(skipped).collect();
    let result = run_result(&outcome, teachers, &info, start.elapsed().as_secs_f64(), skipped)?;
    result.write(folder.path())?;
    if job.report {
        let report = ReportJob {
            run: folder.path(),
            loaded: job.loaded,
            data,
            method: &outcome.method,
            nets: &RunNets::<T>::of(&outcome.method, &outcome.model),
            device: &job.device.0,
            result: &result,
        };
        let written = write_report(&report)?;
        print_comparison(&comparisons(job.loaded, &result)?, T::Scores::NAMES);
        say!("\nreport    {}\npictures  {}", written.display(), folder.path().join("pictures").display());
    }
    Ok(Finished { result: Some(result) })
}

/// How each net does on val; the first decides which checkpoint is best.
fn evaluations<T: Task>(prepared: &Prepared<'_, T>, nets: &RunNets<T>, device: &Device) -> Result<Vec<Evaluation>> {
    let mut evaluations = Vec::new();
    for (name, net) in nets.all() {
        let scores = prepared.evaluate(net, &prepared.data.val, device)?;
        evaluations.push(Evaluation {
            model: name.to_owned(),
            score: scores.main(),
            shown: shown(&scores),
            metrics: scores.record(&prepared.classes),
        });
    }
    Ok(evaluations)
}

fn check_precision(precision: Precision, (device, name): &(Device, String)) -> Result<()> {
    let computes = device.supports_dtype(precision.dtype());
    ensure!(computes, "train.precision: {name} cannot compute in {precision:?}: take \"f32\"");
    Ok(())
}

/// What makes this run.
fn run_info<T: Task>(job: &Job<'_, T>, prepared: &Prepared<'_, T>, nets: &BuiltNets<T>) -> Result<RunInfo> {
    let (Prepared { data, classes, .. }, recipe) = (prepared, &job.loaded.value);
    Ok(RunInfo {
        commit: COMMIT.to_owned(),
        device: job.device.1.clone(),
        command: std::env::args().collect(),
        recipe: std::path::absolute(&job.loaded.path)?,
        data: data.fingerprint(recipe)?,
        weights: loaded_weights(nets),
        card: recipe.data.card.clone(),
        classes: classes.clone(),
        class_values: RunClasses::of(&data.dataset).values,
        colours: data.dataset.card().class_colours(),
    })
}

fn say_stopped<T: Task>(job: &Job<'_, T>, step: u64) {
    let (recipe, out) = (job.loaded.path.display(), job.out.display());
    note!("stopped after step {step}; go on with:\n  mentor train {recipe} --out {out} --resume");
}

/// The error, with what to type next where something can be typed.
fn with_way_on<T: Task>(error: TrainError, job: &Job<'_, T>) -> anyhow::Error {
    let TrainError::NotFinite { step, .. } = &error else { return error.into() };
    let (recipe, out) = (job.loaded.path.display(), job.out.display());
    anyhow!("{error}\nlook at that step with:\n  mentor train {recipe} --out {out} --replay {step}")
}

fn skipped(bad: &BadSample) -> SkippedSample {
    SkippedSample { path: bad.path.display().to_string(), reason: bad.reason.clone() }
}

fn loaded_weights<T: Task>(nets: &BuiltNets<T>) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    for (name, teacher) in T::teachers(&nets.method) {
        hashes.insert(name.clone(), weights_fingerprint(teacher.net()));
    }
    hashes.insert("student".to_owned(), weights_fingerprint(&nets.model.net));
    hashes
}

fn introduce<T: Task>(
    progress: &Progress,
    job: &Job<'_, T>,
    prepared: &Prepared<'_, T>,
    nets: &BuiltNets<T>,
    labelled: usize,
    first: u64,
) {
    let (data, recipe) = (&prepared.data, &job.loaded.value);
    let ([_, unlabelled], partial) = (data.maker.stream_lengths(), data.maker.in_both_streams());
    let both =
        if partial == 0 { String::new() } else { format!(" ({partial} may be labelled in part: in both streams)") };
    progress.line(&format!("{} on {}", job.loaded.path.display(), job.device.1));
    progress.line(&format!(
        "{}: {labelled} labelled{both}, {} unlabelled, {} val images",
        data.dataset.card().title,
        unlabelled - partial,
        data.val.len()
    ));
    data.dataset.notes().iter().for_each(|line| progress.line(line));
    let crop = recipe.views.crop_px;
    let net = |name: &str, net: &T::Net| {
        progress.line(&format!(
            "{name}: {:.2} M parameters, {:.2} G multiply-adds at {}x{}",
            mentor_nets::num_params(net) as f64 / 1e6,
            T::macs(net, crop) as f64 / 1e9,
            crop[0],
            crop[1],
        ));
    };
    net("student", &nets.model.net);
    for (name, teacher) in T::teachers(&nets.method) {
        net(&format!("teacher {name}"), teacher.net());
    }
    for (name, report) in &nets.reports {
        progress.line(&format!("{name}: {report}"));
    }
    if first > 0 {
        progress.line(&format!("going on after step {first}"));
    }
}

/// Judges every teacher on val before the first step: a teacher that does not know the task is a
/// mistake that should show now.
fn verify_teachers<T: Task>(
    progress: &Progress,
    prepared: &Prepared<'_, T>,
    method: &T::Method,
    device: &Device,
) -> Result<BTreeMap<String, ScoreRecord>> {
    let mut verified = BTreeMap::new();
    for (name, teacher) in T::teachers(method) {
        let scores = prepared.evaluate(teacher.net(), &prepared.data.val, device)?;
        progress.line(&format!("teacher {name} on val: {}", shown(&scores)));
        verified.insert(name.clone(), scores.record(&prepared.classes));
    }
    Ok(verified)
}

/// The score by which models are judged, for people.
fn shown<S: Scores>(scores: &S) -> String {
    format!("{:.2} % {}", 100.0 * scores.main(), S::NAMES.main[1])
}

fn run_result<M: Method>(
    outcome: &Outcome<M>,
    teachers: BTreeMap<String, ScoreRecord>,
    info: &RunInfo,
    seconds: f64,
    bad_samples: Vec<SkippedSample>,
) -> Result<RunResult> {
    let scores = |evaluation: &Evaluation| (evaluation.model.clone(), evaluation.metrics.clone());
    let models: BTreeMap<String, ScoreRecord> = outcome.evaluations.iter().map(scores).collect();
    let judged = outcome.evaluations.first().map(|first| first.model.clone());
    let (Some(val_model), Some(best)) = (judged, outcome.best.clone()) else {
        bail!("the last step is always evaluated");
    };
    Ok(RunResult {
        val: models[&val_model].clone(),
        val_model,
        models,
        teachers,
        best,
        steps: outcome.step,
        images_per_second: outcome.images_per_second,
        seconds,
        device: info.device.clone(),
        commit: info.commit.clone(),
        bad_samples,
    })
}
