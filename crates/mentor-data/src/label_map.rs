//! From what a mask stores to what it means.

use mentor_types::{IGNORE, LabelMask, UNKNOWN};

use crate::card::{Card, LabelFormat, OtherValues};

/// The meaning of every value a mask can hold: a class, [`IGNORE`], [`UNKNOWN`], or nothing (an error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    format: LabelFormat,
    classes: usize,
    /// By raw value, for index masks.
    values: Vec<Option<u8>>,
    /// For colour masks.
    colours: Vec<([u8; 3], u8)>,
}

impl LabelMap {
    /// The map of a card.
    ///
    /// # Errors
    /// Where the card gives a value or a colour two meanings, or a class that it does not have.
    pub fn new(card: &Card) -> Result<Self, String> {
        let map = Self {
            format: card.labels.format,
            classes: card.classes.len(),
            values: index_values(card)?,
            colours: colours(card)?,
        };
        Ok(map)
    }

    /// How the masks are stored.
    #[must_use]
    pub fn format(&self) -> LabelFormat {
        self.format
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The raw value that index masks store for a label: what a written mask must hold to be read back.
    /// `None` for ignored or unknown pixels where the card has no value for them.
    #[must_use]
    pub fn raw_value(&self, label: u8) -> Option<u8> {
        (0..=255).find(|raw| self.values[usize::from(*raw)] == Some(label))
    }

    /// What stands for a label in masks, for people: its values, or its colour; nothing where nothing does.
    #[must_use]
    pub fn stored_as(&self, label: u8) -> String {
        let values = self.values.iter().enumerate().filter(|(_, meant)| **meant == Some(label));
        let values = values.map(|(value, _)| value.to_string());
        let colours = self.colours.iter().filter(|(_, meant)| *meant == label).map(|(colour, _)| format!("{colour:?}"));
        values.chain(colours).collect::<Vec<_>>().join(", ")
    }

    /// Labels of an index mask from its raw values in row order.
    ///
    /// # Errors
    /// On the first value without a meaning, with its pixel.
    pub fn index_mask(&self, width: usize, height: usize, raw: &[u8]) -> Result<LabelMask, String> {
        let mut labels = Vec::with_capacity(raw.len());
        for (place, value) in raw.iter().enumerate() {
            labels.push(self.values[usize::from(*value)].ok_or_else(|| {
                let (x, y) = (place % width, place / width);
                format!("value {value} at x = {x}, y = {y} is none of the {} classes and not ignored", self.classes)
            })?);
        }
        Ok(LabelMask::new(width, height, labels))
    }

    /// Labels of a colour mask from its bytes (red, green, blue) in row order.
    ///
    /// # Errors
    /// On the first colour without a meaning, with its pixel.
    pub fn colour_mask(&self, width: usize, height: usize, rgb: &[u8]) -> Result<LabelMask, String> {
        let mut labels = Vec::with_capacity(width * height);
        // Neighbours mostly share a colour, so the last answer is tried first.
        let mut last = None;
        for (place, pixel) in rgb.as_chunks::<3>().0.iter().enumerate() {
            let known = last.filter(|(colour, _)| colour == pixel);
            let found = known.or_else(|| self.colours.iter().find(|(colour, _)| colour == pixel).copied());
            let Some((_, label)) = found else {
                let (x, y) = (place % width, place / width);
                return Err(format!("colour {pixel:?} at x = {x}, y = {y} is no colour of the card's classes"));
            };
            last = found;
            labels.push(label);
        }
        Ok(LabelMask::new(width, height, labels))
    }
}

fn index_values(card: &Card) -> Result<Vec<Option<u8>>, String> {
    let (labels, classes) = (&card.labels, card.classes.len());
    if !labels.values.is_empty() && labels.offset != 0 {
        return Err("`offset` and `values` exclude each other".to_owned());
    }
    let mut table: Vec<Option<u8>> = vec![None; 256];
    let mut set = |value: u8, label: u8, what: &str| match table[usize::from(value)].replace(label) {
        Some(before) if before != label => Err(format!("value {value} is {what} and something else too")),
        _ => Ok(()),
    };
    for value in &labels.ignore {
        set(*value, IGNORE, "ignored")?;
    }
    for value in &labels.unknown {
        set(*value, UNKNOWN, "unknown")?;
    }
    for pair in &labels.values {
        if usize::from(pair.to) >= classes {
            return Err(format!("values: class {} of value {}, but there are {classes} classes", pair.to, pair.from));
        }
        set(pair.from, pair.to, "a class")?;
    }
    if labels.values.is_empty() && labels.format == LabelFormat::Index {
        for class in 0..classes {
            let value = i32::try_from(class).unwrap_or(i32::MAX) - labels.offset;
            let Ok(value) = u8::try_from(value) else {
                return Err(format!("offset: class {class} would have the value {value}, which no mask can hold"));
            };
            set(value, u8::try_from(class).unwrap_or(UNKNOWN), "a class")?;
        }
    }
    if labels.other_values == OtherValues::Ignore {
        table.iter_mut().for_each(|label| *label = label.or(Some(IGNORE)));
    }
    Ok(table)
}

fn colours(card: &Card) -> Result<Vec<([u8; 3], u8)>, String> {
    if card.labels.format != LabelFormat::Color {
        if card.labels.ignore_colors.is_empty() {
            return Ok(Vec::new());
        }
        return Err("`ignore_colors` has no effect with the format `index`".to_owned());
    }
    let labels = &card.labels;
    if !(labels.ignore.is_empty() && labels.unknown.is_empty() && labels.values.is_empty()) || labels.offset != 0 {
        return Err("`ignore`, `unknown`, `values` and `offset` have no effect with the format `color`".to_owned());
    }
    let classes = card.classes.iter().zip(0u8..).map(|(class, index)| (class.color, index));
    let mut map: Vec<([u8; 3], u8)> = Vec::new();
    for (colour, label) in classes.chain(labels.ignore_colors.iter().map(|colour| (*colour, IGNORE))) {
        if map.iter().any(|(known, _)| *known == colour) {
            return Err(format!("colour {colour:?} comes twice"));
        }
        map.push((colour, label));
    }
    Ok(map)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::{Path, PathBuf};

    pub(crate) fn card(labels: &str, classes: usize) -> Result<Card, crate::DataError> {
        let mut text = format!(
            "name = \"t\"\ntask = \"seg\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"fetch it\"\n\
             splits = {{ train = {{ list = \"train.txt\" }} }}\n[labels]\n{labels}\n"
        );
        for class in 0..classes {
            text += &format!("[[classes]]\nname = \"class_{class}\"\ncolor = [{class}, 10, 20]\n");
        }
        Card::parse(&text, Path::new("t/dataset.toml"), PathBuf::from("t"))
    }

    fn map(labels: &str, classes: usize) -> LabelMap {
        LabelMap::new(&card(labels, classes).unwrap()).unwrap()
    }

    #[test]
    fn an_offset_and_a_value_list_lead_to_classes() {
        let shifted = map("format = \"index\"\nignore = [0]\noffset = -1", 3);
        assert_eq!(shifted.index_mask(4, 1, &[0, 1, 2, 3]).unwrap().labels(), [IGNORE, 0, 1, 2]);
        assert_eq!(shifted.raw_value(2), Some(3));
        assert_eq!(shifted.raw_value(UNKNOWN), None);
        assert_eq!((shifted.stored_as(2), shifted.stored_as(UNKNOWN)), ("3".to_owned(), String::new()));
        let listed = map(
            "format = \"index\"\nunknown = [9]\nvalues = [{ from = 7, to = 0 }, { from = 8, to = 1 }, { from = 5, to = 1 }]\nother_values = \"ignore\"",
            2,
        );
        assert_eq!(listed.index_mask(5, 1, &[7, 8, 5, 9, 0]).unwrap().labels(), [0, 1, 1, UNKNOWN, IGNORE]);
        assert_eq!(listed.stored_as(1), "5, 8");
    }

    #[test]
    fn a_value_outside_the_classes_is_named_with_its_pixel() {
        let map = map("format = \"index\"\nignore = [255]", 2);
        let message = map.index_mask(2, 2, &[0, 1, 255, 37]).unwrap_err();
        assert_eq!(message, "value 37 at x = 1, y = 1 is none of the 2 classes and not ignored");
    }

    #[test]
    fn colours_lead_to_classes_and_an_unknown_one_is_named_with_its_pixel() {
        let map = map("format = \"color\"\nignore_colors = [[9, 9, 9]]", 2);
        assert_eq!(map.colour_mask(3, 1, &[1, 10, 20, 9, 9, 9, 0, 10, 20]).unwrap().labels(), [1, IGNORE, 0]);
        assert_eq!(map.stored_as(1), "[1, 10, 20]");
        let message = map.colour_mask(1, 2, &[1, 10, 20, 1, 10, 21]).unwrap_err();
        assert_eq!(message, "colour [1, 10, 21] at x = 0, y = 1 is no colour of the card's classes");
    }

    #[test]
    fn settings_that_clash_or_have_no_effect_are_errors() {
        for labels in [
            "format = \"index\"\nignore = [0]",
            "format = \"index\"\noffset = 1",
            "format = \"index\"\noffset = -1\nvalues = [{ from = 0, to = 0 }]",
            "format = \"index\"\nignore_colors = [[0, 0, 0]]",
            "format = \"color\"\nignore = [255]",
            "format = \"color\"\nignore_colors = [[0, 10, 20]]",
        ] {
            assert!(card(labels, 2).is_err(), "{labels}");
        }
    }
}
