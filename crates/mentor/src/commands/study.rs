//! `mentor study`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use mentor_recipe::{
    AnyRecipe, Compute, Job as StudyJob, Loaded, Need, NetTable, Places, Prepared, Recipe, RowResult, Study as Plan,
    Task, changes_no_result, find_card, row_key, shares_line, table, weights_path,
};
use mentor_types::Scores;
use mentor_weights::write_atomically;

use super::at_once::{Children, Missing};
use super::job::Job;
use super::train::{run_job, stop_on_ctrl_c};
use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::{note, say};
use crate::run_folder::Mode;
use crate::show::Show;
use crate::tasks::{OnRecipe, on_recipe};
use crate::weights::RunWeights;

/// Run the rows of a study that have no result yet, and print its table.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor study recipes/studies/scenes_quickstart.toml\n  mentor study \
    recipes/studies/scenes_quickstart.toml --max-minutes 30\n  mentor study recipes/studies/scenes_quickstart.toml --jobs 2\n  mentor study recipes/studies/scenes_quickstart.toml --table")]
pub struct Study {
    /// The study.
    study: PathBuf,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Where runs go. Default: runs/NAME of the study.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the small results go, one file a row and seed. Default: benchmarks/NAME of the study.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Start no further row, and stop the running one at its next step, after so long.
    #[arg(long)]
    max_minutes: Option<f64>,
    /// Run so many rows at once, each on its share of the threads: more get done than one after the other, with the same
    /// bits.
    #[arg(long, value_name = "N", default_value_t = 1, overrides_with = "jobs")]
    jobs: usize,
    /// Run this row and seed alone, as ROW.seedN, and print no table.
    #[arg(long, hide = true)]
    only: Option<String>,
    /// Print the table of what is there, as Markdown, and run nothing.
    #[arg(long, visible_alias = "markdown")]
    table: bool,
}

/// What a row's result is keyed by besides recipe and data: it changes when old results stop being
/// comparable with new ones: with another algorithm, and with another default of a key, which a recipe's shortest
/// form does not show.
const CODE: &str = "2";

impl Study {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let mut plan = Plan::load(&self.study)?;
        let name = PathBuf::from(self.study.file_stem().unwrap_or_default());
        let results = self.results.clone().unwrap_or_else(|| Path::new("benchmarks").join(&name));
        let runs = self.out.clone().unwrap_or_else(|| Path::new("runs").join(&name));
        let judged_by = match plan.jobs().first() {
            Some(job) => on_recipe(&JudgedBy, AnyRecipe::read(&job.recipe, &job.changes_for_key())?)?,
            None => "",
        };
        let compute = self.compute(&mut plan)?;
        let stop = stop_on_ctrl_c()?;
        if let Some(minutes) = self.max_minutes {
            let end = Duration::try_from_secs_f64(60.0 * minutes).context("--max-minutes")?;
            let stop = stop.clone();
            std::thread::spawn(move || {
                std::thread::sleep(end);
                stop.store(true, Ordering::Relaxed);
            });
        }
        let mut keys: BTreeMap<(String, u64), String> = BTreeMap::new();
        let prints = RefCell::default();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for job in plan.jobs() {
            let file = results.join(RowResult::file_name(&job.row, job.seed));
            let key = match self.key(&job, &keys, &prints) {
                // A table can be printed where the images are not; what it shows is then taken on trust.
                Err(_) if self.table => {
                    found.extend(RowResult::load(&file));
                    continue;
                }
                key => key?,
            };
            keys.insert((job.row.clone(), job.seed), key.clone());
            let out = run_folder(&runs, &job.row, job.seed, &key);
            // A row whose student another row takes over must be there itself.
            let needed = plan.jobs().iter().any(|other| other.needs.iter().any(|need| need.row == job.row));
            match RowResult::load_if_current(&file, &key)? {
                Some(result) if self.table || !needed || out.join("checkpoints").is_dir() => found.push(result),
                _ => missing.push(Missing { job, key, file }),
            }
        }
        if self.table {
            missing.clear();
        }
        if let Some(only) = &self.only {
            missing.retain(|missing| missing.job.name() == *only);
            for missing in &missing {
                self.run_row(missing, &keys, &runs, &stop)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if self.jobs > 1 && missing.len() > 1 {
            Children::new(self.jobs, &runs)?.run(&missing, &stop)?;
            for missing in &missing {
                found.extend(RowResult::load_if_current(&missing.file, &missing.key)?);
            }
        } else {
            for missing in missing.iter().take_while(|_| !stop.load(Ordering::Relaxed)) {
                found.extend(self.run_row(missing, &keys, &runs, &stop)?);
            }
        }
        let text = table(&plan.file, &found, judged_by, &compute);
        say!("{text}");
        if !found.is_empty() && !self.table {
            write_atomically(&results.join("table.md"), text.as_bytes())?;
        }
        if stop.load(Ordering::Relaxed) {
            note!("stopped; the same command goes on");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What each row computes, where the study compares at equal compute; the baseline that does so is then a row of it.
    fn compute(&self, plan: &mut Plan) -> Result<BTreeMap<String, Compute>> {
        let mut rows = BTreeMap::new();
        if plan.file.baseline_compute {
            let places = self.places.places();
            for job in plan.jobs() {
                if rows.contains_key(&job.row) {
                    continue;
                }
                let recipe = AnyRecipe::read(&job.recipe, &job.changes_for_key())?;
                match on_recipe(&RowCompute { places: &places }, recipe) {
                    // A table is printed also where a data set's card is not.
                    Err(_) if self.table => {}
                    compute => drop(rows.insert(job.row, compute?)),
                }
            }
            plan.add_longer_baseline(&mut rows);
        }
        Ok(rows)
    }

    /// The key of a row: what it is, whatever folder it lies in and however fast it is loaded.
    fn key(&self, job: &StudyJob, keys: &BTreeMap<(String, u64), String>, prints: &Prints) -> Result<String> {
        let needed = job.needs.iter().filter_map(|need| keys.get(&(need.row.clone(), need.seed)).cloned()).collect();
        on_recipe(&RowKey { study: self, needed, prints }, AnyRecipe::read(&job.recipe, &job.changes_for_key())?)
    }

    /// Runs a row and saves its result; none where it was stopped.
    fn run_row(
        &self,
        missing: &Missing,
        keys: &BTreeMap<(String, u64), String>,
        runs: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<RowResult>> {
        let Missing { job, key, file } = missing;
        let folder = |row: &str, seed: u64| {
            run_folder(runs, row, seed, keys.get(&(row.to_owned(), seed)).map_or("", String::as_str))
        };
        let changes = job.changes(|need: &Need| folder(&need.row, need.seed));
        let recipe = AnyRecipe::read(&job.recipe, &changes)?;
        let out = folder(&job.row, job.seed);
        note!("\n== {} ==", job.name());
        let result = on_recipe(&Row { study: self, job, key: key.clone(), out: &out, stop }, recipe)?;
        if let Some(result) = &result {
            result.save(file)?;
        }
        Ok(result)
    }
}

/// The key of the score that models of a recipe are judged by.
struct JudgedBy;

impl OnRecipe for JudgedBy {
    type Out = &'static str;

    fn on<T: Show>(&self, _: Loaded<Recipe<T>>) -> Result<&'static str> {
        Ok(T::Scores::NAMES.main[0])
    }
}

/// What a row computes.
struct RowCompute<'a> {
    places: &'a Places,
}

impl OnRecipe for RowCompute<'_> {
    type Out = Compute;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<Compute> {
        Ok(Compute::of(&loaded.value, find_card(&loaded, self.places)?.class_names().len()))
    }
}

/// The key of a row, given those of the rows that it needs.
struct RowKey<'a> {
    study: &'a Study,
    needed: Vec<String>,
    prints: &'a Prints,
}

/// Fingerprints of the data of rows, which most rows of a study share, by what recipes say of them.
type Prints = RefCell<BTreeMap<String, String>>;

impl OnRecipe for RowKey<'_> {
    type Out = String;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<String> {
        let said = format!("{:?}", loaded.value.data);
        let known = self.prints.borrow().get(&said).cloned();
        let data = match known {
            Some(data) => data,
            None => {
                let mut places = self.study.places.places();
                places.draws = !self.study.table;
                Prepared::open(&loaded, &places, None)?.data.fingerprint(&loaded.value)?
            }
        };
        self.prints.borrow_mut().insert(said, data.clone());
        let mut needed = self.needed.clone();
        needed.extend(weight_hashes(&loaded)?);
        Ok(row_key(&loaded.minimal(changes_no_result)?, &data, CODE, &needed))
    }
}

/// A row that is run.
struct Row<'a> {
    study: &'a Study,
    job: &'a StudyJob,
    key: String,
    out: &'a Path,
    stop: &'a AtomicBool,
}

impl OnRecipe for Row<'_> {
    /// Nothing where it was stopped.
    type Out = Option<RowResult>;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<Self::Out> {
        let mode = if self.out.join("recipe.toml").exists() { Mode::Resume } else { Mode::New };
        let start = Instant::now();
        let (device, device_name) = device::choose(self.study.device.device)?;
        let places = self.study.places.places();
        let finished = run_job(&Job {
            loaded: &loaded,
            device: (device.clone(), device_name.clone()),
            places: &places,
            out: self.out,
            mode,
            stop: self.stop,
            report: false,
        })?;
        let Some(result) = finished.result else { return Ok(None) };
        let seconds = start.elapsed().as_secs_f64();
        let prepared = Prepared::open(&loaded, &places, Some(self.out))?;
        let net = RunWeights::default().net(self.out, &loaded.value, prepared.classes.len(), &device)?;
        let images = prepared.shares(&net, &prepared.data.val, &device)?;
        Ok(Some(RowResult {
            row: self.job.row.clone(),
            seed: self.job.seed,
            key: self.key.clone(),
            metrics: result.val.flat(T::Scores::NAMES.by_class).collect(),
            steps: result.steps,
            device: device_name,
            commit: result.commit,
            seconds,
            images: images.iter().map(|shares| shares_line(shares)).collect(),
        }))
    }
}

/// Where a run of a row lies. The key is in the name, so that a changed recipe never meets an old run.
fn run_folder(runs: &Path, row: &str, seed: u64, key: &str) -> PathBuf {
    runs.join(format!("{row}-seed{seed}-{}", key.get(..8).unwrap_or_default()))
}

/// Hashes of the files of weights that a recipe names; those of other rows are not there yet.
fn weight_hashes<T: Task>(loaded: &Loaded<Recipe<T>>) -> Result<Vec<String>> {
    let recipe = &loaded.value;
    let named = recipe.teachers.iter().map(|(name, net)| (format!("teachers.{name}"), net));
    let mut hashes = Vec::new();
    for (key, net) in named.chain([("student".to_owned(), &recipe.student)]) {
        let weights = net.weights().filter(|weights| !weights.starts_with("row:"));
        let Some(weights) = weights else { continue };
        let path = weights_path(loaded, &key, weights)?;
        if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            hashes.push(blake3::hash(&bytes).to_hex().to_string());
        }
    }
    Ok(hashes)
}
