//! The scores of every model, overall and by class.

use std::fmt::Write;

use super::{main_model, model_slot, opening};
use crate::html::{css, escape, percent, points};
use crate::input::{Class, Model, ReportInput};

/// One table: a column for each model.
pub(crate) fn classes(input: &ReportInput) -> String {
    if input.models.is_empty() {
        return String::new();
    }
    let columns = Columns::of(input);
    let names = input.scores;
    let mut html = opening("What each class scores", &format!("Percent, higher is better. {}", names.reading));
    html.push_str("<div class=\"card scroll\"><table class=\"scores\">\n");
    html.push_str(&columns.head());
    html.push_str("<tbody>\n");
    for row in names.rows {
        let shares: Vec<Option<f64>> = input.models.iter().map(|model| model.scores.get(row.key)).collect();
        if shares.iter().any(Option::is_some) {
            let (name, meaning) = (escape(row.name), escape(row.meaning));
            let _ = write!(html, "<tr><th scope=\"row\" title=\"{meaning}\">{name}</th>");
            html.push_str(&columns.cells("", &shares));
        }
    }
    if !input.classes.is_empty() {
        let _ = write!(
            html,
            "</tbody>\n<tbody>\n<tr class=\"group\"><th colspan=\"{}\">{} by class</th></tr>\n",
            columns.number(),
            escape(names.by_class.name)
        );
    }
    for class in &input.classes {
        let score = |model: &Model| model.scores.of_class(names.by_class, &class.name);
        let shares: Vec<Option<f64>> = input.models.iter().map(score).collect();
        let _ = write!(
            html,
            "<tr><th scope=\"row\"><span class=\"named\"><i class=\"swatch\" style=\"background:{}\"></i><span>{}</span></span></th>",
            css(class.colour),
            escape(&class.name)
        );
        html.push_str(&columns.cells(&share_of_truth(class), &shares));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// What stands right of a row's name.
struct Columns<'a> {
    input: &'a ReportInput,
    /// Whether it is known which share of the truth each class has.
    has_shares: bool,
    /// The model that is compared with the first one, unless it is the first one.
    compared: Option<usize>,
}

impl<'a> Columns<'a> {
    fn of(input: &'a ReportInput) -> Self {
        let judged = main_model(input).and_then(|name| input.models.iter().position(|model| model.name == name));
        let has_shares = input.classes.iter().any(|class| class.share.is_some());
        Self { input, has_shares, compared: judged.filter(|judged| *judged > 0) }
    }

    fn number(&self) -> usize {
        1 + usize::from(self.has_shares) + self.input.models.len() + usize::from(self.compared.is_some())
    }

    fn head(&self) -> String {
        let mut html = String::from("<thead><tr><th>score</th>");
        if self.has_shares {
            let _ = write!(html, "<th class=\"number late\">share of {}</th>", escape(self.input.scores.counted));
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

    /// The cells of a row, to its end: one share for each model.
    fn cells(&self, share_of_truth: &str, shares: &[Option<f64>]) -> String {
        let mut html = String::new();
        if self.has_shares {
            let _ = write!(html, "<td class=\"number late\">{share_of_truth}</td>");
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

fn share_of_truth(class: &Class) -> String {
    class.share.map_or("–".to_owned(), |share| format!("{:.1} %", 100.0 * share))
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
