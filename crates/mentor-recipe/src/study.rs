//! A study: a table of rows, each a recipe with changes and seeds, with hand-offs from row to row.
//!
//! This file reads a study and lays out its jobs in an order in which they can run. It runs nothing, and it does not know
//! what a recipe holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mentor_toml::{Changes, Loaded, Problem, Problems, TomlFile, nearest, parse, parse_key, read, show_key};
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

/// A weight file that a job takes over from a job of another row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The dotted key of the recipe that gets the file's path.
    pub key: String,
    /// The row that trains it.
    pub row: String,
    /// The seed of that row.
    pub seed: u64,
}

impl Need {
    /// `ROW.seedN`, the name of the job that trains it.
    pub fn name(&self) -> String {
        job_name(&self.row, self.seed)
    }
}

/// One run of a study: a row with one of its seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The row's name.
    pub row: String,
    /// The seed, which is also the last entry of `set`.
    pub seed: u64,
    /// The recipe's path, the study's folder included.
    pub recipe: PathBuf,
    /// Assignments for `--set`, without the hand-offs.
    pub set: Vec<String>,
    /// Keys for `--unset`.
    pub unset: Vec<String>,
    /// The hand-offs.
    pub needs: Vec<Need>,
}

impl Job {
    /// `ROW.seedN`, the job's name in messages and files.
    pub fn name(&self) -> String {
        job_name(&self.row, self.seed)
    }

    /// The changes to run this job with; `exported` gives the path of the student that a hand-off names.
    pub fn changes(&self, exported: impl Fn(&Need) -> PathBuf) -> Changes {
        self.with_hand_offs(|need| exported(need).display().to_string())
    }

    /// The changes to resolve the recipe with for [`crate::row_key`]: each hand-off is `row:NAME@SEED` instead of a path, so
    /// that the key does not depend on where the runs lie.
    pub fn changes_for_key(&self) -> Changes {
        self.with_hand_offs(|need| format!("row:{}@{}", need.row, need.seed))
    }

    fn with_hand_offs(&self, value: impl Fn(&Need) -> String) -> Changes {
        let hand_offs = self.needs.iter().map(|need| assignment(&need.key, &Json::String(value(need))));
        Changes { unset: self.unset.clone(), set: self.set.iter().cloned().chain(hand_offs).collect() }
    }
}

/// `ROW.seedN`.
pub(crate) fn job_name(row: &str, seed: u64) -> String {
    format!("{row}.seed{seed}")
}

/// A study that was read and checked: its rows exist, its hand-offs can be met.
#[derive(Clone, Debug)]
pub struct Study {
    /// The file's content.
    pub file: StudyFile,
    /// The path of the file.
    pub path: PathBuf,
}

impl Study {
    /// Reads and checks a study file and that its recipes are there.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places; see [`mentor_toml::read`].
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let loaded = read::<StudyFile>(path, &Changes::none())?;
        let study = Self { file: loaded.value.clone(), path: path.to_path_buf() };
        let absent = study.absent_recipes(&loaded);
        if absent.is_empty() { Ok(study) } else { Err(Problems::new(absent)) }
    }

    /// Reads and checks a study from text; `path` names it, and recipes are relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        let loaded = parse::<StudyFile>(text, path, &Changes::none())?;
        Ok(Self { file: loaded.value, path: path.to_path_buf() })
    }

    fn absent_recipes(&self, loaded: &Loaded<StudyFile>) -> Vec<Problem> {
        let rows = self.file.rows.iter().enumerate();
        rows.filter(|(_, row)| !self.recipe_path(row).is_file())
            .map(|(index, row)| {
                let message = format!("no such file: {}", self.recipe_path(row).display());
                loaded.problem(&format!("rows[{index}].recipe"), message)
            })
            .collect()
    }

    fn recipe_path(&self, row: &StudyRow) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(&row.recipe)
    }

    /// All jobs, each after the jobs that it needs. The first seed of every row comes before the second of any, so that a
    /// study that was interrupted has a row for everything.
    pub fn jobs(&self) -> Vec<Job> {
        let mut waiting: Vec<(usize, Job)> = Vec::new();
        for row in &self.file.rows {
            for (place, seed) in self.file.seeds_of(row).iter().enumerate() {
                waiting.push((place, self.job(row, *seed)));
            }
        }
        waiting.sort_by_key(|(place, _)| *place);
        let mut jobs: Vec<Job> = Vec::with_capacity(waiting.len());
        let met = |jobs: &[Job], need: &Need| jobs.iter().any(|job| job.row == need.row && job.seed == need.seed);
        while let Some(next) = waiting.iter().position(|(_, job)| job.needs.iter().all(|need| met(&jobs, need))) {
            jobs.push(waiting.remove(next).1);
        }
        debug_assert!(waiting.is_empty(), "the check found no cycle, so every job's turn comes");
        jobs
    }

    fn job(&self, row: &StudyRow, seed: u64) -> Job {
        let mut job = Job {
            row: row.name.clone(),
            seed,
            recipe: self.recipe_path(row),
            set: Vec::new(),
            unset: row.unset.clone(),
            needs: Vec::new(),
        };
        for (key, value) in row.assignments() {
            match HandOff::read(value) {
                Some(hand_off) => {
                    job.needs.push(Need { key, row: hand_off.row.to_string(), seed: hand_off.seed.unwrap_or(seed) });
                }
                None => job.set.push(assignment(&key, value)),
            }
        }
        job.set.push(format!("seed={seed}"));
        job
    }
}

/// `row:NAME` or `row:NAME@SEED`.
struct HandOff<'a> {
    row: &'a str,
    seed: Option<u64>,
}

impl<'a> HandOff<'a> {
    fn read(value: &'a Json) -> Option<Self> {
        let name = value.as_str()?.strip_prefix("row:")?;
        match name.split_once('@').map(|(row, seed)| (row, seed.parse())) {
            Some((row, Ok(seed))) => Some(Self { row, seed: Some(seed) }),
            _ => Some(Self { row: name, seed: None }),
        }
    }
}

/// `key=value` with the value as TOML on one line.
fn assignment(key: &str, value: &Json) -> String {
    format!("{key}={}", inline_toml(value))
}

/// A value as TOML on one line. JSON's strings, numbers and arrays are TOML's; tables have another sign.
fn inline_toml(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(inline_toml).collect::<Vec<_>>().join(", ")),
        Json::Object(table) if table.is_empty() => "{}".to_string(),
        Json::Object(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{} = {}", show_key(key), inline_toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
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
    fn assignments(&self) -> Vec<(String, &Json)> {
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

    fn row(&self, name: &str) -> Option<&StudyRow> {
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
        let mut ways = std::collections::VecDeque::from([vec![start.to_string()]]);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STUDY: &str = r#"
title = "Aerial"
baseline = "alone"
seeds = [0, 1]

[[rows]]
name = "pixel_wise"
recipe = "../pixel_wise.toml"
set = { "teachers.big.pspnet.weights" = "row:teacher", "distill.pixel_wise.weight" = 10.0 }
unset = ["distill.holistic"]

[[rows]]
name = "teacher"
recipe = "../teacher.toml"
expected = "as the paper's"
paper = 69.1

[[rows]]
name = "alone"
recipe = "../alone.toml"
seeds = [0, 1, 2]

[rows.set]
student.fcn.weights = "row:teacher@1"
views.scale = [0.5, 2]
"#;

    fn study(text: &str) -> Result<Study, Problems> {
        Study::parse(text, Path::new("recipes/studies/s.toml"))
    }

    #[test]
    fn every_job_comes_after_what_it_needs_and_first_seeds_come_first() {
        let names: Vec<String> = study(STUDY).unwrap().jobs().iter().map(Job::name).collect();
        assert_eq!(
            names,
            [
                "teacher.seed0",
                "pixel_wise.seed0",
                "teacher.seed1",
                "alone.seed0",
                "pixel_wise.seed1",
                "alone.seed1",
                "alone.seed2"
            ]
        );
    }

    #[test]
    fn a_job_carries_its_settings_and_its_hand_offs() {
        let jobs = study(STUDY).unwrap().jobs();
        let need = Need { key: "teachers.big.pspnet.weights".into(), row: "teacher".into(), seed: 1 };
        let pixel_wise = jobs.iter().find(|job| job.name() == "pixel_wise.seed1").unwrap();
        assert_eq!(
            *pixel_wise,
            Job {
                row: "pixel_wise".into(),
                seed: 1,
                recipe: "recipes/studies/../pixel_wise.toml".into(),
                set: vec!["distill.pixel_wise.weight=10.0".into(), "seed=1".into()],
                unset: vec!["distill.holistic".into()],
                needs: vec![need.clone()],
            }
        );
        let changes = pixel_wise.changes(|need| PathBuf::from(format!("runs/{} {}.safetensors", need.row, need.seed)));
        assert_eq!(changes.set[2], "teachers.big.pspnet.weights=\"runs/teacher 1.safetensors\"");
        assert_eq!(pixel_wise.changes_for_key().set[2], "teachers.big.pspnet.weights=\"row:teacher@1\"");
        let alone = jobs.iter().find(|job| job.name() == "alone.seed0").unwrap();
        assert_eq!(alone.set, ["views.scale=[0.5, 2]", "seed=0"]);
        assert_eq!(alone.needs, [Need { key: "student.fcn.weights".into(), ..need }]);
    }

    #[test]
    fn rows_that_wait_for_one_another_are_named_once() {
        let row = |name: &str, from: &str| {
            format!("[[rows]]\nname = \"{name}\"\nrecipe = \"a.toml\"\nset = {{ w = \"row:{from}\" }}\n")
        };
        let text = format!("title = \"t\"\n{}{}{}{}", row("a", "b"), row("b", "c"), row("c", "a"), row("d", "d"));
        assert_eq!(
            study(&text).unwrap_err().to_string(),
            "recipes/studies/s.toml:5:1: `rows[0].set`: rows wait for one another: a -> b -> c -> a\n\
             recipes/studies/s.toml:17:1: `rows[3].set`: rows wait for one another: d -> d"
        );
    }

    #[test]
    fn every_mistake_of_a_study_has_its_place() {
        let text = r#"
title = "t"
baseline = "alon"
seeds = [0, 0]
metrics = []
[[rows]]
name = "alone"
recipe = "a.toml"
seeds = [1]
[[rows]]
name = "alone"
recipe = "a.toml"
unset = ["a..b"]
seeds = [1, 2]
[rows.set]
seed = 3
"a b" = 1
w = "row:alone"
"x.y" = "row:teachr"
z = ["row:alone"]
[[rows]]
name = "../x"
recipe = "a.toml"
seeds = []
[[rows]]
name = "teacher"
recipe = "a.toml"
set.w.weights = "row:alone"
seeds = [5]
"#;
        assert_eq!(
            study(text).unwrap_err().to_string().replace("recipes/studies/s.toml:", ""),
            "3:1: `baseline`: there is no row \"alon\"; did you mean \"alone\"? rows: alone, alone, ../x, teacher\n\
             4:1: `seeds`: seed 0 is there twice\n\
             5:1: `metrics`: a study needs at least one metric\n\
             11:1: `rows[1].name`: a row before this one is named \"alone\" too\n\
             13:10: `rows[1].unset[0]`: `a..b` is not a dotted key\n\
             16:1: `rows[1].set.seed`: the seeds of a row are given by its `seeds`\n\
             17:1: `rows[1].set.\"a b\"`: `a b` is not a dotted key\n\
             18:1: `rows[1].set.w`: row \"alone\" is not run with seed 2, only with [1]; \
             \"row:alone@1\" takes that of seed 1\n\
             19:1: `rows[1].set.\"x.y\"`: there is no row \"teachr\"; did you mean \"teacher\"? \
             rows: alone, alone, ../x, teacher\n\
             20:1: `rows[1].set.z`: a \"row:\" value inside an array is not supported\n\
             22:1: `rows[2].name`: expected letters, digits, `_`, `-` and `.`, found \"../x\"\n\
             24:1: `rows[2].seeds`: at least one seed is needed\n\
             28:5: `rows[3].set.w`: row \"alone\" is not run with seed 5, only with [1]; \
             \"row:alone@1\" takes that of seed 1"
        );
        assert_eq!(
            study("title = \"t\"\nrows = []\nseds = 1\n").unwrap_err().to_string(),
            "recipes/studies/s.toml:2:1: `rows`: a study needs at least one row\n\
             recipes/studies/s.toml:3:1: unknown key `seds` at the top level; did you mean `seeds`? \
             known keys: `baseline`, `metrics`, `min_effect`, `percent`, `rows`, `seeds`, `title`"
        );
    }

    #[test]
    fn a_recipe_that_is_not_there_is_named_where_the_study_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        std::fs::write(folder.path().join("b.toml"), "").unwrap();
        let row = |recipe: &str| format!("[[rows]]\nname = \"{}\"\nrecipe = \"{recipe}\"\n", &recipe[..1]);
        std::fs::write(&path, format!("title = \"t\"\n{}{}", row("a.toml"), row("b.toml"))).unwrap();
        let message = Study::load(&path).unwrap_err().to_string();
        let absent = folder.path().join("a.toml");
        assert_eq!(message, format!("{}:4:1: `rows[0].recipe`: no such file: {}", path.display(), absent.display()));
        std::fs::write(absent, "").unwrap();
        assert_eq!(Study::load(&path).unwrap().jobs().len(), 2);
    }
}
