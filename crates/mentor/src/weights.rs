//! The nets of finished runs.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use mentor_recipe::{Recipe, Which, net_of};
use mentor_seg::nets::SegNet;
use mentor_train::Checkpoints;

/// The net of a run's best checkpoint.
pub fn net_of_run(run: &Path, recipe: &Recipe, classes: usize, which: Which, device: &Device) -> Result<SegNet> {
    let checkpoint = Checkpoints::open_existing(run.join("checkpoints"))?.best_or_last()?;
    let net = recipe.student.init(classes, 0, device);
    Ok(net_of(net, &checkpoint, which, run)?.0)
}
