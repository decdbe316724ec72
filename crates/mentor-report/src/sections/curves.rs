//! The curves of the log: validation, loss, terms, statistics, optimisation.

use std::collections::BTreeMap;

use mentor_train::LogLine;
use mentor_unlabeled::TaughtShare;

use super::{model_slot, opening};
use crate::chart::{Chart, Kind, Line, Over, Reference, Scale};
use crate::html::number;
use crate::input::{Model, ReportInput};

/// The grey of the palette, for lines that are neither a model nor a term.
const NEUTRAL: usize = 5;

/// What the steps of a log hold, by name.
#[derive(Default)]
struct Steps {
    total: Vec<(f64, f64)>,
    rate: Vec<(f64, f64)>,
    gradient: Vec<(f64, f64)>,
    /// Step, weight, value.
    terms: BTreeMap<String, Vec<(f64, f64, f64)>>,
    stats: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Steps {
    fn of(log: &[LogLine]) -> Self {
        let mut steps = Self::default();
        for line in log {
            let LogLine::Step { step, lr, total, grad_norm, terms, stats, .. } = line else { continue };
            let step = *step as f64;
            steps.total.push((step, *total));
            steps.rate.push((step, *lr));
            steps.gradient.push((step, *grad_norm));
            for (name, term) in terms {
                steps.terms.entry(name.clone()).or_default().push((step, term.weight, term.value));
            }
            for (name, value) in stats {
                steps.stats.entry(name.clone()).or_default().push((step, *value));
            }
        }
        steps
    }
}

/// All charts.
pub(crate) fn curves(input: &ReportInput) -> String {
    let steps = Steps::of(&input.log);
    let mut charts = vec![validation(input)];
    charts.push(one("Total loss", "the weighted sum of all terms", Scale::Loss, NEUTRAL, steps.total.clone()));
    charts.extend(contributions(&steps));
    let groups = [
        ("", charts),
        ("The terms of the loss", terms(&steps)),
        ("Other measurements", stats(&steps, input.scores.counted)),
        ("The optimizer", optimizer(&steps)),
    ];
    let mut html = String::new();
    for (heading, charts) in groups {
        let figures: String = charts.iter().map(Chart::figure).collect();
        if figures.is_empty() {
            continue;
        }
        if !heading.is_empty() {
            html.push_str(&format!("<h3 class=\"group\">{heading}</h3>\n"));
        }
        html.push_str(&format!("<div class=\"charts\">\n{figures}</div>\n"));
    }
    if html.is_empty() {
        return html;
    }
    let lead = "From left to right the steps of the run. The faint line is what was logged, the strong one its running mean; \
                the figure beside a name is the last value. Point at a chart to read it off.";
    opening("How the training went", lead) + &html
}

fn one(title: &str, note: &str, scale: Scale, slot: usize, points: Vec<(f64, f64)>) -> Chart {
    let line = Line { name: "at the end".into(), slot, kind: Kind::Smoothed, points };
    Chart {
        title: title.into(),
        note: note.into(),
        unit: "",
        over: Over::Steps,
        scale,
        lines: vec![line],
        references: vec![],
    }
}

/// The main score on val of every model that was evaluated along the way, and the models it is held against.
fn validation(input: &ReportInput) -> Chart {
    let mut lines: Vec<Line> = Vec::new();
    for line in &input.log {
        let LogLine::Eval { step, model, score, .. } = line else { continue };
        let point = (*step as f64, 100.0 * score);
        match lines.iter_mut().find(|line| line.name == *model) {
            Some(line) => line.points.push(point),
            None => {
                let slot = model_slot(input, model);
                lines.push(Line { name: model.clone(), slot, kind: Kind::Measured, points: vec![point] });
            }
        }
    }
    let [key, name] = input.scores.main;
    // A chart leaves out what has no value.
    let level = |score: Option<f64>| 100.0 * score.unwrap_or(f64::NAN);
    let references: Vec<Reference> = if input.comparisons.is_empty() {
        let fixed = input.models.iter().filter(|model| lines.iter().all(|line| line.name != model.name));
        fixed
            .map(|model: &Model| Reference {
                name: model.name.clone(),
                slot: model_slot(input, &model.name),
                value: level(model.scores.get(key)),
            })
            .collect()
    } else {
        let others = input.comparisons.iter().filter(|row| !row.this_run);
        others
            .enumerate()
            .map(|(place, row)| {
                let known = input.models.iter().any(|model| model.name == row.name);
                let slot = if known { model_slot(input, &row.name) } else { 4 + place };
                Reference { name: row.name.clone(), slot, value: level(row.score) }
            })
            .collect()
    };
    let (title, note) = (format!("{name} on val"), "higher is better; dashed: for comparison".into());
    let note = if references.is_empty() { "higher is better".into() } else { note };
    Chart { title, note, unit: " %", over: Over::Steps, scale: Scale::Fit, lines, references }
}

/// What each term adds to the total, where there is more than one.
fn contributions(steps: &Steps) -> Option<Chart> {
    if steps.terms.len() < 2 {
        return None;
    }
    let lines = steps.terms.iter().enumerate().map(|(slot, (name, points))| Line {
        name: name.clone(),
        slot,
        kind: Kind::Smoothed,
        points: points.iter().map(|(step, weight, value)| (*step, weight * value)).collect(),
    });
    Some(Chart {
        title: "What the loss is made of".into(),
        note: "each term times its weight".into(),
        unit: "",
        over: Over::Steps,
        scale: Scale::Zero,
        lines: lines.collect(),
        references: vec![],
    })
}

fn terms(steps: &Steps) -> Vec<Chart> {
    let mut charts = Vec::new();
    for (slot, (name, points)) in steps.terms.iter().enumerate() {
        let (first, last) = (points[0].1, points[points.len() - 1].1);
        let weight = if points.iter().all(|(_, weight, _)| *weight == first) {
            format!("weight {}", number(first))
        } else {
            format!("weight from {} to {}", number(first), number(last))
        };
        let values = points.iter().map(|(step, _, value)| (*step, *value)).collect();
        charts.push(one(name, &format!("before weighting; {weight}"), Scale::Loss, slot, values));
    }
    charts
}

/// Statistics; the two shares of a kind of pseudo-labels go into one chart.
fn stats(steps: &Steps, counted: &str) -> Vec<Chart> {
    let mut charts = Vec::new();
    for (name, points) in &steps.stats {
        match TaughtShare::of_column(name) {
            Some((term, TaughtShare::Accepted)) => charts.push(taught(steps, term, points, counted)),
            Some((term, TaughtShare::Precision)) if steps.stats.contains_key(&TaughtShare::Accepted.column(term)) => {}
            _ => charts.push(one(name, "", Scale::Zero, NEUTRAL, points.clone())),
        }
    }
    charts
}

fn taught(steps: &Steps, term: &str, accepted: &[(f64, f64)], counted: &str) -> Chart {
    let line = |name: &str, slot, points: &[(f64, f64)]| Line {
        name: name.into(),
        slot,
        kind: Kind::Smoothed,
        points: points.iter().map(|(step, share)| (*step, 100.0 * share)).collect(),
    };
    let precision = steps.stats.get(&TaughtShare::Precision.column(term));
    let precision = precision.map(|precision| line("precision", 2, precision));
    Chart {
        title: format!("Pseudo-labels of {term}"),
        note: format!("share of the {counted} that took one; share of these that is right, where the truth is known"),
        unit: " %",
        over: Over::Steps,
        scale: Scale::Zero,
        lines: std::iter::once(line("accepted", 1, accepted)).chain(precision).collect(),
        references: vec![],
    }
}

fn optimizer(steps: &Steps) -> Vec<Chart> {
    let mut rate = one("Learning rate", "of the backbone", Scale::Zero, NEUTRAL, steps.rate.clone());
    rate.lines[0].kind = Kind::Measured;
    let gradient = one("Norm of the gradient", "before clipping", Scale::Loss, NEUTRAL, steps.gradient.clone());
    vec![rate, gradient]
}
