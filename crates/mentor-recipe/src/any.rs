//! A recipe of whatever task it says.

use std::path::Path;

use mentor_det::Det;
use mentor_seg::Seg;
use mentor_toml::{Changes, Draft, Loaded, Problems};
use mentor_types::TaskName;

use crate::recipe::Recipe;

/// A recipe, read as one of the task that it names: the one place that asks which.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a command reads one")]
pub enum AnyRecipe {
    /// Semantic segmentation.
    Seg(Loaded<Recipe<Seg>>),
    /// Detection.
    Det(Loaded<Recipe<Det>>),
}

impl AnyRecipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// That its `task` is none, before all else; and then all problems at once, each with its place.
    pub fn read(path: &Path, changes: &Changes) -> Result<Self, Problems> {
        let draft = Draft::open(path, changes)?;
        match draft.peek("task")? {
            TaskName::Seg => draft.read().map(Self::Seg),
            TaskName::Det => draft.read().map(Self::Det),
        }
    }

    /// Reads the recipe that a run kept, which an earlier version may have written.
    ///
    /// # Errors
    /// As [`read`](Self::read), but that keys which have moved are read as what they are now.
    pub fn read_earlier(path: &Path) -> Result<Self, Problems> {
        let draft = Draft::open(path, &Changes::none())?;
        match draft.peek("task")? {
            TaskName::Seg => draft.read_earlier().map(Self::Seg),
            TaskName::Det => draft.read_earlier().map(Self::Det),
        }
    }
}
