//! Boxes of an image as Pascal VOC and labelling tools write them: an XML file for each image.

use std::path::Path;

use mentor_types::BoxKind;
use roxmltree::{Document, Node, ParsingOptions};

use super::image_boxes::{ImageBoxes, RawBox, Wrong};
use super::mistakes::{BoxMistake, BoxMistakeKind};
use crate::error::{BadSample, DataError};
use crate::files::read_file;

/// Reads the file at `path` of an image of a height and width; `classes` are the names of the classes, in their order. Tags stand in any order, and edges may be
/// no whole numbers. An object of a class that is none of these is left out, as those that a card does not name are.
///
/// `first_pixel` is what the first column and row are called: 1 in Pascal VOC, 0 by most tools.
///
/// # Errors
/// That the file cannot be read. What is wrong with single objects, which are counted from 1, is in the mistakes.
pub(crate) fn read_voc(
    path: &Path,
    classes: &[String],
    first_pixel: u8,
    size: [usize; 2],
) -> Result<ImageBoxes, DataError> {
    let bytes = read_file(path)?;
    let bad = |reason: String| DataError::from(BadSample::new(path, reason));
    let text = std::str::from_utf8(&bytes).map_err(|error| bad(format!("is no UTF-8 text: {error}")))?;
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text.trim_start_matches('\u{feff}'), options);
    let document = document.map_err(|error| bad(format!("is no XML: {error}")))?;
    let root = document.root_element();
    if root.tag_name().name() != "annotation" {
        return Err(bad(format!("holds <{}>, not <annotation>", root.tag_name().name())));
    }
    let said = child(root, "size").map(|size| ["height", "width"].map(|side| number(size, side)));
    let said = match said {
        Some([Ok(height), Ok(width)]) if height >= 1.0 && width >= 1.0 => Some([height as usize, width as usize]),
        // Some tools write zeros where they do not know it.
        _ => None,
    };
    let file_name = child(root, "filename").and_then(|name| name.text()).map(|name| name.trim().to_owned());
    let mut found = ImageBoxes { size: said, file_name, ..ImageBoxes::default() };
    for (index, object) in (1..).zip(root.children().filter(|node| node.has_tag_name("object"))) {
        let line = document.text_pos_at(object.range().start).row as usize;
        let name = child(object, "name").and_then(|name| name.text()).unwrap_or_default().trim();
        let place = if name.is_empty() { format!("object {index} ") } else { format!("object {index} (`{name}`) ") };
        found.push(line, &place, read_object(object, name, classes, first_pixel), size);
    }
    Ok(found)
}

fn read_object(object: Node<'_, '_>, name: &str, classes: &[String], first_pixel: u8) -> Result<RawBox, Wrong> {
    if name.is_empty() {
        return Err((BoxMistakeKind::Category, "has no <name>".to_owned()));
    }
    let wrong = |message: String| (BoxMistakeKind::Numbers, message);
    let place = child(object, "bndbox").ok_or_else(|| wrong("has no <bndbox>".to_owned()))?;
    let edge = |tag: &str| number(place, tag).map_err(wrong);
    let before = f64::from(first_pixel);
    let edges = [edge("xmin")? - before, edge("ymin")? - before, edge("xmax")?, edge("ymax")?];
    let is_difficult = child(object, "difficult").and_then(|node| node.text()).is_some_and(|text| text.trim() == "1");
    let kind = if is_difficult { BoxKind::Difficult } else { BoxKind::Object };
    let class = classes.iter().position(|class| class == name);
    let class = class.ok_or_else(|| BoxMistake::of_other_class(name, classes))?;
    Ok(RawBox { edges, class, kind, area: None })
}

fn child<'a, 'd>(node: Node<'a, 'd>, tag: &str) -> Option<Node<'a, 'd>> {
    node.children().find(|child| child.has_tag_name(tag))
}

fn number(node: Node<'_, '_>, tag: &str) -> Result<f64, String> {
    let text = child(node, tag).and_then(|child| child.text()).unwrap_or_default().trim();
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("has no number in <{tag}>, but {text:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_types::LabelBox;

    fn read(text: &str, first_pixel: u8) -> Result<ImageBoxes, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.xml");
        std::fs::write(&path, text).unwrap();
        let classes = ["dog", "cat"].map(str::to_owned);
        let found = read_voc(&path, &classes, first_pixel, [48, 64]).and_then(|found| {
            BoxMistake::refuse(&found.mistakes, &path)?;
            Ok(found)
        });
        found.map_err(|error| error.to_string().replace(&path.display().to_string(), "a.xml"))
    }

    fn object(name: &str, more: &str, edges: [&str; 4]) -> String {
        let [x0, y0, x1, y1] = edges;
        format!(
            "<object>{more}<bndbox><ymax>{y1}</ymax><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax> {x1} </xmax></bndbox><name>{name}</name></object>"
        )
    }

    #[test]
    fn tags_stand_in_any_order_and_edges_may_be_fractions() {
        let text = format!(
            "\u{feff}<?xml version=\"1.0\"?>\n<annotation>{}<size><depth>3</depth><height>48</height><width>64</width></size>{}{}</annotation>",
            object("cat", "<difficult>0</difficult>", ["5", "10", "30.5", "40"]),
            object("dog", "<difficult>1</difficult>", ["1", "1", "64", "48"]),
            object("bird", "", ["1", "1", "2", "2"]),
        );
        let found = read(&text, 0).unwrap();
        assert_eq!(found.size, Some([48, 64]));
        let box_of = |edges, class, kind, area| LabelBox { edges, class, kind, area };
        assert_eq!(
            found.boxes,
            [
                box_of([5.0, 10.0, 30.5, 40.0], 1, BoxKind::Object, 765.0),
                box_of([1.0, 1.0, 64.0, 48.0], 0, BoxKind::Difficult, 2961.0)
            ]
        );
        // Pascal VOC counts pixels from 1, and the last one is part of the box.
        assert_eq!(read(&text, 1).unwrap().boxes[1].edges, [0.0, 0.0, 64.0, 48.0]);
    }

    #[test]
    fn an_image_without_objects_is_a_negative() {
        let found = read("<annotation><size><width>0</width><height>0</height></size></annotation>", 0).unwrap();
        assert_eq!(found, ImageBoxes::default());
    }

    #[test]
    fn what_is_no_box_is_named_with_its_line_and_object() {
        let good = object("cat", "", ["5", "10", "30", "40"]);
        for (object, expected) in [
            (
                object("cat", "", ["30", "10", "5", "40"]),
                "object 2 (`cat`) has a box without area: x 30 to 5, y 10 to 40",
            ),
            (object("cat", "", ["x", "10", "5", "40"]), "object 2 (`cat`) has no number in <xmin>, but \"x\""),
            (
                object("cat", "", ["64", "10", "70", "40"]),
                "object 2 (`cat`) has a box outside of its image of 64x48 pixels: x 64 to 70, y 10 to 40",
            ),
            (object("", "", ["1", "1", "5", "40"]), "object 2 has no <name>"),
            (
                object("Cat", "", ["1", "1", "5", "40"]),
                "object 2 (`Cat`) is no class of the card, but `cat` is: change one of them, or name both",
            ),
            ("<object><name>cat</name></object>".to_owned(), "object 2 (`cat`) has no <bndbox>"),
        ] {
            let message = read(&format!("<annotation>\n{good}\n{object}</annotation>"), 0).unwrap_err();
            assert_eq!(message, format!("a.xml:3: {expected}"));
        }
        assert!(read("<annotation><object></annotation>", 0).unwrap_err().starts_with("a.xml: is no XML: "));
        assert!(read("<html/>", 0).unwrap_err().ends_with("holds <html>, not <annotation>"));
    }
}
