//! What is wrong with single boxes of a file, so that a run can stop or go on without them.

use std::path::Path;

use super::json::Number;
use crate::error::DataError;

/// How many mistakes an error spells out.
const SHOWN: usize = 5;

/// One thing that is wrong with a box in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxMistake {
    /// What kind of thing.
    pub kind: BoxMistakeKind,
    /// Its line in the file, from 1, where the reader knows it.
    pub line: Option<usize>,
    /// Where it stands and what is wrong, in one line without the name of the file.
    pub message: String,
}

/// What is wrong with a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BoxMistakeKind {
    /// Its id is that of another.
    Id,
    /// It is of no image of the file.
    Image,
    /// It is of no category of the file, or its class has the name of one of the card but for capitals.
    Category,
    /// It is not four finite numbers.
    Numbers,
    /// Its width or height is negative.
    Reversed,
    /// Its width or height is 0.
    NoSize,
    /// No part of it lies in its image.
    Outside,
    /// A part of it, more than a pixel wide or high, lies outside of its image: it is kept.
    Leaves,
    /// The file names another image than the one that its path leads to: the path holds.
    FileName,
    /// Its class is none of the card's, which may name some of a file's alone; the message is the class.
    OtherClass,
    /// Its area is negative or not finite.
    Area,
    /// Nobody knows whether it is a crowd.
    Crowd,
}

impl BoxMistake {
    /// Whether a box is left out because something is wrong with it.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        !matches!(self.kind, BoxMistakeKind::Leaves | BoxMistakeKind::FileName | BoxMistakeKind::OtherClass)
    }

    /// A class of a file that is none of `classes`: wrong where one of these differs by capitals alone, which are other names.
    pub(crate) fn of_other_class(name: &str, classes: &[String]) -> (BoxMistakeKind, String) {
        let alike = classes.iter().find(|class| class.to_lowercase() == name.to_lowercase());
        match alike {
            Some(class) => {
                let message = format!("is no class of the card, but `{class}` is: change one of them, or name both");
                (BoxMistakeKind::Category, message)
            }
            None => (BoxMistakeKind::OtherClass, name.to_owned()),
        }
    }

    /// An error that names the first of the boxes that are left out and counts them, where there is one.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse(mistakes: &[Self], path: &Path) -> Result<(), DataError> {
        let dropped: Vec<&Self> = mistakes.iter().filter(|mistake| mistake.is_dropped()).collect();
        let Some((first, others)) = dropped.split_first() else { return Ok(()) };
        let mut message = first.message.clone();
        for other in others.iter().take(SHOWN - 1) {
            let line = other.line.map_or_else(String::new, |line| format!("line {line}: "));
            message += &format!("; {line}{}", other.message);
        }
        if dropped.len() > SHOWN {
            message += &format!("; and {} more", dropped.len() - SHOWN);
        }
        let path = path.to_owned();
        Err(match first.line {
            Some(line) => DataError::Line { path, line, message },
            None => DataError::Boxes { path, message },
        })
    }
}

/// The four numbers of a box: left, top, and a width and height that are not negative.
pub(super) fn check_extent(bbox: Option<&[Number]>) -> Result<[f64; 4], (BoxMistakeKind, String)> {
    let bbox = bbox.ok_or((BoxMistakeKind::Numbers, "has no bbox".to_owned()))?;
    let [left, top, width, height] = bbox else {
        return Err((BoxMistakeKind::Numbers, format!("bbox has {} numbers, expected 4", bbox.len())));
    };
    let extent = [left.0, top.0, width.0, height.0];
    let wrong = |kind, what: &str| Err((kind, format!("bbox {extent:?} {what}")));
    match extent {
        _ if !extent.iter().all(|number| number.is_finite()) => {
            wrong(BoxMistakeKind::Numbers, "is not four finite numbers")
        }
        [_, _, width, height] if width < 0.0 || height < 0.0 => {
            wrong(BoxMistakeKind::Reversed, "has a negative width or height, expected [left, top, width, height]")
        }
        _ => Ok(extent),
    }
}
