//! What detection shows.

mod inputs;
mod report;
mod term;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Device;
use image::RgbImage;
use mentor_data::{BoxCounts, Dataset, read_image};
use mentor_det::metrics::DetMetrics;
use mentor_det::nets::DetNet;
use mentor_det::unlabelled::{Labellers, Taught, pseudo_of};
use mentor_det::{Det, EvalConfig, found_in};
use mentor_distill::Column;
use mentor_report::pictures;
use mentor_types::{Batch, BoxLabels, Detection, Images, Pairs};
use mentor_weights::write_atomically;
use serde_json::json;

use super::{AskedTerm, Drawn, Judge, Labelling, Palette, Photo, Show, Shown, pictures_of};

/// Boxes that a detector is less sure of are not drawn.
const DRAWN_SCORE: f32 = 0.3;

impl Show for Det {
    fn batch(palette: &Palette, batch: &Batch<BoxLabels>, nets: Option<Labelling<'_, Self>>) -> Drawn {
        let labelled = pictures_of(&batch.labelled.images);
        let labelled = labelled.into_iter().zip(&batch.labelled.targets).map(|(view, labels)| {
            let drawn = pictures::labelled_boxes(&view, labels, &palette.colours);
            let view = pictures::without_boxes(&view);
            explained(palette, &pictures::panel(&[("view", &view), ("boxes", &drawn)]), &[labels], &[])
        });
        let pairs = batch.unlabelled.iter().flat_map(|pairs| {
            let taught = nets.as_ref().map_or_else(Vec::new, |nets| taught_by(nets, pairs));
            let views = pictures_of(&pairs.weak).into_iter().zip(pictures_of(&pairs.strong)).enumerate();
            views
                .map(|(index, (weak, strong))| drawn_pair(palette, [&weak, &strong], &taught, index))
                .collect::<Vec<_>>()
        });
        Drawn { labelled: labelled.collect(), unlabelled: pairs.collect() }
    }

    fn prediction(palette: &Palette, net: &DetNet, image: Images, config: &EvalConfig, device: &Device) -> RgbImage {
        let picture = pictures_of(&image).swap_remove(0);
        let found = shown_boxes(found_in(net, image, config, device));
        let drawn = pictures::detected_boxes(&picture, &found, &palette.colours);
        explained(palette, &drawn, &[], &found)
    }

    fn label_names(_: &[PathBuf]) -> Vec<PathBuf> {
        vec!["instances.json".into()]
    }

    /// COCO JSON with every box found, each with its score.
    fn save_labels(
        dataset: &Dataset<BoxLabels>,
        net: &DetNet,
        images: &[Photo],
        config: &EvalConfig,
        device: &Device,
        files: &[PathBuf],
    ) -> Result<()> {
        let (mut described, mut annotations) = (Vec::new(), Vec::new());
        for (id, Photo { path, name }) in (1..).zip(images) {
            let image = read_image(path)?;
            described.push(json!({ "id": id, "file_name": name, "width": image.width, "height": image.height }));
            for found in found_in(net, image, config, device) {
                let [left, top, right, bottom] = found.edges;
                annotations.push(json!({
                    "id": annotations.len() + 1, "image_id": id, "category_id": found.class, "iscrowd": 0,
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                    "score": found.score,
                }));
            }
        }
        let names = dataset.card().class_names();
        let categories: Vec<_> = names.iter().enumerate().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        let coco = json!({ "images": described, "annotations": annotations, "categories": categories });
        for file in files {
            write_atomically(file, coco.to_string().as_bytes())?;
        }
        Ok(())
    }

    fn score_files(truth: &Path, _: &Path, _: &Dataset<BoxLabels>) -> Result<DetMetrics> {
        bail!("{}: boxes are scored with --truth FILE --detections FILE", truth.display())
    }

    fn label_shares(counts: &BoxCounts, classes: &[String]) -> Vec<String> {
        let all = counts.classes.iter().sum::<u64>().max(1);
        let of_class = |(name, boxes): (&String, &u64)| {
            format!("{name:<20} {boxes:7} boxes, {:6.2} % of all", 100.0 * *boxes as f64 / all as f64)
        };
        let rest = [
            (counts.difficult, "boxes that need not be found"),
            (counts.crowds, "crowds"),
            (counts.empty, "images without any box: all of them is background"),
            (counts.partial, "images in which not every class was looked for"),
        ];
        let rest = rest.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        classes.iter().zip(&counts.classes).map(of_class).chain(rest).collect()
    }

    fn report(judge: &Judge<'_, Self>) -> Result<Shown> {
        report::shown(judge)
    }

    fn term(asked: &AskedTerm<'_, Self>) -> Result<Vec<(Column, f32)>> {
        term::values(asked)
    }
}

/// What the terms of a run teach about unlabelled images.
fn taught_by(nets: &Labelling<'_, Det>, pairs: &Pairs<BoxLabels>) -> Vec<Taught> {
    let labellers = Labellers {
        student: &nets.nets.student,
        average: nets.nets.average.as_ref(),
        precision: nets.recipe.train.precision.dtype(),
    };
    pseudo_of(&nets.recipe.unlabelled, labellers, pairs, nets.recipe.views.visible_share(), nets.device)
}

/// Over the pseudo-labels of a term: its name, where there are several.
fn title(taught: &[Taught], term: &Taught) -> String {
    if taught.len() > 1 { format!("pseudo-labels of {}", term.term) } else { "pseudo-labels".to_owned() }
}

/// The views of an unlabelled image, with what each term teaches about it.
fn drawn_pair(palette: &Palette, [weak, strong]: [&RgbImage; 2], taught: &[Taught], index: usize) -> RgbImage {
    let labels: Vec<&BoxLabels> = taught.iter().map(|term| &term.views[index]).collect();
    let drawn = labels.iter().map(|labels| pictures::labelled_boxes(strong, labels, &palette.colours));
    let drawn: Vec<(String, RgbImage)> = taught.iter().map(|term| title(taught, term)).zip(drawn).collect();
    // As large as those with boxes.
    let [weak, strong] =
        [weak, strong].map(|view| if drawn.is_empty() { view.clone() } else { pictures::without_boxes(view) });
    let views = [("weak view", &weak), ("strong view", &strong)];
    let tiles: Vec<_> = views.into_iter().chain(drawn.iter().map(|(title, tile)| (title.as_str(), tile))).collect();
    explained(palette, &pictures::panel(&tiles), &labels, &[])
}

/// The boxes that are worth drawing.
fn shown_boxes(mut found: Vec<Detection>) -> Vec<Detection> {
    found.retain(|one| one.score >= DRAWN_SCORE);
    found
}

/// The picture with a legend of the classes that occur.
fn explained(palette: &Palette, picture: &RgbImage, labels: &[&BoxLabels], found: &[Detection]) -> RgbImage {
    let labelled = labels.iter().flat_map(|labels| labels.boxes.iter().map(|label| label.class));
    let classes: Vec<u8> = labelled.chain(found.iter().map(|one| one.class)).collect();
    let unknown = labels.iter().any(|labels| labels.looked_for.as_ref().is_some_and(Vec::is_empty));
    pictures::with_legend(picture, &pictures::box_legend(&palette.names, &palette.colours, &classes, unknown))
}
