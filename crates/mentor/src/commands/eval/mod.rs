//! `mentor eval`.

mod boxes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Card, Dataset};
use mentor_det::metrics::CocoScores;
use mentor_recipe::{Loaded, Prepared, Recipe, load_net, run_recipe};
use mentor_types::Scores;

use self::boxes::Scoring;
use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::scores::score_lines;
use crate::show::Show;
use crate::tasks::{OnRecipe, OnTask, on_card, on_recipe};
use crate::weights::RunWeights;

/// Score a run, a file of weights, or masks and boxes that any tool wrote.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor eval runs/quickstart\n  mentor eval runs/quickstart --split test\n  \
    mentor eval --truth DIR --predictions DIR --card scenes --json\n  \
    mentor eval --truth gt.json --detections dt.json --json")]
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
    /// A folder of true masks, or a file of COCO annotations.
    #[arg(long, conflicts_with = "run")]
    truth: Option<PathBuf>,
    /// A folder of predicted masks with the same names.
    #[arg(long, requires_all = ["truth", "card"])]
    predictions: Option<PathBuf>,
    /// The card that says what the values in the masks mean.
    #[arg(long, requires = "predictions")]
    card: Option<String>,
    /// A file of COCO results: a list of {image_id, category_id, bbox, score}. Needs no card.
    #[arg(long, value_name = "FILE", requires = "truth", conflicts_with_all = ["predictions", "device"])]
    detections: Option<PathBuf>,
    /// How many boxes of a class in an image count, the surest of them. Default: 100, as in COCO.
    #[arg(long, value_name = "COUNT", requires = "detections", conflicts_with = "predictions", value_parser = clap::value_parser!(u32).range(1..))]
    max_detections: Option<u32>,
    /// Leave out boxes that are wrong (of no size, outside of their image, of no image or class), and say which.
    #[arg(long, requires = "detections", conflicts_with = "predictions")]
    skip_bad_boxes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        match (&self.run, &self.truth, &self.predictions, &self.detections) {
            (Some(run), None, None, None) => on_recipe(&OfRun { eval: self, run }, run_recipe(run)?)?,
            (None, Some(truth), Some(predictions), None) => {
                let name = self.card.as_ref().context("--card")?;
                let card = Card::find(name, &self.places.places().cards)?;
                on_card(&OfFiles { eval: self, truth, predictions, card: &card }, &card)?;
            }
            (None, Some(truth), None, Some(found)) => {
                let limit = self.max_detections.map_or(CocoScores::LIMIT, |limit| limit as usize);
                let scoring = Scoring { truth, found, limit, skips_bad: self.skip_bad_boxes };
                let (scores, classes) = scoring.scores()?;
                self.print(&scores, &classes)?;
            }
            _ => bail!(
                "name a run folder, or --truth and --predictions with --card (masks), or --truth and --detections (boxes)"
            ),
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
