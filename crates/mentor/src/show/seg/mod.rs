//! What segmentation shows.

mod inputs;
mod masks;
mod report;
mod term;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use image::RgbImage;
use mentor_data::{Dataset, PixelCounts, read_image};
use mentor_distill::Column;
use mentor_report::pictures;
use mentor_seg::metrics::{ConfusionMatrix, SegMetrics};
use mentor_seg::nets::SegNet;
use mentor_seg::{EvalConfig, Seg, predict_mask};
use mentor_types::{Batch, Images, LabelMask};

use self::masks::{drawn_pairs, explained, masks_of, painted, save_mask, taught_by};
use super::{AskedTerm, Drawn, Judge, Labelling, Palette, Photo, Show, Shown, picture_names, pictures_of};

impl Show for Seg {
    fn batch(palette: &Palette, batch: &Batch<LabelMask>, nets: Option<Labelling<'_, Self>>) -> Drawn {
        let samples = &batch.labelled;
        let masks = masks_of(&samples.targets, &samples.images);
        let labelled = pictures_of(&samples.images).into_iter().zip(&masks).map(|(image, mask)| {
            let overlay = painted(palette, &image, mask, masks::OPACITY);
            explained(palette, &pictures::panel(&[("view", &image), ("labels", &overlay)]), &[mask])
        });
        let taught = match (nets, &batch.unlabelled) {
            (Some(nets), Some(pairs)) => taught_by(&nets, pairs),
            _ => Vec::new(),
        };
        let unlabelled = batch.unlabelled.as_ref().map(|pairs| drawn_pairs(palette, pairs, &taught));
        Drawn { labelled: labelled.collect(), unlabelled: unlabelled.unwrap_or_default() }
    }

    fn prediction(palette: &Palette, net: &SegNet, image: Images, config: &EvalConfig, device: &Device) -> RgbImage {
        let picture = pictures_of(&image).swap_remove(0);
        let mask = predict_mask(net, image, config, device);
        explained(palette, &painted(palette, &picture, &mask, masks::OPACITY_OF_PREDICTIONS), &[&mask])
    }

    fn label_names(images: &[PathBuf]) -> Vec<PathBuf> {
        picture_names(images)
    }

    fn save_labels(
        dataset: &Dataset<LabelMask>,
        net: &SegNet,
        images: &[Photo],
        config: &EvalConfig,
        device: &Device,
        files: &[PathBuf],
    ) -> Result<()> {
        images.iter().zip(files).try_for_each(|(image, file)| {
            save_mask(dataset, &predict_mask(net, read_image(&image.path)?, config, device), file)
        })
    }

    fn score_files(truth: &Path, predictions: &Path, dataset: &Dataset<LabelMask>) -> Result<SegMetrics> {
        let classes = dataset.card().classes.len();
        let mut names: Vec<_> = std::fs::read_dir(truth)
            .with_context(|| truth.display().to_string())?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .filter(|name| PathBuf::from(name).extension().is_some_and(|extension| extension == "png"))
            .collect();
        names.sort();
        if names.is_empty() {
            bail!("{}: holds no .png masks", truth.display());
        }
        let mut matrix = ConfusionMatrix::new(classes);
        for name in names {
            let read = |folder: &Path| -> Result<LabelMask> { Ok(dataset.read_mask(&folder.join(&name))?) };
            let counts = ConfusionMatrix::from_masks(&read(predictions)?, &read(truth)?, classes, None);
            matrix.add(&counts.with_context(|| predictions.join(&name).display().to_string())?);
        }
        matrix.metrics().context("no pixel with a label was compared")
    }

    fn label_shares(counts: &PixelCounts, classes: &[String]) -> Vec<String> {
        let all = counts.classes.iter().sum::<u64>() + counts.ignored + counts.unknown;
        let share = |pixels: u64| 100.0 * pixels as f64 / all.max(1) as f64;
        let rows = classes.iter().zip(&counts.classes).map(|(name, pixels)| (name.as_str(), *pixels));
        rows.chain([("ignored", counts.ignored), ("unknown", counts.unknown)])
            .map(|(name, pixels)| format!("{name:<20} {:6.2} % of the labelled pixels", share(pixels)))
            .collect()
    }

    fn report(judge: &Judge<'_, Self>) -> Result<Shown> {
        report::shown(judge)
    }

    fn term(asked: &AskedTerm<'_, Self>) -> Result<Vec<(Column, f32)>> {
        term::values(asked)
    }
}
