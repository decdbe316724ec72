//! The shortest form of a value: what is left of its TOML without all that its defaults say anyway.
//!
//! A resolved text holds every key, so it changes with each key that is added to its type; the shortest form does not.

use crate::de::from_node;
use crate::difference::leaves;
use crate::problem::{Problem, Problems};
use crate::read::{Loaded, TomlFile};
use crate::tree::{Document, Node, Step, Value, show_path};

impl<T: TomlFile + PartialEq> Loaded<T> {
    /// The value in its shortest form, one `key = value` a line, sorted: without every key and table whose absence
    /// reads as the same value, and without the keys that `unimportant` names, where the type can do without them.
    ///
    /// A key with a default that is added to the type changes no shortest form, unless a file gives it another value.
    /// What does not show in it is that a default became another.
    ///
    /// # Errors
    /// If [`Loaded::resolved`] does not read back, which means that the type's own reading and writing disagree.
    pub fn minimal(&self, unimportant: impl Fn(&str) -> bool) -> Result<String, Problems> {
        if self.resolved.is_empty() {
            return Ok(String::new());
        }
        let Document { mut root, .. } = Document::parse(&self.resolved, &self.path).map_err(Problems::new)?;
        let read = |node: &Node| from_node::<T>(node);
        prune(&mut root, &mut Vec::new(), &|path, rest| unimportant(&show_path(path)) && read(rest).is_ok());
        let value = read(&root).map_err(|error| Problem::new(self.key_position(""), "", error.message))?;
        prune(&mut root, &mut Vec::new(), &|_, rest| read(rest).is_ok_and(|read| read == value));
        Ok(leaves(&root).into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect())
    }
}

/// Takes away every key below `path` that is expendable, given its path and what is left without it; a whole table
/// before the keys in it, and keys in the order of their names, so that the order of the file does not matter.
fn prune(root: &mut Node, path: &mut Vec<Step>, expendable: &dyn Fn(&[Step], &Node) -> bool) {
    let mut steps: Vec<Step> = match root.get(path).map(|node| &node.value) {
        Some(Value::Table(entries)) => entries.iter().map(|entry| Step::Key(entry.key.clone())).collect(),
        // An item of an array cannot go alone: the others would move up. A key of a table in it can.
        Some(Value::Array(items)) => (0..items.len()).map(Step::Index).collect(),
        _ => return,
    };
    steps.sort();
    for step in steps {
        path.push(step);
        let mut rest = root.clone();
        if rest.take(path).is_some() && expendable(path, &rest) {
            *root = rest;
        } else {
            prune(root, path, expendable);
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::read::parse;
    use crate::sample::{GOOD, Sample};
    use crate::set::Changes;

    /// A type before it got new keys.
    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Before {
        steps: u64,
        #[serde(default)]
        train: TrainBefore,
        at: Vec<PlaceBefore>,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct TrainBefore {
        workers: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct PlaceBefore {
        tap: String,
    }

    /// The same with a new key in every table, all with defaults.
    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct After {
        at: Vec<PlaceAfter>,
        #[serde(default = "one")]
        clip: f32,
        steps: u64,
        #[serde(default)]
        train: TrainAfter,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct TrainAfter {
        averages: Vec<f64>,
        workers: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct PlaceAfter {
        tap: String,
        #[serde(default = "one")]
        weight: f32,
    }

    fn one() -> f32 {
        1.0
    }

    impl TomlFile for Before {}

    impl TomlFile for After {}

    fn load<T: TomlFile>(text: &str) -> Loaded<T> {
        parse(text, Path::new("a.toml"), &Changes::none()).unwrap()
    }

    fn minimal<T: TomlFile + PartialEq>(text: &str) -> String {
        load::<T>(text).minimal(|key| key == "train.workers").unwrap()
    }

    #[test]
    fn a_new_key_with_a_default_changes_no_shortest_form() {
        let text = "steps = 3\ntrain.workers = 8\nat = [{ tap = \"c5\" }]\n";
        assert!(load::<After>(text).resolved.contains("weight = 1.0"));
        assert_eq!(minimal::<Before>(text), "at[0].tap = \"c5\"\nsteps = 3\n");
        assert_eq!(minimal::<After>(text), minimal::<Before>(text));
        let said = text.replace("tap = \"c5\"", "tap = \"c5\", weight = 1.0");
        assert_eq!(minimal::<After>(&format!("clip = 1\n{said}")), minimal::<Before>(text));
        assert_ne!(minimal::<After>(&format!("clip = 2\n{text}")), minimal::<Before>(text));
    }

    #[test]
    fn every_value_that_is_not_a_default_is_in_the_shortest_form_and_the_order_of_the_file_is_not() {
        let before = minimal::<Sample>(GOOD);
        assert!(before.contains("teachers.\"my big\".pspnet.width = 16\n"), "{before}");
        assert!(!before.contains("buffers") && !before.contains("log_every_steps"), "{before}");
        for (old, new) in [("steps = 40", "steps = 41"), ("average", "copy"), ("\"labelled\"", ""), ("c4", "c5")] {
            assert_ne!(minimal::<Sample>(&GOOD.replace(old, new)), before, "{new}");
        }
        let turned = GOOD.replace("steps = 40\nclasses = 3", "classes = 3\nsteps = 40\nlog_every_steps = 10");
        assert_eq!(minimal::<Sample>(&turned), before);
    }

    #[test]
    fn a_text_from_before_a_key_with_a_default_came_differs_in_nothing_from_now() {
        let text = "steps = 3\nat = [{ tap = \"c5\" }]\n";
        let before = load::<Before>(text).resolved;
        let differences = |now: &str| load::<After>(now).differences(&before, Path::new("run/recipe.toml"));
        assert_eq!(differences(text).unwrap(), []);
        let lines: Vec<String> =
            differences(&format!("clip = 2\n{text}")).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["`clip` was 1.0, is 2.0"]);
        let gone = load::<After>(text).differences("stepz = 3\n", Path::new("run/recipe.toml")).unwrap_err();
        assert!(gone.to_string().starts_with("run/recipe.toml:1:1: "), "{gone}");
    }
}
