//! `mentor check`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use mentor_data::{Dataset, ReadLabels};
use mentor_recipe::{Loaded, NetTable, Prepared, Recipe, check_classes, find_card};
use mentor_train::{Method, Moment};
use mentor_types::Key;

use super::{DeviceArgs, PlaceArgs, RecipeArgs};
use crate::device;
use crate::print::say;
use crate::show::Show;
use crate::tasks::{OnRecipe, on_recipe};

/// Check a recipe: every mistake with its place, then what the recipe means.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor check recipes/quickstart.toml\n  mentor check \
    recipes/cityscapes_structured.toml --no-data")]
pub struct Check {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Do not look for images and weights: they are elsewhere.
    #[arg(long)]
    no_data: bool,
    /// Run three steps, and estimate the time of the whole run.
    #[arg(long, conflicts_with = "no_data")]
    probe: bool,
    /// Print nothing but mistakes.
    #[arg(long)]
    quiet: bool,
}

impl Check {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        on_recipe(self, self.recipe.read()?)
    }
}

impl OnRecipe for Check {
    type Out = ExitCode;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<ExitCode> {
        let recipe = &loaded.value;
        let places = self.places.places();
        let card = find_card(&loaded, &places)?;
        // The lists of drawn scenes are drawn with them.
        let splits = || recipe.data.splits();
        let card = if self.no_data { card } else { places.with_files(card, splits().map(|(_, name)| name))? };
        let dataset = Dataset::<T::Labels>::new(card, &places.data)?.on_bad_sample(recipe.data.on_bad_sample);
        let card = dataset.card();
        let classes = card.class_names().len();
        let mut lists = Vec::new();
        for (key, name) in splits() {
            if self.no_data && !card.is_listed(name) {
                continue;
            }
            let entries =
                dataset.entries(name).map_err(|error| loaded.problem(&format!("data.{key}"), error.to_string()))?;
            lists.push(format!("{key:<12} {name}: {} images", entries.len()));
        }
        check_classes(&loaded, classes)?;
        let say = |text: &str| {
            if !self.quiet {
                say!("{text}");
            }
        };
        say(&loaded.resolved);
        say(&format!("# {}, {classes} classes", card.title));
        lists.iter().for_each(|line| say(&format!("# {line}")));
        let (device, device_name) = device::choose(self.device.device)?;
        let student = describe("student", &recipe.student, classes, &loaded, &device);
        say(&student);
        for (name, teacher) in &recipe.teachers {
            say(&describe(&format!("teacher {name}"), teacher, classes, &loaded, &device));
        }
        if !self.no_data {
            self.check_data(&loaded, &say, &device, &device_name)?;
        }
        say(&format!("# {} is a valid recipe", loaded.path.display()));
        Ok(ExitCode::SUCCESS)
    }
}

impl Check {
    fn check_data<T: Show>(
        &self,
        loaded: &Loaded<Recipe<T>>,
        say: &dyn Fn(&str),
        device: &burn::tensor::Device,
        device_name: &str,
    ) -> Result<()> {
        let recipe = &loaded.value;
        let prepared = Prepared::open(loaded, &self.places.places(), None)?;
        let Prepared { data, classes: names, .. } = &prepared;
        let (dataset, on_bad) = (&data.dataset, recipe.data.on_bad_sample);
        let shares = |counts: &<T::Labels as ReadLabels>::Counts| {
            T::label_shares(counts, names).into_iter().for_each(|line| say(&format!("# {line}")))
        };
        for (key, name) in recipe.data.splits() {
            let split = dataset.split(name)?;
            let stats = match key {
                // Nobody need have labelled them.
                "unlabelled" => dataset.verify_images(&split, on_bad)?,
                _ => dataset.verify_split(&split, on_bad, None)?,
            };
            if key == "labelled" {
                shares(&stats.counts);
            }
            if let (Some(pseudo), "unlabelled") = (data.maker.pseudo_labelled(), key) {
                say("# pseudo-labels that are sure enough:");
                shares(&pseudo.verify_images(&split, on_bad)?.counts);
            }
            stats.bad.iter().for_each(|bad| say(&format!("# left out: {bad}")));
        }
        dataset.notes().iter().for_each(|line| say(&format!("# {line}")));
        let nets = prepared.nets(device)?;
        for (name, report) in &nets.reports {
            say(&format!("# weights of {name}: {report}"));
        }
        if self.probe {
            let mut seconds = Vec::new();
            for step in 0..3 {
                let start = Instant::now();
                for micro in 0..recipe.train.accumulate {
                    let batch = T::upload(data.maker.make(step, micro)?, device);
                    let key = Key::new(recipe.seed).at("step", step).at("micro", micro as u64);
                    let moment = Moment { step, micro: micro as u64, key, lr_factor: 1.0 };
                    let losses = nets.method.losses(&nets.model, batch, moment);
                    if let Some(total) = losses.terms.total() {
                        let _ = total.backward();
                        let _ = total.into_scalar::<f32>();
                    }
                }
                seconds.push(start.elapsed().as_secs_f64());
            }
            // The first step warms up.
            let step = seconds[1].min(seconds[2]);
            say(&format!(
                "# {:.0} ms a step on {device_name}: about {:.1} minutes for {} steps, evaluations left out",
                1e3 * step,
                step * recipe.train.steps as f64 / 60.0,
                recipe.train.steps
            ));
        }
        Ok(())
    }
}

fn describe<T: Show>(
    who: &str,
    config: &T::NetConfig,
    classes: usize,
    loaded: &Loaded<Recipe<T>>,
    device: &burn::tensor::Device,
) -> String {
    let recipe = &loaded.value;
    let net = config.init(classes, 0, device);
    let crop = recipe.views.crop_px;
    let (parameters, macs) = (mentor_nets::num_params(&net) as f64, T::macs(&net, crop) as f64);
    let images = (recipe.train.batch_labelled + recipe.train.batch_unlabelled) as f64;
    // A weight, its gradient and the optimizer's state for a student; maps at about one byte for
    // every sixteen multiply-adds, forward and backward, which is what measured nets come to.
    let (copies, passes) = if who == "student" { (4.0, 2.0) } else { (1.0, 0.2) };
    let memory = 4.0 * parameters * copies + images * passes * macs / 16.0;
    format!(
        "# {who}: {:.2} M parameters, {:.2} G multiply-adds at {}x{}, about {:.0} MiB in a step",
        parameters / 1e6,
        macs / 1e9,
        crop[0],
        crop[1],
        memory / f64::from(1 << 20)
    )
}
