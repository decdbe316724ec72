//! What goes into the report of a run.

use image::RgbImage;
use mentor_train::{LogLine, RunResult};
use mentor_types::{ScoreNames, ScoreRecord};

/// No picture on the page is wider, in pixels.
pub const TILE_WIDTH: u32 = 480;

/// Everything that a report shows. Empty parts are left out of the page.
#[derive(Clone, Debug, Default)]
pub struct ReportInput {
    /// The name of the run.
    pub title: String,
    /// The resolved recipe, TOML.
    pub recipe: String,
    /// What made the run, in the order shown: commit, device, command, hashes.
    pub info: Vec<(String, String)>,
    /// The log of the run, see [`mentor_train::Log::read`].
    pub log: Vec<LogLine>,
    /// What came out of the run.
    pub result: Option<RunResult>,
    /// What the task's scores are called.
    pub scores: ScoreNames,
    /// The classes, in the order shown.
    pub classes: Vec<Class>,
    /// The models that were judged on val; the first is the one the others are compared with.
    pub models: Vec<Model>,
    /// What the task shows of its own, in this order.
    pub sections: Vec<Section>,
    /// The runs that this one is to be seen beside, in the order shown.
    pub comparisons: Vec<Comparison>,
}

/// A class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub colour: [u8; 3],
    /// Its share of the truth on val, in `[0, 1]`.
    pub share: Option<f64>,
}

/// A model that was judged on val.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// `teacher`, `student`, `ema`, or the teacher's own name.
    pub name: String,
    /// Its scores.
    pub scores: ScoreRecord,
}

/// A part of the page that a task brings.
#[derive(Clone, Debug)]
pub enum Section {
    /// What is taken for what.
    Confusion(Confusion),
    /// Curves over a share.
    Plots(Plots),
    /// Counts.
    Tally(Tally),
    /// Images with what was said about them.
    Gallery(Gallery),
}

/// Charts of shares over a share.
#[derive(Clone, Debug, Default)]
pub struct Plots {
    /// The name of its place in the page, one word.
    pub id: &'static str,
    /// Its name in the list of sections.
    pub short: &'static str,
    /// Its heading.
    pub heading: String,
    /// How to read it.
    pub lead: String,
    /// What runs from left to right.
    pub over: &'static str,
    /// The charts, side by side.
    pub charts: Vec<LineChart>,
}

/// Lines over one axis.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    /// Its title.
    pub title: String,
    /// What stands below the title.
    pub note: String,
    /// The lines, each in a colour of its own.
    pub lines: Vec<PlotLine>,
}

/// A line of a chart.
#[derive(Clone, Debug, Default)]
pub struct PlotLine {
    /// Its name.
    pub name: String,
    /// Points from left to right; both coordinates in `[0, 1]`.
    pub points: Vec<(f64, f64)>,
}

/// Counts of what is exclusive.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The name of its place in the page, one word.
    pub id: &'static str,
    /// Its name in the list of sections.
    pub short: &'static str,
    /// Its heading.
    pub heading: String,
    /// How to read it.
    pub lead: String,
    /// What was counted.
    pub rows: Vec<TallyRow>,
}

/// A count.
#[derive(Clone, Debug, Default)]
pub struct TallyRow {
    /// What was counted.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// How many there are.
    pub count: u64,
}

/// Counts on val: row the truth, column the prediction, in the order of the classes; a column after the classes counts
/// "another class".
#[derive(Clone, Debug, Default)]
pub struct Confusion(pub Vec<Vec<u64>>);

/// Images with what was said about them.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    /// The name of its place in the page, one word.
    pub id: &'static str,
    /// Its name in the list of sections.
    pub short: &'static str,
    /// Its heading.
    pub heading: String,
    /// How to read it.
    pub lead: String,
    /// What the colours mean.
    pub legend: Vec<LegendEntry>,
    /// The images under a heading each; without one where it is empty.
    pub groups: Vec<(String, Vec<Example>)>,
}

/// An image, drawn in several ways.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// The image's name.
    pub name: String,
    /// Shares in `[0, 1]` by name.
    pub scores: Vec<(String, Option<f64>)>,
    /// Titles and pictures, side by side; wider ones than [`TILE_WIDTH`] are scaled down.
    pub tiles: Vec<(String, RgbImage)>,
}

/// What a colour means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegendEntry {
    /// The meaning.
    pub name: String,
    /// The colour.
    pub swatch: Swatch,
}

/// A colour of a legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swatch {
    /// A class's own.
    Colour([u8; 3]),
    /// That of what counts nowhere.
    Ignored,
    /// That of what nobody labelled.
    Unknown,
}

/// A row of the table at the top of the page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// What was run, such as "teacher", "student alone", "this run".
    pub name: String,
    /// The score on val that models are judged by, in `[0, 1]`; `None` where the run did not measure it.
    pub score: Option<f64>,
    /// Where the number comes from.
    pub note: String,
    /// Whether it is the run that the report is about: the other rows are compared with it.
    pub this_run: bool,
}
