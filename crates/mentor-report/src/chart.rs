//! Line charts as inline SVG: axes with round ticks, a smooth line over its faint raw one, and
//! values on hover without a script.

use std::fmt::Write;

use crate::html::{escape, number};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 226.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
/// No line needs more corners than the chart has pixels.
const MOST_CORNERS: usize = 420;
/// Places along the x axis that answer to the mouse.
const MOST_HOVERS: usize = 50;
/// A chart of losses is logarithmic where its values differ by more than this factor.
const LINEAR_RANGE: f64 = 25.0;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A running mean over the faint raw values.
    Smoothed,
    /// The values themselves, each with a dot where there are few.
    Measured,
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Which colour of the page's palette.
    pub(crate) slot: usize,
    pub(crate) kind: Kind,
    /// (step, value) in the order of steps.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A level to compare with: a dashed line across the chart.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) slot: usize,
    pub(crate) value: f64,
}

/// Where the y axis begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// At 0.
    Zero,
    /// Near the lowest value.
    Fit,
    /// At 0, or logarithmic where the values span orders of magnitude.
    Loss,
}

/// What runs from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The steps of a run.
    Steps,
    /// A share in percent, of this name.
    Share(&'static str),
}

impl Over {
    fn name(self) -> &'static str {
        match self {
            Self::Steps => "the steps of the run",
            Self::Share(name) => name,
        }
    }

    /// A place along the axis.
    fn place(self, value: f64) -> String {
        match self {
            Self::Steps => format!("step {value}"),
            Self::Share(name) => format!("{name} {value:.0} %"),
        }
    }
}

/// A chart over the steps of a run, or over a share.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What stands below the title.
    pub(crate) note: String,
    /// What follows each value, such as " %".
    pub(crate) unit: &'static str,
    pub(crate) over: Over,
    pub(crate) scale: Scale,
    pub(crate) lines: Vec<Line>,
    pub(crate) references: Vec<Reference>,
}

/// An axis from `low` to `high`.
#[derive(Clone, Debug)]
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that holds `low..high`; `widen` moves its ends out to the ticks around them.
    fn linear(low: f64, high: f64, most_ticks: usize, widen: bool) -> Self {
        let (mut low, mut high) = (low, high);
        if high - low <= f64::EPSILON * high.abs().max(low.abs()) {
            let room = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
            (low, high) = if low >= 0.0 { ((low - room).max(0.0), high + room) } else { (low - room, high + room) };
        }
        let step = round_step((high - low) / most_ticks as f64);
        if widen {
            (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let ticks = (first..=last).map(|tick| tick as f64 * step).map(|value| (value, tick_label(value, step)));
        Self { low, high, logarithmic: false, ticks: ticks.collect() }
    }

    /// A logarithmic axis over positive values that differ.
    fn logarithmic(low: f64, high: f64) -> Self {
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let fine = high / low < 2000.0;
        let steps: &[f64] = if fine { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks = decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|value| (low..=high).contains(value))
            .map(|value| (value, tick_label(value, value)))
            .collect();
        Self { low, high, logarithmic: true, ticks }
    }

    /// 0 at the low end, 1 at the high end.
    fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `least`.
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * decade)
        .into_iter()
        .find(|step| *step >= least * 0.9999)
        .unwrap_or(least)
}

/// A tick's number with as many decimals as `step` asks for.
fn tick_label(value: f64, step: f64) -> String {
    let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => format!("{}M", number(value / 1e6)),
        size if size >= 1e4 => format!("{}k", number(value / 1e3)),
        size if decimals > 4 => {
            let digits = ((size.log10() + 1e-9).floor() - (step.log10() + 1e-9).floor()).max(0.0) as usize;
            format!("{value:.digits$e}")
        }
        _ => format!("{value:.decimals$}"),
    }
}

/// The mean over a window around each point, cut at the ends of the line; values that are not finite are left out.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40 + 1;
    let mut sums = vec![(0.0, 0usize)];
    for (_, value) in points {
        let (sum, count) = sums[sums.len() - 1];
        sums.push(if value.is_finite() { (sum + value, count + 1) } else { (sum, count) });
    }
    let mean = |place: usize| {
        let (first, last) = (sums[place.saturating_sub(reach)], sums[(place + reach + 1).min(points.len())]);
        (last.0 - first.0) / (last.1 - first.1) as f64
    };
    points.iter().enumerate().map(|(place, (step, _))| (*step, mean(place))).collect()
}

/// Fewer points: of each stretch the lowest and the highest, so that no spike is lost.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_CORNERS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_CORNERS / 2);
    let mut kept = Vec::new();
    for chunk in points.chunks(stretch) {
        let finite = || chunk.iter().enumerate().filter(|(_, point)| point.1.is_finite());
        let order = |a: &(usize, &(f64, f64)), b: &(usize, &(f64, f64))| a.1.1.total_cmp(&b.1.1);
        let (Some(low), Some(high)) = (finite().min_by(order), finite().max_by(order)) else { continue };
        let mut two = [low, high];
        two.sort_by_key(|(place, _)| *place);
        kept.extend(two.map(|(_, point)| *point));
    }
    kept
}

impl Line {
    /// Whether there is anything to draw.
    fn has_values(&self) -> bool {
        self.points.iter().any(|(_, value)| value.is_finite())
    }

    /// Whether a running mean says more than the raw values.
    fn smooths(&self) -> bool {
        self.kind == Kind::Smoothed && self.points.len() >= 12
    }

    fn shown(&self) -> Vec<(f64, f64)> {
        if self.smooths() { smooth(&self.points) } else { self.points.clone() }
    }
}

impl Chart {
    /// The chart as a figure; nothing where no line has a value.
    pub(crate) fn figure(&self) -> String {
        let lines: Vec<&Line> = self.lines.iter().filter(|line| line.has_values()).collect();
        if lines.is_empty() {
            return String::new();
        }
        let (x, y) = self.axes(&lines);
        let scale = if y.logarithmic { " (logarithmic scale)" } else { "" };
        let mut html = String::from("<figure class=\"chart\"><figcaption>");
        let _ = write!(html, "<h3>{}</h3>", escape(&self.title));
        if !self.note.is_empty() || y.logarithmic {
            let _ = write!(html, "<p class=\"note\">{}{scale}</p>", escape(&self.note));
        }
        html.push_str(&self.legend(&lines));
        html.push_str("</figcaption>");
        let _ = write!(
            html,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
            escape(&self.title),
            escape(self.over.name())
        );
        draw_axes(&mut html, &x, &y);
        for reference in self.references.iter().filter(|reference| reference.value.is_finite()) {
            let level = down(&y, reference.value);
            let _ = write!(
                html,
                "<path class=\"reference\" style=\"--c:var(--c{})\" d=\"M{LEFT} {level:.1}H{}\"/>",
                reference.slot % 8,
                WIDTH - RIGHT
            );
        }
        for line in &lines {
            draw_line(&mut html, &x, &y, line);
        }
        self.draw_hovers(&mut html, &x, &y, &lines);
        html.push_str("</svg></figure>\n");
        html
    }

    fn axes(&self, lines: &[&Line]) -> (Axis, Axis) {
        let points = || lines.iter().flat_map(|line| &line.points).filter(|(_, value)| value.is_finite());
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (first, last) = ends(&mut points().map(|point| point.0));
        let levels = self.references.iter().map(|reference| reference.value).filter(|value| value.is_finite());
        let (low, high) = ends(&mut points().map(|point| point.1).chain(levels));
        let mut sorted: Vec<f64> = points().map(|point| point.1).collect();
        sorted.sort_by(f64::total_cmp);
        let quantile = |share: f64| sorted[(share * (sorted.len() - 1) as f64) as usize];
        let y = match self.scale {
            Scale::Loss if low > 0.0 && quantile(0.95) / quantile(0.05) > LINEAR_RANGE => Axis::logarithmic(low, high),
            Scale::Zero | Scale::Loss => Axis::linear(low.min(0.0), high.max(0.0), 5, true),
            Scale::Fit => Axis::linear(low, high, 5, true),
        };
        let first = if first <= 0.2 * last { 0.0 } else { first };
        (Axis::linear(first, last, 6, false), y)
    }

    fn legend(&self, lines: &[&Line]) -> String {
        let mut html = String::from("<ul class=\"legend\">");
        for line in lines {
            let last = line.shown().iter().rev().find(|(_, value)| value.is_finite()).map_or(f64::NAN, |point| point.1);
            let last = match self.over {
                Over::Steps => format!(" <b>{}{}</b>", self.value(last), self.unit),
                Over::Share(_) => String::new(),
            };
            let _ = write!(
                html,
                "<li><i class=\"dash\" style=\"--c:var(--c{})\"></i>{}{last}</li>",
                line.slot % 8,
                escape(&line.name)
            );
        }
        for reference in self.references.iter().filter(|reference| reference.value.is_finite()) {
            let _ = write!(
                html,
                "<li><i class=\"dash broken\" style=\"--c:var(--c{})\"></i>{} <b>{}{}</b></li>",
                reference.slot % 8,
                escape(&reference.name),
                self.value(reference.value),
                self.unit
            );
        }
        html.push_str("</ul>");
        html
    }

    fn value(&self, value: f64) -> String {
        if self.unit == " %" && value.is_finite() { format!("{value:.2}") } else { number(value) }
    }

    /// Invisible stripes across the chart that show a hair line, dots and the values under the mouse.
    fn draw_hovers(&self, html: &mut String, x: &Axis, y: &Axis, lines: &[&Line]) {
        let mut steps: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let stride = steps.len().div_ceil(MOST_HOVERS);
        let last = steps.len() - 1;
        let steps: Vec<f64> =
            (0..=last).filter(|place| (last - place).is_multiple_of(stride)).map(|i| steps[i]).collect();
        let shown: Vec<Vec<(f64, f64)>> = lines.iter().map(|line| line.shown()).collect();
        let places: Vec<f64> = steps.iter().map(|step| across(x, *step)).collect();
        for (number, (step, place)) in steps.iter().zip(&places).enumerate() {
            let from = if number == 0 { LEFT } else { (places[number - 1] + place) / 2.0 };
            let to = places.get(number + 1).map_or(WIDTH - RIGHT, |next| (next + place) / 2.0);
            let mut title = self.over.place(*step);
            let mut dots = String::new();
            for (line, shown) in lines.iter().zip(&shown) {
                let Some(nearest) = nearest(shown, *step) else { continue };
                let _ = write!(title, "\n{}: {}{}", line.name, self.value(shown[nearest].1), self.unit);
                if line.smooths() {
                    let _ = write!(title, " (raw {}{})", self.value(line.points[nearest].1), self.unit);
                }
                let _ = write!(
                    dots,
                    "<circle style=\"--c:var(--c{})\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                    line.slot % 8,
                    across(x, shown[nearest].0),
                    down(y, shown[nearest].1)
                );
            }
            let _ = write!(
                html,
                "<g class=\"hover\"><rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <path d=\"M{place:.1} {TOP}V{:.1}\"/>{dots}<title>{}</title></g>",
                to - from,
                HEIGHT - TOP - BOTTOM,
                HEIGHT - BOTTOM,
                escape(&title)
            );
        }
    }
}

/// The finite point next to a step.
fn nearest(points: &[(f64, f64)], step: f64) -> Option<usize> {
    let after = points.partition_point(|point| point.0 < step);
    let candidates = [after.checked_sub(1), Some(after).filter(|place| *place < points.len())];
    candidates
        .into_iter()
        .flatten()
        .filter(|place| points[*place].1.is_finite())
        .min_by(|a, b| (points[*a].0 - step).abs().total_cmp(&(points[*b].0 - step).abs()))
}

fn across(x: &Axis, step: f64) -> f64 {
    LEFT + x.share(step) * (WIDTH - LEFT - RIGHT)
}

fn down(y: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)
}

fn draw_axes(html: &mut String, x: &Axis, y: &Axis) {
    let floor = HEIGHT - BOTTOM;
    for (value, label) in &y.ticks {
        let level = down(y, *value);
        let _ = write!(html, "<path class=\"grid\" d=\"M{LEFT} {level:.1}H{}\"/>", WIDTH - RIGHT);
        let _ = write!(html, "<text class=\"tick y\" x=\"{}\" y=\"{:.1}\">{label}</text>", LEFT - 6.0, level + 3.5);
    }
    for (value, label) in &x.ticks {
        let place = across(x, *value);
        let _ = write!(html, "<path class=\"axis\" d=\"M{place:.1} {floor}v4\"/>");
        let _ = write!(html, "<text class=\"tick x\" x=\"{place:.1}\" y=\"{}\">{label}</text>", floor + 16.0);
    }
    let _ = write!(html, "<path class=\"axis\" d=\"M{LEFT} {floor}H{}\"/>", WIDTH - RIGHT);
}

fn draw_line(html: &mut String, x: &Axis, y: &Axis, line: &Line) {
    let _ = write!(html, "<g style=\"--c:var(--c{})\">", line.slot % 8);
    if line.smooths() {
        let _ = write!(html, "<path class=\"raw\" d=\"{}\"/>", path(x, y, &thin(&line.points)));
    }
    let shown = thin(&line.shown());
    let _ = write!(html, "<path class=\"line\" d=\"{}\"/>", path(x, y, &shown));
    let few = shown.len() <= 30 && line.kind == Kind::Measured;
    for (step, value) in shown.iter().filter(|point| point.1.is_finite() && (few || shown.len() == 1)) {
        let _ = write!(
            html,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"/>",
            across(x, *step),
            down(y, *value)
        );
    }
    html.push_str("</g>");
}

/// The corners of a line; it is broken where a value is not finite.
fn path(x: &Axis, y: &Axis, points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (step, value) in points {
        if value.is_finite() {
            let letter = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{letter}{:.1} {:.1}", across(x, *step), down(y, *value));
        }
        pen_down = value.is_finite();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    fn chart(points: &[(f64, f64)]) -> Chart {
        let line = Line { name: "loss".into(), slot: 0, kind: Kind::Smoothed, points: points.to_vec() };
        let (title, note) = ("Loss".into(), String::new());
        Chart { title, note, unit: "", over: Over::Steps, scale: Scale::Loss, lines: vec![line], references: vec![] }
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Axis::linear(0.0, 0.87, 5, true)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::linear(0.0, 400.0, 6, false)), ["0", "100", "200", "300", "400"]);
        assert_eq!(labels(&Axis::linear(0.0, 90_000.0, 6, false)), ["0", "20k", "40k", "60k", "80k"]);
        assert_eq!(labels(&Axis::linear(0.0, 2e-5, 5, true)), ["0", "5e-6", "1.0e-5", "1.5e-5", "2.0e-5"]);
        assert_eq!(labels(&Axis::linear(-1.3, 1.0, 5, true)), ["-1.5", "-1.0", "-0.5", "0", "0.5", "1.0"]);
    }

    #[test]
    fn an_axis_over_one_value_still_has_two_ends() {
        for value in [0.0, 3.0, -2.0, 1e-12] {
            let axis = Axis::linear(value, value, 5, true);
            assert!(axis.low < axis.high && axis.low <= value && value <= axis.high, "{axis:?}");
            assert!(axis.ticks.len() >= 2, "{axis:?}");
        }
    }

    #[test]
    fn values_of_many_magnitudes_go_on_a_logarithmic_axis() {
        let axis = Axis::logarithmic(0.03, 4.0);
        assert_eq!(labels(&axis), ["0.05", "0.1", "0.2", "0.5", "1", "2"]);
        assert!((axis.share(0.03) - 0.0).abs() < 1e-12 && (axis.share(4.0) - 1.0).abs() < 1e-12);
        let falling: Vec<(f64, f64)> = (0..100).map(|step| (f64::from(step), 10.0 * 0.9f64.powi(step))).collect();
        assert!(chart(&falling).figure().contains("logarithmic"));
        let flat: Vec<(f64, f64)> = (0..100).map(|step| (f64::from(step), 1.0)).collect();
        assert!(!chart(&flat).figure().contains("logarithmic"));
    }

    #[test]
    fn smoothing_keeps_a_straight_line_and_evens_out_noise() {
        let line: Vec<(f64, f64)> = (0..100).map(|step| (f64::from(step), 3.0 * f64::from(step))).collect();
        for (smooth, raw) in smooth(&line)[3..97].iter().zip(&line[3..97]) {
            assert!((smooth.1 - raw.1).abs() < 1e-9);
        }
        let noisy: Vec<(f64, f64)> = (0..100).map(|step| (f64::from(step), f64::from(step % 2))).collect();
        assert!(smooth(&noisy).iter().all(|(_, value)| (value - 0.5).abs() < 0.2), "at the ends too");
    }

    #[test]
    fn thinning_keeps_a_spike() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|step| (f64::from(step), 0.0)).collect();
        points[4321].1 = 7.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= MOST_CORNERS + 2 && thinned.contains(&(4321.0, 7.0)));
        assert!(thinned.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn a_value_that_is_not_finite_breaks_the_line_and_nothing_else() {
        let figure = chart(&[(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, f64::INFINITY)]).figure();
        assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
        let line = figure.split("class=\"line\" d=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(line.map(|path| path.matches('M').count()), Some(2));
    }

    #[test]
    fn no_values_give_no_chart_and_one_value_gives_a_dot() {
        assert_eq!(chart(&[]).figure(), "");
        assert_eq!(chart(&[(1.0, f64::NAN)]).figure(), "");
        let one = chart(&[(10.0, 0.5)]).figure();
        assert!(one.contains("class=\"dot\"") && !one.contains("NaN"), "{one}");
    }
}
