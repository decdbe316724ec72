//! `mentor predict`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Card, Dataset, Entry, Split, is_image_name, read_image};
use mentor_recipe::{Loaded, Recipe, RunClasses, run_recipe};
use mentor_train::RunInfo;

use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::same_file::identity;
use crate::show::{Palette, Photo, Show, picture_names, save};
use crate::tasks::{OnRecipe, on_recipe};
use crate::weights::RunWeights;

/// Draw or write predictions for images.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mentor predict runs/quickstart photo.jpg\n  mentor predict runs/quickstart photos \
    --as-labels --out masks\n  mentor predict runs/detector --split unlabelled --as-labels"
)]
pub struct Predict {
    /// The run folder.
    run: PathBuf,
    /// Images, or folders of images.
    #[arg(required_unless_present = "split")]
    images: Vec<PathBuf>,
    /// Predict the images of a split of the run's card, which labels are then named by as the card names them.
    #[arg(long, value_name = "NAME", conflicts_with = "images")]
    split: Option<String>,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    which: RunWeights,
    /// Write labels in the format of the run's card, which can be trained on, in place of pictures: a mask for each image, or
    /// one file of boxes.
    #[arg(long)]
    as_labels: bool,
    /// Where the files go.
    #[arg(long, default_value = "predictions")]
    out: PathBuf,
    /// Replace files that are already there. An image that is predicted is never replaced.
    #[arg(long)]
    overwrite: bool,
}

impl Predict {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        on_recipe(self, run_recipe(&self.run)?)
    }
}

impl OnRecipe for Predict {
    type Out = ExitCode;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<ExitCode> {
        let recipe = loaded.value;
        let info = RunInfo::read(&self.run)?;
        let (device, _) = device::choose(self.device.device)?;
        let net = self.which.net(&self.run, &recipe, info.classes.len(), &device)?;
        let dataset = match self.as_labels || self.split.is_some() {
            true => {
                let places = self.places.places();
                let card = Card::find(&info.card, &places.cards)?;
                let card = match &self.split {
                    Some(split) => places.with_files(card, std::iter::once(split.as_str()))?,
                    None => card,
                };
                let dataset = Dataset::new(card, &places.data)?;
                RunClasses::read(&self.run)?.check_card(&self.run, &dataset)?;
                Some(dataset)
            }
            false => None,
        };
        let palette = Palette { names: info.classes, colours: info.colours };
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        let photos = match (&dataset, &self.split) {
            (Some(dataset), Some(split)) => photos_of(&dataset.split(split)?),
            _ => photos_at(image_files(&self.images)?),
        };
        let files: Vec<PathBuf> = photos.iter().map(|photo| photo.path.clone()).collect();
        let names = if self.as_labels { T::label_names(&files) } else { picture_names(&files) };
        let outputs = output_files(&files, &names, &self.out, self.overwrite)?;
        match dataset.filter(|_| self.as_labels) {
            Some(dataset) => T::save_labels(&dataset, &net, &photos, &recipe.eval, &device, &outputs)?,
            None => {
                for (file, path) in files.iter().zip(&outputs) {
                    save(&T::prediction(&palette, &net, read_image(file)?, &recipe.eval, &device), path)?;
                }
            }
        }
        say!("{}: {} files", self.out.display(), files.len());
        Ok(ExitCode::SUCCESS)
    }
}

/// The images of a split, by their names in its list.
fn photos_of(split: &Split) -> Vec<Photo> {
    let photo = |entry: &Entry| Photo { path: split.image_path(entry), name: entry.image.clone() };
    split.entries.iter().map(photo).collect()
}

/// Images by the names of their files.
fn photos_at(files: Vec<PathBuf>) -> Vec<Photo> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.into_iter().map(|path| Photo { name: name(&path), path }).collect()
}

/// Where predictions of images go, by their names in the folder. No two may meet, none may take the place of an image, and of
/// another file only where `overwrite` allows it.
fn output_files(files: &[PathBuf], names: &[PathBuf], out: &Path, overwrite: bool) -> Result<Vec<PathBuf>> {
    let images = files.iter().map(|file| identity(file)).collect::<Result<BTreeSet<_>>>()?;
    let mut outputs: Vec<PathBuf> = Vec::new();
    for name in names {
        let output = out.join(name);
        if outputs.contains(&output) {
            bail!("two images would be written to {}: predict them into folders of their own", output.display());
        }
        if output.exists() && images.contains(&identity(&output)?) {
            bail!("{} is one of the images: choose another --out", output.display());
        }
        // A link that leads nowhere would be written through.
        if output.symlink_metadata().is_ok() && !overwrite {
            bail!("{} is already there: choose another --out, or add --overwrite", output.display());
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Every image named, and every image in the folders named, sorted.
fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut found: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| is_image_name(file)).collect();
        if found.is_empty() {
            bail!("{}: holds no images", path.display());
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_image_is_ever_a_place_to_write_to_and_no_other_file_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let photos = folder.path().join("photos");
        std::fs::create_dir(&photos).unwrap();
        let photo = photos.join("a.png");
        std::fs::write(&photo, "a photo").unwrap();
        let files = [photo.clone()];
        let names = picture_names(&files);
        for out in [photos.clone(), photos.join("."), photos.join("../photos")] {
            for overwrite in [false, true] {
                let message = output_files(&files, &names, &out, overwrite).unwrap_err().to_string();
                assert!(message.contains("is one of the images"), "{message}");
            }
        }
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        assert_eq!(output_files(&files, &names, &out, false).unwrap(), [out.join("a.png")]);
        // A second name of the photo is the photo.
        std::fs::hard_link(&photo, out.join("a.png")).unwrap();
        #[cfg(unix)]
        assert!(output_files(&files, &names, &out, true).unwrap_err().to_string().contains("is one of the images"));
        std::fs::remove_file(out.join("a.png")).unwrap();
        std::fs::write(out.join("a.png"), "a mask that someone drew").unwrap();
        assert!(output_files(&files, &names, &out, false).unwrap_err().to_string().contains("add --overwrite"));
        output_files(&files, &names, &out, true).unwrap();
    }
}
