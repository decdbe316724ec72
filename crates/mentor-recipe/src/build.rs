//! A checked recipe to what a run consists of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use mentor_data::{BatchMaker, BatchPlan, Card, DataError, EvalLoader, SegDataset, Split};
use mentor_distill::{Column, Companions, Start, TermTable};
use mentor_nets::{Adapter, Frozen, LoadOptions, LoadReport, Scope, WeightsError, load_tensors, load_weights};
use mentor_seg::metrics::ConfusionMatrix;
use mentor_seg::nets::{NetConfig, SegNet};
use mentor_seg::{EvalConfig, Judged, SegMethod, SegModel, evaluate};
use mentor_train::{Checkpoint, Checkpoints, TrainError};
use mentor_types::Key;
use mentor_weights::{Ema, NamedError, NamedTensors, from_safetensors, load_named};
use rand::Rng;
use thiserror::Error;

use crate::classes::{check_order_of_file, check_order_of_run};
use crate::{Loaded, Problem, Recipe, Task};

/// Why a recipe could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The recipe asks for something that is not there.
    #[error("{0}")]
    Recipe(Problem),
    /// The data are bad.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Weights are bad.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A run folder given as weights is bad.
    #[error(transparent)]
    Run(#[from] TrainError),
    /// The checkpoint of a run does not fit the net of the recipe.
    #[error("{path}: {source}", path = path.display())]
    Checkpoint {
        /// The run.
        path: PathBuf,
        /// What does not fit.
        source: NamedError,
    },
    /// The classes that weights are for are not those of the data.
    #[error("{path}: {reason}", path = path.display())]
    Classes {
        /// The run, or the file of weights.
        path: PathBuf,
        /// The first difference.
        reason: String,
    },
    /// The folder of a run lacks something.
    #[error("{path}: {reason}", path = path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Where a recipe's files may lie.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Folders that hold data set cards.
    pub cards: Vec<PathBuf>,
    /// Folders that hold images, before those beside the card.
    pub data: Vec<PathBuf>,
}

/// The card that a recipe names, if it offers what the recipe's task learns from.
///
/// # Errors
/// That it does not, at the task; no such card, at the key that names it; all that is wrong with the card.
pub fn find_card(loaded: &Loaded<Recipe>, places: &Places) -> Result<Card, BuildError> {
    let card = Card::find(&loaded.value.data.card, &places.cards).map_err(|error| match error {
        DataError::UnknownCard { .. } => BuildError::Recipe(loaded.problem("data.card", error.to_string())),
        error => BuildError::Data(error),
    })?;
    check_task(loaded, &card)?;
    Ok(card)
}

fn check_task(loaded: &Loaded<Recipe>, card: &Card) -> Result<(), BuildError> {
    let offered = match loaded.value.task {
        Task::Seg => card.masks.is_some(),
    };
    if offered {
        return Ok(());
    }
    let message = format!("\"seg\" learns from masks, and the card `{}` has no [masks]", card.name);
    Err(BuildError::Recipe(loaded.problem("task", message)))
}

/// The data of a recipe.
#[derive(Clone, Debug)]
pub struct BuiltData {
    /// The data set.
    pub dataset: Arc<SegDataset>,
    /// What makes its batches.
    pub maker: Arc<BatchMaker>,
    /// The split that is evaluated.
    pub val: Split,
}

impl BuiltData {
    /// Opens card, lists and images.
    ///
    /// # Errors
    /// A missing card, split or image folder.
    pub fn open(recipe: &Recipe, places: &Places) -> Result<Self, BuildError> {
        let dataset = Arc::new(SegDataset::new(Card::find(&recipe.data.card, &places.cards)?, &places.data)?);
        let plan = BatchPlan {
            seed: recipe.seed,
            batch_labelled: recipe.train.batch_labelled,
            batch_unlabelled: recipe.train.batch_unlabelled,
            accumulate: recipe.train.accumulate,
        };
        let maker = Arc::new(BatchMaker::new(dataset.clone(), &recipe.data, &recipe.views, plan)?);
        let val = dataset.split(&recipe.data.val)?;
        Ok(Self { dataset, maker, val })
    }

    /// A hash of all images, labels and lists of the recipe.
    ///
    /// # Errors
    /// If a split cannot be opened.
    pub fn fingerprint(&self, recipe: &Recipe) -> Result<String, BuildError> {
        let mut hasher = blake3::Hasher::new();
        let splits = [Some(&recipe.data.labelled), recipe.data.unlabelled.as_ref(), Some(&recipe.data.val)];
        for name in splits.into_iter().flatten() {
            hasher.update(self.dataset.fingerprint(&self.dataset.split(name)?)?.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Evaluates `net` on a split.
    ///
    /// # Errors
    /// A bad sample.
    pub fn evaluate(
        &self,
        net: &SegNet,
        split: &Split,
        recipe: &Recipe,
        config: &EvalConfig,
        device: &Device,
    ) -> Result<ConfusionMatrix, DataError> {
        let loader = EvalLoader::start(self.dataset.clone(), split.clone(), &recipe.data)?;
        let bad = loader.bad_samples().clone();
        let judged = loader.map(|sample| {
            sample.map(|sample| Judged {
                image: sample.image,
                truth: sample.mask,
                classes_labelled: sample.classes_labelled,
            })
        });
        let counts = evaluate(net, judged, config, device)?;
        bad.list().iter().for_each(|sample| self.maker.bad_samples().record(sample));
        Ok(counts)
    }
}

/// What of a recipe must fit the number of classes of its data.
///
/// # Errors
/// The first thing that does not.
pub fn check_classes(loaded: &Loaded<Recipe>, classes: usize) -> Result<(), BuildError> {
    let mut problems = Vec::new();
    loaded.value.supervised.check_classes(classes, &mut problems);
    match problems.into_iter().next() {
        Some((key, message)) => Err(BuildError::Recipe(loaded.problem(&format!("supervised.{key}"), message))),
        None => Ok(()),
    }
}

/// The nets of a recipe, ready to train.
#[derive(Debug)]
pub struct BuiltNets {
    /// The method with teachers, average and rival.
    pub method: SegMethod,
    /// The student with its adapters.
    pub model: SegModel,
    /// What was loaded, by whom.
    pub reports: Vec<(String, LoadReport)>,
}

impl BuiltNets {
    /// Initialises and loads every net, for classes of these names.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    pub fn new(loaded: &Loaded<Recipe>, class_names: &[String], device: &Device) -> Result<Self, BuildError> {
        let (recipe, classes) = (&loaded.value, class_names.len());
        let at_key = |key: &str, config: &NetConfig, error: BuildError| match error {
            BuildError::Classes { path, reason } => {
                let message = format!("{}: {reason}", path.display());
                BuildError::Recipe(loaded.problem(&format!("{key}.{}.weights", config.name()), message))
            }
            other => other,
        };
        let training = device.clone().autodiff();
        let mut reports = Vec::new();
        let mut student = recipe.student.init(classes, named_seed(recipe.seed, "student"), &training);
        if let Some(weights) = &recipe.student.table().weights {
            let path = weights_path(loaded, "student", weights)?;
            let loaded = load_student(student, &recipe.student, class_names, &path);
            let (net, report) = loaded.map_err(|error| at_key("student", &recipe.student, error))?;
            student = net;
            reports.push(("student".to_owned(), report));
        }
        let mut teachers = Vec::new();
        for (name, config) in &recipe.teachers {
            let key = format!("teachers.{name}");
            let path = weights_path(loaded, &key, config.table().weights.as_deref().unwrap_or_default())?;
            let (net, report) =
                load_net(config, class_names, &path, device).map_err(|error| at_key(&key, config, error))?;
            reports.push((name.clone(), report));
            teachers.push((name.clone(), Frozen::of(&net)));
        }
        let adapters = adapters(loaded, &student, &teachers, &training)?;
        let companions = Companions::fresh(recipe.distill.terms(), &Start { classes, seed: recipe.seed, device });
        let ema = recipe.ema.clone().map(|config| {
            let ema = Ema::of(&student, config.buffers.into());
            (config, ema)
        });
        let method = SegMethod {
            supervised: (recipe.supervised.weight > 0.0).then(|| recipe.supervised.clone()),
            distill: recipe.distill.clone(),
            unlabelled: recipe.unlabelled.clone(),
            teachers,
            ema,
            companions,
            precision: recipe.train.precision.dtype(),
        };
        Ok(Self { method, model: SegModel { net: student, adapters }, reports })
    }
}

fn named_seed(seed: u64, name: &str) -> u64 {
    Key::new(seed).at(name, 0).rng().next_u64()
}

/// The adapters of each teacher's terms.
fn adapters(
    loaded: &Loaded<Recipe>,
    student: &SegNet,
    teachers: &[(String, Frozen<SegNet>)],
    device: &Device,
) -> Result<Vec<Vec<Adapter>>, BuildError> {
    let missing = |term: &str, message| BuildError::Recipe(loaded.problem(&format!("distill.{term}.at"), message));
    let mut all = Vec::new();
    for (name, teacher) in teachers {
        let mut adapters = Vec::new();
        let seed = named_seed(loaded.value.seed, &format!("adapters of {name}"));
        for (term_name, term) in loaded.value.distill.terms() {
            for column in Column::of(term_name, &term.shared()) {
                let Some(place) = column.place else { continue };
                let sides = (student.tap_channels(place.student), teacher.net().tap_channels(place.teacher));
                let (ours, theirs) = match sides {
                    (Some(ours), Some(theirs)) => (ours, theirs),
                    (None, _) => return Err(missing(term_name, format!("the student has no tap `{}`", place.student))),
                    (_, None) => {
                        let message = format!("the teacher `{name}` has no tap `{}`", place.teacher);
                        return Err(missing(term_name, message));
                    }
                };
                let specs = term.adapters(&column, [ours, theirs]);
                adapters.extend(specs.iter().map(|spec| Adapter::fresh(spec, seed, device)));
            }
        }
        all.push(adapters);
    }
    Ok(all)
}

/// Where the weights that a recipe names lie: the path as it is, else beside the recipe.
///
/// # Errors
/// If they are at neither place.
pub fn weights_path(loaded: &Loaded<Recipe>, key: &str, path: &str) -> Result<PathBuf, BuildError> {
    let beside = loaded.path.parent().unwrap_or_else(|| Path::new("")).join(path);
    let found = [PathBuf::from(path), beside.clone()].into_iter().find(|candidate| candidate.exists());
    found.ok_or_else(|| {
        let message = format!("no such file or run folder: `{path}` (also not at `{}`)", beside.display());
        BuildError::Recipe(loaded.problem(key, message))
    })
}

/// A net of `config` for `classes` with the weights at `path`: a file, or the folder of a run, whose last
/// checkpoint is taken (the average, where the run kept one).
///
/// # Errors
/// Weights that are missing or do not fit, or that say that they are for classes in another order.
pub fn load_net(
    config: &NetConfig,
    classes: &[String],
    path: &Path,
    device: &Device,
) -> Result<(SegNet, LoadReport), BuildError> {
    let net = config.init(classes.len(), 0, device);
    if path.is_dir() {
        check_order_of_run(classes, path)?;
        return load_run(net, path, Which::Judged, false);
    }
    let (net, report) = load_weights(net, path, &LoadOptions { scope: Scope::Whole, new_classes: false })?;
    check_order_of_file(classes, &report.metadata, path)?;
    Ok((net, report))
}

/// The start of a student: of a run or file whose head may be for other classes.
fn load_student(
    student: SegNet,
    config: &NetConfig,
    classes: &[String],
    path: &Path,
) -> Result<(SegNet, LoadReport), BuildError> {
    let options = LoadOptions { scope: Scope::AtLeastBackbone, new_classes: config.table().new_classes };
    if path.is_dir() {
        check_order_of_run(classes, path)?;
        let checkpoint = Checkpoints::open_existing(path.join("checkpoints"))?.newest()?;
        let tensors = tensors_of(&checkpoint, Which::Judged, path)?;
        return Ok(load_tensors(student, tensors, path, &options)?);
    }
    let (net, report) = load_weights(student, path, &options)?;
    check_order_of_file(classes, &report.metadata, path)?;
    Ok((net, report))
}

/// Which model of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The average where the run kept one, else the student.
    #[default]
    Judged,
    /// The student.
    Student,
    /// The average.
    Ema,
}

/// The net of a run's last checkpoint, or of that of its `best` evaluation.
///
/// # Errors
/// A folder without checkpoints, or whose net has another form.
pub fn load_run(net: SegNet, folder: &Path, which: Which, best: bool) -> Result<(SegNet, LoadReport), BuildError> {
    let checkpoints = Checkpoints::open_existing(folder.join("checkpoints"))?;
    let checkpoint = if best { checkpoints.best()? } else { checkpoints.newest()? };
    net_of(net, &checkpoint, which, folder)
}

/// The net in a checkpoint.
///
/// # Errors
/// Where it has another form, or the checkpoint has no average and one is asked for.
pub fn net_of(
    net: SegNet,
    checkpoint: &Checkpoint,
    which: Which,
    folder: &Path,
) -> Result<(SegNet, LoadReport), BuildError> {
    let tensors = tensors_of(checkpoint, which, folder)?;
    let loaded = tensors.len();
    let net = load_named(net, tensors).map_err(|source| BuildError::Checkpoint { path: folder.to_owned(), source })?;
    Ok((net, LoadReport { loaded, ..LoadReport::default() }))
}

/// The tensors of the net in a checkpoint, by their paths in the net.
fn tensors_of(checkpoint: &Checkpoint, which: Which, folder: &Path) -> Result<NamedTensors, BuildError> {
    let ema = checkpoint.files.get("ema.safetensors").filter(|_| which != Which::Student);
    if which == Which::Ema && ema.is_none() {
        return Err(BuildError::NoRun { path: folder.to_owned(), reason: "the run kept no average".to_owned() });
    }
    let model = checkpoint.files.get("model.safetensors");
    let bytes = ema.or(model).ok_or_else(|| BuildError::NoRun {
        path: folder.to_owned(),
        reason: "the checkpoint holds no model".to_owned(),
    })?;
    let tensors =
        from_safetensors(bytes).map_err(|source| BuildError::Checkpoint { path: folder.to_owned(), source })?;
    if ema.is_some() {
        return Ok(tensors);
    }
    // Beside the net a model has adapters.
    let net = tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("net.")?.to_owned(), tensor)));
    Ok(net.collect())
}

/// The recipe that a run folder was made by.
///
/// # Errors
/// If the folder holds none.
pub fn run_recipe(folder: &Path) -> Result<Recipe, BuildError> {
    let path = folder.join("recipe.toml");
    let loaded = Recipe::read_earlier(&path)
        .map_err(|problems| BuildError::NoRun { path: folder.to_owned(), reason: problems.to_string() })?;
    Ok(loaded.value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Changes;

    /// A recipe of the repository with changes, and the folder of its cards.
    fn recipe(set: &[&str]) -> (Loaded<Recipe>, Places) {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let changes = Changes::set(set.iter().copied());
        let loaded = Recipe::read(&root.join("recipes/quickstart.toml"), &changes).unwrap();
        (loaded, Places { cards: vec![root.join("datasets")], data: Vec::new() })
    }

    #[test]
    fn a_task_that_its_card_has_no_labels_for_is_named_at_its_line() {
        let (loaded, places) = recipe(&[]);
        let mut card = find_card(&loaded, &places).unwrap();
        card.masks = None;
        let line = 1 + loaded.text.lines().position(|line| line.starts_with("task =")).unwrap();
        let message = check_task(&loaded, &card).unwrap_err().to_string();
        let expected = format!("quickstart.toml:{line}:1: `task`: \"seg\" learns from masks, and the card `");
        assert!(message.contains(&expected), "{message}");
    }

    #[test]
    fn a_card_that_is_not_there_is_named_at_its_key_and_a_bad_one_at_its_own_lines() {
        let (loaded, places) = recipe(&["data.card=camvit"]);
        let message = find_card(&loaded, &places).unwrap_err().to_string();
        assert!(message.starts_with("--set data.card=camvit: `data.card`: no card `camvit`, did you mean `camvid`?"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.toml");
        std::fs::write(&path, "name = \"../x\"\ntitel = \"t\"\n").unwrap();
        let (loaded, places) = recipe(&[&format!("data.card={}", path.display())]);
        let message = find_card(&loaded, &places).unwrap_err().to_string();
        assert!(message.lines().count() > 2, "{message}");
        assert!(message.lines().all(|line| line.starts_with(&path.display().to_string())), "{message}");
    }
}
