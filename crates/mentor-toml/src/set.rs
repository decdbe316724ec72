//! Changes to a file from the command line or from a row of a study: `--set key=value` and `--unset key`.

use toml::de::DeValue;

use crate::problem::{Problem, nearest};
use crate::tree::{At, Document, Entry, Node, Value, show_key};

/// No key is nested this deeply; the limit keeps recursion over the tree bounded.
const MAX_DEPTH: usize = 32;

/// What varies a file. Everything under `unset` is taken away first, then `set` is applied in its order; the last one
/// of two that set the same key wins.
///
/// - `set`: `distill.pair_wise.weight=0.3`. The key is dotted, with quoted segments where TOML asks for quotes and a
///   number for an item of an array (`distill.pair_wise.at.0.weight`); missing tables are made. The value is TOML, arrays
///   and inline tables included; text that is not TOML and opens no bracket or quote is taken as a string
///   (`data.card=camvid`).
/// - `unset`: `distill.holistic`, a key or a table that the file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys to take away.
    pub unset: Vec<String>,
    /// `key=value` assignments.
    pub set: Vec<String>,
}

impl Changes {
    /// No changes at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Assignments only.
    pub fn set<S: Into<String>>(assignments: impl IntoIterator<Item = S>) -> Self {
        Self { unset: Vec::new(), set: assignments.into_iter().map(Into::into).collect() }
    }
}

/// Applies the changes to the document; a mistake names its argument and leaves the document as it was.
pub(crate) fn apply(document: &mut Document, changes: &Changes) -> Vec<Problem> {
    let mut problems = Vec::new();
    for key in &changes.unset {
        document.arguments.push(format!("--unset {key}"));
        let outcome = parse_key(key).and_then(|keys| take(&mut document.root, &keys));
        report(document, key, outcome, &mut problems);
    }
    for assignment in &changes.set {
        document.arguments.push(format!("--set {assignment}"));
        let at = At::Argument(document.arguments.len() - 1);
        let (key, value) = split(assignment);
        let outcome = match value {
            None => Err(("expected key=value".to_string(), None)),
            Some(value) => parse_key(key).and_then(|keys| {
                let node = parse_value(value, at)?;
                put(&mut document.root, &keys, 0, node)
            }),
        };
        report(document, key, outcome, &mut problems);
    }
    problems
}

/// A message and a hint.
pub(crate) type Mistake = (String, Option<String>);

fn report(document: &Document, key: &str, outcome: Result<(), Mistake>, problems: &mut Vec<Problem>) {
    if let Err((message, hint)) = outcome {
        let origin = document.origin(At::Argument(document.arguments.len() - 1));
        problems.push(Problem { origin, key: key.trim().to_string(), message, hint });
    }
}

/// Splits at the first `=` that is not inside quotes.
fn split(assignment: &str) -> (&str, Option<&str>) {
    let mut quote = None;
    let mut escaped = false;
    for (index, letter) in assignment.char_indices() {
        match (quote, letter) {
            (None, '=') => return (&assignment[..index], Some(assignment[index + 1..].trim())),
            (None, '"' | '\'') => quote = Some(letter),
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), _) if open == letter && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
    }
    (assignment, None)
}

/// Reads a dotted key as TOML does; an error is a message and a hint.
///
/// # Errors
/// If it is no dotted key, or too deep.
pub fn parse_key(text: &str) -> Result<Vec<String>, Mistake> {
    match toml_edit::Key::parse(text.trim()) {
        Ok(keys) if keys.len() > MAX_DEPTH => Err((format!("the key has more than {MAX_DEPTH} parts"), None)),
        Ok(keys) => Ok(keys.iter().map(|key| key.get().to_string()).collect()),
        Err(_) => Err((
            format!("`{}` is not a dotted key", text.trim()),
            Some("expected a form such as distill.pair_wise.weight".to_string()),
        )),
    }
}

fn parse_value(text: &str, at: At) -> Result<Node, Mistake> {
    if text.is_empty() {
        return Err(("no value after `=`".to_string(), Some("an empty string is written \"\"".to_string())));
    }
    match DeValue::parse(text) {
        Ok(value) => {
            let mut problems = Vec::new();
            let node = Node::from_toml(&value, &|_| at, &mut problems);
            problems.into_iter().next().map_or(Ok(node), |(_, message)| Err((message, None)))
        }
        Err(error) if text.starts_with(['"', '\'', '[', '{']) => {
            Err((format!("the value is not TOML: {}", error.message().trim_end_matches(", expected nothing")), None))
        }
        Err(_) => Ok(Node { value: Value::String(text.to_string()), at }),
    }
}

/// Puts `value` at `keys[depth..]`, making tables on the way.
fn put(node: &mut Node, keys: &[String], depth: usize, value: Node) -> Result<(), Mistake> {
    let Some(key) = keys.get(depth) else {
        *node = value;
        return Ok(());
    };
    let parent = show_keys(&keys[..depth]);
    let found = node.describe();
    match &mut node.value {
        Value::Table(entries) => {
            let place = match entries.iter().position(|entry| entry.key == *key) {
                Some(place) => place,
                None => {
                    let table = Node { value: Value::Table(Vec::new()), at: value.at };
                    entries.push(Entry { key: key.clone(), key_at: value.at, node: table });
                    entries.len() - 1
                }
            };
            let entry = &mut entries[place];
            if depth + 1 == keys.len() {
                entry.key_at = value.at;
            }
            put(&mut entry.node, keys, depth + 1, value)
        }
        Value::Array(items) => {
            let count = items.len();
            match key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                Some(item) => put(item, keys, depth + 1, value),
                None => {
                    Err((format!("`{parent}` has no item `{key}`; it is an array of {count}, counted from 0"), None))
                }
            }
        }
        _ => Err((format!("`{parent}` is {found}, not a table: it has no key `{key}`"), None)),
    }
}

/// Takes the key away; it must be there.
fn take(node: &mut Node, keys: &[String]) -> Result<(), Mistake> {
    let mut node = node;
    for (depth, key) in keys.iter().enumerate() {
        let absent = || format!("nothing to take away: there is no `{}`", show_keys(&keys[..=depth]));
        let Value::Table(entries) = &mut node.value else { return Err((absent(), None)) };
        let Some(place) = entries.iter().position(|entry| entry.key == *key) else {
            let guess = nearest(key, entries.iter().map(|entry| entry.key.as_str()));
            return Err((absent(), guess.map(|guess| format!("did you mean `{guess}`?"))));
        };
        if depth + 1 == keys.len() {
            entries.remove(place);
            return Ok(());
        }
        node = &mut entries[place].node;
    }
    Ok(())
}

fn show_keys(keys: &[String]) -> String {
    keys.iter().map(|key| show_key(key)).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    const TEXT: &str = "seed = 1\n[distill.pair_wise]\nweight = 0.5\nat = [{ weight = 1.0 }]\n";

    fn changed(unset: &[&str], set: &[&str]) -> (String, String) {
        let mut document = Document::parse(TEXT, Path::new("a.toml")).unwrap();
        let own = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        let problems = apply(&mut document, &Changes { unset: own(unset), set: own(set) });
        let value: serde_json::Value = crate::de::from_node(&document.root).unwrap();
        (value.to_string(), crate::problem::Problems::new(problems).to_string())
    }

    #[test]
    fn a_value_is_toml_and_a_bare_word_is_a_string() {
        let (value, problems) = changed(
            &["distill"],
            &["seed=2", "a.b = [1, 2]", "c={ d = true }", "e=runs/one.safetensors", "\"x=y\".'z.z'=\"=\"", "f=0.3.4"],
        );
        assert_eq!(problems, "");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&value).unwrap(),
            serde_json::json!({
                "seed": 2, "a": { "b": [1, 2] }, "c": { "d": true }, "e": "runs/one.safetensors",
                "x=y": { "z.z": "=" }, "f": "0.3.4"
            })
        );
    }

    #[test]
    fn an_item_of_an_array_is_reached_by_its_number_and_the_last_of_two_wins() {
        let (value, problems) = changed(&[], &["distill.pair_wise.at.0.weight=2", "seed=5", "seed=6"]);
        assert_eq!(problems, "");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&value).unwrap(),
            serde_json::json!({ "seed": 6, "distill": { "pair_wise": { "weight": 0.5, "at": [{ "weight": 2 }] } } })
        );
    }

    #[test]
    fn every_mistake_names_its_argument() {
        assert_ne!(changed(&[], &[&format!("{}=1", vec!["a"; 40_000].join("."))]).1, "");
        let deep = format!("{}=1", vec!["a"; 40].join("."));
        assert!(changed(&[], &[&deep]).1.ends_with("=1: the key has more than 32 parts"));
        let (value, problems) = changed(
            &["distill.pair_wis", "seed.x"],
            &[
                "seed",
                "a..b=1",
                "seed.x=1",
                "distill.pair_wise.at.3=1",
                "seed=",
                "seed=[1",
                "seed=99999999999999999999",
            ],
        );
        assert_eq!(value, changed(&[], &[]).0);
        assert_eq!(
            problems,
            "--unset distill.pair_wis: nothing to take away: there is no `distill.pair_wis`; did you mean `pair_wise`?\n\
             --unset seed.x: nothing to take away: there is no `seed.x`\n\
             --set seed: expected key=value\n\
             --set a..b=1: `a..b` is not a dotted key; expected a form such as distill.pair_wise.weight\n\
             --set seed.x=1: `seed` is the integer 1, not a table: it has no key `x`\n\
             --set distill.pair_wise.at.3=1: `distill.pair_wise.at` has no item `3`; it is an array of 1, counted from 0\n\
             --set seed=: no value after `=`; an empty string is written \"\"\n\
             --set seed=[1: the value is not TOML: unclosed array, expected `]`\n\
             --set seed=99999999999999999999: the integer 99999999999999999999 does not fit into 64 bits"
        );
    }
}
