//! The nets of finished runs.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use mentor_recipe::{Recipe, Which, load_run};
use mentor_seg::nets::SegNet;

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
    pub fn net(&self, run: &Path, recipe: &Recipe, classes: usize, device: &Device) -> Result<SegNet> {
        let which = if self.student { Which::Student } else { Which::Judged };
        net_of_run(run, recipe, classes, which, self.best, device)
    }
}

/// The net of a run's last, or best, checkpoint.
pub fn net_of_run(
    run: &Path,
    recipe: &Recipe,
    classes: usize,
    which: Which,
    best: bool,
    device: &Device,
) -> Result<SegNet> {
    Ok(load_run(recipe.student.init(classes, 0, device), run, which, best)?.0)
}
