//! The value of a term on tensors from a file.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use burn::tensor::{Device, Int, Tensor};
use mentor_distill::{Column, Companion as _, Companions, Start, Term};
use mentor_nets::Adapter;
use mentor_seg::upload::PairPixels;
use mentor_seg::views::{Teaching, Views};
use mentor_seg::{Context, Seg};
use mentor_types::{Key, Tap, UNKNOWN};
use mentor_weights::{load_named, to_safetensors};

use super::inputs::{Inputs, Side};
use crate::show::tensors::Slopes;
use crate::show::{AskedTerm, TermKind};

/// The columns of a term with their unweighted values; gradients go to the file that is asked for.
pub fn values(asked: &AskedTerm<'_, Seg>) -> Result<Vec<(Column, f32)>> {
    let inputs = Inputs::read(asked.input)?;
    let columns = Column::of(asked.name, &asked.term.shared());
    check_inputs(asked.kind, asked.term, &columns, &inputs)?;
    let values = evaluate(asked, &columns, &inputs)?;
    if let Some(path) = asked.grad {
        let weighted = columns.iter().zip(values.clone());
        let weighted = weighted.map(|(column, value)| value.mul_scalar(column.place.map_or(1.0, |place| place.weight)));
        let sum = weighted.reduce(|sum, value| sum + value).context("a term has a column")?;
        write_gradients(&inputs, &sum, path)?;
    }
    Ok(columns.into_iter().zip(values).map(|(column, value)| (column, value.into_scalar::<f32>())).collect())
}

/// The value of each column.
fn evaluate(asked: &AskedTerm<'_, Seg>, columns: &[Column], inputs: &Inputs) -> Result<Vec<Tensor<1>>> {
    let (term, seed) = (asked.term, asked.seed);
    let (student, teacher) = (inputs.student.output(), inputs.teacher.output());
    let channels = |column: &Column| {
        let [of_student, of_teacher] = taps(column);
        [(&student, of_student), (&teacher, of_teacher)]
            .map(|(side, tap)| side.at(tap).map_or(0, |features| features.dims()[1]))
    };
    let mut adapters = Vec::new();
    for spec in columns.iter().flat_map(|column| term.adapters(column, channels(column))) {
        let adapter = Adapter::fresh(&spec, seed, &Device::flex());
        let own = inputs.file.named(|name| (name == "adapter").then(|| "conv.weight".to_owned()))?;
        let adapter = if own.is_empty() { Ok(adapter) } else { load_named(adapter, own) };
        adapters.push(adapter.with_context(|| inputs.file.at("adapter"))?);
    }
    let companions = companions(asked, inputs)?;
    let weak = |_: Teaching| teacher.logits.clone();
    let pixels = (asked.kind == TermKind::Unlabelled).then(|| same_pixels(inputs, &student.logits)).transpose()?;
    let views = pixels.as_ref().map(|pixels| Views::new(pixels, &weak));
    let context = Context::of(&student, Key::new(seed)).with(|context| {
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
fn companions(asked: &AskedTerm<'_, Seg>, inputs: &Inputs) -> Result<Companions<Seg>> {
    let (name, term, seed) = (asked.name, asked.term, asked.seed);
    let classes = inputs.student.logits.as_ref().map_or(0, |logits| logits.dims()[1]);
    let fresh = Start { classes, teacher_channels: 0, seed, device: &Device::flex() };
    let mut companions = Companions::fresh([(name, term)], &fresh);
    let own = inputs.file.named(|name| Some(format!("net.{}", name.strip_prefix("rival.")?)))?;
    if let Some(companion) = companions.get_mut(name).filter(|_| !own.is_empty()) {
        let loaded = companion.load(&to_safetensors(&own)?);
        loaded.map_err(anyhow::Error::msg).with_context(|| inputs.file.at("rival"))?;
    }
    Ok(companions)
}

/// Where a column takes its maps from student and teacher: the class scores, if it has no place.
fn taps(column: &Column) -> [Tap; 2] {
    column.place.map_or([Tap::Logits; 2], |place| [place.student, place.teacher])
}

/// What the term reads must be in the file.
fn check_inputs(kind: TermKind, term: &dyn Term<Seg>, columns: &[Column], inputs: &Inputs) -> Result<()> {
    let need = |side: &str, maps: &Side, tap: Tap| {
        let (what, map) = if tap == Tap::Logits { ("logits", &maps.logits) } else { ("feature", &maps.feature) };
        inputs.file.need(&format!("{side}_{what}"), map.as_ref()).map(|_| ())
    };
    for column in columns {
        let [of_student, of_teacher] = taps(column);
        need("student", &inputs.student, of_student)?;
        if kind != TermKind::Supervised {
            need("teacher", &inputs.teacher, of_teacher)?;
        }
    }
    if kind == TermKind::Supervised {
        inputs.file.need("target", inputs.target.as_ref())?;
    }
    if term.needs().images {
        inputs.file.need("images", inputs.images.as_ref())?;
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
        inputs.file.at("target"),
        targets.dims(),
        unknown.dims()
    );
    let origin = Tensor::arange(0..pixels, &device).reshape([n, height, width]);
    Ok(PairPixels { origin, targets, truth: unknown })
}

fn write_gradients(inputs: &Inputs, value: &Tensor<1>, path: &Path) -> Result<()> {
    let (grads, student) = (value.backward(), &inputs.student);
    let mut slopes = Slopes::default();
    for (name, tensor) in [("student_logits", &student.logits), ("student_feature", &student.feature)] {
        slopes.keep(name, tensor.as_ref().and_then(|tensor| tensor.grad(&grads)))?;
    }
    slopes.write(path)
}
