//! Images: where the run does best and worst, and what it taught itself on unlabelled ones.

use std::fmt::Write;

use image::RgbImage;
use mentor_types::{IGNORE, LabelMask, UNKNOWN};

use super::opening;
use crate::html::{css, escape, percent, photo_uri, shrink_mask, shrink_photo};
use crate::pictures::{mistakes, overlay, shown_labels};
use crate::report::{Example, PseudoExample, ReportInput};

/// No picture on the page is wider, in pixels.
const WIDEST: u32 = 480;
const OPACITY: f32 = 0.6;

/// Best and worst images.
pub(crate) fn examples(input: &ReportInput) -> String {
    if input.examples.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&Example> = input.examples.iter().collect();
    let rank = |example: &Example| if example.miou.is_nan() { f64::NEG_INFINITY } else { example.miou };
    sorted.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    let (best, worst) = sorted.split_at(sorted.len().div_ceil(2));
    let mut html = opening(
        "Where it does best and worst",
        "Validation images with the classes painted over them. In the last picture every red pixel is a mistake of the \
         student; dark pixels have no truth and count neither way.",
    );
    let masks = input
        .examples
        .iter()
        .flat_map(|example| [Some(&example.truth), example.teacher.as_ref(), Some(&example.student)]);
    html.push_str(&legend(input, &masks.flatten().collect::<Vec<_>>()));
    for (heading, examples) in [("Best", best), ("Worst", worst)] {
        if !examples.is_empty() {
            let _ = writeln!(html, "<h3 class=\"group\">{heading}</h3>");
        }
        for example in examples {
            html.push_str(&example_card(input, example));
        }
    }
    html
}

fn colours(input: &ReportInput) -> Vec<[u8; 3]> {
    input.classes.iter().map(|(_, colour)| *colour).collect()
}

fn example_card(input: &ReportInput, example: &Example) -> String {
    let colours = colours(input);
    let photo = shrink_photo(&example.image, WIDEST);
    let truth = shrink_mask(&example.truth, WIDEST);
    let student = shrink_mask(&example.student, WIDEST);
    let painted = |mask: &LabelMask| overlay(&photo, mask, &colours, OPACITY);
    let mut tiles = vec![("image", photo.clone()), ("truth", painted(&truth))];
    if let Some(teacher) = &example.teacher {
        tiles.push(("teacher", painted(&shrink_mask(teacher, WIDEST))));
    }
    tiles.push(("student", painted(&student)));
    tiles.push(("mistakes", mistakes(&photo, &truth, &student)));
    card(&example.name, &format!("mIoU <b>{} %</b>", percent(Some(example.miou))), &tiles)
}

/// Pseudo-labels.
pub(crate) fn pseudo_labels(input: &ReportInput) -> String {
    if input.pseudo.is_empty() {
        return String::new();
    }
    let mut html = opening(
        "What unlabelled images were taught",
        "The pseudo-labels come from the weak view and teach the student on the strong one. Striped pixels took none. \
         Accepted is the share of the pixels that took one; precision the share of these that is right, where the truth is known.",
    );
    let masks = input.pseudo.iter().flat_map(|example| [Some(&example.labels), example.truth.as_ref()]);
    html.push_str(&legend(input, &masks.flatten().collect::<Vec<_>>()));
    for example in &input.pseudo {
        html.push_str(&pseudo_card(input, example));
    }
    html
}

fn pseudo_card(input: &ReportInput, example: &PseudoExample) -> String {
    let colours = colours(input);
    let weak = shrink_photo(&example.weak, WIDEST);
    let painted = |mask: &LabelMask| overlay(&weak, &shrink_mask(mask, WIDEST), &colours, OPACITY);
    let mut tiles = vec![
        ("weak view", weak.clone()),
        ("strong view", shrink_photo(&example.strong, WIDEST)),
        ("pseudo-labels", painted(&example.labels)),
    ];
    if let Some(truth) = &example.truth {
        tiles.push(("truth", painted(truth)));
    }
    let mut score = format!("accepted <b>{} %</b>", percent(Some(example.accepted)));
    if example.precision.is_some() {
        let _ = write!(score, " · precision <b>{} %</b>", percent(example.precision));
    }
    card(&example.name, &score, &tiles)
}

/// Pictures of one image side by side; `score` is HTML.
fn card(name: &str, score: &str, tiles: &[(&str, RgbImage)]) -> String {
    let mut html = format!(
        "<article class=\"card example\"><header><h4>{}</h4><p>{score}</p></header><div class=\"tiles\">",
        escape(name)
    );
    for (title, picture) in tiles {
        let _ = write!(
            html,
            "<figure><img src=\"{}\" width=\"{}\" height=\"{}\" alt=\"{title} of {}\"/><figcaption>{title}</figcaption></figure>",
            photo_uri(picture),
            picture.width(),
            picture.height(),
            escape(name)
        );
    }
    html.push_str("</div></article>\n");
    html
}

/// The classes that occur, with ignored and unknown.
fn legend(input: &ReportInput, masks: &[&LabelMask]) -> String {
    let mut html = String::from("<ul class=\"legend classes\">");
    for label in shown_labels(masks) {
        let _ = match label {
            IGNORE => write!(html, "<li><i class=\"swatch ignored\"></i>ignored</li>"),
            UNKNOWN => write!(html, "<li><i class=\"swatch unknown\"></i>unknown</li>"),
            class => input.classes.get(usize::from(class)).map_or(Ok(()), |(name, colour)| {
                write!(html, "<li><i class=\"swatch\" style=\"background:{}\"></i>{}</li>", css(*colour), escape(name))
            }),
        };
    }
    html.push_str("</ul>\n");
    html
}
