//! Keys of earlier versions: a file that still has one is told where it is now.

use crate::problem::Problem;
use crate::tree::{Document, Node, Step, Value, parse_path, show_path};

/// A key that an earlier version had.
///
/// Both are dotted keys. A `*` stands for any name (`terms.*.streams`), and the one in `to` for what it stood for in
/// `from`. A table moves with all that is in it; several may move into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The key as it was.
    pub from: &'static str,
    /// The key as it is; `None` where there is nothing to write any more.
    pub to: Option<&'static str>,
}

impl Moved {
    /// A key that is another one now.
    #[must_use]
    pub const fn to(from: &'static str, to: &'static str) -> Self {
        Self { from, to: Some(to) }
    }

    /// A key that is no more.
    #[must_use]
    pub const fn gone(from: &'static str) -> Self {
        Self { from, to: None }
    }
}

/// Moves every key to where it is now, so that what it says can be checked there, and says so. Where both keys are
/// written the new one counts.
pub(crate) fn follow(document: &mut Document, table: &[Moved]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for moved in table {
        for (path, names) in matches(&document.root, &parse_path(moved.from)) {
            let Some(entry) = document.root.take(&path) else { continue };
            let origin = document.origin(entry.key_at);
            let key = show_path(&path);
            let Some(to) = moved.to else {
                problems.push(Problem::new(origin, key.clone(), format!("`{key}` is no key any more: remove it")));
                continue;
            };
            let mut names = names.into_iter();
            let fill = |step: Step| if is_wildcard(&step) { names.next().unwrap_or(step) } else { step };
            let to: Vec<Step> = parse_path(to).into_iter().map(fill).collect();
            let message = format!("`{key}` has moved: write `{}`", show_path(&to));
            problems.push(Problem::new(origin, key, message));
            document.root.put(&to, entry);
        }
    }
    problems
}

fn is_wildcard(step: &Step) -> bool {
    matches!(step, Step::Key(key) if key == "*")
}

/// The paths that a pattern fits, each with what its wildcards stand for.
fn matches(node: &Node, pattern: &[Step]) -> Vec<(Vec<Step>, Vec<Step>)> {
    let Some((first, rest)) = pattern.split_first() else { return vec![(Vec::new(), Vec::new())] };
    let steps: Vec<Step> = match &node.value {
        Value::Table(entries) => entries.iter().map(|entry| Step::Key(entry.key.clone())).collect(),
        Value::Array(items) => (0..items.len()).map(Step::Index).collect(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for step in steps.into_iter().filter(|step| step == first || is_wildcard(first)) {
        let Some(child) = node.get(std::slice::from_ref(&step)) else { continue };
        for (mut path, mut names) in matches(child, rest) {
            path.insert(0, step.clone());
            if is_wildcard(first) {
                names.insert(0, step.clone());
            }
            found.push((path, names));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::read::{Draft, TomlFile, parse};
    use crate::set::Changes;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Now {
        net: Net,
        #[serde(default)]
        terms: std::collections::BTreeMap<String, Term>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Net {
        width: u8,
        file: Option<String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Term {
        #[serde(default)]
        on: Vec<String>,
    }

    impl TomlFile for Now {
        const MOVED: &'static [Moved] = &[
            Moved::gone("kind"),
            Moved::to("file", "net.file"),
            Moved::to("model", "net"),
            Moved::to("terms.*.streams", "terms.*.on"),
        ];

        fn check(&self, problems: &mut Vec<(String, String)>) {
            if self.net.width == 0 {
                problems.push(("net.width".into(), "must be at least 1, found 0".into()));
            }
        }
    }

    fn problems(text: &str, set: &[&str]) -> Vec<String> {
        let changes = Changes::set(set.iter().copied());
        let problems = parse::<Now>(text, Path::new("a.toml"), &changes).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    const OLD: &str =
        "kind = 1\nfile = \"a\"\n[model]\nwidth = 3\n[terms.one]\nstreams = [\"x\"]\n[terms.two]\non = []\n";

    #[test]
    fn a_key_that_has_moved_is_told_its_new_name_at_its_place() {
        assert_eq!(
            problems(OLD, &["terms.three.streams=[]"]),
            [
                "a.toml:1:1: `kind` is no key any more: remove it",
                "a.toml:2:1: `file` has moved: write `net.file`",
                "a.toml:3:2: `model` has moved: write `net`",
                "a.toml:6:1: `terms.one.streams` has moved: write `terms.one.on`",
                "--set terms.three.streams=[]: `terms.three.streams` has moved: write `terms.three.on`",
            ]
        );
    }

    #[test]
    fn what_a_moved_key_says_is_checked_where_it_is_now() {
        let text = OLD.replace("width = 3", "width = 0").replace("[\"x\"]", "[7]").replace("kind = 1\n", "");
        assert_eq!(
            problems(&text, &[])[2..],
            [
                "a.toml:3:1: `net.width`: must be at least 1, found 0",
                "a.toml:5:1: `terms.one.streams` has moved: write `terms.one.on`",
                "a.toml:5:12: `terms.one.on[0]`: expected a string, found the integer 7",
            ]
        );
        assert_eq!(problems("[model]\nwith = 1\n", &[]).len(), 2);
        let both = problems("file = 1\nnet = { width = 1, file = \"b\" }\n", &[]);
        assert_eq!(both, ["a.toml:1:1: `file` has moved: write `net.file`"]);
    }

    #[test]
    fn a_file_that_an_earlier_version_wrote_is_read_with_its_keys_where_they_are_now() {
        let draft = Draft::parse(OLD, Path::new("a.toml"), &Changes::none()).unwrap();
        let loaded = draft.read_earlier::<Now>().unwrap();
        assert_eq!(loaded.value.net, Net { width: 3, file: Some("a".into()) });
        assert_eq!(loaded.value.terms["one"].on, ["x"]);
        let now = parse::<Now>(&loaded.resolved, Path::new("b.toml"), &Changes::none()).unwrap();
        assert_eq!(now.differences(OLD, Path::new("a.toml")).unwrap(), []);
    }
}
