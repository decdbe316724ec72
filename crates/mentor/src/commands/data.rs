//! `mentor data`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use clap::Args;
use image::RgbImage;
use mentor_data::Card;
use mentor_ops::resize_bilinear;
use mentor_recipe::{BuiltData, RunClasses, Which, find_card};
use mentor_report::pictures;
use mentor_seg::nets::SegNet;
use mentor_types::{IGNORE, Images, LabelMask, Pairs, Samples, SegBatch, UNKNOWN};

use super::{DeviceArgs, PlaceArgs, RecipeArgs};
use crate::device;
use crate::print::say;
use crate::weights::net_of_run;

/// Draw augmented samples as the networks see them, with labels and pseudo-labels.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor data recipes/quickstart.toml --draw 8\n  mentor data \
    recipes/aerial/fixmatch.toml --draw 8 --run runs/fixmatch")]
pub struct Data {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// How many samples of each stream.
    #[arg(long, default_value_t = 8)]
    draw: usize,
    /// The first step whose batch is drawn.
    #[arg(long, default_value_t = 0)]
    step: u64,
    /// A run of this recipe: its pseudo-labels are drawn on the strong views.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Pseudo-labels below this probability are left out.
    #[arg(long, default_value_t = 0.95)]
    threshold: f32,
    /// Where the pictures go.
    #[arg(long, default_value = "samples")]
    out: PathBuf,
}

impl Data {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let loaded = self.recipe.read()?;
        find_card(&loaded, &self.places.places())?;
        let data = BuiltData::open(&loaded.value, &self.places.places())?;
        let card = data.dataset.card();
        let (device, _) = device::choose(self.device.device)?;
        let net = match &self.run {
            Some(run) => {
                RunClasses::read(run)?.check_card(run, &data.dataset)?;
                Some(net_of_run(run, &loaded.value, card.class_names().len(), Which::Judged, false, &device)?)
            }
            None => None,
        };
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        let drawing = Drawing::new(card, self.out.clone());
        let (mut labelled, mut unlabelled, mut step) = (0, 0, self.step);
        let pairs_wanted = if loaded.value.train.batch_unlabelled > 0 { self.draw } else { 0 };
        while labelled < self.draw || unlabelled < pairs_wanted {
            let batch = data.maker.make(step, 0)?;
            for (image, mask) in samples(&batch.labelled).take(self.draw - labelled) {
                drawing.labelled(&format!("labelled_{labelled:03}"), &image, &mask)?;
                labelled += 1;
            }
            if let Some(pairs) = batch.unlabelled {
                let labels =
                    net.as_ref().map(|net| pseudo_labels(&pairs, probabilities(net, &pairs, &device), self.threshold));
                for (panel, shown) in
                    pair_panels(&pairs, labels.as_deref(), &drawing.colours).into_iter().take(pairs_wanted - unlabelled)
                {
                    drawing.save(&format!("unlabelled_{unlabelled:03}"), &panel, &shown)?;
                    unlabelled += 1;
                }
            }
            step += 1;
        }
        say!("{}: {labelled} labelled, {unlabelled} unlabelled samples", self.out.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// What a net says of the weak views, `[n, classes, h, w]` at their size.
fn probabilities(net: &SegNet, pairs: &Pairs, device: &Device) -> Tensor<4> {
    let output = net.forward(mentor_seg::upload::images(pairs.weak.clone(), device), None);
    softmax(resize_bilinear(output.logits, output.image_size, false), 1)
}

/// Where samples are drawn, and in which colours.
#[derive(Clone, Debug)]
pub struct Drawing {
    folder: PathBuf,
    names: Vec<String>,
    colours: Vec<[u8; 3]>,
}

impl Drawing {
    /// Into a folder that is there.
    pub fn new(card: &Card, folder: PathBuf) -> Self {
        Self { folder, names: card.class_names(), colours: card.class_colours() }
    }

    fn labelled(&self, name: &str, image: &RgbImage, mask: &LabelMask) -> Result<()> {
        let overlay = pictures::overlay(image, mask, &self.colours, OPACITY);
        self.save(name, &pictures::panel(&[("view", image), ("labels", &overlay)]), &pictures::shown_labels(&[mask]))
    }

    /// Writes a picture with a legend of the labels that are `shown`.
    fn save(&self, name: &str, picture: &RgbImage, shown: &[u8]) -> Result<()> {
        let path = self.folder.join(format!("{name}.png"));
        let picture = pictures::with_legend(picture, &self.names, &self.colours, shown);
        picture.save(&path).with_context(|| path.display().to_string())
    }
}

/// Draws every sample of a batch, in files whose names begin with `prefix`.
pub fn draw_batch(drawing: &Drawing, batch: &SegBatch, prefix: &str) -> Result<()> {
    for (index, (image, mask)) in samples(&batch.labelled).enumerate() {
        drawing.labelled(&format!("{prefix}labelled_{index:03}"), &image, &mask)?;
    }
    if let Some(pairs) = &batch.unlabelled {
        for (index, (panel, shown)) in pair_panels(pairs, None, &drawing.colours).iter().enumerate() {
            drawing.save(&format!("{prefix}unlabelled_{index:03}"), panel, shown)?;
        }
    }
    Ok(())
}

/// How strongly labels cover a photo.
const OPACITY: f32 = 0.55;

/// The images of a batch, one by one.
pub fn pictures_of(images: &Images) -> Vec<RgbImage> {
    let (width, height) = (images.width as u32, images.height as u32);
    let bytes = images.height * images.width * 3;
    let picture = |bytes: &[u8]| RgbImage::from_raw(width, height, bytes.to_vec()).expect("bytes of one image");
    images.rgb.chunks_exact(bytes).map(picture).collect()
}

fn masks_of(labels: &[u8], images: &Images) -> Vec<LabelMask> {
    let mask = |labels: &[u8]| LabelMask::new(images.width, images.height, labels.to_vec());
    labels.chunks_exact(images.height * images.width).map(mask).collect()
}

fn samples(samples: &Samples) -> impl Iterator<Item = (RgbImage, LabelMask)> {
    pictures_of(&samples.images).into_iter().zip(masks_of(&samples.targets, &samples.images))
}

/// The pseudo-label of every strong pixel: unknown below the threshold, ignored where it takes none.
pub fn pseudo_labels(pairs: &Pairs, probabilities: Tensor<4>, threshold: f32) -> Vec<u8> {
    let (confidence, classes) = probabilities.max_dim_with_indices(1);
    let confidence = confidence.into_data().try_into_vec::<f32>().expect("f32 probabilities");
    let classes = classes.into_data().convert::<u8>().try_into_vec::<u8>().expect("converted to u8 above");
    let label = |origin: &i32| match usize::try_from(*origin) {
        Err(_) => IGNORE,
        Ok(weak) if pairs.targets[weak] != UNKNOWN => pairs.targets[weak],
        Ok(weak) if confidence[weak] < threshold => UNKNOWN,
        Ok(weak) => classes[weak],
    };
    pairs.origin.iter().map(label).collect()
}

/// Weak view, strong view and pseudo-labels side by side, with the labels that occur.
fn pair_panels(pairs: &Pairs, labels: Option<&[u8]>, colours: &[[u8; 3]]) -> Vec<(RgbImage, Vec<u8>)> {
    let strong = pictures_of(&pairs.strong);
    let labels = labels.map(|labels| masks_of(labels, &pairs.strong));
    let rows = pictures_of(&pairs.weak).into_iter().zip(strong).enumerate();
    rows.map(|(index, (weak, strong))| match &labels {
        None => (pictures::panel(&[("weak view", &weak), ("strong view", &strong)]), Vec::new()),
        Some(labels) => {
            let overlay = pictures::overlay(&strong, &labels[index], colours, OPACITY);
            let panel = pictures::panel(&[("weak view", &weak), ("strong view", &strong), ("pseudo-labels", &overlay)]);
            (panel, pictures::shown_labels(&[&labels[index]]))
        }
    })
    .collect()
}
