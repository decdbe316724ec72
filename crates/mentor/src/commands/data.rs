//! `mentor data`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mentor_distill::TermTable;
use mentor_recipe::{Loaded, Prepared, Recipe};
use mentor_report::pictures::grid;

use super::{DeviceArgs, PlaceArgs, RecipeArgs};
use crate::device;
use crate::print::{note, say};
use crate::show::{Labelling, Palette, Show, save};
use crate::tasks::{OnRecipe, on_recipe};
use crate::weights::RunNets;

/// Draw augmented samples as the networks see them, with labels and pseudo-labels.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor data recipes/quickstart.toml --draw 8\n  mentor data \
    recipes/scenes/fixmatch.toml --draw 8 --run runs/fixmatch")]
pub struct Data {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// How many samples of each stream.
    #[arg(long, default_value_t = 8)]
    draw: usize,
    /// The first step whose batch is drawn.
    #[arg(long, default_value_t = 0)]
    step: u64,
    /// A run of this recipe: the pseudo-labels that each of its terms trains on are drawn on the strong
    /// views.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Where the pictures go.
    #[arg(long, default_value = "samples")]
    out: PathBuf,
}

impl Data {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        on_recipe(self, self.recipe.read()?)
    }
}

impl OnRecipe for Data {
    type Out = ExitCode;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<ExitCode> {
        let Prepared { data, classes, .. } = Prepared::open(&loaded, &self.places.places(), self.run.as_deref())?;
        let (device, _) = device::choose(self.device.device)?;
        let recipe = &loaded.value;
        let nets = match &self.run {
            Some(run) => {
                ensure!(
                    !recipe.unlabelled.terms().is_empty(),
                    "--run has no effect: no term under [unlabelled] of {} makes pseudo-labels",
                    loaded.path.display()
                );
                Some(RunNets::load(run, recipe, classes.len(), &device)?)
            }
            None => None,
        };
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        let palette = Palette::of(data.dataset.card());
        let (mut labelled, mut unlabelled, mut step) = (Vec::new(), Vec::new(), self.step);
        let pairs_wanted = if recipe.train.batch_unlabelled > 0 { self.draw } else { 0 };
        while labelled.len() < self.draw || unlabelled.len() < pairs_wanted {
            let batch = data.maker.make(step, 0)?;
            let labelling = nets.as_ref().map(|nets| Labelling { recipe, nets, device: &device });
            let drawn = T::batch(&palette, &batch, labelling);
            labelled.extend(drawn.labelled);
            unlabelled.extend(drawn.unlabelled);
            step += 1;
        }
        labelled.truncate(self.draw);
        unlabelled.truncate(pairs_wanted);
        for (name, drawn) in [("labelled", &labelled), ("unlabelled", &unlabelled)] {
            for (number, picture) in drawn.iter().enumerate() {
                save(picture, &self.out.join(format!("{name}_{number:03}.png")))?;
            }
            if drawn.len() > 1 {
                save(&grid(drawn, 4), &self.out.join(format!("{name}.png")))?;
            }
        }
        data.dataset.notes().iter().for_each(|line| note!("{line}"));
        let (labelled, unlabelled) = (labelled.len(), unlabelled.len());
        say!("{}: {labelled} labelled, {unlabelled} unlabelled samples", self.out.display());
        Ok(ExitCode::SUCCESS)
    }
}
