//! The nets of a recipe.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mentor_distill::{Companions, Start, TermTable, columns};
use mentor_nets::{Adapter, Frozen, LoadOptions, LoadReport, Scope, Student, load_tensors, load_weights};
use mentor_toml::Loaded;
use mentor_train::{Average, Checkpoints};
use mentor_types::{Key, Tap};
use rand::Rng;

use super::run::{Which, load_run, tensors_of};
use crate::classes::{check_order_of_file, check_order_of_run};
use crate::error::BuildError;
use crate::recipe::Recipe;
use crate::tasks::{NetTable, Parts, Task};

/// The nets of a recipe, ready to train.
#[derive(Debug)]
pub struct BuiltNets<T: Task> {
    /// The method with teachers, average and rival.
    pub method: T::Method,
    /// The student with its adapters.
    pub model: Student<T::Net>,
    /// What was loaded, by whom.
    pub reports: Vec<(String, LoadReport)>,
}

impl<T: Task> BuiltNets<T> {
    /// Initialises and loads every net, for classes of these names.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    pub(super) fn new(loaded: &Loaded<Recipe<T>>, class_names: &[String], device: &Device) -> Result<Self, BuildError> {
        let (recipe, classes) = (&loaded.value, class_names.len());
        let at_key = |key: &str, config: &T::NetConfig, error: BuildError| match error {
            BuildError::Classes { path, reason } => {
                let message = format!("{}: {reason}", path.display());
                BuildError::Recipe(loaded.problem(&format!("{key}.{}.weights", config.name()), message))
            }
            other => other,
        };
        let training = device.clone().autodiff();
        let mut reports = Vec::new();
        let mut student = recipe.student.init(classes, named_seed(recipe.seed, "student"), &training);
        if let Some(weights) = recipe.student.weights() {
            let path = weights_path(loaded, "student", weights)?;
            let loaded = load_student(student, &recipe.student, class_names, &path);
            let (net, report) = loaded.map_err(|error| at_key("student", &recipe.student, error))?;
            student = net;
            reports.push(("student".to_owned(), report));
        }
        let mut teachers = Vec::new();
        for (name, config) in &recipe.teachers {
            let key = format!("teachers.{name}");
            let path = weights_path(loaded, &key, config.weights().unwrap_or_default())?;
            let (net, report) =
                load_net(config, class_names, &path, device).map_err(|error| at_key(&key, config, error))?;
            reports.push((name.clone(), report));
            teachers.push((name.clone(), Frozen::of(&net)));
        }
        let adapters = adapters(loaded, &student, &teachers, &training)?;
        let level_channels =
            |(_, net): &(_, Frozen<T::Net>)| Tap::PYRAMID.iter().find_map(|tap| T::tap_channels(net.net(), *tap));
        let teacher_channels = teachers.iter().find_map(level_channels).unwrap_or(0);
        let start = Start { classes, teacher_channels, seed: recipe.seed, device };
        let companions = Companions::fresh(recipe.distill.terms(), &start);
        let average = recipe.ema.clone().map(|config| Average::of(&student, config));
        let parts = Parts {
            views: recipe.views.clone(),
            supervised: recipe.supervised.clone(),
            distill: recipe.distill.clone(),
            unlabelled: recipe.unlabelled.clone(),
            precision: recipe.train.precision.dtype(),
            teachers,
            average,
            companions,
        };
        let method = T::method(parts, &student);
        Ok(Self { method, model: Student { net: student, adapters }, reports })
    }
}

fn named_seed(seed: u64, name: &str) -> u64 {
    Key::new(seed).at(name, 0).rng().next_u64()
}

/// The adapters of each teacher's terms.
fn adapters<T: Task>(
    loaded: &Loaded<Recipe<T>>,
    student: &T::Net,
    teachers: &[(String, Frozen<T::Net>)],
    device: &Device,
) -> Result<Vec<Vec<Adapter>>, BuildError> {
    let missing = |term: &str, message| BuildError::Recipe(loaded.problem(&format!("distill.{term}.at"), message));
    let mut all = Vec::new();
    for (name, teacher) in teachers {
        let mut adapters = Vec::new();
        let seed = named_seed(loaded.value.seed, &format!("adapters of {name}"));
        let has = |net: &T::Net, level: &Tap| T::tap_channels(net, *level).is_some();
        let shared = |level: &Tap| has(student, level) && has(teacher.net(), level);
        let levels: Vec<Tap> = Tap::PYRAMID.into_iter().filter(shared).collect();
        for (term_name, term) in loaded.value.distill.terms() {
            for column in columns(term_name, term, &levels) {
                let Some(place) = column.place else { continue };
                let sides = (T::tap_channels(student, place.student), T::tap_channels(teacher.net(), place.teacher));
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
pub fn weights_path<T: Task>(loaded: &Loaded<Recipe<T>>, key: &str, path: &str) -> Result<PathBuf, BuildError> {
    found_path(loaded, key, path, "file or run folder")
}

/// Where any other file that a recipe names lies, as [`weights_path`].
pub(super) fn file_path<T: Task>(loaded: &Loaded<Recipe<T>>, key: &str, path: &str) -> Result<PathBuf, BuildError> {
    found_path(loaded, key, path, "file")
}

fn found_path<T: Task>(loaded: &Loaded<Recipe<T>>, key: &str, path: &str, what: &str) -> Result<PathBuf, BuildError> {
    let beside = loaded.path.parent().unwrap_or_else(|| Path::new("")).join(path);
    let found = [PathBuf::from(path), beside.clone()].into_iter().find(|candidate| candidate.exists());
    found.ok_or_else(|| {
        let message = format!("no such {what}: `{path}` (also not at `{}`)", beside.display());
        BuildError::Recipe(loaded.problem(key, message))
    })
}

/// A net of `config` for `classes` with the weights at `path`: a file, or the folder of a run, whose last
/// checkpoint is taken (the average, where the run kept one).
///
/// # Errors
/// Weights that are missing or do not fit, or that say that they are for classes in another order.
pub fn load_net<C: NetTable>(
    config: &C,
    classes: &[String],
    path: &Path,
    device: &Device,
) -> Result<(C::Net, LoadReport), BuildError> {
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
fn load_student<C: NetTable>(
    student: C::Net,
    config: &C,
    classes: &[String],
    path: &Path,
) -> Result<(C::Net, LoadReport), BuildError> {
    let options = LoadOptions { scope: Scope::AtLeastBackbone, new_classes: config.new_classes() };
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
