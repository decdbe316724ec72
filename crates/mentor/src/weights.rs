//! The nets of finished runs.

use std::path::Path;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use clap::Args;
use mentor_nets::Student;
use mentor_recipe::{NetTable, Recipe, Task, Which, load_run};

/// Which weights of a run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunWeights {
    /// Take the student, not the average of its weights that the run kept.
    #[arg(long)]
    student: bool,
    /// Take the checkpoint of the best evaluation, not the last one.
    #[arg(long)]
    best: bool,
}

impl RunWeights {
    /// The net of a run.
    pub fn net<T: Task>(&self, run: &Path, recipe: &Recipe<T>, classes: usize, device: &Device) -> Result<T::Net> {
        let which = if self.student { Which::Student } else { Which::Judged };
        net_of_run(run, recipe, classes, which, self.best, device)
    }
}

/// The net of a run's last, or best, checkpoint.
fn net_of_run<T: Task>(
    run: &Path,
    recipe: &Recipe<T>,
    classes: usize,
    which: Which,
    best: bool,
    device: &Device,
) -> Result<T::Net> {
    Ok(load_run(recipe.student.init(classes, 0, device), run, which, best)?.0)
}

/// What a run trained, ready to be asked.
#[derive(Clone, Debug)]
pub struct RunNets<T: Task> {
    /// What was trained.
    pub student: T::Net,
    /// The average of its weights, where one is kept.
    pub average: Option<T::Net>,
}

impl<T: Task> RunNets<T> {
    /// As they are in the last checkpoint of a run.
    pub fn load(run: &Path, recipe: &Recipe<T>, classes: usize, device: &Device) -> Result<Self> {
        let load = |which| net_of_run(run, recipe, classes, which, false, device);
        let average = recipe.ema.is_some().then(|| load(Which::Ema)).transpose()?;
        Ok(Self { student: load(Which::Student)?, average })
    }

    /// As they are while a run goes on.
    pub fn of(method: &T::Method, model: &Student<T::Net>) -> Self {
        Self { student: model.net.valid(), average: T::average(method).map(|average| average.net().valid()) }
    }

    /// All that are judged, by name; the first decides which checkpoint is best.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &T::Net)> {
        self.average.iter().map(|net| ("ema", net)).chain([("student", &self.student)])
    }

    /// The one that the run is judged by.
    pub fn judged(&self) -> (&'static str, &T::Net) {
        self.average.as_ref().map_or(("student", &self.student), |net| ("ema", net))
    }
}
