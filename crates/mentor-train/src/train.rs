//! The loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use mentor_types::Key;
use mentor_weights::{
    NamedTensors, clip_by_global_norm, from_safetensors, global_norm, load_named, named_weights, to_safetensors,
};

use crate::clock::Clock;
use crate::files::{MODEL, OPTIMIZER};
use crate::finite::FiniteCheck;
use crate::record::{Records, step_line};
use crate::{
    Best, Checkpoint, CheckpointState, Checkpoints, Evaluation, Losses, Method, Moment, Optimizer, OptimizerConfig,
    Progress, ScheduleConfig, TrainConfig, TrainError,
};

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
    if let Some(Checkpoint { state, files }) = run.resume {
        (model, optimizer) = taken_up(model, &mut method, run.optimizer, files, &run.device)?;
        (step, best) = (state.step, state.best);
    }
    let mut records = Records::open(run.folder, step, progress)?;
    let mut finite = FiniteCheck::new(&run.device);
    let mut clock = Clock::new(&train);
    let (mut evaluations, mut stopping) = (Vec::new(), false);
    let key = Key::new(run.seed).at("step", 0);

    if step >= train.steps {
        // A finished run that is resumed says again what came out.
        evaluations = evaluate(&method, &model, step).map_err(|reason| TrainError::Evaluation { step, reason })?;
    }
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
        let (grads, norm) = clipped(sum.grads(), &model, train.clip_norm);
        let norm = norm.ok_or(TrainError::NoLoss { step: step + 1 })?;
        finite.see(step + 1, "the gradient", &norm, &seen[0].0)?;
        model = optimizer.step(model, grads, factor, &|path, rank| method.group(path, rank));
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
            let time = clock.line(train.steps - step);
            records.step(&step_line(step, optimizer.lr() * factor, &norm, &seen, time))?;
        }
        if judges {
            let start = Instant::now();
            evaluations = evaluate(&method, &model, step).map_err(|reason| TrainError::Evaluation { step, reason })?;
            records.judged(step, &evaluations, start)?;
            if let Some(better) = better(step, &evaluations, best.as_ref()) {
                best = Some(better);
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

/// Model and optimizer as a checkpoint has them; the method takes up its own files.
fn taken_up<M: Method>(
    model: M::Model,
    method: &mut M,
    optimizer: OptimizerConfig,
    mut files: BTreeMap<String, Vec<u8>>,
    device: &Device,
) -> Result<(M::Model, Optimizer), TrainError> {
    let fail = |file: &str, reason: String| TrainError::Checkpoint { path: file.into(), reason };
    let mut take = |file: &str| files.remove(file).ok_or_else(|| fail(file, "is missing".to_owned()));
    let tensors = |file: &str, bytes: Vec<u8>| from_safetensors(&bytes).map_err(|e| fail(file, e.to_string()));
    let model = load_named(model, tensors(MODEL, take(MODEL)?)?).map_err(|e| fail(MODEL, e.to_string()))?;
    let optimizer = Optimizer::resumed(optimizer, tensors(OPTIMIZER, take(OPTIMIZER)?)?, &model, device)
        .map_err(|reason| fail(OPTIMIZER, reason))?;
    method.load(files.into_iter().collect()).map_err(|reason| fail("method", reason))?;
    Ok((model, optimizer))
}

/// The first evaluation, where it beats the best one so far.
fn better(step: u64, evaluations: &[Evaluation], best: Option<&Best>) -> Option<Best> {
    let score = evaluations.first()?.score;
    best.is_none_or(|best| score > best.score).then_some(Best { step, score })
}

/// The gradients with their global norm, which `most` bounds.
fn clipped<M: Module>(grads: GradientsParams, model: &M, most: Option<f64>) -> (GradientsParams, Option<Tensor<1>>) {
    match most {
        Some(most) => clip_by_global_norm(grads, model, most),
        None => {
            let norm = global_norm(&grads, model);
            (grads, norm)
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Log, LogLine, Precision, SgdConfig};
    use burn::module::Param;
    use mentor_types::{Group, LossTerms, ScoreRecord, Stats};
    use serde_json::json;

    /// What the toy trains: a place on a line.
    #[derive(Module, Debug)]
    struct Point {
        place: Param<Tensor<1>>,
    }

    /// Pulls the point to a number, and remembers the losses.
    #[derive(Debug)]
    struct Pull {
        memory: f32,
    }

    impl Method for Pull {
        type Model = Point;
        /// Where to pull; `None` is a batch that no term applies to.
        type Batch = Option<f32>;
        type Carry = f32;

        fn losses(&self, model: &Point, batch: Option<f32>, moment: Moment) -> Losses<f32> {
            let mut terms = LossTerms::default();
            let mut carry = 0.0;
            if let Some(target) = batch {
                // Randomness is the moment's key.
                let noise = f32::from(blake3::hash(format!("{:?}", moment.key).as_bytes()).as_bytes()[0]) / 256.0;
                let value = (model.place.val() - target - noise + self.memory).powi_scalar(2);
                carry = value.clone().into_scalar();
                terms.push("pull", 0.5, value);
            }
            Losses { terms, stats: Stats::default(), carry }
        }

        fn after_step(&mut self, _: &Point, carries: Vec<f32>, _: Moment) -> Vec<(String, Tensor<1>)> {
            let mean = carries.iter().sum::<f32>() / carries.len() as f32;
            self.memory = if mean > 1e6 { f32::NAN } else { 0.9 * self.memory + 0.01 * mean };
            vec![("the memory".to_owned(), Tensor::from_data([self.memory], &Device::flex()))]
        }

        fn group(&self, _: &str, rank: usize) -> Group {
            Group::of_rank(rank)
        }

        fn save(&self) -> Vec<(String, Vec<u8>)> {
            vec![("memory".to_owned(), self.memory.to_le_bytes().to_vec())]
        }

        fn load(&mut self, files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
            let [(_, bytes)] = &files[..] else { return Err(format!("{} files", files.len())) };
            self.memory = f32::from_le_bytes(bytes[..].try_into().map_err(|_| "is cut".to_owned())?);
            Ok(())
        }
    }

    /// What the batches of a step, counted from 1, pull to.
    type Targets<'a> = &'a dyn Fn(u64) -> Result<Vec<Option<f32>>, String>;

    fn steady(step: u64) -> Result<Vec<Option<f32>>, String> {
        Ok(vec![Some(step as f32), Some(0.5)])
    }

    /// Trains eight steps in `folder`, or what is left of them; the evaluation after step 4 is the best.
    fn pull(folder: &Path, targets: Targets<'_>, stop: &AtomicBool) -> Result<Outcome<Pull>, TrainError> {
        let resume = Checkpoints::open(folder.join("checkpoints"))?.last()?.map(|(checkpoint, _)| checkpoint);
        let mut step = resume.as_ref().map_or(0, |checkpoint| checkpoint.state.step);
        let mut batches = || {
            step += 1;
            targets(step)
        };
        let mut evaluate = |_: &Pull, _: &Point, step: u64| {
            let score = if step == 4 { 0.9 } else { 0.1 };
            Ok(vec![Evaluation {
                model: "point".to_owned(),
                score,
                shown: String::new(),
                metrics: ScoreRecord::default(),
            }])
        };
        let sgd = SgdConfig { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false, head_lr_factor: 1.0 };
        let train = TrainConfig {
            precision: Precision::F32,
            steps: 8,
            batch_labelled: 1,
            batch_unlabelled: 0,
            accumulate: 2,
            clip_norm: Some(1.0),
            log_every_steps: 1,
            checkpoint_every_steps: 3,
            eval_every_steps: 4,
        };
        super::train(Run {
            method: Pull { memory: 0.0 },
            model: Point { place: Param::from_tensor(Tensor::zeros([1], &Device::flex().autodiff())) },
            optimizer: OptimizerConfig::Sgd(sgd),
            schedule: ScheduleConfig::default(),
            train,
            seed: 5,
            device: Device::flex(),
            folder,
            resume,
            stop,
            batches: &mut batches,
            evaluate: &mut evaluate,
            progress: &Progress::new(0, 8),
        })
    }

    fn on(folder: &Path, targets: Targets<'_>) -> Result<Outcome<Pull>, TrainError> {
        pull(folder, targets, &AtomicBool::new(false))
    }

    /// The log without its times, and the last checkpoint.
    fn left(folder: &Path) -> (Vec<LogLine>, CheckpointState, BTreeMap<String, Vec<u8>>) {
        let mut lines = Log::read(&folder.join("log.jsonl")).unwrap();
        for line in &mut lines {
            let (LogLine::Step { time, .. } | LogLine::Eval { time, .. }) = line;
            *time = json!({});
        }
        let (last, _) = Checkpoints::open(folder.join("checkpoints")).unwrap().last().unwrap().unwrap();
        (lines, last.state, last.files)
    }

    #[test]
    fn a_run_that_stops_or_breaks_goes_on_bit_for_bit() {
        let (whole, broken, stopped) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outcome = on(whole.path(), &steady).unwrap();
        assert!(!outcome.stopped && outcome.step == 8 && outcome.method.memory > 0.0);
        let expected = left(whole.path());
        // Eight steps, and evaluations after the fourth and the eighth.
        assert_eq!(expected.0.len(), 10);

        // Two steps after the last checkpoint: the log is ahead of what can be gone on from.
        let error = on(broken.path(), &|step| if step == 6 { Err("gone".to_owned()) } else { steady(step) });
        assert!(matches!(error, Err(TrainError::Data(reason)) if reason == "gone"));
        assert_eq!((left(broken.path()).0.len(), left(broken.path()).1.step), (6, 3));
        on(broken.path(), &steady).unwrap();
        assert_eq!(left(broken.path()), expected);

        let stop = AtomicBool::new(false);
        let stopping = |step| {
            stop.store(step == 5, Ordering::Relaxed);
            steady(step)
        };
        let outcome = pull(stopped.path(), &stopping, &stop).unwrap();
        assert!(outcome.stopped && outcome.step == 5);
        on(stopped.path(), &steady).unwrap();
        assert_eq!(left(stopped.path()), expected);
    }

    #[test]
    fn the_checkpoint_of_the_best_evaluation_is_kept_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = on(folder.path(), &steady).unwrap();
        let best = Best { step: 4, score: 0.9 };
        assert_eq!(outcome.best, Some(best.clone()));
        let kept = Checkpoints::open(folder.path().join("checkpoints")).unwrap().best().unwrap();
        assert_eq!(kept.state, CheckpointState { step: 4, best: Some(best) });
        // A finished run that is resumed trains no further, and says again what came out.
        let again = on(folder.path(), &|_| Err("no step is left".to_owned())).unwrap();
        assert_eq!((again.step, again.evaluations.len(), again.best), (8, 1, outcome.best));
    }

    #[test]
    fn a_batch_that_no_term_applies_to_names_its_step() {
        let folder = tempfile::tempdir().unwrap();
        let error = on(folder.path(), &|step| if step == 3 { Ok(vec![None, Some(1.0)]) } else { steady(step) });
        assert_eq!(error.unwrap_err().to_string(), "step 3 has no loss: no term of the recipe applies to its batch");
    }

    #[test]
    fn what_is_not_finite_stops_before_it_is_saved_and_has_its_name() {
        for (target, named) in [(f32::NAN, "the loss is not finite at step 6"), (1e6, "the loss of the memory is not")]
        {
            let folder = tempfile::tempdir().unwrap();
            let error = on(folder.path(), &|step| if step == 6 { Ok(vec![Some(target)]) } else { steady(step) });
            let message = error.unwrap_err().to_string();
            assert!(message.contains(named) && message.contains("step 6") && message.contains("pull"), "{message}");
            let (lines, state, _) = left(folder.path());
            assert_eq!((lines.last().unwrap().step(), state.step), (5, 3));
        }
    }
}
