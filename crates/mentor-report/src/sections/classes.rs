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
    let last = input.models.len() - 1;
    let judged =
        main_model(input).and_then(|name| input.models.iter().position(|model| model.name == name)).unwrap_or(last);
    let compared = judged > 0;
    let pixels: Vec<u64> = input.confusion.iter().map(|row| row.iter().sum()).collect();
    let all: u64 = pixels.iter().sum();

    let mut html = opening(
        "What each class scores",
        "Percent, higher is better. IoU is the overlap of prediction and truth: the pixels on which both say the class, \
         divided by those on which at least one does. A dash means that the class occurs neither in the truth nor in a \
         prediction.",
    );
    html.push_str("<div class=\"card scroll\"><table class=\"scores\">\n<thead><tr><th>score</th>");
    if all > 0 {
        html.push_str("<th class=\"number late\">pixels</th>");
    }
    for model in &input.models {
        let _ = write!(html, "<th class=\"number\">{}</th>", escape(&model.name));
    }
    if compared {
        let (this, first) = (&input.models[judged].name, &input.models[0].name);
        let _ = write!(html, "<th class=\"number late\">{} − {}</th>", escape(this), escape(first));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let row = |html: &mut String, shares: &[Option<f64>]| {
        for (model, share) in input.models.iter().zip(shares) {
            html.push_str(&bar(*share, model_slot(input, &model.name)));
        }
        if compared {
            let difference = shares[judged].zip(shares[0]).map(|(this, first)| this - first);
            let _ = write!(html, "<td class=\"number late\">{}</td>", points(difference));
        }
        html.push_str("</tr>\n");
    };
    for (key, name, meaning) in SCORES {
        let shares: Vec<Option<f64>> = input.models.iter().map(|model| model.metrics[key].as_f64()).collect();
        if shares.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(html, "<tr><th scope=\"row\" title=\"{meaning}\">{name}</th>");
        html.push_str(if all > 0 { "<td class=\"late\"></td>" } else { "" });
        row(&mut html, &shares);
    }
    let columns = 1 + usize::from(all > 0) + input.models.len() + usize::from(compared);
    if !input.classes.is_empty() {
        let _ =
            write!(html, "</tbody>\n<tbody>\n<tr class=\"group\"><th colspan=\"{columns}\">IoU by class</th></tr>\n");
    }
    for (class, (name, colour)) in input.classes.iter().enumerate() {
        let shares: Vec<Option<f64>> = input.models.iter().map(|model| class_iou(&model.metrics, name)).collect();
        let _ = write!(
            html,
            "<tr><th scope=\"row\"><i class=\"swatch\" style=\"background:{}\"></i>{}</th>",
            css(*colour),
            escape(name)
        );
        if all > 0 {
            let share = pixels.get(class).map(|pixels| *pixels as f64 / all as f64);
            let _ = write!(
                html,
                "<td class=\"number late\">{} %</td>",
                share.map_or("–".into(), |s| format!("{:.1}", 100.0 * s))
            );
        }
        row(&mut html, &shares);
    }
    html.push_str("</tbody></table></div>\n");
    html
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
