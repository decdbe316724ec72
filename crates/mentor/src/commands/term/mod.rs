//! `mentor term`.

mod inputs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor};
use clap::Args;
use mentor_distill::{Column, Companion as _, Companions, Start, Term as LossTerm, TermTable, check_terms};
use mentor_nets::Adapter;
use mentor_seg::distill::DistillConfig;
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::UnlabelledConfig;
use mentor_seg::upload::PairPixels;
use mentor_seg::views::{Teaching, Views};
use mentor_seg::{Context, Seg};
use mentor_toml::{Changes, TomlFile, parse};
use mentor_types::{Found, Key, Tap, UNKNOWN, below};
use mentor_weights::{NamedTensors, load_named, to_safetensors, write_atomically};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use inputs::{Inputs, Side};

use crate::print::say;
use crate::same_file::identity;

/// Evaluate a term of the loss on tensors from a file, to compare it with another implementation.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mentor term pixel_wise --in tensors.safetensors --set temperature=2 --grad grads.safetensors\n\n\
    The file holds what the term reads: `student_logits`, `teacher_logits` [N,K,H,W], `student_feature`,\n\
    `teacher_feature` [N,C,H,W], `images` [N,3,H,W] (normalised) of type F32, `target` [N,H,W] of type\n\
    I64 (255 ignored, 254 unknown). A term with weights of its own has those of a run of `--seed` before its\n\
    first step, unless the file holds them: `adapter` [teacher's C, student's C,1,1], `rival.NAME`.\n\
    The value is printed unweighted, one line for each column of the term; gradients, of the sum of the\n\
    columns by the weights of their places, are written as `grad_student_logits`, `grad_student_feature`."
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
    /// The seed of the weights of adapters and of the rival.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The tables of a recipe in which terms stand; the one of the term that is asked for is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    supervised: Option<SupervisedConfig>,
    #[serde(default)]
    distill: DistillConfig,
    #[serde(default)]
    unlabelled: UnlabelledConfig,
}

/// In which table a term stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Supervised,
    Distill,
    Unlabelled,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Supervised => "supervised",
            Self::Distill => "distill",
            Self::Unlabelled => "unlabelled",
        }
    }
}

/// Every term there is, with its table.
fn all() -> Vec<(Table, &'static str)> {
    fn names<T: TermTable<Seg>>(table: Table) -> impl Iterator<Item = (Table, &'static str)> {
        let all = T::all();
        all.terms().into_iter().map(move |(name, _)| (table, name)).collect::<Vec<_>>().into_iter()
    }
    names::<SupervisedConfig>(Table::Supervised)
        .chain(names::<DistillConfig>(Table::Distill))
        .chain(names::<UnlabelledConfig>(Table::Unlabelled))
        .collect()
}

impl Tables {
    /// The only term that is on.
    fn term(&self) -> Option<(&'static str, &dyn LossTerm<Seg>)> {
        let supervised = self.supervised.iter().flat_map(TermTable::terms);
        supervised.chain(self.distill.terms()).chain(self.unlabelled.terms()).next()
    }
}

impl TomlFile for Tables {
    fn check(&self, found: &mut Found) {
        below("supervised", found, |found| self.supervised.iter().for_each(|table| table.check(found)));
        below("distill", found, |found| check_terms(&self.distill, found));
        below("unlabelled", found, |found| check_terms(&self.unlabelled, found));
    }
}

impl Term {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let all = all();
        let Some((table, _)) = all.iter().find(|(_, name)| *name == self.name) else {
            let known: Vec<&str> = all.into_iter().map(|(_, name)| name).collect();
            bail!("there is no term `{}`; there are {}", self.name, known.join(", "));
        };
        let tables = self.tables(*table)?;
        if let Some(path) = self.grad.as_ref().filter(|path| path.exists())
            && identity(path)? == identity(&self.input)?
        {
            bail!("--grad {} is the file of --in: choose another", path.display());
        }
        let (name, term) = tables.term().context("the table of the term is there")?;
        let inputs = Inputs::read(&self.input)?;
        let columns = Column::of(name, &term.shared());
        check_inputs(*table, term, &columns, &inputs)?;
        let values = self.evaluate(*table, name, term, &columns, &inputs)?;
        for (column, value) in columns.iter().zip(&values) {
            let value = value.clone().into_scalar::<f32>();
            say!("{}", serde_json::json!({ "term": name, "column": column.name, "value": value }));
        }
        if let Some(path) = &self.grad {
            let weighted = columns.iter().zip(values);
            let weighted =
                weighted.map(|(column, value)| value.mul_scalar(column.place.map_or(1.0, |place| place.weight)));
            let sum = weighted.reduce(|sum, value| sum + value).context("a term has a column")?;
            write_gradients(&inputs, &sum, path)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn tables(&self, table: Table) -> Result<Tables> {
        let (table, name) = (table.name(), &self.name);
        let set = self.set.iter().map(|assignment| format!("{table}.{name}.{assignment}"));
        let text = format!("[{table}.{name}]\n");
        Ok(parse::<Tables>(&text, Path::new("(term)"), &Changes::set(set))?.value)
    }

    /// The value of each column.
    fn evaluate(
        &self,
        table: Table,
        name: &'static str,
        term: &dyn LossTerm<Seg>,
        columns: &[Column],
        inputs: &Inputs,
    ) -> Result<Vec<Tensor<1>>> {
        let (student, teacher) = (inputs.student.output(), inputs.teacher.output());
        let channels = |column: &Column| {
            let [of_student, of_teacher] = taps(column);
            [(&student, of_student), (&teacher, of_teacher)]
                .map(|(side, tap)| side.at(tap).map_or(0, |features| features.dims()[1]))
        };
        let mut adapters = Vec::new();
        for spec in columns.iter().flat_map(|column| term.adapters(column, channels(column))) {
            let adapter = Adapter::fresh(&spec, self.seed, &Device::flex());
            let own = inputs.named(|name| (name == "adapter").then(|| "conv.weight".to_owned()))?;
            let adapter = if own.is_empty() { Ok(adapter) } else { load_named(adapter, own) };
            adapters.push(adapter.with_context(|| inputs.at("adapter"))?);
        }
        let companions = self.companions(name, term, inputs)?;
        let weak = |_: Teaching| teacher.logits.clone();
        let pixels = (table == Table::Unlabelled).then(|| same_pixels(inputs, &student.logits)).transpose()?;
        let views = pixels.as_ref().map(|pixels| Views::new(pixels, &weak));
        let context = Context::of(&student, Key::new(self.seed)).with(|context| {
            context.teacher = Some(&teacher);
            context.target_nhw = inputs.target.as_ref();
            context.images_nchw = inputs.images.as_ref();
            context.adapters = &adapters;
            context.companions = Some(&companions);
            context.views = views.as_ref();
        });
        Ok(columns.iter().map(|column| term.value(&context, column)).collect())
    }

    /// What the term keeps, as in a run before its first step, or as it lies in the file.
    fn companions(&self, name: &'static str, term: &dyn LossTerm<Seg>, inputs: &Inputs) -> Result<Companions<Seg>> {
        let classes = inputs.student.logits.as_ref().map_or(0, |logits| logits.dims()[1]);
        let fresh = Start { classes, seed: self.seed, device: &Device::flex() };
        let mut companions = Companions::fresh([(name, term)], &fresh);
        let own = inputs.named(|name| Some(format!("net.{}", name.strip_prefix("rival.")?)))?;
        if let Some(companion) = companions.get_mut(name).filter(|_| !own.is_empty()) {
            let loaded = companion.load(&to_safetensors(&own)?);
            loaded.map_err(anyhow::Error::msg).with_context(|| inputs.at("rival"))?;
        }
        Ok(companions)
    }
}

/// Where a column takes its maps from student and teacher: the class scores, if it has no place.
fn taps(column: &Column) -> [Tap; 2] {
    column.place.map_or([Tap::Logits; 2], |place| [place.student, place.teacher])
}

/// What the term reads must be in the file.
fn check_inputs(table: Table, term: &dyn LossTerm<Seg>, columns: &[Column], inputs: &Inputs) -> Result<()> {
    let need = |side: &str, maps: &Side, tap: Tap| {
        let (what, map) = if tap == Tap::Logits { ("logits", &maps.logits) } else { ("feature", &maps.feature) };
        inputs.need(&format!("{side}_{what}"), map.as_ref()).map(|_| ())
    };
    for column in columns {
        let [of_student, of_teacher] = taps(column);
        need("student", &inputs.student, of_student)?;
        if table != Table::Supervised {
            need("teacher", &inputs.teacher, of_teacher)?;
        }
    }
    if table == Table::Supervised {
        inputs.need("target", inputs.target.as_ref())?;
    }
    if term.needs().images {
        inputs.need("images", inputs.images.as_ref())?;
    }
    Ok(())
}

/// The student's logits are those of the strong view, the teacher's those of the weak one, and both
/// views show the same pixels.
fn same_pixels(inputs: &Inputs, strong_nkhw: &Tensor<4>) -> Result<PairPixels> {
    let [n, _, height, width] = strong_nkhw.dims();
    let device = Device::flex();
    let pixels = i64::try_from(n * height * width)?;
    let unknown = Tensor::<3, Int>::full([n, height, width], i64::from(UNKNOWN), &device);
    let targets = inputs.target.clone().unwrap_or_else(|| unknown.clone());
    ensure!(
        targets.dims() == unknown.dims(),
        "{} is {:?}, expected the size of `student_logits`, {:?}",
        inputs.at("target"),
        targets.dims(),
        unknown.dims()
    );
    let origin = Tensor::arange(0..pixels, &device).reshape([n, height, width]);
    Ok(PairPixels { origin, targets, truth: unknown })
}

fn write_gradients(inputs: &Inputs, value: &Tensor<1>, path: &Path) -> Result<()> {
    let grads = value.backward();
    let mut tensors = NamedTensors::new();
    let student = &inputs.student;
    for (name, tensor) in [("grad_student_logits", &student.logits), ("grad_student_feature", &student.feature)] {
        if let Some(grad) = tensor.as_ref().and_then(|tensor| tensor.grad(&grads)) {
            let data = grad.into_data();
            let shape = data.shape().to_vec();
            let values = data.try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
            tensors.insert(name.to_owned(), (shape, values));
        }
    }
    write_atomically(path, &to_safetensors(&tensors)?)?;
    Ok(())
}
