//! Curves that a task brings, and counts.

use std::fmt::Write;

use super::opening;
use crate::chart::{Chart, Kind, Line, Over, Scale};
use crate::html::{count, escape, percent};
use crate::input::{LineChart, PlotLine, Plots, Tally};

/// Charts side by side.
pub(crate) fn plots(plots: &Plots) -> String {
    let chart = |chart: &LineChart| {
        let in_percent = |points: &[(f64, f64)]| points.iter().map(|(x, y)| (100.0 * x, 100.0 * y)).collect();
        let line = |(slot, line): (usize, &PlotLine)| {
            let (name, points) = (line.name.clone(), in_percent(&line.points));
            Line { name, slot, kind: Kind::Measured, points }
        };
        Chart {
            title: chart.title.clone(),
            note: chart.note.clone(),
            unit: " %",
            over: Over::Share(plots.over),
            scale: Scale::Zero,
            lines: chart.lines.iter().enumerate().map(line).collect(),
            references: vec![],
        }
        .figure()
    };
    let figures: String = plots.charts.iter().map(chart).collect();
    if figures.is_empty() {
        return figures;
    }
    format!("{}<div class=\"charts\">\n{figures}</div>\n", opening(&plots.heading, &plots.lead))
}

/// A table of counts with their shares of all; nothing where nothing was counted.
pub(crate) fn tally(tally: &Tally) -> String {
    let all: u64 = tally.rows.iter().map(|row| row.count).sum();
    if all == 0 {
        return String::new();
    }
    let mut html = opening(&tally.heading, &tally.lead);
    html.push_str(
        "<div class=\"card scroll\"><table>\n<thead><tr><th></th><th>meaning</th><th class=\"number\">number</th>\
         <th class=\"number\">of all</th></tr></thead>\n<tbody>\n",
    );
    for row in &tally.rows {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{} %</td></tr>",
            escape(row.name),
            escape(row.meaning),
            count(row.count),
            percent(Some(row.count as f64 / all as f64))
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}
