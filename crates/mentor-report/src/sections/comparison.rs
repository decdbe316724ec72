//! The top of the page: the run in a few figures, and its place among the runs it is compared with.

use std::fmt::Write;

use super::opening;
use crate::html::{count, duration, escape, number, percent, points};
use crate::input::{Comparison, ReportInput};

/// Title and figures.
pub(crate) fn header(input: &ReportInput) -> String {
    let mut tiles: Vec<(String, String)> = Vec::new();
    if let Some(result) = &input.result {
        let [key, name] = input.scores.main;
        let score = format!("{} %", percent(result.val.get(key)));
        tiles.push((score, format!("{name} on val ({})", result.val_model)));
        tiles.push((count(result.steps), "steps".to_owned()));
        tiles.push((duration(result.seconds), "in all".to_owned()));
        tiles.push((number(result.images_per_second), "images per second".to_owned()));
    }
    let mut html = String::from("<header>\n<p class=\"kind\">Training report</p>\n");
    if !input.title.is_empty() {
        let _ = writeln!(html, "<h1>{}</h1>", escape(&input.title));
    }
    if !tiles.is_empty() {
        html.push_str("<dl class=\"tiles\">");
        for (value, name) in tiles {
            let _ = write!(html, "<div><dd>{}</dd><dt>{}</dt></div>", escape(&value), escape(&name));
        }
        html.push_str("</dl>\n");
    }
    html.push_str("</header>\n");
    html
}

/// This run beside others.
pub(crate) fn comparison(input: &ReportInput) -> String {
    let rows = &input.comparisons;
    if rows.is_empty() {
        return String::new();
    }
    let this_run = rows.iter().find(|row| row.this_run).and_then(|row| row.score);
    let [_, score] = input.scores.main;
    let mut html = opening(
        "How good it is, compared",
        &format!(
            "{score} on the validation images in percent: the longer the bar, the better. The gain is what this run has \
             more (+) or less (−) than the row, in points. A dash means that the run did not measure it."
        ),
    );
    let _ = write!(
        html,
        "<div class=\"card scroll\"><table class=\"compared\">\n<thead><tr><th>run</th><th class=\"number\">{}</th>",
        escape(score)
    );
    html.push_str("<th class=\"wide\"></th><th class=\"number\">gain of this run</th><th class=\"late\">from</th></tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str(&comparison_row(row, this_run));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn comparison_row(row: &Comparison, this_run: Option<f64>) -> String {
    let difference = this_run.zip(row.score).filter(|_| !row.this_run).map(|(this_run, row)| this_run - row);
    let class = if row.this_run { " class=\"this\"" } else { "" };
    let width = row.score.filter(|score| score.is_finite()).map_or(0.0, |score| 100.0 * score.clamp(0.0, 1.0));
    format!(
        "<tr{class}><th scope=\"row\">{}</th><td class=\"number\">{}</td>\
         <td class=\"wide\"><span class=\"track\"><i style=\"width:{width:.2}%\"></i></span></td>\
         <td class=\"number\">{}</td><td class=\"late\">{}</td></tr>\n",
        escape(&row.name),
        percent(row.score),
        if row.this_run { String::new() } else { points(difference) },
        escape(&row.note),
    )
}
