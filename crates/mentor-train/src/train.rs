//! The loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use mentor_ops::{
    NamedTensors, clip_by_global_norm, from_safetensors, global_norm, load_named, named_weights, to_safetensors,
};
use mentor_types::{Key, LossTerms, Stats};
use serde_json::json;

use crate::finite::{FiniteCheck, numbers};
use crate::log::TermLine;
use crate::{
    Best, Checkpoint, CheckpointState, Checkpoints, Evaluation, EventFile, Log, LogLine, Losses, Method, Moment,
    Optimizer, OptimizerConfig, Progress, ScheduleConfig, TrainConfig, TrainError,
};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

/// Gives the micro-batches of the next step, or what went wrong with the data.
pub type NextBatches<'a, B> = dyn FnMut() -> Result<Vec<B>, String> + 'a;

/// Judges the models after a step; the first evaluation decides which checkpoint is best.
pub type Evaluate<'a, M> = dyn FnMut(&M, &<M as Method>::Model, u64) -> Result<Vec<Evaluation>, String> + 'a;

/// All that a run consists of.
pub struct Run<'a, M: Method> {
    /// The method with its own state.
    pub method: M,
    /// The model, fresh: resuming loads weights into it.
    pub model: M::Model,
    /// `[optimizer]`.
    pub optimizer: OptimizerConfig,
    /// `[schedule]`.
    pub schedule: ScheduleConfig,
    /// `[train]`.
    pub train: TrainConfig,
    /// The root of all randomness.
    pub seed: u64,
    /// Where the model lives.
    pub device: Device,
    /// The run folder.
    pub folder: &'a Path,
    /// Where to go on, as [`Checkpoints::last`] gave it.
    pub resume: Option<Checkpoint>,
    /// Set from outside (Ctrl-C) to stop after the current step.
    pub stop: &'a AtomicBool,
    /// Gives the micro-batches of one step after the other, from the step on that is done next.
    pub batches: &'a mut NextBatches<'a, M::Batch>,
    /// Evaluates on val.
    pub evaluate: &'a mut Evaluate<'a, M>,
    /// Shows how it goes.
    pub progress: &'a Progress,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome<M: Method> {
    /// The method with its state.
    pub method: M,
    /// The trained model.
    pub model: M::Model,
    /// Steps done.
    pub step: u64,
    /// Whether it was stopped from outside before its last step.
    pub stopped: bool,
    /// The best evaluation.
    pub best: Option<Best>,
    /// The evaluations after the last step that was evaluated in this process.
    pub evaluations: Vec<Evaluation>,
    /// Labelled and unlabelled images that went through a second of training in this process,
    /// evaluations and checkpoints left out.
    pub images_per_second: f64,
}

/// Trains until the last step, or until `stop` is set.
///
/// # Errors
/// See [`TrainError`]; everything up to the last checkpoint stays.
pub fn train<M: Method>(run: Run<'_, M>) -> Result<Outcome<M>, TrainError> {
    let Run { mut method, mut model, train, schedule, stop, batches, evaluate, progress, .. } = run;
    let checkpoints = Checkpoints::open(run.folder.join("checkpoints"))?;
    let mut optimizer = Optimizer::new(run.optimizer.clone());
    let (mut step, mut best) = (0, None);
    if let Some(Checkpoint { state, mut files }) = run.resume {
        let fail = |file: &str, reason: String| TrainError::Checkpoint { path: file.into(), reason };
        let mut take = |file: &str| files.remove(file).ok_or_else(|| fail(file, "is missing".to_owned()));
        let tensors = |file: &str, bytes: Vec<u8>| from_safetensors(&bytes).map_err(|e| fail(file, e.to_string()));
        model = load_named(model, tensors(MODEL, take(MODEL)?)?).map_err(|e| fail(MODEL, e.to_string()))?;
        optimizer = Optimizer::resumed(run.optimizer, tensors(OPTIMIZER, take(OPTIMIZER)?)?, &model, &run.device)
            .map_err(|reason| fail(OPTIMIZER, reason))?;
        method.load(files.into_iter().collect()).map_err(|reason| fail("method", reason))?;
        (step, best) = (state.step, state.best);
    }
    let mut log = Log::open(run.folder.join("log.jsonl"), step)?;
    let mut events = EventFile::create(run.folder, step)?;
    let mut finite = FiniteCheck::new(&run.device);
    let mut clock = Clock::new(&train);
    let mut evaluations = Vec::new();
    let key = Key::new(run.seed).at("step", 0);

    if step >= train.steps {
        // A finished run that is resumed says again what came out.
        evaluations = evaluate(&method, &model, step).map_err(|reason| TrainError::Evaluation { step, reason })?;
    }
    let mut stopping = false;
    while step < train.steps && !stopping {
        let micro_batches = clock.waiting(&mut *batches).map_err(TrainError::Data)?;
        let factor = schedule.factor(step, train.steps);
        let moment = |micro| Moment { step, micro, key: key.at("step", step).at("micro", micro), lr_factor: factor };
        let mut sum = GradientsAccumulator::new();
        let (mut seen, mut carries) = (Vec::new(), Vec::new());
        let share = micro_batches.len() as f64;
        for (micro, batch) in micro_batches.into_iter().enumerate() {
            let Losses { terms, stats, carry } = method.losses(&model, batch, moment(micro as u64));
            let total = terms.total().ok_or(TrainError::NoLoss { step: step + 1 })?;
            finite.see(step + 1, "the loss", &total, &terms)?;
            sum.accumulate(&model, GradientsParams::from_grads(total.div_scalar(share).backward(), &model));
            seen.push((terms, stats));
            carries.push(carry);
        }
        let grads = sum.grads();
        let (grads, norm) = match train.clip_norm {
            Some(most) => clip_by_global_norm(grads, &model, most),
            None => {
                let norm = global_norm(&grads, &model);
                (grads, norm)
            }
        };
        let norm = norm.ok_or(TrainError::NoLoss { step: step + 1 })?;
        finite.see(step + 1, "the gradient", &norm, &seen[0].0)?;
        model = optimizer.step(model, grads, factor, &|path| method.is_head(path));
        let trained_beside = method.after_step(&model, carries, moment(0));
        step += 1;
        stopping = stop.load(Ordering::Relaxed);
        for (name, loss) in &trained_beside {
            finite.see(step, &format!("the loss of {name}"), loss, &seen[0].0)?;
        }
        clock.stepped();
        progress.step(step);
        if let Some(seconds) = clock.warmed_up(&run.device) {
            progress.line(&format!("the first step took {seconds:.1} s: kernels were compiled and chosen"));
        }

        let due = |every: u64| step.is_multiple_of(every) || step == train.steps;
        let (logs, judges) = (due(train.log_every_steps), due(train.eval_every_steps));
        let saves = due(train.checkpoint_every_steps) || stopping;
        if logs || judges || saves {
            finite.settle()?;
        }
        if logs {
            let line = step_line(step, optimizer.lr() * factor, &norm, &seen, clock.line(train.steps - step));
            record(&line, &mut log, &mut events)?;
            progress.show(&line);
        }
        if judges {
            let start = Instant::now();
            evaluations = evaluate(&method, &model, step).map_err(|reason| TrainError::Evaluation { step, reason })?;
            for evaluation in &evaluations {
                record(&eval_line(step, evaluation, start), &mut log, &mut events)?;
                progress.judged(step, evaluation);
            }
            if let Some(first) = evaluations.first()
                && best.as_ref().is_none_or(|best: &Best| first.score > best.score)
            {
                best = Some(Best { step, score: first.score });
                checkpoints.save_best(&checkpoint(step, best.as_ref(), &method, &model, &optimizer)?)?;
            }
            clock.pause(start);
        }
        if saves {
            let start = Instant::now();
            checkpoints.save(&checkpoint(step, best.as_ref(), &method, &model, &optimizer)?)?;
            clock.pause(start);
        }
    }
    progress.finish();
    let stopped = step < train.steps;
    Ok(Outcome { method, model, step, stopped, best, evaluations, images_per_second: clock.images_per_second() })
}

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
            for (name, value) in metrics.as_object().into_iter().flatten() {
                if let Some(value) = value.as_f64() {
                    events.scalar(&format!("val/{model}/{name}"), *step, value)?;
                }
            }
        }
    }
    Ok(())
}

/// The log line of a step: means over its micro-batches. The device is waited for once.
fn step_line(step: u64, lr: f64, norm: &Tensor<1>, seen: &[(LossTerms, Stats)], time: serde_json::Value) -> LogLine {
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

fn checkpoint<M: Method>(
    step: u64,
    best: Option<&Best>,
    method: &M,
    model: &M::Model,
    optimizer: &Optimizer,
) -> Result<Checkpoint, TrainError> {
    let bytes = |file: &str, tensors: &NamedTensors| {
        to_safetensors(tensors).map_err(|error| TrainError::Checkpoint { path: file.into(), reason: error.to_string() })
    };
    let mut files: BTreeMap<String, Vec<u8>> = method.save().into_iter().collect();
    files.insert(MODEL.to_owned(), bytes(MODEL, &named_weights(model))?);
    files.insert(OPTIMIZER.to_owned(), bytes(OPTIMIZER, &optimizer.save())?);
    Ok(Checkpoint { state: CheckpointState { step, best: best.cloned() }, files })
}

/// Where the time of a run goes.
struct Clock {
    images_per_step: f64,
    since_line: Instant,
    paused: f64,
    waited: f64,
    steps: f64,
    all_seconds: f64,
    all_steps: f64,
    warm: bool,
}

impl Clock {
    fn new(train: &TrainConfig) -> Self {
        let images = train.accumulate * (train.batch_labelled + train.batch_unlabelled);
        Self {
            images_per_step: images as f64,
            since_line: Instant::now(),
            paused: 0.0,
            waited: 0.0,
            steps: 0.0,
            all_seconds: 0.0,
            all_steps: 0.0,
            warm: false,
        }
    }

    fn waiting<T>(&mut self, next: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = next();
        self.waited += start.elapsed().as_secs_f64();
        value
    }

    fn stepped(&mut self) {
        self.steps += 1.0;
    }

    /// After the first step on a device that compiles its kernels when they are first called: waits for
    /// it, leaves it out of the figures, and returns how long it took.
    fn warmed_up(&mut self, device: &Device) -> Option<f64> {
        let compiles = device.clone().without_autodiff() != Device::flex();
        if std::mem::replace(&mut self.warm, true) || !compiles {
            return None;
        }
        // An error of the device shows where the first value is read.
        let _ = device.sync();
        let seconds = self.since_line.elapsed().as_secs_f64();
        (self.since_line, self.waited, self.steps) = (Instant::now(), 0.0, 0.0);
        Some(seconds)
    }

    /// Leaves the time since `start` out of the figures.
    fn pause(&mut self, start: Instant) {
        self.paused += start.elapsed().as_secs_f64();
    }

    /// The figures since the line before, which starts a new interval.
    fn line(&mut self, steps_left: u64) -> serde_json::Value {
        let seconds = (self.since_line.elapsed().as_secs_f64() - self.paused).max(1e-9);
        let value = json!({
            "seconds": seconds,
            "images_per_second": self.steps * self.images_per_step / seconds,
            "waiting": self.waited / seconds,
            "seconds_left": steps_left as f64 * seconds / self.steps.max(1.0),
            "memory_mib": memory_mib(),
        });
        self.all_seconds += seconds;
        self.all_steps += self.steps;
        (self.since_line, self.paused, self.waited, self.steps) = (Instant::now(), 0.0, 0.0, 0.0);
        value
    }

    fn images_per_second(&self) -> f64 {
        if self.all_seconds > 0.0 { self.all_steps * self.images_per_step / self.all_seconds } else { 0.0 }
    }
}

/// Resident memory of this process in MiB; 0 where the system does not tell.
fn memory_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<f64>().ok());
    pages.map_or(0.0, |pages| pages * 4096.0 / f64::from(1 << 20))
}
