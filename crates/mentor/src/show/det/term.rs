//! The value of a term of detection on tensors from a file.

use anyhow::{Context as _, Result, bail, ensure};
use burn::tensor::{Device, Tensor};
use mentor_det::{Context, Det};
use mentor_distill::{Column, columns};
use mentor_nets::Adapter;
use mentor_weights::load_named;

use super::inputs::Inputs;
use crate::show::tensors::Slopes;
use crate::show::{AskedTerm, TermKind};

/// The columns of a term with their unweighted values; gradients go to the file that is asked for.
pub fn values(asked: &AskedTerm<'_, Det>) -> Result<Vec<(Column, f32)>> {
    let inputs = Inputs::read(asked.input)?;
    let columns = columns_at(asked, &inputs)?;
    check_inputs(asked, &inputs)?;
    let values = evaluate(asked, &columns, &inputs)?;
    if let Some(path) = asked.grad {
        let weighted = columns.iter().zip(values.clone());
        let weighted = weighted.map(|(column, value)| value.mul_scalar(column.place.map_or(1.0, |place| place.weight)));
        let sum = weighted.reduce(|sum, value| sum + value).context("a term has a column")?;
        let (grads, student) = (sum.backward(), &inputs.student);
        let mut slopes = Slopes::default();
        slopes.keep("student_feature", student.feature.as_ref().and_then(|tensor| tensor.grad(&grads)))?;
        slopes.keep("student_logits", student.logits.as_ref().and_then(|tensor| tensor.grad(&grads)))?;
        slopes.keep("student_boxes", student.boxes.as_ref().and_then(|tensor| tensor.grad(&grads)))?;
        slopes.keep("student_edges", student.edges.as_ref().and_then(|tensor| tensor.grad(&grads)))?;
        slopes.write(path)?;
    }
    Ok(columns.into_iter().zip(values).map(|(column, value)| (column, value.into_scalar::<f32>())).collect())
}

/// The columns of the term on the level of the maps.
fn columns_at(asked: &AskedTerm<'_, Det>, inputs: &Inputs) -> Result<Vec<Column>> {
    let level = inputs.level();
    let columns = columns::<Det>(asked.name, asked.term, &[level]);
    for place in columns.iter().filter_map(|column| column.place) {
        ensure!(
            place.student == level && place.teacher == level,
            "the maps have places {} pixels apart, which is the level {level}, not {} and {}",
            inputs.stride,
            place.student,
            place.teacher
        );
    }
    Ok(columns)
}

/// The value of each column.
fn evaluate(asked: &AskedTerm<'_, Det>, columns: &[Column], inputs: &Inputs) -> Result<Vec<Tensor<1>>> {
    let (term, seed) = (asked.term, asked.seed);
    let channels = [&inputs.student, &inputs.teacher].map(|side| side.feature.as_ref().map_or(0, |map| map.dims()[1]));
    let mut adapters = Vec::new();
    for spec in
        columns.iter().filter(|column| column.place.is_some()).flat_map(|column| term.adapters(column, channels))
    {
        let adapter = Adapter::fresh(&spec, seed, &Device::flex());
        let is_own = |name: &str| name == "adapter" && columns.iter().any(|column| column.name == spec.name);
        let own = inputs.file.named(|name| is_own(name).then(|| "conv.weight".to_owned()))?;
        let adapter = if own.is_empty() { Ok(adapter) } else { load_named(adapter, own) };
        adapters.push(adapter.with_context(|| inputs.file.at("adapter"))?);
    }
    let (student, teacher) = (inputs.output(&inputs.student), inputs.output(&inputs.teacher));
    let labelled = inputs.labelled(&student);
    let seen = Context { teacher: Some(&teacher), adapters: &adapters, ..Context::of(&student, labelled.as_ref()) };
    Ok(columns.iter().map(|column| term.value(&seen, column)).collect())
}

/// What the term reads must be in the file.
fn check_inputs(asked: &AskedTerm<'_, Det>, inputs: &Inputs) -> Result<()> {
    let Some(reads) = asked.term.reads() else {
        bail!("{}: asks nets for more than a file can hold; it is measured in a run", asked.name);
    };
    let sides = [("student", &inputs.student), ("teacher", &inputs.teacher)];
    let sides = &sides[..if asked.kind == TermKind::Supervised { 1 } else { 2 }];
    for (side, tensors) in sides {
        let own = reads.own_places && *side == "student";
        for (what, is_read, is_there) in [
            ("feature", reads.features, tensors.feature.is_some()),
            ("logits", reads.logits || own, tensors.logits.is_some()),
            ("boxes", reads.boxes || own, tensors.boxes.is_some()),
            ("edges", reads.edges, tensors.edges.is_some()),
        ] {
            inputs.file.need(&format!("{side}_{what}"), (!is_read || is_there).then_some(()))?;
        }
    }
    let has_labels = inputs.target_boxes.is_some() || inputs.has_boxes();
    inputs.file.need("boxes", (!reads.labels || has_labels).then_some(()))
}
