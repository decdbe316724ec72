//! JSON as many tools write it: ids and numbers may be texts, and what is wrong has a line and a column.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::DataError;
use crate::files::ask;

/// An id: a whole number, or a text. A text that is a whole number as one writes it is that number: `"7"` is 7, `"007"` is a
/// text. Numbers come before texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CocoId {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl Display for CocoId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for CocoId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Id;
        impl Visitor<'_> for Id {
            type Value = CocoId;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a whole number or a text")
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<CocoId, E> {
                Ok(CocoId::Number(id))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<CocoId, E> {
                i64::try_from(id).map(CocoId::Number).or_else(|_| Ok(CocoId::Text(id.to_string())))
            }

            fn visit_f64<E: Error>(self, id: f64) -> Result<CocoId, E> {
                // Up to here floats tell whole numbers apart.
                if id.fract() == 0.0 && id.abs() <= 9_007_199_254_740_992.0 {
                    Ok(CocoId::Number(id as i64))
                } else {
                    Err(E::custom(format!("{id} is no id, which is a whole number or a text")))
                }
            }

            fn visit_str<E: Error>(self, id: &str) -> Result<CocoId, E> {
                let number = id.parse().ok().filter(|number: &i64| number.to_string() == id);
                Ok(number.map_or_else(|| CocoId::Text(id.to_owned()), CocoId::Number))
            }
        }
        deserializer.deserialize_any(Id)
    }
}

/// A number, or a text that is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNumber { takes_marks: false }).map(Self)
    }
}

/// A number, a text that is one, or `true` and `false` for 1 and 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MarkedNumber(pub f64);

impl<'de> Deserialize<'de> for MarkedNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNumber { takes_marks: true }).map(Self)
    }
}

struct AnyNumber {
    takes_marks: bool,
}

impl Visitor<'_> for AnyNumber {
    type Value = f64;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_bool<E: Error>(self, mark: bool) -> Result<f64, E> {
        if self.takes_marks {
            Ok(f64::from(u8::from(mark)))
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Bool(mark), &self))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        text.trim().parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// Reads a file of JSON; `expected` says what it should hold.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T, DataError> {
    let wrong = |message: String| DataError::Boxes { path: path.to_owned(), message };
    if ask(path, || std::fs::metadata(path))?.is_dir() {
        return Err(wrong(format!("is a folder, expected a file of JSON: {expected}")));
    }
    let bytes = ask(path, || std::fs::read(path))?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    match (first, expected.contains("list")) {
        (None, _) => return Err(wrong("is empty".to_owned())),
        (Some(b'{'), true) => return Err(wrong(format!("holds one object, expected {expected}"))),
        (Some(b'['), false) => return Err(wrong(format!("holds a list, expected {expected}"))),
        _ => {}
    }
    serde_json::from_slice(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        // Its place stands before it, as in every error of ours.
        let said = error.to_string();
        let message = said.split(" at line ").next().unwrap_or(&said).to_owned();
        let message = if error.is_syntax() && is_no_number(text, line, column) {
            "NaN and Infinity are no numbers of JSON".to_owned()
        } else {
            message
        };
        DataError::Json { path: path.to_owned(), line, column, message }
    })
}

/// Whether one of the words stands at a place, with which other tools write what is no number.
fn is_no_number(text: &[u8], line: usize, column: usize) -> bool {
    let Some(line) = text.split(|byte| *byte == b'\n').nth(line.saturating_sub(1)) else { return false };
    (column.saturating_sub(2)..=column).any(|at| {
        let rest = line.get(at..).unwrap_or_default();
        [b"NaN".as_slice(), b"Infinity", b"-Infinity"].iter().any(|word| rest.starts_with(word))
    })
}
