//! Where the run comes from: what was skipped, what made it, the recipe.

use std::fmt::Write;

use serde_json::Value;

use super::opening;
use crate::html::{count, escape};
use crate::input::ReportInput;

/// Samples that were left out.
pub(crate) fn skipped(input: &ReportInput) -> String {
    let bad_samples = input.result.as_ref().map(|result| result.bad_samples.as_slice()).unwrap_or_default();
    if bad_samples.is_empty() {
        return String::new();
    }
    let skipped = count(bad_samples.len() as u64);
    let mut html = opening(
        &format!("Files left out, as a whole or in part: {skipped}"),
        "What is said of these files could not be used; the run went on without it because the recipe says on_bad_sample = \"skip\".",
    );
    html.push_str("<div class=\"card scroll\"><table class=\"skipped\">\n<thead><tr><th>file</th><th>what is wrong</th></tr></thead>\n<tbody>\n");
    for bad in bad_samples {
        let _ = writeln!(html, "<tr><td><code>{}</code></td><td>{}</td></tr>", escape(&bad.path), escape(&bad.reason));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// What made the run.
pub(crate) fn origin(input: &ReportInput) -> String {
    let mut html = String::new();
    if !input.info.is_empty() {
        html.push_str("<dl class=\"card info\">\n");
        for (name, value) in &input.info {
            let _ = writeln!(html, "<dt>{}</dt><dd><code>{}</code></dd>", escape(name), escape(value));
        }
        html.push_str("</dl>\n");
    }
    if !input.recipe.trim().is_empty() {
        let _ = writeln!(
            html,
            "<details class=\"card\"><summary>The recipe, with every setting resolved</summary><pre>{}</pre></details>",
            toml(&input.recipe)
        );
    }
    if let Some(result) = input.result.as_ref().and_then(|result| serde_json::to_value(result).ok()) {
        let text = format!("{:#}", sorted(&result));
        let _ = writeln!(
            html,
            "<details class=\"card\"><summary>All results in numbers (result.json)</summary><pre>{}</pre></details>",
            escape(&text)
        );
    }
    if html.is_empty() {
        return html;
    }
    opening(
        "Where it comes from",
        "What it takes to make this run again: the code, the data, the weights, the command, the recipe.",
    ) + &html
}

/// The same value with its keys in order, whatever order the JSON crate was built to keep.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        Value::Array(all) => all.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// TOML with its comments, tables and keys told apart.
fn toml(text: &str) -> String {
    let mut html = String::new();
    for line in text.trim_end().lines() {
        let start = line.trim_start();
        let _ = match (start.chars().next(), line.split_once('=')) {
            (Some('#'), _) => writeln!(html, "<span class=\"comment\">{}</span>", escape(line)),
            (Some('['), _) => writeln!(html, "<span class=\"table\">{}</span>", escape(line)),
            (Some(_), Some((key, value))) => {
                writeln!(html, "<span class=\"key\">{}</span>={}", escape(key), escape(value))
            }
            _ => writeln!(html, "{}", escape(line)),
        };
    }
    html
}
