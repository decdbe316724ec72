//! The recipe tables `[train]` and `[ema]`.

use burn::tensor::DType;
use mentor_weights::Buffers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[train]`: how long, how much at once, and how often to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// In which numbers convolutions and products are computed. Default `f32`.
    #[serde(default)]
    pub precision: Precision,
    /// Optimizer steps of the whole run. The learning-rate schedule ends here.
    pub steps: u64,
    /// Labelled images in a micro-batch.
    pub batch_labelled: usize,
    /// Unlabelled images in a micro-batch; 0 where the recipe has no unlabelled stream.
    #[serde(default)]
    pub batch_unlabelled: usize,
    /// Micro-batches a step: their gradients are averaged. Default 1.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Largest norm of all gradients taken as one vector; not clipped where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Steps between two lines of the log. Default 10.
    #[serde(default = "ten")]
    pub log_every_steps: u64,
    /// Steps between two checkpoints. Default 500.
    #[serde(default = "five_hundred")]
    pub checkpoint_every_steps: u64,
    /// Steps between two evaluations on val; the last step is always evaluated. Default 500.
    #[serde(default = "five_hundred")]
    pub eval_every_steps: u64,
}

/// In which numbers the nets compute while they train.
///
/// Weights, norms and losses are f32 either way, and so is every evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits. On NVIDIA GPUs products go through TF32, which keeps 10 bits of the mantissa.
    #[default]
    F32,
    /// Feature maps, convolutions and products in bfloat16: half the memory, and faster on GPUs that
    /// have it. Slower than f32 on CPUs.
    Bf16,
}

impl Precision {
    /// The type of feature maps.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

fn one() -> usize {
    1
}
fn ten() -> u64 {
    10
}
fn five_hundred() -> u64 {
    500
}

impl TrainConfig {
    /// Reports values out of range as (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        let mut positive = |key: &str, value: u64| {
            if value == 0 {
                problems.push((key.to_owned(), "must be at least 1".to_owned()));
            }
        };
        positive("steps", self.steps);
        positive("batch_labelled", self.batch_labelled as u64);
        positive("accumulate", self.accumulate as u64);
        positive("log_every_steps", self.log_every_steps);
        positive("checkpoint_every_steps", self.checkpoint_every_steps);
        positive("eval_every_steps", self.eval_every_steps);
        if let Some(norm) = self.clip_norm
            && !(norm.is_finite() && norm > 0.0)
        {
            problems.push(("clip_norm".to_owned(), format!("must be above 0, found {norm}")));
        }
    }
}

/// `[ema]`: an exponential moving average of the student's weights, for evaluation and as teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Share of the average that stays at each step, in (0, 1). Default 0.99.
    #[serde(default = "decay")]
    pub decay: f64,
    /// Whether the decay starts low, as `min(decay, 1 - 1 / (step + 1))` with steps counted from
    /// 1, so that the average forgets the initial weights (Tarvainen & Valpola 2017). Default true.
    #[serde(default = "yes")]
    pub warmup: bool,
    /// What becomes of batch-norm running statistics. Default `average`.
    #[serde(default)]
    pub buffers: BuffersConfig,
}

/// What becomes of batch-norm running statistics in an average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuffersConfig {
    /// Averaged like the weights.
    #[default]
    Average,
    /// Copied from the student.
    Copy,
}

impl From<BuffersConfig> for Buffers {
    fn from(config: BuffersConfig) -> Self {
        match config {
            BuffersConfig::Average => Self::Average,
            BuffersConfig::Copy => Self::Copy,
        }
    }
}

fn decay() -> f64 {
    0.99
}
fn yes() -> bool {
    true
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: decay(), warmup: yes(), buffers: BuffersConfig::Average }
    }
}

impl EmaConfig {
    /// The decay at `step`, counted from 1.
    #[must_use]
    pub(crate) fn decay_at(&self, step: u64) -> f64 {
        if self.warmup { self.decay.min(1.0 - 1.0 / (step as f64 + 1.0)) } else { self.decay }
    }

    /// Reports values out of range as (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        if !(self.decay > 0.0 && self.decay < 1.0) {
            problems.push(("decay".to_owned(), format!("must be between 0 and 1, found {}", self.decay)));
        }
    }
}
