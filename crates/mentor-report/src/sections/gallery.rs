//! Images with what was said about them, as the task drew them.

use std::fmt::Write;

use super::opening;
use crate::html::{css, escape, percent, photo_uri};
use crate::input::{Example, Gallery, LegendEntry, Swatch, TILE_WIDTH};
use crate::pictures::shrink;

/// The legend, and a card for each image.
pub(crate) fn gallery(gallery: &Gallery) -> String {
    if gallery.groups.iter().all(|(_, examples)| examples.is_empty()) {
        return String::new();
    }
    let mut html = opening(&gallery.heading, &gallery.lead);
    html.push_str(&legend(&gallery.legend));
    for (heading, examples) in gallery.groups.iter().filter(|(_, examples)| !examples.is_empty()) {
        if !heading.is_empty() {
            let _ = writeln!(html, "<h3 class=\"group\">{}</h3>", escape(heading));
        }
        for example in examples {
            html.push_str(&card(example));
        }
    }
    html
}

/// Pictures of one image side by side.
fn card(example: &Example) -> String {
    let name = escape(&example.name);
    let scores = example.scores.iter().map(|(name, share)| format!("{} <b>{} %</b>", escape(name), percent(*share)));
    let mut html = format!(
        "<article class=\"card example\"><header><h4>{name}</h4><p>{}</p></header><div class=\"tiles\">",
        scores.collect::<Vec<_>>().join(" · ")
    );
    for (title, picture) in &example.tiles {
        let (title, picture) = (escape(title), shrink(picture, TILE_WIDTH));
        let _ = write!(
            html,
            "<figure><img src=\"{}\" width=\"{}\" height=\"{}\" alt=\"{title} of {name}\"/><figcaption>{title}</figcaption></figure>",
            photo_uri(&picture),
            picture.width(),
            picture.height(),
        );
    }
    html.push_str("</div></article>\n");
    html
}

fn legend(entries: &[LegendEntry]) -> String {
    let mut html = String::from("<ul class=\"legend classes\">");
    for LegendEntry { name, swatch } in entries {
        let swatch = match swatch {
            Swatch::Colour(colour) => format!("class=\"swatch\" style=\"background:{}\"", css(*colour)),
            Swatch::Ignored => "class=\"swatch ignored\"".to_owned(),
            Swatch::Unknown => "class=\"swatch unknown\"".to_owned(),
        };
        let _ = write!(html, "<li><i {swatch}></i>{}</li>", escape(name));
    }
    html.push_str("</ul>\n");
    html
}
