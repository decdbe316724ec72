//! The contract between the loop and a task.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use mentor_types::{Group, Key, LossTerms, ScoreRecord, Stats};

/// When a micro-batch is computed.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Optimizer steps done before this one.
    pub step: u64,
    /// Which micro-batch of the step.
    pub micro: u64,
    /// The key of everything random in this micro-batch.
    pub key: Key,
    /// The factor of the schedule on all learning rates.
    pub lr_factor: f64,
}

/// What a micro-batch gives.
#[derive(Debug)]
pub struct Losses<C> {
    /// What is trained on.
    pub terms: LossTerms,
    /// What is only logged.
    pub stats: Stats,
    /// What [`Method::after_step`] needs of this micro-batch, off the graph.
    pub carry: C,
}

/// How one model did on one set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Which model: `student`, `ema`.
    pub model: String,
    /// The number by which the best checkpoint is chosen; larger is better.
    pub score: f64,
    /// The score as people read it, with its name.
    pub shown: String,
    /// All numbers, as they go into the log.
    pub metrics: ScoreRecord,
}

/// A way to train a model: which losses a batch gives, and what happens after a step.
pub trait Method {
    /// What is trained: the student with its adapters.
    type Model: Module;
    /// One micro-batch.
    type Batch;
    /// What a micro-batch hands to [`after_step`](Self::after_step), detached.
    type Carry;

    /// The terms of the loss on one micro-batch.
    fn losses(&self, model: &Self::Model, batch: Self::Batch, moment: Moment) -> Losses<Self::Carry>;

    /// What happens after the optimizer's step: averages, memories and all else that accompanies the model
    /// move on. Returns the losses of what was trained here, each with the name of what it belongs to: they
    /// must be finite, too.
    fn after_step(
        &mut self,
        model: &Self::Model,
        carries: Vec<Self::Carry>,
        moment: Moment,
    ) -> Vec<(String, Tensor<1>)>;

    /// How the weight at a path, with so many dimensions, is updated.
    fn group(&self, path: &str, rank: usize) -> Group;

    /// The state of the method itself (averages, memories) as named files.
    fn save(&self) -> Vec<(String, Vec<u8>)>;

    /// Takes up the state that [`save`](Self::save) gave.
    ///
    /// # Errors
    /// What is missing or does not fit.
    fn load(&mut self, files: Vec<(String, Vec<u8>)>) -> Result<(), String>;
}

/// Gives a file by its name, once.
pub type Take<'a> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'a;

/// Lets the parts of a method take the files that [`Method::save`] gave.
///
/// # Errors
/// What `load` says; a file that is missing, or that no part took.
pub fn take_up(
    files: Vec<(String, Vec<u8>)>,
    load: impl FnOnce(&mut Take<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut files: BTreeMap<String, Vec<u8>> = files.into_iter().collect();
    load(&mut |name| files.remove(name).ok_or_else(|| format!("{name} is missing")))?;
    match files.into_keys().next() {
        Some(name) => Err(format!("{name} belongs to nothing in this recipe")),
        None => Ok(()),
    }
}
