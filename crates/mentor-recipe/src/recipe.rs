//! The whole recipe as one type.

use std::collections::BTreeMap;
use std::path::Path;

use mentor_data::{DataConfig, ReadLabels, ViewsConfig};
use mentor_distill::{Stream, TermTable};
use mentor_toml::{Changes, Draft, Loaded, Problems, TomlFile};
use mentor_train::{EmaConfig, OptimizerConfig, ScheduleConfig, TrainConfig};
use mentor_types::{Found, TaskName, below};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tasks::{NetTable, SupervisedTable, Table, Task};

/// A run, complete: nothing outside of it but files of images and weights changes its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "")]
#[schemars(bound = "", rename = "Recipe")]
pub struct Recipe<T: Task> {
    /// What is trained.
    pub task: TaskName,
    /// The root of all randomness. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Which images.
    pub data: DataConfig,
    /// How they are cut and changed.
    pub views: ViewsConfig,
    /// The net that is trained, and from which weights it starts.
    pub student: T::NetConfig,
    /// Frozen nets that it learns from, by a name of your choice; each needs `weights`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub teachers: BTreeMap<String, T::NetConfig>,
    /// Learning from labels. Without the table: the usual loss of the task and the net.
    #[serde(default)]
    pub supervised: T::Supervised,
    /// Learning from teachers.
    #[serde(default)]
    pub distill: T::Distill,
    /// Learning from images without labels.
    #[serde(default)]
    pub unlabelled: T::Unlabelled,
    /// An average of the student's weights, for evaluation and as teacher of weak views.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// How weights are updated.
    pub optimizer: OptimizerConfig,
    /// The learning rate over the steps. Default: poly with power 0.9.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// How long, how much at once, and how often to look.
    pub train: TrainConfig,
    /// How val is predicted.
    #[serde(default)]
    pub eval: T::Eval,
    /// Results of a study, by a name of your choice, that the table at the end of the run shows beside
    /// it: the path of one of its small JSON files, or of a row without `.seedN.json` for the mean over
    /// its seeds; beside the recipe or below the current folder. They change nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub compare: BTreeMap<String, String>,
}

/// Whether a key changes no result: a run may be resumed with another value.
#[must_use]
pub fn changes_no_result(key: &str) -> bool {
    ["data.workers", "data.queue", "data.cache_mb"].contains(&key) || key.starts_with("compare.") || key == "compare"
}

impl<T: Task> TomlFile for Recipe<T> {
    /// Reports values out of range, and settings that contradict each other or have no effect, as
    /// (key, message).
    fn check(&self, problems: &mut Vec<(String, String)>) {
        let mut part = |name: &str, check: &dyn Fn(&mut Found)| below(name, problems, check);
        part("data", &|found| self.data.check(found));
        part("views", &|found| self.views.check(found));
        part("views", &|found| T::Labels::check_views(&self.views, self.uses_unlabelled(), found));
        part("student", &|found| self.student.check(found));
        for (name, teacher) in &self.teachers {
            part(&format!("teachers.{name}"), &|found| teacher.check(found));
        }
        part("supervised", &|found| self.supervised.check(found));
        part("distill", &|found| self.distill.check(found));
        part("unlabelled", &|found| self.unlabelled.check(found));
        part("ema", &|found| self.ema.iter().for_each(|ema| ema.check(found)));
        part("optimizer", &|found| self.optimizer.check(found));
        part("schedule", &|found| self.schedule.check(found));
        part("train", &|found| self.train.check(found));
        part("eval", &|found| self.eval.check(found));
        self.check_together(problems);
    }
}

impl<T: Task> Recipe<T> {
    /// Reads and checks a recipe of this task; [`AnyRecipe`](crate::AnyRecipe) finds out which it is.
    ///
    /// # Errors
    /// All problems at once, each with its place.
    pub fn read(path: &Path, changes: &Changes) -> Result<Loaded<Self>, Problems> {
        Draft::open(path, changes)?.read()
    }

    fn check_together(&self, problems: &mut Vec<(String, String)>) {
        let mut report = |key: &str, message: &str| problems.push((key.to_owned(), message.to_owned()));
        let terms: Vec<&str> = self.distill.terms().into_iter().map(|(name, _)| name).collect();
        if terms.is_empty() && !self.teachers.is_empty() {
            report("teachers", "have no effect: there is no [distill] term");
        }
        if let Some(term) = terms.first()
            && self.teachers.is_empty()
        {
            report(&format!("distill.{term}"), "needs a teacher: add [teachers.NAME.NET] with `weights`");
        }
        for (name, teacher) in &self.teachers {
            if teacher.new_classes() {
                report(&format!("teachers.{name}"), "must know the classes: `new_classes` is for students");
            }
            if teacher.weights().is_none() {
                report(&format!("teachers.{name}"), "needs `weights`: a file or the folder of a run");
            }
        }
        let uses_unlabelled = self.uses_unlabelled();
        match (self.train.batch_unlabelled, uses_unlabelled) {
            (0, true) => report("train.batch_unlabelled", "must be at least 1: a term learns from unlabelled images"),
            (1.., false) => report("train.batch_unlabelled", "has no effect: no term learns from unlabelled images"),
            _ => {}
        }
        if self.data.unlabelled.is_some() && !uses_unlabelled {
            report("data.unlabelled", "has no effect: no term learns from unlabelled images");
        }
        if self.views.strong.is_some() && !uses_unlabelled {
            report("views.strong", "has no effect: no term learns from unlabelled images");
        }
        if let Some((name, _)) = self.unlabelled.terms().iter().find(|(_, term)| term.needs().average)
            && self.ema.is_none()
        {
            report(&format!("unlabelled.{name}"), "needs an average of the student as its teacher: add [ema]");
        }
        let learns = self.unlabelled.terms().into_iter().find(|(_, term)| term.needs().pseudo_labels);
        match (learns, &self.data.pseudo_labels) {
            (Some((name, _)), None) => {
                report(&format!("unlabelled.{name}"), "learns labels on file: add [data.pseudo_labels] with `file`");
            }
            (None, Some(_)) => report("data.pseudo_labels", "has no effect: no term learns labels on file"),
            _ => {}
        }
        if self.supervised.weight() == 0.0 && terms.is_empty() && self.unlabelled.terms().is_empty() {
            report("supervised", "is off and nothing else trains the student");
        }
        T::check_fit(&self.student, &self.teachers, &self.supervised, &self.distill, &self.unlabelled, problems);
    }

    /// Whether any term learns from the unlabelled stream.
    #[must_use]
    pub(crate) fn uses_unlabelled(&self) -> bool {
        let mut terms = self.distill.terms().into_iter().chain(self.unlabelled.terms());
        terms.any(|(_, term)| term.shared().on.contains(&Stream::Unlabelled))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::any::AnyRecipe;
    use mentor_seg::Seg;

    /// The key's part of a recipe of the repository, with changes.
    fn shortest(name: &str, set: &[&str]) -> String {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes")).join(name);
        let loaded = Recipe::<Seg>::read(&path, &Changes::set(set.iter().copied())).unwrap();
        loaded.minimal(changes_no_result).unwrap()
    }

    #[test]
    fn a_task_that_is_none_is_named_before_all_other_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let mistakes = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let problems = AnyRecipe::read(&path, &Changes::none()).unwrap_err().to_string();
            problems.replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(mistakes("sed = 1\n"), "a.toml:1:1: missing key `task` at the top level; expected \"seg\", \"det\"");
        assert_eq!(
            mistakes("sed = 1\ntask = \"sge\"\n"),
            "a.toml:2:8: `task`: unknown value \"sge\"; did you mean \"seg\"? valid: \"seg\", \"det\""
        );
        assert_eq!(
            mistakes("sed = 1\ntsk = \"seg\"\n"),
            "a.toml:2:1: unknown key `tsk` at the top level; did you mean `task`?"
        );
        assert!(mistakes("sed = 1\ntask = \"seg\"\n").lines().count() > 3);
    }

    #[test]
    fn what_a_recipe_is_keyed_by_holds_its_settings_and_no_default() {
        let plain = shortest("quickstart.toml", &[]);
        assert!(plain.contains("views.scale = [0.8, 1.25]\n") && plain.contains("distill.pixel_wise"), "{plain}");
        for default in ["seed = 0", "schedule.poly.power", "data.workers", "ramp_steps"] {
            assert!(!plain.contains(default), "{default} in\n{plain}");
        }
        let idle = ["data.workers=1", "data.queue=1", "compare.a=\"b.json\"", "seed=0"];
        assert_eq!(shortest("quickstart.toml", &idle), plain);
        assert_ne!(shortest("quickstart.toml", &["seed=1"]), plain);
        assert_ne!(shortest("quickstart.toml", &["optimizer.sgd.momentum=0.5"]), plain);
    }
}
