//! The commands, one file each.

mod at_once;
mod check;
mod data;
mod eval;
mod export;
pub mod job;
mod list;
mod new;
mod predict;
mod replay;
mod report;
mod scenes;
mod schema;
mod study;
mod term;
pub mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use mentor_recipe::{AnyRecipe, Changes, Places};

use crate::device::DeviceRequest;

/// Trains small segmentation models from big ones and from unlabelled images.
#[derive(Debug, Parser)]
#[command(name = "mentor", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train what a recipe describes.
    Train(train::Train),
    /// Run the rows of a study that have no result yet, and print its table.
    Study(study::Study),
    /// Check a recipe: every mistake with its place, then what the recipe means.
    Check(check::Check),
    /// Draw augmented samples as the networks see them.
    Data(data::Data),
    /// Draw a data set of small towns from above.
    Scenes(scenes::Scenes),
    /// Write a starter card and recipe for a folder of your own images, with masks or boxes.
    New(new::New),
    /// Evaluate a term of the loss on tensors from a file.
    Term(term::Term),
    /// Write a run's report again.
    Report(report::Report),
    /// List what recipes can name.
    List(list::List),
    /// Print a JSON Schema of recipes.
    Schema(schema::Schema),
    /// Score a run, a file of weights, or masks and boxes that any tool wrote.
    Eval(eval::Eval),
    /// Draw or write predictions for images.
    Predict(predict::Predict),
    /// Write the student of a run to a file of weights.
    Export(export::Export),
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Train(train) => train.run(),
        Command::Eval(eval) => eval.run(),
        Command::Predict(predict) => predict.run(),
        Command::Export(export) => export.run(),
        Command::Study(study) => study.run(),
        Command::Check(check) => check.run(),
        Command::Data(data) => data.run(),
        Command::New(new) => new.run(),
        Command::Term(term) => term.run(),
        Command::Report(report) => report.run(),
        Command::List(list) => list.run(),
        Command::Scenes(scenes) => scenes.run(),
        Command::Schema(schema) => schema.run(),
    }
}

/// A recipe with changes.
#[derive(Debug, Args)]
struct RecipeArgs {
    /// The recipe.
    recipe: PathBuf,
    /// Change a key: `--set distill.pair_wise.weight=0.3`. May be given often.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove a key or table: `--unset distill.pair_wise`. May be given often.
    #[arg(long = "unset", value_name = "KEY")]
    unset: Vec<String>,
}

impl RecipeArgs {
    fn read(&self) -> Result<AnyRecipe> {
        let changes = Changes { set: self.set.clone(), unset: self.unset.clone() };
        Ok(AnyRecipe::read(&self.recipe, &changes)?)
    }
}

/// Where images and cards lie.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// A folder that holds images (or a folder of the card's name with them). Default: $MENTOR_DATA,
    /// then beside the card.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// A folder of data set cards. Default: `datasets` here or in a folder above. Drawn sets are kept in
    /// $MENTOR_CACHE, or the system's cache folder.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
}

impl PlaceArgs {
    fn places(&self) -> Places {
        let environment = std::env::var_os("MENTOR_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = self.data_root.iter().cloned().chain(environment).collect();
        let mut cards: Vec<PathBuf> = self.cards.iter().cloned().collect();
        if let Ok(here) = std::env::current_dir() {
            let above = here.ancestors().map(|folder| folder.join("datasets"));
            cards.extend(above.filter(|folder| folder.is_dir()));
        }
        Places { cards, data, cache: cache_folder(), draws: true, news: Some(crate::drawing::show) }
    }
}

/// Where drawn sets are kept: `$MENTOR_CACHE`, else `mentor` in the system's folder for what can be made again.
fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("MENTOR_CACHE").filter(|value| !value.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(dirs::cache_dir()?.join("mentor")))
}

/// Where to compute.
#[derive(Debug, Args)]
struct DeviceArgs {
    /// auto, cpu, cuda:N or wgpu:N. `auto` takes a CUDA device where there is one.
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,
}
