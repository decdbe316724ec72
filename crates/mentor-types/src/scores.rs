//! Scores: how well a model did, whatever its task.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a task measures of a model.
pub trait Scores {
    /// What the scores are called.
    const NAMES: ScoreNames;

    /// The score that models are judged by, in `[0, 1]`; larger is better.
    fn main(&self) -> f64;

    /// What the main score is made of, where it is the mean, over columns, of a ratio of sums over images: numerator and
    /// denominator of each column. A column whose denominators are all 0 is left out of the mean. Default: it is no such
    /// mean.
    fn shares(&self) -> Vec<[u64; 2]> {
        Vec::new()
    }

    /// All numbers, as logs and results keep them.
    fn record(&self, classes: &[String]) -> ScoreRecord;
}

/// What the scores of a task are called, in files and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScoreNames {
    /// Key and printed name of the score that models are judged by.
    pub main: [&'static str; 2],
    /// Every score, in the order shown; each a share in `[0, 1]`.
    pub rows: &'static [ScoreRow],
    /// The score of each single class.
    pub by_class: ClassScore,
    /// What is counted, in the plural.
    pub counted: &'static str,
    /// How a reader who never saw these scores reads them, in whole sentences.
    pub reading: &'static str,
}

/// One score of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreRow {
    /// Its key in a [`ScoreRecord`].
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

/// The score of each single class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassScore {
    /// The key of an object by class name in a [`ScoreRecord`].
    pub key: &'static str,
    /// What columns of single classes begin with, before a dot and the class.
    pub column: &'static str,
    /// Its name for people.
    pub name: &'static str,
}

/// The scores of one model as logs and results keep them: numbers by key, and objects of numbers by class. A score
/// that could not be computed is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScoreRecord(Map<String, Value>);

impl ScoreRecord {
    /// The score with a key, where there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.as_f64()
    }

    /// The score of one class, where there is one.
    #[must_use]
    pub fn of_class(&self, score: ClassScore, class: &str) -> Option<f64> {
        self.0.get(score.key)?.get(class)?.as_f64()
    }

    /// Every score that has a value, without those of single classes.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_f64()?)))
    }

    /// Every number in one flat list, the score of a class as `column.CLASS`.
    pub fn flat(&self, score: ClassScore) -> impl Iterator<Item = (String, f64)> {
        let numbers = self.numbers().map(|(key, value)| (key.to_owned(), value));
        let classes = self.0.get(score.key).and_then(Value::as_object).into_iter().flatten();
        let named = move |class: &str| format!("{}.{class}", score.column);
        numbers.chain(classes.filter_map(move |(class, value)| Some((named(class), value.as_f64()?))))
    }
}

impl<K: Into<String>> FromIterator<(K, Value)> for ScoreRecord {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(numbers: I) -> Self {
        Self(numbers.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BY_CLASS: ClassScore = ClassScore { key: "per_class", column: "ap", name: "AP" };

    #[test]
    fn a_record_is_read_back_and_what_it_lacks_is_no_zero() {
        let text = r#"{"ap":0.25,"recall":null,"per_class":{"car":0.5,"bus":null}}"#;
        let record: ScoreRecord = serde_json::from_str(text).unwrap();
        assert_eq!([record.get("ap"), record.get("recall"), record.get("miou")], [Some(0.25), None, None]);
        let of = |class| record.of_class(BY_CLASS, class);
        assert_eq!([of("car"), of("bus"), of("tram")], [Some(0.5), None, None]);
        let flat: Vec<(String, f64)> = record.flat(BY_CLASS).collect();
        assert_eq!(flat, [("ap".to_owned(), 0.25), ("ap.car".to_owned(), 0.5)]);
        let again: ScoreRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
        assert!(serde_json::from_str::<ScoreRecord>("3").is_err());
    }
}
