//! `mentor predict`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use image::{GrayImage, RgbImage};
use mentor_data::{Card, MaskFormat, SegDataset, is_image_name, read_image};
use mentor_recipe::run_recipe;
use mentor_report::pictures;
use mentor_seg::predict_mask;
use mentor_types::LabelMask;

use super::data::pictures_of;
use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::print::say;
use crate::run_folder::RunFolder;
use crate::same_file::identity;
use crate::weights::RunWeights;

/// Draw or write predictions for images.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mentor predict runs/quickstart photo.jpg\n  mentor predict runs/quickstart photos \
    --as-labels --out masks"
)]
pub struct Predict {
    /// The run folder.
    run: PathBuf,
    /// Images, or folders of images.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    which: RunWeights,
    /// Write masks in the format of the run's card, which can be trained on, in place of pictures.
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
        let recipe = run_recipe(&self.run)?;
        let info = RunFolder::info(&self.run)?;
        let (device, _) = device::choose(self.device.device)?;
        let net = self.which.net(&self.run, &recipe, info.classes.len(), &device)?;
        let dataset = match self.as_labels {
            true => {
                let places = self.places.places();
                let dataset = SegDataset::new(Card::find(&info.card, &places.cards)?, &places.data)?;
                info.run_classes().check_card(&self.run, &dataset)?;
                Some(dataset)
            }
            false => None,
        };
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        let files = image_files(&self.images)?;
        let outputs = output_files(&files, &self.out, self.overwrite)?;
        for (file, path) in files.iter().zip(&outputs) {
            let image = read_image(file)?;
            let picture = pictures_of(&image).swap_remove(0);
            let mask = predict_mask(&net, image, &recipe.eval, &device);
            match &dataset {
                Some(dataset) => save_labels(&mask, dataset, path)?,
                None => {
                    let overlay = pictures::overlay(&picture, &mask, &info.colours, 0.5);
                    let shown = pictures::shown_labels(&[&mask]);
                    save(&pictures::with_legend(&overlay, &info.classes, &info.colours, &shown), path)?;
                }
            }
        }
        say!("{}: {} files", self.out.display(), files.len());
        Ok(ExitCode::SUCCESS)
    }
}

fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    picture.save(path).with_context(|| path.display().to_string())
}

/// Writes a mask in the card's own format.
fn save_labels(mask: &LabelMask, dataset: &SegDataset, path: &Path) -> Result<()> {
    let (width, height) = (mask.width() as u32, mask.height() as u32);
    let map = dataset.label_map();
    let failed = || format!("cannot write {}", path.display());
    match map.format() {
        MaskFormat::Index => {
            let raw: Option<Vec<u8>> = mask.labels().iter().map(|label| map.raw_value(*label)).collect();
            let raw = raw.with_context(|| format!("{}: a class has no value in masks of this card", path.display()))?;
            GrayImage::from_raw(width, height, raw).with_context(failed)?.save(path).with_context(failed)
        }
        MaskFormat::Color => {
            let colours = dataset.card().class_colours();
            let mut rgb = Vec::with_capacity(3 * mask.labels().len());
            for label in mask.labels() {
                let colour = colours.get(usize::from(*label)).with_context(|| {
                    format!("{}: class {label} has no colour, the card has {} classes", path.display(), colours.len())
                })?;
                rgb.extend(colour);
            }
            RgbImage::from_raw(width, height, rgb).with_context(failed)?.save(path).with_context(failed)
        }
    }
}

/// Where the prediction of each image goes: its name with the ending `.png`. No two may meet, none may
/// take the place of an image, and of another file only where `overwrite` allows it.
fn output_files(files: &[PathBuf], out: &Path, overwrite: bool) -> Result<Vec<PathBuf>> {
    let images = files.iter().map(|file| identity(file)).collect::<Result<BTreeSet<_>>>()?;
    let mut outputs: Vec<PathBuf> = Vec::new();
    for file in files {
        let output = out.join(format!("{}.png", file.file_stem().unwrap_or_default().to_string_lossy()));
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
        for out in [photos.clone(), photos.join("."), photos.join("../photos")] {
            for overwrite in [false, true] {
                let message = output_files(&files, &out, overwrite).unwrap_err().to_string();
                assert!(message.contains("is one of the images"), "{message}");
            }
        }
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        assert_eq!(output_files(&files, &out, false).unwrap(), [out.join("a.png")]);
        // A second name of the photo is the photo.
        std::fs::hard_link(&photo, out.join("a.png")).unwrap();
        #[cfg(unix)]
        assert!(output_files(&files, &out, true).unwrap_err().to_string().contains("is one of the images"));
        std::fs::remove_file(out.join("a.png")).unwrap();
        std::fs::write(out.join("a.png"), "a mask that someone drew").unwrap();
        assert!(output_files(&files, &out, false).unwrap_err().to_string().contains("add --overwrite"));
        output_files(&files, &out, true).unwrap();
    }
}
