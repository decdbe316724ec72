//! A TOML document in which every key and value knows where it came from: a byte of the file or an argument.
//!
//! The file and the `--set` arguments become one tree, so that whoever reads the tree (the walk against the schema,
//! serde, the range checks) can say where a value was written without asking which of the two it was.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Origin, Problem};

/// Where a key or a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A byte of the text.
    Byte(usize),
    /// An argument, by its index in [`Document::arguments`].
    Argument(usize),
}

/// A value and where it was written; for a table with a header, where the header is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: At,
}

/// A TOML value. Tables keep the order of the file.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) node: Node,
}

impl Node {
    /// What was found, in words: `the string "abc"`, `a table`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::String(text) if text.chars().count() > 40 => "a long string".to_string(),
            Value::String(text) => format!("the string {text:?}"),
            Value::Integer(number) => format!("the integer {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::Boolean(value) => value.to_string(),
            Value::Datetime(text) => format!("the date {text}"),
            Value::Array(items) => format!("an array of {}", items.len()),
            Value::Table(_) => "a table".to_string(),
        }
    }

    /// Whether this is a table or an array with a table somewhere in it.
    pub(crate) fn holds_table(&self) -> bool {
        match &self.value {
            Value::Table(_) => true,
            Value::Array(items) => items.iter().any(Node::holds_table),
            _ => false,
        }
    }

    /// The node at `path`.
    pub(crate) fn get(&self, path: &[Step]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match (step, &node.value) {
            (Step::Key(key), Value::Table(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.node)
            }
            (Step::Index(index), Value::Array(items)) => items.get(*index),
            _ => None,
        })
    }

    /// Takes the key at the end of `path` away, if it is there.
    pub(crate) fn take(&mut self, path: &[Step]) -> Option<Entry> {
        match (path, &mut self.value) {
            ([Step::Key(key)], Value::Table(entries)) => {
                let place = entries.iter().position(|entry| entry.key == *key)?;
                Some(entries.remove(place))
            }
            ([Step::Key(key), rest @ ..], Value::Table(entries)) => {
                entries.iter_mut().find(|entry| entry.key == *key)?.node.take(rest)
            }
            ([Step::Index(index), rest @ ..], Value::Array(items)) => items.get_mut(*index)?.take(rest),
            _ => None,
        }
    }

    /// Puts what a taken key held at `path`, making tables on the way. What is there already stays; a table takes in the
    /// keys that it does not have.
    pub(crate) fn put(&mut self, path: &[Step], taken: Entry) {
        match (path, &mut self.value) {
            ([], Value::Table(entries)) => {
                let Value::Table(others) = taken.node.value else { return };
                for other in others {
                    if !entries.iter().any(|entry| entry.key == other.key) {
                        entries.push(other);
                    }
                }
            }
            ([Step::Key(key), rest @ ..], Value::Table(entries)) => {
                if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                    return entry.node.put(rest, taken);
                }
                let key_at = taken.key_at;
                let node = if rest.is_empty() {
                    taken.node
                } else {
                    let mut table = Node { value: Value::Table(Vec::new()), at: taken.node.at };
                    table.put(rest, taken);
                    table
                };
                entries.push(Entry { key: key.clone(), key_at, node });
            }
            ([Step::Index(index), rest @ ..], Value::Array(items)) => {
                if let Some(item) = items.get_mut(*index) {
                    item.put(rest, taken);
                }
            }
            _ => {}
        }
    }

    /// Converts a parsed value; a number that is too large is pushed to `problems` as (place, message) and becomes 0.
    pub(crate) fn from_toml(
        value: &Spanned<DeValue<'_>>,
        place: &dyn Fn(usize) -> At,
        problems: &mut Vec<(At, String)>,
    ) -> Self {
        let at = place(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
            DeValue::Integer(integer) => {
                Value::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or_else(|_| {
                    problems.push((at, format!("the integer {integer} does not fit into 64 bits")));
                    0
                }))
            }
            DeValue::Float(float) => {
                let number: f64 = float.as_str().parse().unwrap_or(f64::INFINITY);
                if number.is_infinite() && !float.as_str().contains("inf") {
                    problems.push((at, format!("the number {float} is too large")));
                }
                Value::Float(number)
            }
            DeValue::Array(items) => {
                Value::Array(items.iter().map(|item| Node::from_toml(item, place, problems)).collect())
            }
            DeValue::Table(table) => Value::Table(entries(table, place, problems)),
        };
        Self { value, at }
    }
}

/// The entries of a table in the order in which their keys were first written.
fn entries(table: &DeTable<'_>, place: &dyn Fn(usize) -> At, problems: &mut Vec<(At, String)>) -> Vec<Entry> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
        .into_iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_at: place(key.span().start),
            node: Node::from_toml(value, place, problems),
        })
        .collect()
}

/// One step of a key path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A key as it is written in a dotted key: bare where TOML allows it, else quoted.
#[must_use]
pub fn show_key(key: &str) -> String {
    let bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_string() } else { format!("{key:?}") }
}

/// A path as a dotted key: `distill.pair_wise.at[0].student`.
pub(crate) fn show_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&show_key(key));
            }
        }
    }
    text
}

/// Reads a dotted key as [`show_path`] writes it. It takes any text: what is malformed is taken as a plain key.
pub(crate) fn parse_path(text: &str) -> Vec<Step> {
    let mut path = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '.' => {}
            '[' => {
                let digits: String = letters.by_ref().take_while(|letter| *letter != ']').collect();
                path.push(digits.parse().map_or_else(|_| Step::Key(digits.clone()), Step::Index));
            }
            '"' => {
                let mut key = String::new();
                while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                    key.extend(if letter == '\\' { letters.next() } else { Some(letter) });
                }
                path.push(Step::Key(key));
            }
            _ => {
                let mut key = String::from(letter);
                while let Some(letter) = letters.next_if(|letter| *letter != '.' && *letter != '[') {
                    key.push(letter);
                }
                path.push(Step::Key(key));
            }
        }
    }
    path
}

/// A document: the file's text, the arguments that changed it, and the tree that they make together.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    /// The text without a byte-order mark, which no position counts.
    pub(crate) text: String,
    /// Arguments in full, `--set a.b=1`.
    pub(crate) arguments: Vec<String>,
    pub(crate) root: Node,
    /// The byte that each line begins at.
    line_starts: Vec<usize>,
}

impl Document {
    /// Parses the text; gives the problems where it is not TOML.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Vec<Problem>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = Node { value: Value::Table(Vec::new()), at: At::Byte(0) };
        let line_starts = [0].into_iter().chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        let (path_buf, text_buf) = (path.to_path_buf(), text.to_string());
        let mut document = Self { path: path_buf, text: text_buf, arguments: Vec::new(), root, line_starts };
        if text.trim().is_empty() {
            return Err(vec![Problem::new(Origin::Path(path.to_path_buf()), "", "the file is empty, expected TOML")]);
        }
        let table = DeTable::parse(text).map_err(|error| vec![document.syntax_problem(&error)])?;
        let mut problems = Vec::new();
        document.root.value = Value::Table(entries(table.get_ref(), &At::Byte, &mut problems));
        if problems.is_empty() {
            return Ok(document);
        }
        Err(problems.into_iter().map(|(at, message)| Problem::new(document.origin(at), "", message)).collect())
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let span = error.span().unwrap_or(0..0);
        let mut message = format!("TOML syntax: {}", error.message().trim_end_matches(", expected nothing"));
        if error.message() == "duplicate key" {
            message.push_str(&format!(" `{}`", self.text.get(span.clone()).unwrap_or_default()));
        }
        Problem::new(self.origin(At::Byte(span.start)), "", message)
    }

    /// The place in words that a reader can follow.
    pub(crate) fn origin(&self, at: At) -> Origin {
        match at {
            At::Argument(index) => Origin::Argument(self.arguments.get(index).cloned().unwrap_or_default()),
            At::Byte(byte) => {
                let line = self.line_starts.partition_point(|start| *start <= byte);
                let before = self.text.get(self.line_starts[line - 1]..byte).unwrap_or_default();
                Origin::File { path: self.path.clone(), line, column: before.chars().count() + 1 }
            }
        }
    }

    /// Where a key was written; for a key that was not, where its nearest existing parent was.
    pub(crate) fn locate(&self, path: &[Step]) -> At {
        let mut node = &self.root;
        let mut at = node.at;
        for step in path {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Table(entries)) => entries
                    .iter()
                    .find(|entry| entry.key == *key)
                    .map(|entry| (&entry.node, earlier(entry.key_at, entry.node.at))),
                (Step::Index(index), Value::Array(items)) => items.get(*index).map(|item| (item, item.at)),
                _ => None,
            };
            let Some((child, child_at)) = next else { return at };
            (node, at) = (child, child_at);
        }
        at
    }
}

/// A header `[a.b]` begins before its key, an inline value after it: the earlier of the two is where a reader looks.
fn earlier(key_at: At, node_at: At) -> At {
    match (key_at, node_at) {
        (At::Byte(key), At::Byte(node)) => At::Byte(key.min(node)),
        _ => key_at,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_is_read_back_as_it_was_written() {
        for text in ["seed", "distill.pair_wise.at[0].student", "teachers.\"big one\".pspnet", "rows[2].set.\"a.b\""] {
            assert_eq!(show_path(&parse_path(text)), text);
        }
        assert_eq!(parse_path("a[1]"), [Step::Key("a".into()), Step::Index(1)]);
        assert_eq!(parse_path(""), []);
    }

    #[test]
    fn columns_count_characters_and_lines_end_with_either_newline() {
        let document = Document::parse("a = \"ü\"\r\nb = { ü = 1 }", Path::new("x.toml"));
        assert_eq!(document.unwrap_err()[0].origin.to_string(), "x.toml:2:7");
        let document = Document::parse("a = 1\r\n\"üü\".c = 1\n", Path::new("x.toml")).unwrap();
        assert_eq!(document.origin(document.locate(&parse_path("üü.c"))).to_string(), "x.toml:2:6");
        assert_eq!(document.origin(At::Byte(999)).to_string(), "x.toml:3:1");
    }

    #[test]
    fn a_key_is_located_by_its_header_its_line_or_its_nearest_parent() {
        let document = Document::parse("a = 1\n[b.c]\nd = { e = 2 }\n", Path::new("x.toml")).unwrap();
        let at = |key: &str| document.origin(document.locate(&parse_path(key))).to_string();
        assert_eq!(at("a"), "x.toml:1:1");
        assert_eq!(at("b.c"), "x.toml:2:1");
        assert_eq!(at("b.c.d.e"), "x.toml:3:7");
        assert_eq!(at("b.c.missing.deeper"), "x.toml:2:1");
        assert_eq!(at("missing"), "x.toml:1:1");
        assert_eq!(at(""), "x.toml:1:1");
    }
}
