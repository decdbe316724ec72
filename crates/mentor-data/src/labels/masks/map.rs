//! From what a mask stores to what it means.

use mentor_types::{IGNORE, LabelMask, UNKNOWN};

use crate::card::masks::{MaskFormat, Masks, OtherValues};

/// The meaning of every value a mask can hold: a class, [`IGNORE`], [`UNKNOWN`], or nothing (an error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    format: MaskFormat,
    classes: usize,
    /// By raw value, for index masks.
    values: Vec<Option<u8>>,
    /// For colour masks.
    colours: Vec<([u8; 3], u8)>,
}

impl LabelMap {
    /// The map of a card's masks and the colours of its classes.
    ///
    /// # Errors
    /// Everything that has two meanings, none, or no effect, as key of the card and message.
    pub(crate) fn new(masks: &Masks, colours: &[[u8; 3]]) -> Result<Self, Vec<(String, String)>> {
        let mut found = Vec::new();
        let map = Self {
            format: masks.format,
            classes: colours.len(),
            values: index_values(masks, colours.len(), &mut found),
            colours: match masks.format {
                MaskFormat::Index => Vec::new(),
                MaskFormat::Color => colour_labels(masks, colours, &mut found),
            },
        };
        check_effects(masks, &mut found);
        if found.is_empty() { Ok(map) } else { Err(found) }
    }

    /// How the masks are stored.
    #[must_use]
    pub fn format(&self) -> MaskFormat {
        self.format
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
    pub(crate) fn index_mask(&self, width: usize, height: usize, raw: &[u8]) -> Result<LabelMask, String> {
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
    pub(crate) fn colour_mask(&self, width: usize, height: usize, rgb: &[u8]) -> Result<LabelMask, String> {
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

/// What a check found: key and message.
type Found = Vec<(String, String)>;

/// The label of every raw value, while each gets its meaning.
struct Meanings<'f> {
    labels: Vec<Option<u8>>,
    found: &'f mut Found,
}

impl Meanings<'_> {
    fn set(&mut self, key: String, value: u8, label: u8) {
        let words = |label: u8| match label {
            IGNORE => "ignored",
            UNKNOWN => "unknown",
            _ => "a class",
        };
        let (place, now) = (&mut self.labels[usize::from(value)], words(label));
        match *place {
            Some(before) if before == label => {}
            Some(before) if now == words(before) => self.found.push((key, format!("value {value} is two classes"))),
            Some(before) => self.found.push((key, format!("value {value} is {now} and {} too", words(before)))),
            None => *place = Some(label),
        }
    }
}

fn index_values(masks: &Masks, classes: usize, found: &mut Found) -> Vec<Option<u8>> {
    let mut meanings = Meanings { labels: vec![None; 256], found };
    if masks.values.is_empty() && masks.format == MaskFormat::Index {
        for class in 0..classes.min(mentor_types::MAX_CLASSES) {
            let value = i32::try_from(class).unwrap_or(i32::MAX).saturating_sub(masks.offset);
            let Ok(value) = u8::try_from(value) else {
                let message = format!("class {class} would have the value {value}, which no mask can hold");
                meanings.found.push(("masks.offset".to_owned(), message));
                break;
            };
            meanings.set("masks.offset".to_owned(), value, u8::try_from(class).unwrap_or(UNKNOWN));
        }
    }
    for (index, pair) in masks.values.iter().enumerate() {
        if usize::from(pair.to) < classes {
            meanings.set(format!("masks.values[{index}]"), pair.from, pair.to);
        } else {
            let message = format!("class {} of value {}, but there are {classes} classes", pair.to, pair.from);
            meanings.found.push((format!("masks.values[{index}].to"), message));
        }
    }
    for (name, values, label) in [("ignore", &masks.ignore, IGNORE), ("unknown", &masks.unknown, UNKNOWN)] {
        for (index, value) in values.iter().enumerate() {
            meanings.set(format!("masks.{name}[{index}]"), *value, label);
        }
    }
    let mut labels = meanings.labels;
    if masks.other_values == OtherValues::Ignore {
        labels.iter_mut().for_each(|label| *label = label.or(Some(IGNORE)));
    }
    labels
}

fn colour_labels(masks: &Masks, colours: &[[u8; 3]], found: &mut Found) -> Vec<([u8; 3], u8)> {
    let classes = colours.iter().take(mentor_types::MAX_CLASSES).zip(0u8..);
    let classes = classes.map(|(colour, class)| (format!("classes[{class}].color"), *colour, class));
    let ignored = masks.ignore_colors.iter().enumerate();
    let ignored = ignored.map(|(index, colour)| (format!("masks.ignore_colors[{index}]"), *colour, IGNORE));
    let mut map: Vec<([u8; 3], u8)> = Vec::new();
    for (key, colour, label) in classes.chain(ignored) {
        if map.iter().any(|(known, _)| *known == colour) {
            found.push((key, format!("colour {colour:?} comes twice")));
        } else {
            map.push((colour, label));
        }
    }
    map
}

/// Keys that the format of the masks gives no meaning to.
fn check_effects(masks: &Masks, found: &mut Found) {
    let written = [
        (MaskFormat::Color, "ignore", !masks.ignore.is_empty()),
        (MaskFormat::Color, "unknown", !masks.unknown.is_empty()),
        (MaskFormat::Color, "values", !masks.values.is_empty()),
        (MaskFormat::Color, "offset", masks.offset != 0),
        (MaskFormat::Index, "ignore_colors", !masks.ignore_colors.is_empty()),
    ];
    for (format, key, _) in written.into_iter().filter(|(format, _, written)| *written && *format == masks.format) {
        let format = if format == MaskFormat::Index { "index" } else { "color" };
        found.push((format!("masks.{key}"), format!("has no effect with the format `{format}`")));
    }
    if masks.format == MaskFormat::Index && !masks.values.is_empty() && masks.offset != 0 {
        found.push(("masks.offset".to_owned(), "`offset` and `values` exclude each other".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::tests::card;

    fn map(labels: &str, classes: usize) -> LabelMap {
        card(labels, classes).unwrap().label_map().unwrap()
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
