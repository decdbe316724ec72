//! The file of a study, and what can be wrong with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use mentor_toml::{TomlFile, nearest, parse_key, show_key};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A study file, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// What the study asks; the heading of its table.
    pub title: String,
    /// The row that the others are compared with; without it the table has no differences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Whether there is one row more, `BASELINE_longer`: the baseline, trained so many steps that it computes as much as
    /// the dearest of the rows that are compared with it. The table then shows what each row computes. Default `false`.
    #[serde(default)]
    pub baseline_compute: bool,
    /// The seeds of every row that names none itself. Default `[0]`.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// The metrics that the table shows, by their names in a row's result; differences and the papers' figures are those
    /// of the first. Default: the score that the task's models are judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
    /// A difference to the baseline that would matter, on the scale of the table: below it then stands how many seeds would
    /// be needed to show it. Default: nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_effect: Option<f64>,
    /// Whether the metrics are fractions, to be shown times 100 as papers do; `paper` is then in per cent. Default `true`.
    #[serde(default = "yes")]
    pub percent: bool,
    /// The rows in the order of the table.
    pub rows: Vec<StudyRow>,
}

/// A row of a study: one recipe, varied, once for each seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudyRow {
    /// The row's name: letters, digits, `_`, `-` and `.`, for it becomes part of file names.
    pub name: String,
    /// The recipe's path, relative to the study file.
    pub recipe: PathBuf,
    /// Values by dotted key, as `--set` takes them; a table stands for its keys. The value `"row:NAME"` is the student
    /// that row NAME trained with the same seed, `"row:NAME@0"` the one of seed 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Json>,
    /// Keys of the recipe to take away before `set` is applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// The row that this one is compared with. Default: the study's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// What is expected, in words: the paper and its conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The paper's figure for the first metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<f64>,
    /// The seeds of this row. Default: those of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Vec<u64>>,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

fn yes() -> bool {
    true
}

/// `row:NAME` or `row:NAME@SEED`.
pub(crate) struct HandOff<'a> {
    pub(crate) row: &'a str,
    pub(crate) seed: Option<u64>,
}

impl<'a> HandOff<'a> {
    pub(crate) fn read(value: &'a Json) -> Option<Self> {
        let name = value.as_str()?.strip_prefix("row:")?;
        match name.split_once('@').map(|(row, seed)| (row, seed.parse())) {
            Some((row, Ok(seed))) => Some(Self { row, seed: Some(seed) }),
            _ => Some(Self { row: name, seed: None }),
        }
    }
}

/// The values under a key of `set` by full dotted key. A table stands for its keys, so that
/// `distill.pair_wise.weight = 0.3` means the same with and without quotes.
fn leaves(key: String, value: &Json) -> Vec<(String, &Json)> {
    match value.as_object().filter(|table| !table.is_empty()) {
        Some(table) => {
            table.iter().flat_map(|(name, value)| leaves(format!("{key}.{}", show_key(name)), value)).collect()
        }
        None => vec![(key, value)],
    }
}

impl StudyRow {
    /// The values of `set` by full dotted key.
    pub(crate) fn assignments(&self) -> Vec<(String, &Json)> {
        let mut all: Vec<_> = self.set.iter().flat_map(|(key, value)| leaves(key.clone(), value)).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// The rows that this one takes students from.
    fn sources(&self) -> BTreeSet<String> {
        let hand_offs = self.assignments();
        hand_offs
            .iter()
            .filter_map(|(_, value)| HandOff::read(value))
            .map(|hand_off| hand_off.row.to_string())
            .collect()
    }
}

impl TomlFile for StudyFile {
    /// Pushes what is wrong with the study itself; recipes are not looked into.
    fn check(&self, problems: &mut Vec<(String, String)>) {
        let mut push = |key: String, message: String| problems.push((key, message));
        if self.rows.is_empty() {
            push("rows".to_string(), "a study needs at least one row".to_string());
        }
        if self.metrics.as_ref().is_some_and(Vec::is_empty) {
            push("metrics".to_string(), "a study needs at least one metric".to_string());
        }
        if self.min_effect.is_some_and(|least| !least.is_finite() || least <= 0.0) {
            push("min_effect".to_string(), "must be above 0".to_string());
        }
        if let Some(message) = seeds_mistake(&self.seeds) {
            push("seeds".to_string(), message);
        }
        if let Some(name) = self.baseline.as_ref().filter(|name| self.row(name).is_none()) {
            push("baseline".to_string(), self.no_such_row(name));
        }
        if let Some(message) = self.baseline_compute.then(|| self.longer_mistake()).flatten() {
            push("baseline_compute".to_string(), message);
        }
        for (index, row) in self.rows.iter().enumerate() {
            let mut found = Vec::new();
            self.check_row(index, row, &mut found);
            found.into_iter().for_each(|(key, message)| push(format!("rows[{index}].{key}"), message));
        }
        for cycle in self.cycles() {
            let index = self.rows.iter().position(|row| row.name == cycle[0]).unwrap_or_default();
            push(format!("rows[{index}].set"), format!("rows wait for one another: {}", cycle.join(" -> ")));
        }
    }
}

impl StudyFile {
    /// The seeds that a row runs with.
    pub(crate) fn seeds_of<'a>(&'a self, row: &'a StudyRow) -> &'a [u64] {
        row.seeds.as_deref().unwrap_or(&self.seeds)
    }

    fn check_row(&self, index: usize, row: &StudyRow, found: &mut Vec<(String, String)>) {
        let mut push = |key: &str, message: String| found.push((key.to_string(), message));
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        if row.name.is_empty() || row.name.starts_with('.') || !row.name.chars().all(allowed) {
            push("name", format!("expected letters, digits, `_`, `-` and `.`, found {:?}", row.name));
        }
        if self.rows[..index].iter().any(|earlier| earlier.name == row.name) {
            push("name", format!("a row before this one is named {:?} too", row.name));
        }
        if let Some(message) = row.seeds.as_deref().and_then(seeds_mistake) {
            push("seeds", message);
        }
        if let Some(name) = row.baseline.as_ref().filter(|name| self.row(name).is_none()) {
            push("baseline", self.no_such_row(name));
        }
        for (index, key) in row.unset.iter().enumerate() {
            if let Err((message, _)) = parse_key(key) {
                push(&format!("unset[{index}]"), message);
            }
        }
        for (key, value) in &row.set {
            let place = format!("set.{}", show_key(key));
            for (full_key, leaf) in leaves(key.clone(), value) {
                self.assignment_mistake(row, &full_key, leaf).into_iter().for_each(|message| push(&place, message));
            }
        }
    }

    fn assignment_mistake(&self, row: &StudyRow, key: &str, value: &Json) -> Option<String> {
        let keys = match parse_key(key) {
            Ok(keys) => keys,
            Err((message, _)) => return Some(message),
        };
        if keys == ["seed"] {
            return Some("the seeds of a row are given by its `seeds`".to_string());
        }
        if value.is_array() && holds_hand_off(value) {
            return Some("a \"row:\" value inside an array is not supported".to_string());
        }
        self.hand_off_mistake(row, value)
    }

    fn hand_off_mistake(&self, row: &StudyRow, value: &Json) -> Option<String> {
        let hand_off = HandOff::read(value)?;
        let Some(source) = self.row(hand_off.row) else { return Some(self.no_such_row(hand_off.row)) };
        let available = self.seeds_of(source);
        let wanted = hand_off.seed.map_or_else(|| self.seeds_of(row).to_vec(), |seed| vec![seed]);
        let missing = wanted.into_iter().find(|seed| !available.contains(seed))?;
        let first = available.first().copied().unwrap_or_default();
        Some(format!(
            "row {:?} is not run with seed {missing}, only with {available:?}; \"row:{}@{first}\" takes that of seed {first}",
            source.name, source.name
        ))
    }

    /// The row that a row is compared with; itself where it is the one that others are.
    pub(crate) fn baseline_of(&self, row: &StudyRow) -> Option<&StudyRow> {
        let is_one = self.rows.iter().any(|other| other.baseline.as_ref() == Some(&row.name));
        let default = if is_one { Some(&row.name) } else { self.baseline.as_ref() };
        self.row(row.baseline.as_ref().or(default)?)
    }

    /// Whether a row is compared with the study's baseline, or is it. A row that only trains a net for others is not.
    pub(crate) fn is_compared(&self, row: &StudyRow) -> bool {
        let is_needed = self.rows.iter().any(|other| other.sources().contains(&row.name));
        !is_needed && self.baseline_of(row).is_some_and(|other| self.baseline.as_ref() == Some(&other.name))
    }

    /// The name of the baseline that trains longer, where the study asks for it.
    pub(crate) fn longer_name(&self) -> Option<String> {
        self.baseline.as_ref().filter(|_| self.baseline_compute).map(|name| format!("{name}_longer"))
    }

    fn longer_mistake(&self) -> Option<String> {
        let Some(name) = self.longer_name() else { return Some("needs a `baseline` to train longer".to_string()) };
        self.row(&name).map(|_| format!("the row {name:?}, which this makes, is there already"))
    }

    pub(crate) fn row(&self, name: &str) -> Option<&StudyRow> {
        self.rows.iter().find(|row| row.name == name)
    }

    fn no_such_row(&self, name: &str) -> String {
        let names: Vec<&str> = self.rows.iter().map(|row| row.name.as_str()).collect();
        let guess = nearest(name, names.iter().copied()).map(|guess| format!("did you mean {guess:?}? "));
        format!("there is no row {name:?}; {}rows: {}", guess.unwrap_or_default(), names.join(", "))
    }

    /// Every circle of rows once, beginning and ending with the row of it that the file has first.
    fn cycles(&self) -> Vec<Vec<String>> {
        let mut cycles: Vec<Vec<String>> = Vec::new();
        for row in &self.rows {
            let known = cycles.iter().any(|cycle| cycle.contains(&row.name));
            if let Some(cycle) = self.way_back(&row.name).filter(|_| !known) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    /// The shortest way from a row over what it needs back to itself.
    fn way_back(&self, start: &str) -> Option<Vec<String>> {
        let mut ways = VecDeque::from([vec![start.to_string()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let sources = way.last().and_then(|name| self.row(name)).map(StudyRow::sources).unwrap_or_default();
            for source in sources {
                let longer: Vec<String> = way.iter().cloned().chain([source.clone()]).collect();
                if source == start {
                    return Some(longer);
                }
                if seen.insert(source) {
                    ways.push_back(longer);
                }
            }
        }
        None
    }
}

fn seeds_mistake(seeds: &[u64]) -> Option<String> {
    if seeds.is_empty() {
        return Some("at least one seed is needed".to_string());
    }
    let twice = seeds.iter().enumerate().find(|(index, seed)| seeds[..*index].contains(seed));
    twice.map(|(_, seed)| format!("seed {seed} is there twice"))
}

/// Whether this is a hand-off or holds one.
fn holds_hand_off(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(holds_hand_off),
        Json::Object(table) => table.values().any(holds_hand_off),
        other => HandOff::read(other).is_some(),
    }
}
