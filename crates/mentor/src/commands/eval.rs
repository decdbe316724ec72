//! `mentor eval`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Card, Dataset};
use mentor_recipe::{Loaded, Prepared, Recipe, load_net, run_recipe};
use mentor_types::Scores;

use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::scores::score_lines;
use crate::show::Show;
use crate::tasks::{OnRecipe, OnTask, on_card, on_recipe};
use crate::weights::RunWeights;

/// Score a run, a file of weights, or masks that any tool wrote.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor eval runs/quickstart\n  mentor eval runs/quickstart --split test\n  \
    mentor eval --truth DIR --predictions DIR --card scenes --json")]
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
        match (&self.run, &self.truth) {
            (Some(run), None) => on_recipe(&OfRun { eval: self, run }, run_recipe(run)?)?,
            (None, Some(truth)) => {
                let (predictions, name) =
                    (self.predictions.as_ref().context("--predictions")?, self.card.as_ref().context("--card")?);
                let card = Card::find(name, &self.places.places().cards)?;
                on_card(&OfFiles { eval: self, truth, predictions, card: &card }, &card)?;
            }
            _ => bail!("name a run folder, or --truth, --predictions and --card"),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print<S: Scores>(&self, scores: &S, classes: &[String]) -> Result<()> {
        if self.json {
            say!("{}", serde_json::to_string_pretty(&scores.record(classes))?);
        } else {
            score_lines(scores, classes).iter().for_each(|line| say!("{line}"));
        }
        Ok(())
    }
}

/// The net of a run, or a file of weights for it, on a split.
struct OfRun<'a> {
    eval: &'a Eval,
    run: &'a Path,
}

impl OnRecipe for OfRun<'_> {
    type Out = ();

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<()> {
        let Self { eval, run } = self;
        let (device, _) = device::choose(eval.device.device)?;
        let places = eval.places.places();
        let of_run = eval.weights.is_none().then_some(*run);
        let prepared = Prepared::open(&loaded, &places, of_run)?;
        let (recipe, classes) = (&loaded.value, &prepared.classes);
        let net = match &eval.weights {
            Some(weights) => load_net(&recipe.student, classes, weights, &device)?.0,
            None => eval.which.net(run, recipe, classes.len(), &device)?,
        };
        let split = match &eval.split {
            Some(name) => prepared.data.split(name, &places)?,
            None => prepared.data.val.clone(),
        };
        eval.print(&prepared.evaluate(&net, &split, &device)?, classes)
    }
}

/// Files of predictions against files of the truth.
struct OfFiles<'a> {
    eval: &'a Eval,
    truth: &'a Path,
    predictions: &'a Path,
    card: &'a Card,
}

impl OnTask for OfFiles<'_> {
    type Out = ();

    fn on<T: Show>(&self) -> Result<()> {
        let dataset = Dataset::new(self.card.clone(), &self.eval.places.places().data)?;
        let scores = T::score_files(self.truth, self.predictions, &dataset)?;
        self.eval.print(&scores, &dataset.card().class_names())
    }
}
