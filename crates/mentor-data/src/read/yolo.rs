//! Boxes of an image as YOLO and its tools write them: a text file for each image, a line for each box.

use std::path::Path;

use mentor_types::BoxKind;

use super::image_boxes::{ImageBoxes, RawBox, Wrong};
use super::mistakes::BoxMistakeKind;
use crate::error::DataError;
use crate::files::read_text;

/// How far a number may lie out of 0 to 1 before it is no fraction: tools round.
const ROUNDING: f64 = 0.01;

/// What the columns are, for people.
const COLUMNS: &str = "`class cx cy width height`, or a class and the corners of an outline, `x y` each";

/// Reads the file at `path` of an image of a height and width. A line is `class cx cy width height`, or a class and at least
/// three corners `x y` of an outline, of which the box around it is taken; all in fractions of the image's width and height. A
/// class is a place in `classes`. A file without lines is that of an image without objects.
///
/// # Errors
/// That the file cannot be read. What is wrong with single lines is in the mistakes.
pub(crate) fn read_yolo(path: &Path, classes: &[String], size: [usize; 2]) -> Result<ImageBoxes, DataError> {
    let mut found = ImageBoxes::default();
    for (line, text) in (1..).zip(read_text(path)?.lines()) {
        if !text.trim().is_empty() {
            found.push(line, "", read_line(text, classes.len(), size), size);
        }
    }
    Ok(found)
}

fn read_line(text: &str, classes: usize, size: [usize; 2]) -> Result<RawBox, Wrong> {
    let columns: Vec<&str> = text.split_whitespace().collect();
    let wrong = |message: String| (BoxMistakeKind::Numbers, message);
    match columns.len() {
        6 => {
            return Err(wrong(
                "has 6 columns: the sixth, a confidence, is that of a prediction and no label".to_owned(),
            ));
        }
        count if count < 5 || count % 2 == 0 => {
            return Err(wrong(format!("has {count} columns, expected {COLUMNS}")));
        }
        _ => {}
    }
    let mut numbers = Vec::with_capacity(columns.len());
    for column in &columns {
        let number = column.parse::<f64>().ok().filter(|number| number.is_finite());
        numbers.push(number.ok_or_else(|| wrong(format!("`{column}` is no number, expected {COLUMNS}")))?);
    }
    let class = numbers[0];
    if class < 0.0 || class.fract() != 0.0 || class >= classes as f64 {
        let last = classes.saturating_sub(1);
        let message = format!("class `{}` is none of the {classes} classes of the card, 0 to {last}", columns[0]);
        return Err((BoxMistakeKind::Category, message));
    }
    let values = &numbers[1..];
    let is_box = values.len() == 4;
    if let Some(at) = (2..4).find(|at| is_box && values[*at] < 0.0) {
        return Err((
            BoxMistakeKind::Reversed,
            format!("{} is negative: `{}`", ["width", "height"][at - 2], columns[at + 1]),
        ));
    }
    if let Some(at) = values.iter().position(|value| !(-ROUNDING..=1.0 + ROUNDING).contains(value)) {
        let pixels = if values.iter().any(|value| *value >= 2.0) { "; these look like pixels" } else { "" };
        let message = format!(
            "`{}` is no fraction: fractions of the image's width and height are due, from 0 to 1{pixels}",
            columns[at + 1]
        );
        return Err(wrong(message));
    }
    let [height, width] = size.map(|side| side as f64);
    let (edges, area) = if is_box {
        let [cx, cy, w, h] = [values[0] * width, values[1] * height, values[2] * width, values[3] * height];
        ([cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0], None)
    } else {
        let corners: Vec<[f64; 2]> = values.as_chunks::<2>().0.iter().map(|[x, y]| [x * width, y * height]).collect();
        (around(&corners), Some(area_of(&corners)))
    };
    Ok(RawBox { edges, class: class as usize, kind: BoxKind::Object, area })
}

/// The box around some points.
fn around(corners: &[[f64; 2]]) -> [f64; 4] {
    let least = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(f64::INFINITY, f64::min);
    let most = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(f64::NEG_INFINITY, f64::max);
    [least(0), least(1), most(0), most(1)]
}

/// The area of an outline.
fn area_of(corners: &[[f64; 2]]) -> f64 {
    let next = corners.iter().cycle().skip(1);
    let twice: f64 = corners.iter().zip(next).map(|([ax, ay], [bx, by])| ax * by - bx * ay).sum();
    twice.abs() / 2.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::read::BoxMistake;

    fn read(text: &[u8]) -> Result<ImageBoxes, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, text).unwrap();
        let found = read_yolo(&path, &["cat", "dog"].map(str::to_owned), [40, 80]).and_then(|found| {
            BoxMistake::refuse(&found.mistakes, &path)?;
            Ok(found)
        });
        found.map_err(|error| error.to_string().replace(&path.display().to_string(), "a.txt"))
    }

    #[test]
    fn lines_are_boxes_and_outlines_in_fractions_of_the_image() {
        let found = read("\u{feff}0 0.5 0.5 0.25 0.5\r\n\n 1.0\t0.25 0.5 0.75 0.5 0.25 1\n".as_bytes()).unwrap();
        let seen: Vec<_> = found.boxes.iter().map(|label| (label.edges, label.class, label.area)).collect();
        // The outline is a triangle, of half the area of the box around it.
        assert_eq!(seen, [([30.0, 10.0, 50.0, 30.0], 0, 400.0), ([20.0, 20.0, 60.0, 40.0], 1, 400.0)]);
        assert_eq!(read(b"").unwrap(), ImageBoxes::default());
        assert_eq!(read(b"\n \n").unwrap(), ImageBoxes::default());
    }

    #[test]
    fn a_box_that_reaches_out_of_its_image_is_cut_off_and_said_where_it_is_more_than_a_rounding() {
        let found = read(b"0 0 0.5 0.5 1.004\n0 0.995 0.5 0.01 0.5").unwrap();
        assert_eq!(found.boxes[0].edges, [0.0, 0.0, 20.0, 40.0]);
        assert_eq!(found.boxes[0].area, 800.0);
        let said: Vec<_> = found.mistakes.iter().map(|mistake| (mistake.kind, mistake.line)).collect();
        assert_eq!(said, [(BoxMistakeKind::Leaves, Some(1))]);
    }

    #[test]
    fn what_is_no_box_is_named_with_its_line() {
        for (line, expected) in [
            (
                "0 32 32 20 20",
                "`32` is no fraction: fractions of the image's width and height are due, from 0 to 1; these look like pixels",
            ),
            (
                "0 0.5 1.2 0.1 0.1",
                "`1.2` is no fraction: fractions of the image's width and height are due, from 0 to 1",
            ),
            (
                "0 -0.1 0.5 0.1 0.1",
                "`-0.1` is no fraction: fractions of the image's width and height are due, from 0 to 1",
            ),
            ("0 0.5 0.5 0.1 -0.1", "height is negative: `-0.1`"),
            ("0 0.5 0.5 0 0.1", "has a box without area: x 40 to 40, y 18 to 22"),
            ("0 0.5 nan 0.1 0.1", "`nan` is no number"),
            ("cat 0.5 0.5 0.1 0.1", "`cat` is no number"),
            ("2 0.5 0.5 0.1 0.1", "class `2` is none of the 2 classes of the card, 0 to 1"),
            ("-1 0.5 0.5 0.1 0.1", "class `-1` is none of"),
            ("0.5 0.5 0.5 0.1 0.1", "class `0.5` is none of"),
            ("0 0.5 0.5 0.1 0.1 0.9", "has 6 columns: the sixth, a confidence, is that of a prediction"),
            ("0 0.5 0.5 0.1", "has 4 columns, expected `class cx cy width height`"),
            ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 columns, expected"),
            ("0,0.5,0.5,0.1,0.1", "has 1 columns, expected"),
        ] {
            let message = read(format!("1 0.5 0.5 0.1 0.1\n{line}\n").as_bytes()).unwrap_err();
            assert!(message.starts_with(&format!("a.txt:2: {expected}")), "{message}");
        }
        let two = read(b"7 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n8 0.5 0.5 0.1 0.1\n").unwrap_err();
        assert!(two.starts_with("a.txt:1: class `7`") && two.contains("; line 3: class `8`"), "{two}");
        assert_eq!(read(b"0 0.5 0.5 0.1 0.1\n\xff").unwrap_err(), "a.txt: line 2 is no UTF-8 text");
    }
}
