//! The data of a recipe.

use std::path::PathBuf;
use std::sync::Arc;

use mentor_data::{BatchMaker, BatchPlan, Card, DataConfig, DataError, Dataset, ReadLabels, Split};
use mentor_scenes::{News, Part, SetSpec, kept_set};
use mentor_toml::Loaded;
use mentor_types::below;

use super::nets::file_path;
use crate::error::BuildError;
use crate::recipe::Recipe;
use crate::tasks::Task;

/// Where a recipe's files may lie.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Folders that hold data set cards.
    pub cards: Vec<PathBuf>,
    /// Folders that hold images, before those beside the card.
    pub data: Vec<PathBuf>,
    /// The folder in which sets that are drawn are kept, if there is one.
    pub cache: Option<PathBuf>,
    /// Whether a set that is not there yet is drawn; else it is an error.
    pub draws: bool,
    /// Told what happens while a set is drawn.
    pub news: Option<fn(News<'_>)>,
}

impl Places {
    /// A card as it is once the files of some splits can be had: the scenes in them are drawn where they are not yet, and the
    /// card's folder becomes theirs. Any other card stays as it is.
    ///
    /// # Errors
    /// An unknown split; scenes that cannot be drawn, or kept.
    pub fn with_files<'s>(&self, mut card: Card, splits: impl Iterator<Item = &'s str>) -> Result<Card, BuildError> {
        let Some(scenes) = &card.scenes else { return Ok(card) };
        let spec = SetSpec { seed: scenes.seed, count: scenes.count, size: scenes.size_px, season: scenes.season };
        let parts = parts(&card, splits)?;
        let cache = self.cache.as_ref().ok_or_else(|| BuildError::NoCache { card: card.name.clone() })?;
        if !self.draws {
            card.folder = spec.folder(cache);
            let missing = parts.iter().map(|part| card.folder.join(part.as_str())).find(|folder| !folder.is_dir());
            return missing.map_or(Ok(card), |folder| Err(BuildError::NotDrawn { folder }));
        }
        let news = |news: News<'_>| self.news.iter().for_each(|tell| tell(news));
        card.folder = kept_set(cache, &spec, &parts, &news)
            .map_err(|source| BuildError::Scenes { card: card.name.clone(), source })?;
        Ok(card)
    }
}

/// The parts of a drawn set in which the lists and folders of some splits lie.
fn parts<'s>(card: &Card, splits: impl Iterator<Item = &'s str>) -> Result<Vec<Part>, DataError> {
    let sources = splits.map(|split| card.sources(split)).collect::<Result<Vec<_>, _>>()?;
    let needed: Vec<_> = sources.concat().into_iter().map(Part::of_path).collect();
    // A list elsewhere may name any scene.
    let is_needed = |part: &Part| needed.iter().any(|other| other.is_none_or(|other| other == *part));
    Ok(Part::ALL.into_iter().filter(is_needed).collect())
}

/// The card that a recipe names, if it offers what the recipe's task learns from, and has the splits that it names.
///
/// # Errors
/// That it does not, at the task; no such card or split, at the key that names it; all that is wrong with the card.
pub fn find_card<T: Task>(loaded: &Loaded<Recipe<T>>, places: &Places) -> Result<Card, BuildError> {
    let card = Card::find(&loaded.value.data.card, &places.cards).map_err(|error| match error {
        DataError::UnknownCard { .. } => BuildError::Recipe(loaded.problem("data.card", error.to_string())),
        error => BuildError::Data(error),
    })?;
    check_task(loaded, &card)?;
    let card = T::Labels::classes_of(card);
    for (key, name) in loaded.value.data.splits() {
        let place = |error: DataError| loaded.problem(&format!("data.{key}"), error.to_string());
        card.sources(name).map_err(|error| BuildError::Recipe(place(error)))?;
    }
    Ok(card)
}

fn check_task<T: Task>(loaded: &Loaded<Recipe<T>>, card: &Card) -> Result<(), BuildError> {
    if T::Labels::are_in(card) {
        return Ok(());
    }
    let (name, from) = (T::NAME.as_str(), T::Labels::TABLE);
    let message = format!("\"{name}\" learns from {from}, and the card `{}` has no [{from}]", card.name);
    Err(BuildError::Recipe(loaded.problem("task", message)))
}

/// The data of a recipe.
#[derive(Clone, Debug)]
pub struct BuiltData<L: ReadLabels> {
    /// The data set.
    pub dataset: Arc<Dataset<L>>,
    /// What makes its batches.
    pub maker: Arc<BatchMaker<L>>,
    /// The split that is evaluated.
    pub val: Split,
    /// `[data]`, with the path at which each file was found.
    pub config: DataConfig,
}

impl<L: ReadLabels> BuiltData<L> {
    /// Opens lists and images of a card.
    ///
    /// # Errors
    /// A missing split, file or image folder; scenes that cannot be drawn.
    pub(super) fn open<T: Task<Labels = L>>(
        loaded: &Loaded<Recipe<T>>,
        card: Card,
        places: &Places,
    ) -> Result<Self, BuildError> {
        let recipe = &loaded.value;
        let mut config = recipe.data.clone();
        if let Some(pseudo) = &mut config.pseudo_labels {
            pseudo.file = file_path(loaded, "data.pseudo_labels.file", &pseudo.file)?.display().to_string();
        }
        let card = places.with_files(card, recipe.data.splits().map(|(_, name)| name))?;
        let dataset = Arc::new(Dataset::new(card, &places.data)?.on_bad_sample(recipe.data.on_bad_sample));
        let plan = BatchPlan {
            seed: recipe.seed,
            batch_labelled: recipe.train.batch_labelled,
            batch_unlabelled: recipe.train.batch_unlabelled,
            accumulate: recipe.train.accumulate,
        };
        let maker = Arc::new(BatchMaker::new(dataset.clone(), &config, &recipe.views, plan)?);
        let val = dataset.split(&recipe.data.val)?;
        Ok(Self { dataset, maker, val, config })
    }

    /// A split by name, which need not be one of the recipe's.
    ///
    /// # Errors
    /// A missing split or image folder; scenes that cannot be drawn.
    pub fn split(&self, name: &str, places: &Places) -> Result<Split, BuildError> {
        places.with_files(self.dataset.card().clone(), std::iter::once(name))?;
        Ok(self.dataset.split(name)?)
    }

    /// A hash of all images, labels, pseudo-labels and lists of the recipe.
    ///
    /// # Errors
    /// If a split, or the file of pseudo-labels, cannot be opened.
    pub fn fingerprint<T: Task<Labels = L>>(&self, recipe: &Recipe<T>) -> Result<String, BuildError> {
        let mut hasher = blake3::Hasher::new();
        for (_, name) in recipe.data.splits() {
            hasher.update(self.dataset.fingerprint(&self.dataset.split(name)?)?.as_bytes());
        }
        if let Some(pseudo) = &self.config.pseudo_labels {
            hasher.update(pseudo.fingerprint()?.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// What of a recipe must fit the number of classes of its data.
///
/// # Errors
/// The first thing that does not.
pub fn check_classes<T: Task>(loaded: &Loaded<Recipe<T>>, classes: usize) -> Result<(), BuildError> {
    let (recipe, mut problems) = (&loaded.value, Vec::new());
    below("supervised", &mut problems, |found| mentor_distill::check_classes(&recipe.supervised, classes, found));
    below("distill", &mut problems, |found| mentor_distill::check_classes(&recipe.distill, classes, found));
    below("unlabelled", &mut problems, |found| mentor_distill::check_classes(&recipe.unlabelled, classes, found));
    match problems.into_iter().next() {
        Some((key, message)) => Err(BuildError::Recipe(loaded.problem(&key, message))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_seg::Seg;
    use mentor_toml::Changes;
    use std::path::Path;

    /// A recipe of the repository with changes, and the folder of its cards.
    fn recipe(set: &[&str]) -> (Loaded<Recipe<Seg>>, Places) {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let changes = Changes::set(set.iter().copied());
        let loaded = Recipe::<Seg>::read(&root.join("recipes/quickstart.toml"), &changes).unwrap();
        (loaded, Places { cards: vec![root.join("datasets")], ..Places::default() })
    }

    #[test]
    fn a_task_that_its_card_has_no_labels_for_is_named_at_its_line() {
        let (loaded, places) = recipe(&[]);
        let mut card = find_card(&loaded, &places).unwrap();
        card.masks = None;
        let line = 1 + loaded.text.lines().position(|line| line.starts_with("task =")).unwrap();
        let message = check_task(&loaded, &card).unwrap_err().to_string();
        let expected = format!("quickstart.toml:{line}:1: `task`: \"seg\" learns from masks, and the card `");
        assert!(message.contains(&expected), "{message}");
    }

    #[test]
    fn a_card_that_is_not_there_is_named_at_its_key_and_a_bad_one_at_its_own_lines() {
        let (loaded, places) = recipe(&["data.card=camvit"]);
        let message = find_card(&loaded, &places).unwrap_err().to_string();
        assert!(message.starts_with("--set data.card=camvit: `data.card`: no card `camvit`, did you mean `camvid`?"));
        let (loaded, places) = recipe(&["data.val=vol"]);
        let message = find_card(&loaded, &places).unwrap_err().to_string();
        assert!(
            message
                .starts_with("--set data.val=vol: `data.val`: card `scenes` has no split `vol`, did you mean `val`?")
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.toml");
        std::fs::write(&path, "name = \"../x\"\ntitel = \"t\"\n").unwrap();
        let (loaded, places) = recipe(&[&format!("data.card={}", path.display())]);
        let message = find_card(&loaded, &places).unwrap_err().to_string();
        assert!(message.lines().count() > 2, "{message}");
        assert!(message.lines().all(|line| line.starts_with(&path.display().to_string())), "{message}");
    }

    #[test]
    fn scenes_are_drawn_for_the_splits_that_are_asked_for() {
        let text = "name = \"towns\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"t\"\n\
            [scenes]\ncount = 12\nsize_px = 32\n[masks]\nformat = \"index\"\n[splits]\n\
            train = { list = \"train/train.txt\" }\nsome = { list = \"train/train_1_2.txt\" }\n\
            rest = { all_of = \"train\", minus = \"some\" }\nval = { list = \"val/val.txt\" }\n\
            mine = { list = \"mine.txt\" }\nphotos = { folder = \"test/images\" }\n[[classes]]\nname = \"ground\"\ncolor = [1, 2, 3]\n";
        let card = Card::parse(text, Path::new("towns/dataset.toml"), PathBuf::from("towns")).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let mut places = Places { cache: Some(cache.path().to_owned()), draws: true, ..Places::default() };
        let mut drawn = |draws: bool, splits: &[&str]| {
            places.draws = draws;
            let folder = places.with_files(card.clone(), splits.iter().copied())?.folder;
            let is_there = |part: &Part| folder.join(part.as_str()).is_dir();
            Ok::<_, BuildError>(Part::ALL.into_iter().filter(is_there).collect::<Vec<_>>())
        };
        assert_eq!(drawn(true, &["val"]).unwrap(), [Part::Val]);
        let message = drawn(false, &["val", "rest"]).unwrap_err().to_string();
        assert!(message.ends_with("train: not drawn yet"), "{message}");
        assert_eq!(drawn(true, &["rest"]).unwrap(), [Part::Train, Part::Val]);
        assert_eq!(drawn(false, &["val", "some"]).unwrap(), [Part::Train, Part::Val]);
        assert_eq!(drawn(true, &["photos"]).unwrap(), [Part::Train, Part::Val, Part::Test]);
        assert!(drawn(true, &["vol"]).unwrap_err().to_string().contains("did you mean `val`?"));
        // A list that lies elsewhere may name any scene.
        assert_eq!(drawn(true, &["mine"]).unwrap(), Part::ALL);
    }
}
