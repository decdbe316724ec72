//! What was wrong with a file or an argument, where, and what would be right.
//!
//! One [`Problem`] is one line of text; a [`Problems`] is everything that was found in one go, in the order of the file.

use std::fmt;
use std::path::PathBuf;

/// The place that a problem was found at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file as a whole: it is absent, empty, a directory.
    Path(PathBuf),
    /// A place in a file.
    File {
        /// The path as the user gave it.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
    },
    /// A command-line argument, in full: `--set optimizer.sgd.lr=fast`.
    Argument(String),
}

impl Origin {
    /// Files come before arguments, and a file is sorted by line and column.
    fn rank(&self) -> (u8, usize, usize) {
        match self {
            Origin::Path(_) => (0, 0, 0),
            Origin::File { line, column, .. } => (1, *line, *column),
            Origin::Argument(_) => (2, 0, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Path(path) => write!(formatter, "{}", path.display()),
            Origin::File { path, line, column } => write!(formatter, "{}:{line}:{column}", path.display()),
            Origin::Argument(argument) => write!(formatter, "{argument}"),
        }
    }
}

/// One mistake: where, what was found, and, where it is known, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was found.
    pub origin: Origin,
    /// The dotted key that it is about, such as `distill.pair_wise.at[0].student`; empty for the file as a whole.
    pub key: String,
    /// What was found and what was expected; names the key.
    pub message: String,
    /// The nearest valid name, or what to write instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(origin: Origin, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin, key: key.into(), message: message.into(), hint: None }
    }
}

impl fmt::Display for Problem {
    /// One line, whatever was in the file: a control character is shown by its escape.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}: {}", self.origin, self.message);
        if let Some(hint) = &self.hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        for letter in text.chars() {
            if letter.is_control() {
                write!(formatter, "{}", letter.escape_debug())?;
            } else {
                write!(formatter, "{letter}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Everything that was found wrong, sorted by position; printed one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts the problems: those of whole files, then by line and column, then those of arguments in their order.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.origin.rank());
        Self(problems)
    }

    /// The problems in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The valid name that was most likely meant by `found`, if one is near enough to be worth a guess.
///
/// Near is: few letters added, dropped, changed or swapped, or the same beginning (`temp` for `temperature`).
#[must_use]
pub fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let found = plain(found);
    let allowed = (found.chars().count() / 3).max(1);
    let mut best: Option<(f64, &str)> = None;
    for name in valid {
        let candidate = plain(name);
        let likeness = strsim::jaro_winkler(&found, &candidate);
        let abbreviates = found.len() >= 3 && candidate.starts_with(&found);
        let near = abbreviates || likeness >= 0.9 || strsim::damerau_levenshtein(&found, &candidate) <= allowed;
        if near && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name)
}

/// The most names that a message lists.
const MOST_LISTED: usize = 8;

/// The names of a list that are nearest to `found`, as many as a message can show, in the order of the list.
pub(crate) fn nearest_few<'a>(found: &str, valid: &[&'a str]) -> Vec<&'a str> {
    let mut places: Vec<usize> = (0..valid.len()).collect();
    places.sort_by(|one, other| {
        let likeness = |place: usize| strsim::jaro_winkler(&found.to_lowercase(), valid[place]);
        likeness(*other).total_cmp(&likeness(*one)).then(one.cmp(other))
    });
    places.truncate(MOST_LISTED);
    places.sort_unstable();
    places.into_iter().map(|place| valid[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Origin {
        Origin::File { path: "recipes/a.toml".into(), line, column }
    }

    #[test]
    fn a_problem_is_one_line() {
        let unknown = Problem::new(at(12, 3), "distill.layer_wise.temprature", "unknown key `temprature`");
        let problem = Problem { hint: Some("did you mean `temperature`?".to_owned()), ..unknown };
        assert_eq!(problem.to_string(), "recipes/a.toml:12:3: unknown key `temprature`; did you mean `temperature`?");
    }

    #[test]
    fn a_newline_in_a_name_does_not_break_the_line() {
        let problem = Problem::new(Origin::Argument("--set a\nb=1".into()), "", "`a\nb` \u{1b}[31m");
        assert_eq!(problem.to_string(), r"--set a\nb=1: `a\nb` \u{1b}[31m");
    }

    #[test]
    fn problems_are_sorted_by_position_and_arguments_come_last_in_their_order() {
        let problems = Problems::new(vec![
            Problem::new(Origin::Argument("--set b=1".into()), "b", "second"),
            Problem::new(Origin::Argument("--set a=1".into()), "a", "third"),
            Problem::new(at(10, 1), "c", "late"),
            Problem::new(at(2, 9), "d", "early"),
            Problem::new(at(2, 1), "e", "first"),
        ]);
        assert_eq!(
            problems.to_string(),
            "recipes/a.toml:2:1: first\nrecipes/a.toml:2:9: early\nrecipes/a.toml:10:1: late\n\
             --set b=1: second\n--set a=1: third"
        );
    }

    #[test]
    fn the_nearest_name_is_guessed_only_when_it_is_near() {
        let names = ["weight", "temperature", "at", "on"];
        assert_eq!(nearest("temprature", names), Some("temperature"));
        assert_eq!(nearest("wieght", names), Some("weight"));
        assert_eq!(nearest("temp", names), Some("temperature"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("layer-wise", ["pair_wise", "layer_wise"]), Some("layer_wise"));
    }
}
