//! What a step and an evaluation leave behind: a line of the log, and numbers for TensorBoard.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;
use mentor_types::{LossTerms, Stats};
use serde_json::json;

use crate::events::EventFile;
use crate::finite::numbers;
use crate::log::TermLine;
use crate::{Evaluation, Log, LogLine, Progress, TrainError};

/// Where a run writes down how it goes: the log, TensorBoard's file, and what a person sees.
pub(crate) struct Records<'a> {
    log: Log,
    events: EventFile,
    progress: &'a Progress,
}

impl<'a> Records<'a> {
    /// Opens the files of a run folder; what they say of later steps than `step` goes.
    pub(crate) fn open(folder: &Path, step: u64, progress: &'a Progress) -> Result<Self, TrainError> {
        let log = Log::open(folder.join("log.jsonl"), step)?;
        Ok(Self { log, events: EventFile::create(folder, step)?, progress })
    }

    /// Writes down a step.
    pub(crate) fn step(&mut self, line: &LogLine) -> Result<(), TrainError> {
        record(line, &mut self.log, &mut self.events)?;
        self.progress.show(line);
        Ok(())
    }

    /// Writes down what models were judged by.
    pub(crate) fn judged(&mut self, step: u64, evaluations: &[Evaluation], start: Instant) -> Result<(), TrainError> {
        for evaluation in evaluations {
            record(&eval_line(step, evaluation, start), &mut self.log, &mut self.events)?;
            self.progress.judged(step, evaluation);
        }
        Ok(())
    }
}

/// Writes a line to the log, and its numbers to the event file.
fn record(line: &LogLine, log: &mut Log, events: &mut EventFile) -> Result<(), TrainError> {
    log.write(line)?;
    match line {
        LogLine::Step { step, lr, total, grad_norm, terms, stats, .. } => {
            for (tag, value) in [("train/lr", lr), ("train/total", total), ("train/grad_norm", grad_norm)] {
                events.scalar(tag, *step, *value)?;
            }
            for (name, term) in terms {
                events.scalar(&format!("terms/{name}"), *step, term.value)?;
            }
            for (name, value) in stats {
                events.scalar(&format!("stats/{name}"), *step, *value)?;
            }
        }
        LogLine::Eval { step, model, metrics, .. } => {
            for (name, value) in metrics.numbers() {
                events.scalar(&format!("val/{model}/{name}"), *step, value)?;
            }
        }
    }
    Ok(())
}

/// The log line of a step: means over its micro-batches. The device is waited for once.
pub(crate) fn step_line(
    step: u64,
    lr: f64,
    norm: &Tensor<1>,
    seen: &[(LossTerms, Stats)],
    time: serde_json::Value,
) -> LogLine {
    let values = seen.iter().flat_map(|(losses, stats)| {
        let ratios = stats.iter().flat_map(|stat| [&stat.numerator, &stat.denominator]);
        losses.iter().map(|term| &term.value).chain(ratios)
    });
    let mut values = numbers(std::iter::once(norm).chain(values)).into_iter();
    let mut next = || values.next().expect("one number for each tensor");
    let grad_norm = next();
    let mut terms: BTreeMap<String, TermLine> = BTreeMap::new();
    let mut ratios: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (losses, stats) in seen {
        for term in losses.iter() {
            let line = terms.entry(term.name.clone()).or_insert(TermLine { weight: term.weight, value: 0.0 });
            line.value += next() / seen.len() as f64;
        }
        for stat in stats.iter() {
            let ratio = ratios.entry(stat.name.clone()).or_default();
            ratio.0 += next();
            ratio.1 += next();
        }
    }
    let total = terms.values().map(|term| term.weight * term.value).sum();
    // A ratio over nothing has no value, and no entry in the log.
    let ratios = ratios.into_iter().filter(|(_, (_, denominator))| *denominator > 0.0);
    let stats = ratios.map(|(name, (numerator, denominator))| (name, numerator / denominator)).collect();
    LogLine::Step { step, lr, total, grad_norm, terms, stats, time }
}

fn eval_line(step: u64, evaluation: &Evaluation, start: Instant) -> LogLine {
    LogLine::Eval {
        step,
        model: evaluation.model.clone(),
        score: evaluation.score,
        metrics: evaluation.metrics.clone(),
        time: json!({ "seconds": start.elapsed().as_secs_f64() }),
    }
}
