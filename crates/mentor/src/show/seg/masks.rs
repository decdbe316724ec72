//! Masks on photos: of a batch, of predictions, of pseudo-labels; and as files.

use std::path::Path;

use anyhow::{Context, Result};
use image::{GrayImage, RgbImage};
use mentor_data::{Dataset, MaskFormat};
use mentor_report::pictures;
use mentor_seg::Seg;
use mentor_seg::unlabelled::{Labellers, Taught, pseudo_of};
use mentor_types::{Images, LabelMask, Pairs};

use crate::show::{Labelling, Palette, pictures_of};

/// How strongly labels cover a photo.
pub const OPACITY: f32 = 0.55;
pub const OPACITY_OF_PREDICTIONS: f32 = 0.5;

/// A photo with a mask painted over it.
pub fn painted(palette: &Palette, photo: &RgbImage, mask: &LabelMask, opacity: f32) -> RgbImage {
    pictures::overlay(photo, mask, &palette.colours, opacity)
}

/// The picture with a legend of the labels that occur in `masks`.
pub fn explained(palette: &Palette, picture: &RgbImage, masks: &[&LabelMask]) -> RgbImage {
    let shown = pictures::shown_labels(masks);
    pictures::with_legend(picture, &pictures::legend(&palette.names, &palette.colours, &shown))
}

/// What the terms of a run teach about unlabelled images.
pub fn taught_by(nets: &Labelling<'_, Seg>, pairs: &Pairs<LabelMask>) -> Vec<Taught> {
    let labellers = Labellers {
        student: &nets.nets.student,
        average: nets.nets.average.as_ref(),
        precision: nets.recipe.train.precision.dtype(),
    };
    pseudo_of(&nets.recipe.unlabelled, labellers, pairs, nets.device)
}

/// The views of unlabelled images, with what each term teaches about them.
pub fn drawn_pairs(palette: &Palette, pairs: &Pairs<LabelMask>, taught: &[Taught]) -> Vec<RgbImage> {
    let views = pictures_of(&pairs.weak).into_iter().zip(pictures_of(&pairs.strong)).enumerate();
    let draw = |(index, (weak, strong)): (usize, (RgbImage, RgbImage))| {
        let masks: Vec<(String, &LabelMask)> =
            taught.iter().map(|term| (title(taught, term), &term.views[index].labels)).collect();
        let overlays: Vec<RgbImage> = masks.iter().map(|(_, mask)| painted(palette, &strong, mask, OPACITY)).collect();
        let titles = masks.iter().map(|(title, _)| title.as_str()).zip(&overlays);
        let tiles: Vec<_> = [("weak view", &weak), ("strong view", &strong)].into_iter().chain(titles).collect();
        let shown: Vec<&LabelMask> = masks.iter().map(|(_, mask)| *mask).collect();
        explained(palette, &pictures::panel(&tiles), &shown)
    };
    views.map(draw).collect()
}

/// Over the pseudo-labels of a term: its name, where there are several.
pub fn title(taught: &[Taught], term: &Taught) -> String {
    if taught.len() > 1 { format!("pseudo-labels of {}", term.term) } else { "pseudo-labels".to_owned() }
}

/// The masks of a batch's images, one by one.
pub fn masks_of(labels: &[u8], images: &Images) -> Vec<LabelMask> {
    let mask = |labels: &[u8]| LabelMask::new(images.width, images.height, labels.to_vec());
    labels.chunks_exact(images.height * images.width).map(mask).collect()
}

/// Writes a mask in the card's own format.
pub fn save_mask(dataset: &Dataset<LabelMask>, mask: &LabelMask, path: &Path) -> Result<()> {
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
