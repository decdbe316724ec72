//! `mentor eval`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Card, Dataset};
use mentor_recipe::{AnyRecipe, Prepared, load_net, run_recipe};
use mentor_seg::metrics::SegMetrics;
use mentor_types::Scores;

use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::scores::score_lines;
use crate::show::seg::{score_files, scored};
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
        if self.json {
            say!("{}", serde_json::to_string_pretty(&metrics.record(&classes))?);
        } else {
            score_lines(&metrics, &classes).iter().for_each(|line| say!("{line}"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn eval_run(&self, run: &Path) -> Result<(SegMetrics, Vec<String>)> {
        let AnyRecipe::Seg(loaded) = run_recipe(run)?;
        let (device, _) = device::choose(self.device.device)?;
        let of_run = self.weights.is_none().then_some(run);
        let Prepared { data, classes, .. } = Prepared::open(&loaded, &self.places.places(), of_run)?;
        let recipe = &loaded.value;
        let net = match &self.weights {
            Some(weights) => load_net(&recipe.student, &classes, weights, &device)?.0,
            None => self.which.net(run, recipe, classes.len(), &device)?,
        };
        let split = match &self.split {
            Some(name) => data.dataset.split(name)?,
            None => data.val.clone(),
        };
        let matrix = data.evaluate(&net, &split, recipe, &recipe.eval, &device)?;
        Ok((scored(&matrix)?, classes))
    }

    fn eval_masks(&self, truth: &Path) -> Result<(SegMetrics, Vec<String>)> {
        let (predictions, card) =
            (self.predictions.as_ref().context("--predictions")?, self.card.as_ref().context("--card")?);
        let places = self.places.places();
        let dataset = Dataset::new(Card::find(card, &places.cards)?, &places.data)?;
        Ok((score_files(truth, predictions, &dataset)?, dataset.card().class_names()))
    }
}
