//! The parts of the page, in the order in which they stand; each is empty where its input is.

mod classes;
mod comparison;
mod confusion;
mod curves;
mod gallery;
mod origin;
mod plots;

pub(crate) use classes::classes;
pub(crate) use comparison::{comparison, header};
pub(crate) use confusion::confusion;
pub(crate) use curves::curves;
pub(crate) use gallery::gallery;
pub(crate) use origin::{origin, skipped};
pub(crate) use plots::{plots, tally};

use mentor_train::LogLine;

use crate::html::escape;
use crate::input::ReportInput;

/// A heading and how to read what follows.
fn opening(heading: &str, how_to_read: &str) -> String {
    format!("<h2>{}</h2>\n<p class=\"lead\">{}</p>\n", escape(heading), escape(how_to_read))
}

/// The name of the model that the run is judged by.
fn main_model(input: &ReportInput) -> Option<&str> {
    let named = input.result.as_ref().map(|result| result.val_model.as_str());
    named.or_else(|| input.models.last().map(|model| model.name.as_str()))
}

/// The colour of a model's bars and lines, the same all over the page.
fn model_slot(input: &ReportInput, name: &str) -> usize {
    let others = || {
        input.log.iter().filter_map(|line| match line {
            LogLine::Eval { model, .. } => Some(model.as_str()),
            LogLine::Step { .. } => None,
        })
    };
    let mut names: Vec<&str> = input.models.iter().map(|model| model.name.as_str()).collect();
    for other in others() {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    names.iter().position(|one| *one == name).unwrap_or(names.len())
}
