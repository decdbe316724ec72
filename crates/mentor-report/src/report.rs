//! The report of a run: what goes in, and the page that comes out.

use std::fmt::Write;

use image::RgbImage;
use mentor_train::LogLine;
use mentor_types::LabelMask;
use serde_json::Value;

use crate::html::escape;
use crate::sections;

const STYLE: &str = include_str!("style.css");

/// Everything that a report shows. Empty parts are left out of the page.
#[derive(Clone, Debug, Default)]
pub struct ReportInput {
    /// The name of the run.
    pub title: String,
    /// The resolved recipe, TOML.
    pub recipe: String,
    /// What made the run, in the order shown: commit, device, command, hashes.
    pub info: Vec<(String, String)>,
    /// The log of the run, see [`mentor_train::Log::read`].
    pub log: Vec<LogLine>,
    /// `result.json` of the run. Read here: `val_model`, `val.miou`, `steps`, `images_per_second`, `seconds`.
    pub result: Value,
    /// Name and colour of each class.
    pub classes: Vec<(String, [u8; 3])>,
    /// Pixels on val: row the truth, column the prediction; a column after the classes counts "another class".
    pub confusion: Vec<Vec<u64>>,
    /// The models that were judged on val; the first is the one the others are compared with.
    pub models: Vec<Model>,
    /// Val images on which the run did best and worst.
    pub examples: Vec<Example>,
    /// What unlabelled images were taught.
    pub pseudo: Vec<PseudoExample>,
    /// Samples that were left out.
    pub bad_samples: Vec<BadSample>,
    /// The runs that this one is to be seen beside, in the order shown.
    pub comparisons: Vec<Comparison>,
}

/// A model that was judged on val.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// `teacher`, `student`, `ema`, or the teacher's own name.
    pub name: String,
    /// An object of shares in `[0, 1]`, each of them a number or null: `miou`, `pixel_accuracy`, `mean_accuracy`,
    /// `fw_iou`, `boundary_iou`, and `per_class`, an object by class name.
    pub metrics: Value,
}

/// An image of val with what was said about it; all masks have the image's size.
#[derive(Clone, Debug)]
pub struct Example {
    /// The image's name.
    pub name: String,
    /// Mean IoU of the student on this image, in `[0, 1]`.
    pub miou: f64,
    /// The image.
    pub image: RgbImage,
    /// Its label.
    pub truth: LabelMask,
    /// What the teacher says.
    pub teacher: Option<LabelMask>,
    /// What the student says.
    pub student: LabelMask,
}

/// An unlabelled image with its pseudo-labels; all parts have one size, and both masks lie on the
/// weak view.
#[derive(Clone, Debug)]
pub struct PseudoExample {
    /// The image's name.
    pub name: String,
    /// The view that the pseudo-labels were made from.
    pub weak: RgbImage,
    /// The view that the student learns from.
    pub strong: RgbImage,
    /// The pseudo-labels, unknown where none was accepted.
    pub labels: LabelMask,
    /// The truth, where the data set has it.
    pub truth: Option<LabelMask>,
    /// Share of the free pixels that took a pseudo-label, in `[0, 1]`.
    pub accepted: f64,
    /// Share of the accepted pixels that are right, in `[0, 1]`.
    pub precision: Option<f64>,
}

/// A sample that could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadSample {
    /// Its file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A row of the table at the top of the page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// What was run, such as "teacher", "student alone", "this run".
    pub name: String,
    /// Mean IoU on val, in `[0, 1]`.
    pub miou: f64,
    /// Where the number comes from.
    pub note: String,
    /// Whether it is the run that the report is about: the other rows are compared with it.
    pub this_run: bool,
}

/// The report as one HTML page that needs no other file, no network and no script.
///
/// # Panics
/// If the parts of an example differ in size, or a mask has a label that is no class.
#[must_use]
pub fn html(input: &ReportInput) -> String {
    let sections = [
        ("compared", "Compared", sections::comparison(input)),
        ("classes", "Classes", sections::classes(input)),
        ("curves", "Training", sections::curves(input)),
        ("confusion", "Confusions", sections::confusion(input)),
        ("examples", "Images", sections::examples(input)),
        ("pseudo", "Pseudo-labels", sections::pseudo_labels(input)),
        ("skipped", "Skipped", sections::bad_samples(input)),
        ("origin", "Origin", sections::origin(input)),
    ];
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    page.push_str("<meta name=\"color-scheme\" content=\"light dark\"/>\n");
    let _ = write!(page, "<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n", escape(&input.title));
    page.push_str(&sections::header(input));
    page.push_str("<nav>");
    for (id, short, _) in sections.iter().filter(|(_, _, html)| !html.is_empty()) {
        let _ = write!(page, "<a href=\"#{id}\">{short}</a>");
    }
    page.push_str("</nav>\n<main>\n");
    for (id, _, html) in sections.iter().filter(|(_, _, html)| !html.is_empty()) {
        let _ = write!(page, "<section id=\"{id}\">\n{html}</section>\n");
    }
    page.push_str(
        "</main>\n<footer>Made by Mentor. Everything on this page is in this file.</footer>\n</body>\n</html>\n",
    );
    page
}
