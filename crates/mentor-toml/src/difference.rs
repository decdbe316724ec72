//! What differs between two values, key by key: whether what was begun with one may go on with the other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::problem::Problems;
use crate::read::{Draft, Loaded, TomlFile};
use crate::set::Changes;
use crate::tree::{Document, Node, Step, Value, show_path};

/// A key that has another value in each of two values, or is in one of them only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key.
    pub key: String,
    /// The value before, as TOML; `None` if the key was not there.
    pub before: Option<String>,
    /// The value now, as TOML; `None` if the key is gone.
    pub now: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_string());
        write!(formatter, "`{}` was {}, is {}", self.key, shown(&self.before), shown(&self.now))
    }
}

impl<T: TomlFile> Loaded<T> {
    /// The keys in which this value differs from the one in `before`, a text from the file at `path`, sorted by key.
    ///
    /// The text is read as a `T` of today first, so that neither a key with a default that came since is a difference nor
    /// one that has moved.
    ///
    /// # Errors
    /// A text that is no `T` of today.
    pub fn differences(&self, before: &str, path: &Path) -> Result<Vec<Difference>, Problems> {
        let before: Loaded<T> = Draft::parse(before, path, &Changes::none())?.read_earlier()?;
        differences(&before.resolved, &self.resolved)
    }
}

/// The keys in which two texts of TOML differ, sorted by key.
fn differences(before: &str, now: &str) -> Result<Vec<Difference>, Problems> {
    let (before, now) = (leaves_of(before, "before")?, leaves_of(now, "now")?);
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let differ = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
    Ok(differ
        .map(|key| Difference { key: key.clone(), before: before.get(key).cloned(), now: now.get(key).cloned() })
        .collect())
}

fn leaves_of(text: &str, name: &str) -> Result<BTreeMap<String, String>, Problems> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(leaves(&Document::parse(text, Path::new(name)).map_err(Problems::new)?.root))
}

/// Every value below a node by its dotted key, as TOML.
pub(crate) fn leaves(node: &Node) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    collect(node, &mut Vec::new(), &mut leaves);
    leaves
}

fn collect(node: &Node, path: &mut Vec<Step>, leaves: &mut BTreeMap<String, String>) {
    let mut down = |step: Step, child: &Node| {
        path.push(step);
        collect(child, path, leaves);
        path.pop();
    };
    match &node.value {
        Value::Table(entries) if !entries.is_empty() => {
            entries.iter().for_each(|entry| down(Step::Key(entry.key.clone()), &entry.node));
        }
        // An array of plain values is one value; one with tables in it is compared item by item.
        Value::Array(items) if node.holds_table() => {
            items.iter().enumerate().for_each(|(index, item)| down(Step::Index(index), item));
        }
        _ => {
            leaves.insert(show_path(path), show(node));
        }
    }
}

fn show(node: &Node) -> String {
    match &node.value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::Datetime(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Table(_) => "{}".to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_key_that_changed_came_or_went_is_named() {
        let before = "seed = 0\nscale = [0.5, 2.0]\n[student.fcn]\nwidth = 16\n[[at]]\nweight = 1.0\n[a]\n";
        let now = "scale = [0.5, 1.0]\nseed = 0\n[student.pspnet]\nwidth = 16\n[[at]]\nweight = 0.5\n[a]\n";
        let lines: Vec<String> = differences(before, now).unwrap().iter().map(Difference::to_string).collect();
        assert_eq!(
            lines,
            [
                "`at[0].weight` was 1.0, is 0.5",
                "`scale` was [0.5, 2.0], is [0.5, 1.0]",
                "`student.fcn.width` was 16, is absent",
                "`student.pspnet.width` was absent, is 16",
            ]
        );
        assert_eq!(differences(before, before).unwrap(), []);
        assert_eq!(differences("a = ", "").unwrap_err().len(), 1);
    }
}
