//! The confusion matrix as a heat map, and the confusions that cost most.

use std::fmt::Write;

use image::{Rgb, RgbImage};

use super::opening;
use crate::html::{count, css, drawing_uri, escape};
use crate::input::{Class, Confusion, ReportInput};
use crate::pictures::blend;

/// With more classes the cells carry no numbers and no names: the matrix becomes a picture.
const MOST_CELLS: usize = 32;
/// With more classes a cell is too small for a number.
const MOST_NUMBERS: usize = 14;
const LISTED: usize = 8;
const LONGEST_NAME: usize = 18;

/// The heat map and the list.
pub(crate) fn confusion(input: &ReportInput, Confusion(counts): &Confusion) -> String {
    let all: u64 = counts.iter().flatten().sum();
    if all == 0 || input.classes.is_empty() {
        return String::new();
    }
    let counted = input.scores.counted;
    let names = column_names(input, counts);
    let has_cells = input.classes.len() <= MOST_CELLS;
    let mut html = opening(
        "What is taken for what",
        &format!(
            "Each row is the truth and adds up to 100 percent of that class's {counted}; each column is what was predicted. \
             The blue diagonal is right, everything red is a mistake.{}",
            if has_cells { format!(" Point at a cell for the number of {counted}.") } else { String::new() }
        ),
    );
    let wide = if input.classes.len() > MOST_NUMBERS { " whole" } else { "" };
    let _ = write!(html, "<div class=\"split\">\n<div class=\"card scroll{wide}\">");
    html.push_str(&if has_cells { cells(input, counts, &names) } else { picture(input, counts) });
    html.push_str("</div>\n");
    html.push_str(&worst(input, counts, &names, all));
    html.push_str("</div>\n");
    html
}

/// The classes, and "another class" where something was counted there.
fn column_names(input: &ReportInput, counts: &[Vec<u64>]) -> Vec<String> {
    let mut names: Vec<String> = input.classes.iter().map(|class| class.name.clone()).collect();
    if counts.iter().any(|row| row.get(names.len()).is_some_and(|number| *number > 0)) {
        names.push("another class".to_owned());
    }
    names
}

fn rows<'a>(input: &ReportInput, counts: &'a [Vec<u64>]) -> impl Iterator<Item = (usize, &'a Vec<u64>, u64)> {
    counts.iter().take(input.classes.len()).enumerate().map(|(truth, row)| (truth, row, row.iter().sum()))
}

fn short(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

/// The measures of the heat map, in its own units.
struct Heat {
    side: f64,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    numbers: bool,
}

impl Heat {
    fn of(rows: usize, names: &[String]) -> Self {
        let numbers = names.len() <= MOST_NUMBERS;
        let side = if numbers { 46.0 } else { 24.0 };
        // Names run at 45 degrees above the cells, straight beside them.
        let letters = names.iter().map(|name| short(name).chars().count()).max().unwrap_or(0) as f64;
        let (left, top) = (30.0 + 6.9 * letters, 20.0 + 4.9 * letters);
        let width = left + side * names.len() as f64 + 4.9 * letters;
        Self { side, left, top, width, height: top + side * rows as f64 + 2.0, numbers }
    }

    fn column_name(&self, column: usize, name: &str) -> String {
        let (x, y) = (self.left + self.side * (column as f64 + 0.5), self.top - 8.0);
        let name = escape(&short(name));
        format!("<text class=\"name\" transform=\"translate({x:.1} {y:.1}) rotate(-45)\">{name}</text>")
    }

    fn row_name(&self, row: usize, name: &str, colour: [u8; 3]) -> String {
        let middle = self.top + self.side * (row as f64 + 0.5);
        format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>\
             <text class=\"name row\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            self.left - 20.0,
            middle - 6.0,
            css(colour),
            self.left - 27.0,
            middle + 4.0,
            escape(&short(name))
        )
    }

    /// One cell; `share` is of its row, `title` plain text.
    fn cell(&self, row: usize, column: usize, share: Option<f64>, title: &str) -> String {
        let (x, y) = (self.left + self.side * column as f64, self.top + self.side * row as f64);
        let mut html = format!(
            "<g class=\"cell {}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill-opacity=\"{:.3}\"/>",
            if row == column { "right" } else { "wrong" },
            self.side - 2.0,
            self.side - 2.0,
            0.05 + 0.95 * share.unwrap_or(0.0),
        );
        if let Some(share) = share.filter(|_| self.numbers) {
            let weight = match share {
                0.5.. => " strong",
                ..0.005 => " faint",
                _ => "",
            };
            let (x, y) = (x + self.side / 2.0 - 1.0, y + self.side / 2.0 + 3.0);
            let _ = write!(html, "<text class=\"share{weight}\" x=\"{x:.1}\" y=\"{y:.1}\">{:.1}</text>", 100.0 * share);
        }
        let _ = write!(html, "<title>{}</title></g>", escape(title));
        html
    }
}

fn cells(input: &ReportInput, counts: &[Vec<u64>], names: &[String]) -> String {
    let heat = Heat::of(input.classes.len(), names);
    let mut html = format!(
        "<svg class=\"heat\" style=\"max-width:{:.0}px;min-width:{:.0}px\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" \
         aria-label=\"confusion matrix\">",
        1.25 * heat.width,
        0.68 * heat.width,
        heat.width,
        heat.height
    );
    for (column, name) in names.iter().enumerate() {
        html.push_str(&heat.column_name(column, name));
    }
    let counted = input.scores.counted;
    for (truth, row, sum) in rows(input, counts) {
        let Class { name, colour, .. } = &input.classes[truth];
        html.push_str(&heat.row_name(truth, name, *colour));
        for (column, predicted) in names.iter().enumerate() {
            let number = row.get(column).copied().unwrap_or(0);
            let share = (sum > 0).then(|| number as f64 / sum as f64);
            let of_truth = share.map_or(String::new(), |share| format!(", {:.2} % of {name}", 100.0 * share));
            let title = format!("truth {name}, predicted {predicted}: {} {counted}{of_truth}", count(number));
            html.push_str(&heat.cell(truth, column, share, &title));
        }
    }
    html.push_str("</svg>");
    html
}

/// One dot for each cell.
fn picture(input: &ReportInput, counts: &[Vec<u64>]) -> String {
    let side = input.classes.len() as u32;
    let sums: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
    let picture = RgbImage::from_fn(side, side, |column, truth| {
        let (row, cell) = (truth as usize, column as usize);
        let number = counts.get(row).and_then(|row| row.get(cell)).copied().unwrap_or(0);
        let share = if number == 0 { 0.0 } else { (number as f32 / sums[row] as f32).sqrt() };
        let ink = if truth == column { Rgb([29, 95, 191]) } else { Rgb([200, 50, 40]) };
        blend(Rgb([255; 3]), ink, share)
    });
    format!(
        "<img class=\"matrix\" alt=\"confusion matrix of {side} classes\" src=\"{}\"/>\
         <p class=\"note\">Classes in the order of the table above, from the upper left corner; small shares are drawn stronger than they are.</p>",
        drawing_uri(&picture)
    )
}

/// The confusions that were counted most; nothing where there is no mistake.
fn worst(input: &ReportInput, counts: &[Vec<u64>], names: &[String], all: u64) -> String {
    let mut mistakes = Vec::new();
    for (truth, row, sum) in rows(input, counts) {
        for (column, number) in row.iter().enumerate().take(names.len()) {
            if column != truth && *number > 0 {
                mistakes.push((*number, truth, column, *number as f64 / sum as f64));
            }
        }
    }
    if mistakes.is_empty() {
        return String::new();
    }
    let wrong: u64 = mistakes.iter().map(|mistake| mistake.0).sum();
    mistakes.sort_by_key(|(number, truth, column, _)| (std::cmp::Reverse(*number), *truth, *column));
    let mut html = String::from("<div class=\"card scroll\"><h3>The costliest confusions</h3>");
    let _ = write!(
        html,
        "<p class=\"note\">{:.2} % of all {} are wrong. Of these:</p>",
        100.0 * wrong as f64 / all as f64,
        escape(input.scores.counted)
    );
    html.push_str("<table>\n<thead><tr><th>truth</th><th>predicted</th><th class=\"number\">of the class</th><th class=\"number\">of all mistakes</th></tr></thead>\n<tbody>\n");
    for (number, truth, column, share) in mistakes.into_iter().take(LISTED) {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{:.1} %</td><td class=\"number\">{:.1} %</td></tr>",
            escape(&names[truth]),
            escape(&names[column]),
            100.0 * share,
            100.0 * number as f64 / wrong as f64
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}
