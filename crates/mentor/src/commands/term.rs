//! `mentor term`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Args;
use mentor_nets::{Adapter, Frozen};
use mentor_ops::{NamedTensors, from_safetensors, load_named, to_safetensors};
use mentor_recipe::{Changes, parse};
use mentor_seg::distill::{Discriminator, DistillConfig, Holistic, Rival, Term as DistillTerm, TermContext};
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::{Teaching, UnlabelledConfig};
use mentor_seg::upload::PairPixels;
use mentor_train::write_atomically;
use mentor_types::{Key, LossTerms, SegOutput, Stats, Taps, UNKNOWN};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    The value is printed unweighted; gradients are written as `grad_student_logits`, `grad_student_feature`."
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

/// The tables of a recipe in which terms stand.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Terms {
    #[serde(default)]
    supervised: Option<SupervisedConfig>,
    #[serde(default)]
    distill: DistillConfig,
    #[serde(default)]
    unlabelled: UnlabelledConfig,
}

const SUPERVISED: [&str; 3] = ["cross_entropy", "dice", "lovasz_softmax"];
const UNLABELLED: [&str; 2] = ["mean_teacher", "fixmatch"];

impl Term {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let name = self.name.as_str();
        let all = DistillConfig::all();
        let distil: Vec<&str> = all.terms().map(|(name, _)| name).collect();
        let table = if SUPERVISED.contains(&name) {
            "supervised"
        } else if UNLABELLED.contains(&name) {
            "unlabelled"
        } else if distil.contains(&name) {
            "distill"
        } else {
            let known: Vec<&str> = [SUPERVISED.as_slice(), &distil, &UNLABELLED].concat();
            bail!("there is no term `{name}`; there are {}", known.join(", "));
        };
        if let Some(path) = self.grad.as_ref().filter(|path| path.exists())
            && identity(path)? == identity(&self.input)?
        {
            bail!("--grad {} is the file of --in: choose another", path.display());
        }
        let config = self.config(table)?;
        let tensors = Tensors::read(&self.input)?;
        let student = tensors.student()?;
        tensors.check_shapes()?;
        let terms = match table {
            "supervised" => supervised_terms(&config, &tensors, &student)?,
            "unlabelled" => unlabelled_terms(&config, &tensors, &student)?,
            _ => distil_terms(self.seed, &config, &tensors, &student)?,
        };
        let term = terms.iter().next().with_context(|| format!("`{name}` gave no value"))?;
        let value = term.value.clone();
        say!("{}", serde_json::json!({ "term": name, "value": value.clone().into_scalar::<f32>() }));
        if let Some(path) = &self.grad {
            student.write_gradients(&value, path)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn config(&self, table: &str) -> Result<Terms> {
        let name = &self.name;
        let set = self.set.iter().map(|assignment| format!("{table}.{name}.{assignment}"));
        let text = format!("[{table}.{name}]\n");
        let check = |terms: &Terms, problems: &mut Vec<(String, String)>| {
            let mut part = |name: &str, found: Vec<(String, String)>| {
                problems.extend(found.into_iter().map(|(key, message)| (format!("{name}.{key}"), message)));
            };
            let mut found = Vec::new();
            terms.distill.check(&mut found);
            part("distill", std::mem::take(&mut found));
            terms.unlabelled.check(&mut found);
            part("unlabelled", std::mem::take(&mut found));
            terms.supervised.iter().for_each(|supervised| supervised.check(&mut found));
            part("supervised", found);
        };
        Ok(parse::<Terms>(&text, Path::new("(term)"), &Changes::set(set), check)?.value)
    }
}

/// The tensors of the file.
struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        SafeTensors::deserialize(&bytes).with_context(|| format!("{}: not a safetensors file", path.display()))?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    fn float<const D: usize>(&self, name: &str) -> Result<Option<Tensor<D>>> {
        let Some((shape, dtype, data)) = self.raw::<D>(name)? else { return Ok(None) };
        let values: Vec<f32> = match dtype {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            other => bail!("{}: `{name}` has type {other:?}, expected F32", self.path.display()),
        };
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }

    fn labels(&self) -> Result<Option<Tensor<3, Int>>> {
        let name = "target";
        let Some((shape, dtype, data)) = self.raw::<3>(name)? else { return Ok(None) };
        let values: Vec<i64> = match dtype {
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            Dtype::I32 => data.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
            Dtype::U8 => data.iter().map(|byte| i64::from(*byte)).collect(),
            other => bail!("{}: `{name}` has type {other:?}, expected I64", self.path.display()),
        };
        if let Some(wrong) = values.iter().find(|value| !(0..=255).contains(*value)) {
            bail!("{}: `{name}` holds {wrong}, expected classes, 254 or 255", self.path.display());
        }
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }

    #[allow(clippy::type_complexity)]
    fn raw<const D: usize>(&self, name: &str) -> Result<Option<([usize; D], Dtype, Vec<u8>)>> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        let shape: [usize; D] = view.shape().try_into().with_context(|| {
            format!("{}: `{name}` has shape {:?}, expected {D} dimensions", self.path.display(), view.shape())
        })?;
        Ok(Some((shape, view.dtype(), view.data().to_vec())))
    }

    /// What one file holds must fit together.
    fn check_shapes(&self) -> Result<()> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let shape = |name: &str| file.tensor(name).ok().map(|view| view.shape().to_vec());
        let fail = |name: &str, found: &[usize], other: &str, expected: &[usize]| {
            bail!("{}: `{name}` is {found:?}, which does not fit `{other}` {expected:?}", self.path.display())
        };
        if let (Some(student), Some(teacher)) = (shape("student_logits"), shape("teacher_logits"))
            && student[..2] != teacher[..2]
        {
            return fail("teacher_logits", &teacher, "student_logits", &student);
        }
        if let (Some(student), Some(teacher)) = (shape("student_feature"), shape("teacher_feature"))
            && student[0] != teacher[0]
        {
            return fail("teacher_feature", &teacher, "student_feature", &student);
        }
        if let (Some(logits), Some(target)) = (shape("student_logits"), shape("target"))
            && logits[0] != target[0]
        {
            return fail("target", &target, "student_logits", &logits);
        }
        if let (Some(logits), Some(target)) = (shape("student_logits"), self.labels()?) {
            let classes = i64::try_from(logits[1])?;
            let values = target.into_data().convert::<i64>().try_into_vec::<i64>().expect("converted to i64 above");
            if let Some(wrong) = values.into_iter().find(|value| *value >= classes && *value < 254) {
                bail!("{}: `target` holds {wrong}, expected a class below {classes}, 254 or 255", self.path.display());
            }
        }
        Ok(())
    }

    /// The adapters of a term: those of a run before its first step, or the one of the file.
    fn adapters(
        &self,
        term: &dyn DistillTerm,
        student: &Student,
        teacher: &Student,
        seed: u64,
    ) -> Result<Vec<Adapter>> {
        let channels = |side: &Student| side.feature.as_ref().map_or(0, |feature| feature.dims()[1]);
        let specs = term.adapters(&|_| channels(student), &|_| channels(teacher));
        let own = self.named(|name| (name == "adapter").then_some("conv.weight"))?;
        let adapters = specs.into_iter().map(|spec| {
            let adapter = spec.init(seed, &Device::flex());
            if own.is_empty() { Ok(adapter) } else { load_named(adapter, own.clone()) }
        });
        adapters.collect::<Result<_, _>>().with_context(|| format!("{}: `adapter`", self.path.display()))
    }

    /// The rival of a run before its first step, or the one of the file.
    fn rival(&self, holistic: &Holistic, student: &Student, seed: u64) -> Result<Frozen<Discriminator>> {
        let classes = student.logits.as_ref().map_or(0, |logits| logits.dims()[1]);
        let mut rival = Rival::new(&holistic.rival, classes, seed, &Device::flex());
        let own = self.named(|name| name.strip_prefix("rival."))?;
        if !own.is_empty() {
            let own = own.into_iter().map(|(name, tensor)| (format!("net.{name}"), tensor)).collect();
            rival.load(&to_safetensors(&own)?).with_context(|| self.path.display().to_string())?;
        }
        Ok(rival.frozen())
    }

    /// The tensors to which `rename` gives a name, under that one.
    fn named(&self, rename: impl Fn(&str) -> Option<&str>) -> Result<NamedTensors> {
        let all = SafeTensors::deserialize(&self.bytes)?;
        let chosen = all.tensors().into_iter().filter_map(|(name, view)| Some((rename(&name)?.to_owned(), view)));
        let chosen: BTreeMap<String, TensorView> = chosen.collect();
        Ok(from_safetensors(&safetensors::serialize(chosen, None)?)?)
    }

    fn need<T>(&self, name: &str, tensor: Option<T>) -> Result<T> {
        tensor.with_context(|| format!("{}: this term needs `{name}`", self.path.display()))
    }

    fn student(&self) -> Result<Student> {
        let leaf = |tensor: Option<Tensor<4>>| tensor.map(|tensor| tensor.autodiff().require_grad());
        Ok(Student { logits: leaf(self.float("student_logits")?), feature: leaf(self.float("student_feature")?) })
    }

    fn teacher(&self) -> Result<Student> {
        Ok(Student { logits: self.float("teacher_logits")?, feature: self.float("teacher_feature")? })
    }
}

/// The student's (or the teacher's) tensors.
struct Student {
    logits: Option<Tensor<4>>,
    feature: Option<Tensor<4>>,
}

impl Student {
    /// A network's output that holds the tensors; features stand at every tap.
    fn output(&self) -> SegOutput {
        let mut taps = Taps::default();
        if let Some(feature) = &self.feature {
            use mentor_types::Tap::{C2, C3, C4, C5, Head, Stem};
            for tap in [Stem, C2, C3, C4, C5, Head] {
                taps.insert(tap, feature.clone());
            }
        }
        let logits = self.logits.clone().or_else(|| self.feature.clone());
        let logits = logits.unwrap_or_else(|| Tensor::zeros([1, 1, 1, 1], &Device::flex()));
        let [_, _, height, width] = logits.dims();
        SegOutput { logits, auxiliary: None, taps, image_size: [height, width] }
    }

    fn write_gradients(&self, value: &Tensor<1>, path: &Path) -> Result<()> {
        let grads = value.backward();
        let mut tensors = NamedTensors::new();
        for (name, tensor) in [("grad_student_logits", &self.logits), ("grad_student_feature", &self.feature)] {
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
}

fn supervised_terms(config: &Terms, tensors: &Tensors, student: &Student) -> Result<LossTerms> {
    tensors.need("student_logits", student.logits.as_ref())?;
    let target = tensors.need("target", tensors.labels()?)?;
    let mut terms = LossTerms::default();
    let config = config.supervised.clone().unwrap_or_default();
    mentor_seg::supervised::supervised(&config, &student.output(), &target, &mut terms);
    Ok(terms)
}

fn distil_terms(seed: u64, config: &Terms, tensors: &Tensors, student: &Student) -> Result<LossTerms> {
    let (teacher, target, images) = (tensors.teacher()?, tensors.labels()?, tensors.float::<4>("images")?);
    let mut terms = LossTerms::default();
    for (_, term) in config.distill.terms() {
        if term.places().is_empty() {
            tensors.need("student_logits", student.logits.as_ref())?;
            tensors.need("teacher_logits", teacher.logits.as_ref())?;
        } else {
            tensors.need("student_feature", student.feature.as_ref())?;
            tensors.need("teacher_feature", teacher.feature.as_ref())?;
        }
        if term.needs_rival() {
            tensors.need("images", images.as_ref())?;
        }
        let rival =
            config.distill.holistic.as_ref().map(|holistic| tensors.rival(holistic, student, seed)).transpose()?;
        let context = TermContext {
            student: &student.output(),
            teacher: &teacher.output(),
            target_nhw: target.as_ref(),
            adapters: &tensors.adapters(term, student, &teacher, seed)?,
            rival: rival.as_ref(),
            images_nchw: images.as_ref(),
            key: Key::new(seed),
        };
        for column in mentor_seg::distill::columns(term) {
            terms.push(column.name, 1.0, term.value(&context, column.place.as_ref()));
        }
    }
    Ok(terms)
}

/// The student's logits are those of the strong view, the teacher's those of the weak one, and both
/// views show the same pixels.
fn unlabelled_terms(config: &Terms, tensors: &Tensors, student: &Student) -> Result<LossTerms> {
    let strong = tensors.need("student_logits", student.logits.clone())?;
    let weak = tensors.need("teacher_logits", tensors.teacher()?.logits)?;
    let [n, _, height, width] = strong.dims();
    let device = Device::flex();
    let pixels = i64::try_from(n * height * width)?;
    let unknown = Tensor::<3, Int>::full([n, height, width], i64::from(UNKNOWN), &device);
    let pixels = PairPixels {
        origin: Tensor::arange(0..pixels, &device).reshape([n, height, width]),
        targets: tensors.labels()?.unwrap_or_else(|| unknown.clone()),
        truth: unknown,
    };
    let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
    let teacher = |_: Teaching| weak.clone();
    config.unlabelled.losses(&teacher, strong, &pixels, u64::MAX, &mut terms, &mut stats);
    Ok(terms)
}
