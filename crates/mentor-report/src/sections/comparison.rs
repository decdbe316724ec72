//! The top of the page: the run in a few figures, and its place among the runs it is compared with.

use std::fmt::Write;

use super::{main_model, opening};
use crate::html::{count, duration, escape, number, percent, points};
use crate::report::{Comparison, ReportInput};

/// Title and figures.
pub(crate) fn header(input: &ReportInput) -> String {
    let result = &input.result;
    let mut tiles: Vec<(String, String)> = Vec::new();
    let miou = result["val"]["miou"].as_f64();
    if miou.is_some() {
        let model = main_model(input).map_or(String::new(), |model| format!(" ({model})"));
        tiles.push((format!("{} %", percent(miou)), format!("mIoU on val{model}")));
    }
    if let Some(steps) = result["steps"].as_u64() {
        tiles.push((count(steps), "steps".to_owned()));
    }
    if let Some(seconds) = result["seconds"].as_f64() {
        tiles.push((duration(seconds), "in all".to_owned()));
    }
    if let Some(speed) = result["images_per_second"].as_f64() {
        tiles.push((number(speed), "images per second".to_owned()));
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
    let this_run = rows.iter().find(|row| row.this_run).map(|row| row.miou);
    let mut html = opening(
        "How good it is, compared",
        "Mean IoU on the validation images in percent: the longer the bar, the better. The gain is what this run \
         has more (+) or less (−) than the row, in points.",
    );
    html.push_str(
        "<div class=\"card scroll\"><table class=\"compared\">\n<thead><tr><th>run</th><th class=\"number\">mIoU</th>",
    );
    html.push_str("<th class=\"wide\"></th><th class=\"number\">gain of this run</th><th class=\"late\">from</th></tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str(&comparison_row(row, this_run));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn comparison_row(row: &Comparison, this_run: Option<f64>) -> String {
    let difference = this_run.filter(|_| !row.this_run).map(|this_run| this_run - row.miou);
    let class = if row.this_run { " class=\"this\"" } else { "" };
    let width = if row.miou.is_finite() { 100.0 * row.miou.clamp(0.0, 1.0) } else { 0.0 };
    format!(
        "<tr{class}><th scope=\"row\">{}</th><td class=\"number\">{}</td>\
         <td class=\"wide\"><span class=\"track\"><i style=\"width:{width:.2}%\"></i></span></td>\
         <td class=\"number\">{}</td><td class=\"late\">{}</td></tr>\n",
        escape(&row.name),
        percent(Some(row.miou)),
        if row.this_run { String::new() } else { points(difference) },
        escape(&row.note),
    )
}
