//! A study: a table of rows, each a recipe with changes and seeds, with hand-offs from row to row.
//!
//! This file reads a study and lays out its jobs in an order in which they can run. It runs nothing, and it does not know
//! what a recipe holds.

use std::path::{Path, PathBuf};

use mentor_toml::{Changes, Loaded, Problem, Problems, parse, read, show_key};
use serde_json::Value as Json;

use crate::study_file::{HandOff, StudyFile, StudyRow};

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
baseline = "nobody"
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
             \"row:alone@1\" takes that of seed 1\n\
             30:1: `rows[3].baseline`: there is no row \"nobody\"; rows: alone, alone, ../x, teacher"
        );
        assert_eq!(
            study("title = \"t\"\nrows = []\nseds = 1\n").unwrap_err().to_string(),
            "recipes/studies/s.toml:2:1: `rows`: a study needs at least one row\n\
             recipes/studies/s.toml:3:1: unknown key `seds` at the top level; did you mean `seeds`? \
             known keys: `baseline`, `baseline_compute`, `metrics`, `min_effect`, `percent`, `rows`, `seeds`, `title`"
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
