//! Where every command on a recipe, or on a run of it, begins.

use std::path::Path;

use burn::tensor::Device;
use mentor_toml::Loaded;

use super::data::{BuiltData, Places, check_classes, find_card};
use super::nets::BuiltNets;
use crate::classes::RunClasses;
use crate::error::BuildError;
use crate::recipe::Recipe;
use crate::tasks::Task;

/// A recipe with its data, held against each other.
#[derive(Clone, Debug)]
pub struct Prepared<'a, T: Task> {
    /// The recipe.
    pub loaded: &'a Loaded<Recipe<T>>,
    /// Its data.
    pub data: BuiltData,
    /// The names of their classes.
    pub classes: Vec<String>,
}

impl<'a, T: Task> Prepared<'a, T> {
    /// Opens card, lists and images of a recipe; with `run`, the folder of a run of it, also holds the classes of that
    /// run against those of the card.
    ///
    /// # Errors
    /// A card that is not there, is wrong, or has no labels for the task; a missing split or image folder; what does not
    /// fit the number of classes; a run of other classes.
    pub fn open(loaded: &'a Loaded<Recipe<T>>, places: &Places, run: Option<&Path>) -> Result<Self, BuildError> {
        let card = find_card(loaded, places)?;
        let data = BuiltData::open(&loaded.value, card, places)?;
        let classes = data.dataset.card().class_names();
        check_classes(loaded, classes.len())?;
        if let Some(run) = run {
            RunClasses::read(run)?.check_card(run, &data.dataset)?;
        }
        Ok(Self { loaded, data, classes })
    }

    /// Every net of the recipe, initialised and loaded.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    pub fn nets(&self, device: &Device) -> Result<BuiltNets<T>, BuildError> {
        BuiltNets::new(self.loaded, &self.classes, device)
    }
}
