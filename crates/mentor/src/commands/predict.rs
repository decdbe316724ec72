//! `mentor predict`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Card, SegDataset, read_image};
use mentor_recipe::{RunClasses, run_recipe};
use mentor_train::RunInfo;

use super::{DeviceArgs, PlaceArgs};
use crate::device;
use crate::show::{save, seg};
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
}

impl Predict {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let recipe = run_recipe(&self.run)?;
        let info = RunInfo::read(&self.run)?;
        let (device, _) = device::choose(self.device.device)?;
        let net = self.which.net(&self.run, &recipe, info.classes.len(), &device)?;
        let dataset = match self.as_labels {
            true => {
                let places = self.places.places();
                let dataset = SegDataset::new(Card::find(&info.card, &places.cards)?, &places.data)?;
                RunClasses::read(&self.run)?.check_card(&self.run, &dataset)?;
                Some(dataset)
            }
            false => None,
        };
        let palette = seg::Palette::new(info.classes, info.colours);
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        let files = image_files(&self.images)?;
        let outputs = output_files(&files, &self.out)?;
        for (file, path) in files.iter().zip(&outputs) {
            let image = read_image(file)?;
            match &dataset {
                Some(dataset) => seg::save_labels(&net, image, &recipe.eval, dataset, path, &device)?,
                None => save(&palette.prediction(&net, image, &recipe.eval, &device), path)?,
            }
        }
        println!("{}: {} files", self.out.display(), files.len());
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the prediction of each image goes: its name with the ending `.png`. No two may meet, and
/// none may take the place of an image.
fn output_files(files: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>> {
    let mut outputs: Vec<PathBuf> = Vec::new();
    for file in files {
        let output = out.join(format!("{}.png", file.file_stem().unwrap_or_default().to_string_lossy()));
        if outputs.contains(&output) {
            bail!("two images would be written to {}: predict them into folders of their own", output.display());
        }
        if files.contains(&output) {
            bail!("{} is one of the images: choose another --out", output.display());
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Every image named, and every image in the folders named, sorted.
fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    const ENDINGS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp"];
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| {
                let ending = file.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
                ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
            })
            .collect();
        if found.is_empty() {
            bail!("{}: holds no images", path.display());
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}
