//! What a run leaves: `recipe.toml`, `run.json`, `log.jsonl`, `checkpoints/`, `result.json`, pictures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mentor_recipe::{Loaded, Recipe, Task, changes_no_result};
use mentor_train::{Checkpoint, Checkpoints, RunInfo, RunResult};
use mentor_weights::{remove_leftovers, write_atomically};

use crate::print::note;

/// The commit that this binary was built from.
pub const COMMIT: &str = env!("MENTOR_COMMIT");

/// How a run folder is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It must be new.
    New,
    /// Go on from its last checkpoint.
    Resume,
    /// Start again, if the same recipe made it.
    Again,
}

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes or opens the folder; returns where to go on.
    pub fn open<T: Task>(
        path: &Path,
        mode: Mode,
        loaded: &Loaded<Recipe<T>>,
        info: &RunInfo,
    ) -> Result<(Self, Option<Checkpoint>)> {
        let folder = Self { path: path.to_owned() };
        let recipe = path.join("recipe.toml");
        let mut resume = None;
        if recipe.exists() {
            folder.same_recipe(loaded, mode)?;
            match mode {
                Mode::New => bail!(
                    "{} already holds this run: go on with --resume, start anew with --again, or choose another --out",
                    path.display()
                ),
                Mode::Resume => {
                    folder.same_data(info)?;
                    resume = folder.last_checkpoint()?;
                }
                Mode::Again => folder.clear()?,
            }
        } else if path.exists() && !folder.names()?.iter().all(|name| name.starts_with(RunInfo::FILE)) {
            bail!("{} is not empty and not the folder of a run: choose another --out", path.display());
        } else if mode == Mode::Resume {
            bail!("{}: there is no run to resume", path.display());
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        remove_leftovers(path)?;
        info.write(path)?;
        write_atomically(&recipe, loaded.resolved.as_bytes())?;
        Ok((folder, resume))
    }

    /// The folder of a run that `loaded` made, to be looked at.
    pub fn of_same_recipe<T: Task>(path: &Path, loaded: &Loaded<Recipe<T>>) -> Result<Self> {
        let folder = Self { path: path.to_owned() };
        if !path.join("recipe.toml").exists() {
            bail!("{}: there is no run", path.display());
        }
        folder.same_recipe(loaded, Mode::Resume)?;
        Ok(folder)
    }

    /// The newest whole checkpoint before a step; `None` where the step is to be reached from the start.
    pub fn checkpoint_before(&self, step: u64) -> Result<Option<Checkpoint>> {
        let folder = self.path.join("checkpoints");
        if !folder.is_dir() {
            return Ok(None);
        }
        Ok(Checkpoints::open_existing(folder)?.before(step)?)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn same_recipe<T: Task>(&self, loaded: &Loaded<Recipe<T>>, mode: Mode) -> Result<()> {
        let path = self.path.join("recipe.toml");
        let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let all = loaded
            .differences(&before, &path)
            .with_context(|| format!("{} was made by a recipe that this version does not read", self.path.display()))?;
        let changed: Vec<String> = all
            .iter()
            .filter(|difference| !changes_no_result(&difference.key) && difference.key != "train.steps")
            .map(|difference| format!("  {difference}"))
            .collect();
        if !changed.is_empty() {
            bail!("{} was made by another recipe:\n{}", self.path.display(), changed.join("\n"));
        }
        if let Some(steps) = all.iter().find(|difference| difference.key == "train.steps" && mode == Mode::Resume) {
            let number = |value: &Option<String>| value.as_deref().and_then(|value| value.parse::<u64>().ok());
            if number(&steps.now) < number(&steps.before) {
                bail!("{}: a run can be made longer, not shorter: {steps}", self.path.display());
            }
        }
        Ok(())
    }

    fn same_data(&self, info: &RunInfo) -> Result<()> {
        let before = RunInfo::read(&self.path)?;
        if before.data != info.data {
            bail!("{}: the images, labels or lists have changed since the run began", self.path.display());
        }
        for (name, hash) in &before.weights {
            if info.weights.get(name) != Some(hash) {
                bail!("{}: the weights of `{name}` have changed since the run began", self.path.display());
            }
        }
        Ok(())
    }

    fn last_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let folder = self.path.join("checkpoints");
        if !folder.is_dir() {
            return Ok(None);
        }
        let Some((checkpoint, damaged)) = Checkpoints::open_existing(folder)?.last()? else { return Ok(None) };
        for reason in damaged {
            note!("warning: {reason}; the checkpoint before it is taken");
        }
        Ok(Some(checkpoint))
    }

    /// The names of all that lies in the folder.
    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.path).with_context(|| self.path.display().to_string())?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Removes what a run leaves, and nothing else.
    fn clear(&self) -> Result<()> {
        RunInfo::read(&self.path)?;
        for name in self.names()? {
            let path = self.path.join(&name);
            let removed = match name.as_str() {
                "checkpoints" | "pictures" | "replay" => fs::remove_dir_all(&path),
                "recipe.toml" | RunInfo::FILE | "log.jsonl" | RunResult::FILE | "report.html" => fs::remove_file(&path),
                name if name.starts_with("events.out.tfevents.") => fs::remove_file(&path),
                _ => Ok(()),
            };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_seg::Seg;

    #[test]
    fn a_run_from_before_a_key_with_a_default_came_is_of_the_same_recipe() {
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/quickstart.toml");
        let loaded = Recipe::<Seg>::read(Path::new(recipe), &mentor_recipe::Changes::none()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let open = |text: String| {
            fs::write(folder.path().join("recipe.toml"), text).unwrap();
            RunFolder::of_same_recipe(folder.path(), &loaded).map(|_| ()).map_err(|error| format!("{error:#}"))
        };
        let without: String = loaded
            .resolved
            .lines()
            .filter(|line| !line.starts_with("log_every_steps"))
            .fold(String::new(), |text, line| text + line + "\n");
        assert_ne!(without, loaded.resolved);
        assert_eq!(open(without.clone()), Ok(()));
        let other = open(without.replace("accumulate = 1\n", "accumulate = 2\n")).unwrap_err();
        assert!(other.contains("made by another recipe:\n  `train.accumulate` was 2, is 1"), "{other}");
        let broken = open(without.replace("accumulate = 1\n", "acumulate = 2\n")).unwrap_err();
        assert!(broken.contains("recipe.toml:") && broken.contains("did you mean `accumulate`?"), "{broken}");
    }
}
