//! The classes that a net was trained for: it knows them by their order alone.

use std::collections::BTreeMap;
use std::path::Path;

use mentor_data::{Dataset, ReadLabels};
use mentor_train::RunInfo;

use crate::error::BuildError;

/// The key under which the metadata of an exported file name the classes, as a JSON list.
const CLASS_NAMES: &str = "class_names";

/// Most classes whose names are all written out in an error.
const LISTED: usize = 12;

/// The classes of a run or of a card, in the order of a net's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunClasses {
    /// Their names.
    pub names: Vec<String>,
    /// What stands for each in the files of labels. Empty in runs of before this was kept.
    pub values: Vec<String>,
}

impl RunClasses {
    /// Those of a card.
    #[must_use]
    pub fn of<L: ReadLabels>(dataset: &Dataset<L>) -> Self {
        let names = dataset.card().class_names();
        let values = (0..=u8::MAX).zip(&names).map(|(label, _)| L::stored_as(dataset.reader(), label)).collect();
        Self { names, values }
    }

    /// Those of a run.
    ///
    /// # Errors
    /// If the folder does not say.
    pub fn read(run: &Path) -> Result<Self, BuildError> {
        let info = RunInfo::read(run)?;
        Ok(Self { names: info.classes, values: info.class_values })
    }

    /// Holds the classes of the run at `run` against those of a card: they must be the same, in the same order.
    ///
    /// # Errors
    /// [`BuildError::Classes`] with the first difference.
    pub fn check_card<L: ReadLabels>(&self, run: &Path, dataset: &Dataset<L>) -> Result<(), BuildError> {
        let now = Self::of(dataset);
        let card = &dataset.card().name;
        let reason = match self.names.iter().zip(&now.names).position(|(before, now)| before != now) {
            _ if self.names.len() != now.names.len() => {
                let (before, now) = (self.names.len(), now.names.len());
                format!("was trained on {before} classes, the card `{card}` has {now}")
            }
            Some(class) => format!(
                "was trained on other classes than the card `{card}` has, or on the same in another order: {}",
                first_difference(class, &self.names, &now.names)
            ),
            None => {
                let differs = |(_, (before, now)): &(usize, (&String, &String))| before != now;
                let Some((class, (before, now))) = self.values.iter().zip(&now.values).enumerate().find(differs) else {
                    return Ok(());
                };
                let (name, labels) = (&self.names[class], L::TABLE);
                format!("was trained where `{name}` is stored as {before} in {labels}, the card `{card}` says {now}")
            }
        };
        let reason = format!("{reason}; give the card the classes of the run, or train anew");
        Err(BuildError::Classes { path: run.to_owned(), reason })
    }

    /// What an export writes into the metadata of its file.
    ///
    /// # Errors
    /// Never for names that were read from a file.
    pub fn metadata(&self) -> Result<(String, String), serde_json::Error> {
        Ok((CLASS_NAMES.to_owned(), serde_json::to_string(&self.names)?))
    }
}

/// Refuses the weights of a run whose classes stand in another order than `classes`; where only names differ that are
/// in one of the two, they may be new names of the same. A folder without `run.json` says nothing.
pub(crate) fn check_order_of_run(classes: &[String], run: &Path) -> Result<(), BuildError> {
    if !run.join(RunInfo::FILE).exists() {
        return Ok(());
    }
    check_order(classes, &RunClasses::read(run)?.names, run)
}

/// The same for a file with these metadata; one that was not exported by us says nothing.
pub(crate) fn check_order_of_file(
    classes: &[String],
    metadata: &BTreeMap<String, String>,
    file: &Path,
) -> Result<(), BuildError> {
    let Some(names) = metadata.get(CLASS_NAMES) else { return Ok(()) };
    let names: Vec<String> = serde_json::from_str(names).map_err(|error| BuildError::Classes {
        path: file.to_owned(),
        reason: format!("`{CLASS_NAMES}` in its metadata is no list of names: {error}"),
    })?;
    check_order(classes, &names, file)
}

fn check_order(classes: &[String], theirs: &[String], path: &Path) -> Result<(), BuildError> {
    // Another number of classes shows in the shapes of the weights, and may be meant.
    if classes.len() != theirs.len() {
        return Ok(());
    }
    let moved = |(ours, other): (&String, &String)| ours != other && (theirs.contains(ours) || classes.contains(other));
    match classes.iter().zip(theirs).position(moved) {
        None => Ok(()),
        Some(class) => Err(BuildError::Classes {
            path: path.to_owned(),
            reason: format!(
                "its classes are not those of the data, or stand in another order: {}",
                first_difference(class, theirs, classes)
            ),
        }),
    }
}

fn first_difference(class: usize, theirs: &[String], ours: &[String]) -> String {
    if ours.len() <= LISTED {
        return format!("{} there, {} in the data", theirs.join(", "), ours.join(", "));
    }
    format!("class {class} is `{}` there and `{}` in the data", theirs[class], ours[class])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn another_order_is_refused_and_new_names_are_not() {
        let said = |ours: &str, theirs: &str| {
            check_order(&names(ours), &names(theirs), Path::new("runs/big")).map_err(|error| error.to_string())
        };
        assert_eq!(said("sky tree road", "sky tree road"), Ok(()));
        // A starter card's names, before they were given.
        assert_eq!(said("sky tree road", "class_0 class_1 class_2"), Ok(()));
        // The shapes say this better.
        assert_eq!(said("sky tree road", "tree sky"), Ok(()));
        for theirs in ["sky road tree", "tree class_1 class_2"] {
            let message = said("sky tree road", theirs).unwrap_err();
            assert!(message.starts_with("runs/big: its classes are not"), "{message}");
            assert!(message.ends_with(&format!("{} there, sky, tree, road in the data", theirs.replace(' ', ", "))));
        }
    }

    #[test]
    fn a_file_says_its_classes_in_its_metadata() {
        let classes = RunClasses { names: names("sky tree"), values: Vec::new() };
        let metadata = BTreeMap::from([classes.metadata().unwrap()]);
        let check = |ours: &str| check_order_of_file(&names(ours), &metadata, Path::new("a.safetensors"));
        check("sky tree").unwrap();
        check("tree sky").unwrap_err();
        check_order_of_file(&names("tree sky"), &BTreeMap::new(), Path::new("torch.pth")).unwrap();
    }
}
