//! The page.

use std::fmt::Write;

use crate::html::escape;
use crate::input::{ReportInput, Section};
use crate::sections;

const STYLE: &str = include_str!("style.css");

/// The report as one HTML page that needs no other file, no network and no script.
#[must_use]
pub fn html(input: &ReportInput) -> String {
    let mut parts = vec![
        ("compared", "Compared", sections::comparison(input)),
        ("classes", "Classes", sections::classes(input)),
        ("curves", "Training", sections::curves(input)),
    ];
    parts.extend(input.sections.iter().map(|section| match section {
        Section::Confusion(confusion) => ("confusion", "Confusions", sections::confusion(input, confusion)),
        Section::Plots(plots) => (plots.id, plots.short, sections::plots(plots)),
        Section::Tally(tally) => (tally.id, tally.short, sections::tally(tally)),
        Section::Gallery(gallery) => (gallery.id, gallery.short, sections::gallery(gallery)),
    }));
    parts.push(("skipped", "Skipped", sections::skipped(input)));
    parts.push(("origin", "Origin", sections::origin(input)));
    parts.retain(|(_, _, html)| !html.is_empty());
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    page.push_str("<meta name=\"color-scheme\" content=\"light dark\"/>\n");
    let _ = write!(page, "<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n", escape(&input.title));
    page.push_str(&sections::header(input));
    page.push_str("<nav>");
    for (id, short, _) in &parts {
        let _ = write!(page, "<a href=\"#{id}\">{short}</a>");
    }
    page.push_str("</nav>\n<main>\n");
    for (id, _, html) in &parts {
        let _ = write!(page, "<section id=\"{id}\">\n{html}</section>\n");
    }
    page.push_str(
        "</main>\n<footer>Made by Mentor. Everything on this page is in this file.</footer>\n</body>\n</html>\n",
    );
    page
}
