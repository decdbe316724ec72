//! The scores of every model, overall and by class.

use std::fmt::Write;

use serde_json::Value;

use super::{main_model, model_slot, opening};
use crate::html::{css, escape, percent, points};
use crate::report::ReportInput;

const SCORES: [(&str, &str, &str); 5] = [
    ("miou", "mean IoU", "IoU averaged over the classes"),
    ("pixel_accuracy", "pixel accuracy", "share of all pixels with the right class"),
    ("mean_accuracy", "mean accuracy", "share of right pixels, averaged over the classes"),
    ("fw_iou", "weighted IoU", "IoU weighted by how many pixels a class has"),
    ("boundary_iou", "boundary IoU", "IoU within a thin band along the edges"),
];

/// One table: a column for each model.
pub(crate) fn classes(input: &ReportInput) -> String {
    if input.models.is_empty() {
        return String::new();
    }
    let columns = Columns::of(input);
    let mut html = opening(
        "What each class scores",
        "Percent, higher is better. IoU is the overlap of prediction and truth: the pixels on which both say the class, \
         divided by those on which at least one does. A dash means that the class occurs neither in the truth nor in a \
         prediction.",
    );
    html.push_str("<div class=\"card scroll\"><table class=\"scores\">\n");
    html.push_str(&columns.head());
    html.push_str("<tbody>\n");
    for (key, name, meaning) in SCORES {
        let shares: Vec<Option<f64>> = input.models.iter().map(|model| model.metrics[key].as_f64()).collect();
        if shares.iter().any(Option::is_some) {
            let _ = write!(html, "<tr><th scope=\"row\" title=\"{meaning}\">{name}</th>");
            html.push_str(&columns.cells("", &shares));
        }
    }
    if !input.classes.is_empty() {
        let _ = write!(
            html,
            "</tbody>\n<tbody>\n<tr class=\"group\"><th colspan=\"{}\">IoU by class</th></tr>\n",
            columns.number()
        );
    }
    for (class, (name, colour)) in input.classes.iter().enumerate() {
        let shares: Vec<Option<f64>> = input.models.iter().map(|model| class_iou(&model.metrics, name)).collect();
        let _ = write!(
            html,
            "<tr><th scope=\"row\"><span class=\"named\"><i class=\"swatch\" style=\"background:{}\"></i><span>{}</span></span></th>",
            css(*colour),
            escape(name)
        );
        html.push_str(&columns.cells(&columns.share_of_pixels(class), &shares));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// What stands right of a row's name.
struct Columns<'a> {
    input: &'a ReportInput,
    /// Pixels of each class in the truth.
    pixels: Vec<u64>,
    all_pixels: u64,
    /// The model that is compared with the first one, unless it is the first one.
    compared: Option<usize>,
}

impl<'a> Columns<'a> {
    fn of(input: &'a ReportInput) -> Self {
        let judged = main_model(input).and_then(|name| input.models.iter().position(|model| model.name == name));
        let pixels: Vec<u64> = input.confusion.iter().map(|row| row.iter().sum()).collect();
        let all_pixels = pixels.iter().sum();
        Self { input, pixels, all_pixels, compared: judged.filter(|judged| *judged > 0) }
    }

    fn number(&self) -> usize {
        1 + usize::from(self.all_pixels > 0) + self.input.models.len() + usize::from(self.compared.is_some())
    }

    fn head(&self) -> String {
        let mut html = String::from("<thead><tr><th>score</th>");
        if self.all_pixels > 0 {
            html.push_str("<th class=\"number late\">share of pixels</th>");
        }
        for model in &self.input.models {
            let _ = write!(html, "<th class=\"number\">{}</th>", escape(&model.name));
        }
        if let Some(judged) = self.compared {
            let (this, first) = (&self.input.models[judged].name, &self.input.models[0].name);
            let _ = write!(html, "<th class=\"number late\">{} − {}</th>", escape(this), escape(first));
        }
        html.push_str("</tr></thead>\n");
        html
    }

    fn share_of_pixels(&self, class: usize) -> String {
        let share = self.pixels.get(class).map(|pixels| *pixels as f64 / self.all_pixels as f64);
        share.map_or("–".to_owned(), |share| format!("{:.1} %", 100.0 * share))
    }

    /// The cells of a row, to its end: one share for each model.
    fn cells(&self, share_of_pixels: &str, shares: &[Option<f64>]) -> String {
        let mut html = String::new();
        if self.all_pixels > 0 {
            let _ = write!(html, "<td class=\"number late\">{share_of_pixels}</td>");
        }
        for (model, share) in self.input.models.iter().zip(shares) {
            html.push_str(&bar(*share, model_slot(self.input, &model.name)));
        }
        if let Some(judged) = self.compared {
            let difference = shares[judged].zip(shares[0]).map(|(this, first)| this - first);
            let _ = write!(html, "<td class=\"number late\">{}</td>", points(difference));
        }
        html.push_str("</tr>\n");
        html
    }
}

fn class_iou(metrics: &Value, name: &str) -> Option<f64> {
    metrics["per_class"].get(name).and_then(Value::as_f64)
}

/// A number above a bar.
fn bar(share: Option<f64>, slot: usize) -> String {
    let width = share.filter(|share| share.is_finite()).map_or(0.0, |share| 100.0 * share.clamp(0.0, 1.0));
    format!(
        "<td class=\"number\">{}<span class=\"track\"><i style=\"width:{width:.2}%;--c:var(--c{})\"></i></span></td>",
        percent(share),
        slot % 8
    )
}
