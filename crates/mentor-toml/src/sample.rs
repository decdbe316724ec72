//! A small type with every shape that a file may have, for the tests of this crate.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::read::{TomlFile, parse};
use crate::set::Changes;

/// A file without a mistake. Tests replace pieces of it, and name lines of it by number.
pub(crate) const GOOD: &str = r#"# Small, but with one of everything.

task = "fit"
seed = 0
crop_px = [192, 256]
buffers = "average"

[views]
scale = [0.5, 2]
jitter = [0.1, 3]

[student.fcn]
backbone = "resnet18"

[teachers."my big".pspnet]
backbone = "resnet50"
width = 16

[ema]
decay = 0.99

# A term.
[distill.layer_wise]
weight = 10.0
temperature = 2
at = [{ student = "c5", teacher = "c4" }]
on = ["labelled"]

[optimizer.sgd]
lr = 0.1

[schedule.poly]
power = 0.9

[train]
steps = 40
classes = 3
"#;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    task: Task,
    seed: u64,
    crop_px: [usize; 2],
    /// What becomes of the buffers.
    #[serde(default)]
    buffers: Buffers,
    pub(crate) views: Views,
    student: Net,
    #[serde(default)]
    teachers: BTreeMap<String, Net>,
    #[serde(default)]
    distill: Distill,
    optimizer: Optimizer,
    schedule: Schedule,
    ema: Option<Ema>,
    pub(crate) train: Train,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    Fit,
    Det,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Buffers {
    /// Averaged like weights.
    #[default]
    Average,
    /// Copied.
    Copy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Views {
    pub(crate) scale: (f32, f32),
    jitter: Option<(f32, u8)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Net {
    /// Fully convolutional.
    Fcn(NetSettings),
    /// Pyramid pooling.
    Pspnet(NetSettings),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NetSettings {
    backbone: Backbone,
    #[serde(default = "published_width")]
    width: usize,
}

fn published_width() -> usize {
    64
}

/// A name that only its own reader understands: its schema is any string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct Backbone(String);

impl TryFrom<String> for Backbone {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        if name.starts_with("resnet") { Ok(Self(name)) } else { Err(format!("no backbone is named {name}")) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Distill {
    layer_wise: Option<LayerWise>,
    holistic: Option<Holistic>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LayerWise {
    weight: f32,
    temperature: Option<f32>,
    #[serde(default)]
    at: Vec<Place>,
    #[serde(default)]
    on: Vec<Stream>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Holistic {
    weight: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Place {
    student: Tap,
    teacher: Tap,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Tap {
    C4,
    C5,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Stream {
    Labelled,
    Unlabelled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Optimizer {
    Sgd(Sgd),
    /// Struct variants too.
    Adamw {
        lr: f32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sgd {
    lr: f32,
    #[serde(default)]
    nesterov: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Schedule {
    Constant,
    Poly(Poly),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Poly {
    power: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ema {
    decay: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Train {
    steps: u64,
    classes: u8,
    #[serde(default = "ten")]
    pub(crate) log_every_steps: u64,
}

fn ten() -> u64 {
    10
}

impl TomlFile for Sample {
    /// A range, and a rule that holds between two keys.
    fn check(&self, problems: &mut Vec<(String, String)>) {
        if self.train.steps == 0 {
            problems.push(("train.steps".into(), "must be at least 1, found 0".into()));
        }
        let Some(layer_wise) = &self.distill.layer_wise else { return };
        if layer_wise.weight < 0.0 {
            let message = format!("must be at least 0, found {}", layer_wise.weight);
            problems.push(("distill.layer_wise.weight".into(), message));
        }
        if layer_wise.weight == 0.0 && layer_wise.temperature.is_none() {
            problems.push(("distill.layer_wise.temperature".into(), "has no effect with weight 0".into()));
        }
    }
}

/// Everything that is wrong with a text, one line each; empty if nothing is.
pub(crate) fn mistakes(text: &str) -> String {
    match parse::<Sample>(text, Path::new("a.toml"), &Changes::none()) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}
