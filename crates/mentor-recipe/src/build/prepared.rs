//! Where every command on a recipe, or on a run of it, begins.

use std::path::Path;

use burn::tensor::Device;
use mentor_data::{DataError, EvalLoader, Split};
use mentor_toml::Loaded;
use mentor_types::Scores;

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
    pub data: BuiltData<T::Labels>,
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
        let data = BuiltData::open(loaded, card, places)?;
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

    /// What each image of a split adds to a net's score, see [`Scores::shares`].
    ///
    /// # Errors
    /// A bad sample that is not skipped.
    pub fn shares(&self, net: &T::Net, split: &Split, device: &Device) -> Result<Vec<Vec<[u64; 2]>>, DataError> {
        let (recipe, dataset) = (&self.loaded.value, &self.data.dataset);
        EvalLoader::start(dataset.clone(), split.clone(), &recipe.data)?
            .map(|sample| {
                let scores = T::evaluate(net, std::iter::once(sample), &recipe.eval, device)?;
                Ok(scores.map_or_else(Vec::new, |scores| scores.shares()))
            })
            .collect()
    }

    /// How a net does on a split, predicted as the recipe says.
    ///
    /// # Errors
    /// A bad sample that is not skipped; that nothing in the split has a label.
    pub fn evaluate(&self, net: &T::Net, split: &Split, device: &Device) -> Result<T::Scores, DataError> {
        let (recipe, dataset) = (&self.loaded.value, &self.data.dataset);
        let mut loader = EvalLoader::start(dataset.clone(), split.clone(), &recipe.data)?;
        let scores = T::evaluate(net, loader.by_ref(), &recipe.eval, device)?;
        loader.bad_samples().list().iter().for_each(|sample| self.data.maker.bad_samples().record(sample));
        scores.ok_or_else(|| DataError::Split {
            card: dataset.card().name.clone(),
            split: split.name.clone(),
            message: format!("no {} with a label were compared", <T::Scores as Scores>::NAMES.counted),
        })
    }
}
