//! `mentor eval`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Card, SegDataset};
use mentor_recipe::{BuiltData, Recipe, RunClasses, load_net, run_recipe};
use mentor_seg::metrics::{ConfusionMatrix, SegMetrics};
use mentor_types::LabelMask;
use serde_json::Value;

use super::train::metrics_json;
use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::weights::RunWeights;

/// Score a run, a file of weights, or masks that any tool wrote.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor eval runs/quickstart\n  mentor eval runs/quickstart --split test\n  \
    mentor eval --truth DIR --predictions DIR --card aerial_sample --json")]
pub struct Eval {
    /// The run folder.
    run: Option<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Score this file of weights in place of the run's own.
    #[arg(long, requires = "run")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    which: RunWeights,
    /// The split of the card. Default: the recipe's val.
    #[arg(long, requires = "run")]
    split: Option<String>,
    /// A folder of true masks.
    #[arg(long, requires_all = ["predictions", "card"], conflicts_with = "run")]
    truth: Option<PathBuf>,
    /// A folder of predicted masks with the same names.
    #[arg(long, requires = "truth")]
    predictions: Option<PathBuf>,
    /// The card that says what the values in the masks mean.
    #[arg(long, requires = "truth")]
    card: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let (metrics, classes) = match (&self.run, &self.truth) {
            (Some(run), None) => self.eval_run(run)?,
            (None, Some(truth)) => self.eval_masks(truth)?,
            _ => bail!("name a run folder, or --truth, --predictions and --card"),
        };
        let value = metrics_json(&metrics, &classes);
        if self.json {
            say!("{}", serde_json::to_string_pretty(&value)?);
        } else {
            print_table(&value);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn eval_run(&self, run: &Path) -> Result<(SegMetrics, Vec<String>)> {
        let recipe: Recipe = run_recipe(run)?;
        let (device, _) = device::choose(self.device.device)?;
        let data = BuiltData::open(&recipe, &self.places.places())?;
        let classes = data.dataset.card().class_names();
        let net = match &self.weights {
            Some(weights) => load_net(&recipe.student, &classes, weights, &device)?.0,
            None => {
                RunClasses::read(run)?.check_card(run, &data.dataset)?;
                self.which.net(run, &recipe, classes.len(), &device)?
            }
        };
        let split = match &self.split {
            Some(name) => data.dataset.split(name)?,
            None => data.val.clone(),
        };
        let matrix = data.evaluate(&net, &split, &recipe, &recipe.eval, &device)?;
        Ok((scored(&matrix)?, classes))
    }

    fn eval_masks(&self, truth: &Path) -> Result<(SegMetrics, Vec<String>)> {
        let (predictions, card) =
            (self.predictions.as_ref().context("--predictions")?, self.card.as_ref().context("--card")?);
        let places = self.places.places();
        let dataset = SegDataset::new(Card::find(card, &places.cards)?, &places.data)?;
        let classes = dataset.card().class_names();
        let mut names: Vec<_> = std::fs::read_dir(truth)
            .with_context(|| truth.display().to_string())?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .filter(|name| PathBuf::from(name).extension().is_some_and(|extension| extension == "png"))
            .collect();
        names.sort();
        if names.is_empty() {
            bail!("{}: holds no .png masks", truth.display());
        }
        let mut matrix = ConfusionMatrix::new(classes.len());
        for name in names {
            let read = |folder: &Path| -> Result<LabelMask> { Ok(dataset.read_mask(&folder.join(&name))?) };
            let counts = ConfusionMatrix::from_masks(&read(predictions)?, &read(truth)?, classes.len(), None);
            matrix.add(&counts.with_context(|| predictions.join(&name).display().to_string())?);
        }
        Ok((scored(&matrix)?, classes))
    }
}

/// The metrics of what was counted.
pub fn scored(matrix: &ConfusionMatrix) -> Result<SegMetrics> {
    matrix.metrics().context("no pixel with a label was compared")
}

/// Prints metrics for people.
pub fn print_table(value: &Value) {
    let percent = |value: &Value| value.as_f64().map_or("-".to_owned(), |value| format!("{:.2} %", 100.0 * value));
    for (name, key) in [
        ("mIoU", "miou"),
        ("pixel accuracy", "pixel_accuracy"),
        ("mean accuracy", "mean_accuracy"),
        ("frequency-weighted IoU", "fw_iou"),
        ("boundary IoU", "boundary_iou"),
    ] {
        say!("{name:<24} {:>9}", percent(&value[key]));
    }
    for (class, iou) in value["per_class"].as_object().into_iter().flatten() {
        say!("  {class:<22} {:>9}", percent(iou));
    }
}
