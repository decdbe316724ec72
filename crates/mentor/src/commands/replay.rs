//! `mentor train --replay STEP`: one step of a run again, to be looked at.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use mentor_data::Loader;
use mentor_recipe::Prepared;
use mentor_train::{Checkpoint, Progress, Run, TrainError};

use super::job::Job;
use crate::print::say;
use crate::run_folder::RunFolder;
use crate::show::{Palette, Show, save};

/// Goes from the last checkpoint before `step` to `step` as the run did, with a log line for every
/// step, and draws the images of `step`. The run folder stays as it is, but for `replay/`.
pub fn replay<T: Show>(job: &Job<'_, T>, step: u64) -> Result<PathBuf> {
    let recipe = &job.loaded.value;
    let steps = recipe.train.steps;
    ensure!((1..=steps).contains(&step), "--replay {step}: the run has steps 1 to {steps}");
    let prepared = Prepared::open(job.loaded, job.places, Some(job.out))?;
    let data = &prepared.data;
    let nets = prepared.nets(&job.device.0)?;
    let resume = RunFolder::of_same_recipe(job.out, job.loaded)?.checkpoint_before(step)?;
    let first = resume.as_ref().map_or(0, |checkpoint: &Checkpoint| checkpoint.state.step);

    let folder = job.out.join("replay").join(format!("step-{step:08}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let palette = Palette::of(data.dataset.card());
    let progress = Progress::new(first, step);
    progress.line(&format!("step {step} of {}, from {first} steps on {}", job.out.display(), job.device.1));

    let mut loader = Loader::start(data.maker.clone(), first..step, &recipe.data, |batch| batch)?;
    let (accumulate, mut at) = (recipe.train.accumulate, first);
    let mut batches = || {
        let batches: Result<Vec<_>, _> = (0..accumulate).map(|_| loader.next().map_err(|e| e.to_string())).collect();
        at += 1;
        if at == step {
            job.stop.store(true, std::sync::atomic::Ordering::Relaxed);
            for (micro, batch) in batches.iter().flatten().enumerate() {
                let drawn = T::batch(&palette, batch, None);
                for (stream, pictures) in [("labelled", drawn.labelled), ("unlabelled", drawn.unlabelled)] {
                    for (index, picture) in pictures.iter().enumerate() {
                        let path = folder.join(format!("micro{micro}_{stream}_{index:03}.png"));
                        save(picture, &path).map_err(|error| format!("{error:#}"))?;
                    }
                }
            }
        }
        batches.map(|batches| batches.into_iter().map(|batch| T::upload(batch, &job.device.0)).collect())
    };
    let ended = mentor_train::train(Run {
        method: nets.method,
        model: nets.model,
        optimizer: recipe.optimizer.clone(),
        schedule: recipe.schedule.clone(),
        train: mentor_train::TrainConfig { log_every_steps: 1, ..recipe.train.clone() },
        seed: recipe.seed,
        device: job.device.0.clone(),
        folder: &folder,
        resume,
        stop: job.stop,
        batches: &mut batches,
        evaluate: &mut |_, _, _| Ok(Vec::new()),
        progress: &progress,
    });
    match ended {
        // What it was replayed for.
        Err(error @ TrainError::NotFinite { .. }) => say!("{error}"),
        Err(error) => return Err(error.into()),
        Ok(_) => say!("step {step} is finite"),
    }
    Ok(folder)
}
