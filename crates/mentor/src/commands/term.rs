//! `mentor term`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use mentor_distill::{Term as LossTerm, TermTable};
use mentor_recipe::{Table, Task};
use mentor_toml::{Changes, TomlFile, parse};
use mentor_types::{Found, TaskName, below};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::print::say;
use crate::same_file::identity;
use crate::show::{AskedTerm, Show, TermKind};
use crate::tasks::{OnTask, on_task};

/// Evaluate a term of the loss on tensors from a file, to compare it with another implementation.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mentor term pixel_wise --in tensors.safetensors --set temperature=2 --grad grads.safetensors\n\n\
    The file holds what the term reads: `student_logits`, `teacher_logits` [N,K,H,W], `student_feature`,\n\
    `teacher_feature` [N,C,H,W], `images` [N,3,H,W] (normalised) of type F32, `target` [N,H,W] of type\n\
    I64 (255 ignored, 254 unknown). For detection, of one level of a pyramid: features and logits as above, for each\n\
    of P = N H W places, row by row, `student_boxes`, `teacher_boxes`, `target_boxes` [P,4] (left, top, right, bottom\n\
    in pixels; a target without an area is none) and `student_edges`, `teacher_edges` [P,4,bins]; objects as `boxes`\n\
    [M,5] (image, left, top, right, bottom), `image_size` [2] of type I64 (height, width; 8 pixels for each place\n\
    without it). A term with weights of its own has those of a run of `--seed` before its\n\
    first step, unless the file holds them: `adapter` [teacher's C, student's C,1,1], `rival.NAME`.\n\
    The value is printed unweighted, one line for each column of the term; gradients, of the sum of the\n\
    columns by the weights of their places, are written as `grad_student_logits`, `grad_student_feature`,\n\
    `grad_student_boxes`, `grad_student_edges`."
)]
pub struct Term {
    /// The term, as in a recipe: pixel_wise, cross_entropy, fixmatch, ...
    name: String,
    /// The tensors.
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Set a key of the term: `--set temperature=2`. May be given often.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write the gradient of the value with respect to the student's tensors.
    #[arg(long, value_name = "FILE")]
    grad: Option<PathBuf>,
    /// The task of the term, where both have one of that name (default: segmentation's).
    #[arg(long)]
    task: Option<TaskName>,
    /// The seed of the weights of adapters and of the rival.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The tables of a recipe in which terms stand; the one of the term that is asked for is there.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "")]
#[schemars(bound = "", rename = "Tables")]
struct Tables<T: Task> {
    #[serde(default)]
    supervised: Option<T::Supervised>,
    #[serde(default)]
    distill: T::Distill,
    #[serde(default)]
    unlabelled: T::Unlabelled,
}

fn table(kind: TermKind) -> &'static str {
    match kind {
        TermKind::Supervised => "supervised",
        TermKind::Distill => "distill",
        TermKind::Unlabelled => "unlabelled",
    }
}

/// Every term of a task, with where it stands.
fn all<T: Task>() -> Vec<(TermKind, &'static str)> {
    fn names<T: Task, Table: TermTable<T>>(kind: TermKind) -> Vec<(TermKind, &'static str)> {
        Table::all().terms().into_iter().map(|(name, _)| (kind, name)).collect()
    }
    let mut all = names::<T, T::Supervised>(TermKind::Supervised);
    all.extend(names::<T, T::Distill>(TermKind::Distill));
    all.extend(names::<T, T::Unlabelled>(TermKind::Unlabelled));
    all
}

impl<T: Task> Tables<T> {
    /// The only term that is on.
    fn term(&self) -> Option<(&'static str, &dyn LossTerm<T>)> {
        let supervised = self.supervised.iter().flat_map(TermTable::terms);
        supervised.chain(self.distill.terms()).chain(self.unlabelled.terms()).next()
    }
}

impl<T: Task> TomlFile for Tables<T> {
    fn check(&self, found: &mut Found) {
        below("supervised", found, |found| self.supervised.iter().for_each(|table| table.check(found)));
        below("distill", found, |found| self.distill.check(found));
        below("unlabelled", found, |found| self.unlabelled.check(found));
    }
}

impl Term {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let mut known = Vec::new();
        for task in TaskName::ALL.into_iter().filter(|task| self.task.is_none_or(|asked| asked == *task)) {
            match on_task(self, task)? {
                None => return Ok(ExitCode::SUCCESS),
                Some(names) => known.extend(names),
            }
        }
        bail!("there is no term `{}`; there are {}", self.name, known.join(", "));
    }

    fn tables<T: Task>(&self, kind: TermKind) -> Result<Tables<T>> {
        let (table, name) = (table(kind), &self.name);
        let set = self.set.iter().map(|assignment| format!("{table}.{name}.{assignment}"));
        let text = format!("[{table}.{name}]\n");
        Ok(parse::<Tables<T>>(&text, Path::new("(term)"), &Changes::set(set))?.value)
    }
}

impl OnTask for Term {
    /// The terms of a task that has none of that name.
    type Out = Option<Vec<&'static str>>;

    fn on<T: Show>(&self) -> Result<Self::Out> {
        let all = all::<T>();
        let Some((kind, _)) = all.iter().find(|(_, name)| *name == self.name) else {
            return Ok(Some(all.into_iter().map(|(_, name)| name).collect()));
        };
        let tables = self.tables::<T>(*kind)?;
        if let Some(path) = self.grad.as_ref().filter(|path| path.exists())
            && identity(path)? == identity(&self.input)?
        {
            bail!("--grad {} is the file of --in: choose another", path.display());
        }
        let (name, term) = tables.term().context("the table of the term is there")?;
        let (input, grad) = (self.input.as_path(), self.grad.as_deref());
        for (column, value) in T::term(&AskedTerm { kind: *kind, name, term, input, grad, seed: self.seed })? {
            say!("{}", serde_json::json!({ "term": name, "column": column.name, "value": value }));
        }
        Ok(None)
    }
}
