//! What a finished run left: its recipe and its nets.

use std::path::Path;

use burn::module::Module;
use mentor_nets::{LoadReport, NET};
use mentor_train::{Checkpoint, Checkpoints, files};
use mentor_weights::{NamedTensors, from_safetensors, load_named};

use crate::any::AnyRecipe;
use crate::error::BuildError;

/// Which model of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The average where the run kept one, else the student.
    #[default]
    Judged,
    /// The student.
    Student,
    /// The average.
    Ema,
}

/// The net of a run's last checkpoint, or of that of its `best` evaluation.
///
/// # Errors
/// A folder without checkpoints, or whose net has another form.
pub fn load_run<N: Module>(net: N, folder: &Path, which: Which, best: bool) -> Result<(N, LoadReport), BuildError> {
    let checkpoints = Checkpoints::open_existing(folder.join("checkpoints"))?;
    let checkpoint = if best { checkpoints.best()? } else { checkpoints.newest()? };
    net_of(net, &checkpoint, which, folder)
}

/// The net in a checkpoint.
///
/// # Errors
/// Where it has another form, or the checkpoint has no average and one is asked for.
fn net_of<N: Module>(
    net: N,
    checkpoint: &Checkpoint,
    which: Which,
    folder: &Path,
) -> Result<(N, LoadReport), BuildError> {
    let tensors = tensors_of(checkpoint, which, folder)?;
    let loaded = tensors.len();
    let net = load_named(net, tensors).map_err(|source| BuildError::Checkpoint { path: folder.to_owned(), source })?;
    Ok((net, LoadReport { loaded, ..LoadReport::default() }))
}

/// The tensors of the net in a checkpoint, by their paths in the net.
pub(super) fn tensors_of(checkpoint: &Checkpoint, which: Which, folder: &Path) -> Result<NamedTensors, BuildError> {
    let ema = checkpoint.files.get(files::AVERAGE).filter(|_| which != Which::Student);
    if which == Which::Ema && ema.is_none() {
        return Err(BuildError::NoRun { path: folder.to_owned(), reason: "the run kept no average".to_owned() });
    }
    let model = checkpoint.files.get(files::MODEL);
    let bytes = ema.or(model).ok_or_else(|| BuildError::NoRun {
        path: folder.to_owned(),
        reason: "the checkpoint holds no model".to_owned(),
    })?;
    let tensors =
        from_safetensors(bytes).map_err(|source| BuildError::Checkpoint { path: folder.to_owned(), source })?;
    if ema.is_some() {
        return Ok(tensors);
    }
    // Beside the net a model has adapters.
    let net = tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix(NET)?.to_owned(), tensor)));
    Ok(net.collect())
}

/// The recipe that a run folder was made by.
///
/// # Errors
/// If the folder holds none.
pub fn run_recipe(folder: &Path) -> Result<AnyRecipe, BuildError> {
    let path = folder.join("recipe.toml");
    AnyRecipe::read_earlier(&path)
        .map_err(|problems| BuildError::NoRun { path: folder.to_owned(), reason: problems.to_string() })
}
