//! Boxes of an image as Pascal VOC and labelling tools write them: an XML file for each image.

use std::path::Path;

use mentor_types::{BoxKind, LabelBox};
use roxmltree::{Document, Node, ParsingOptions};

use crate::error::{BadSample, DataError};
use crate::files::read_file;

/// What such a file says of its image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VocImage {
    /// Height and width in pixels, where the file says them.
    pub(crate) size: Option<[usize; 2]>,
    /// Its boxes, in the order of the file.
    pub(crate) boxes: Vec<LabelBox>,
}

/// Reads the file at `path`; `classes` are the names of the classes, in their order. Tags stand in any order, and edges may be
/// no whole numbers. An object of a class that is none of these is left out, as those that a card does not name are.
///
/// `first_pixel` is what the first column and row are called: 1 in Pascal VOC, 0 by most tools.
///
/// # Errors
/// That the file cannot be read, or what in it is no box, with the object's number from 1.
pub(crate) fn read_voc(path: &Path, classes: &[String], first_pixel: u8) -> Result<VocImage, DataError> {
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
    let size = child(root, "size").map(|size| ["height", "width"].map(|side| number(size, side)));
    let size = match size {
        Some([Ok(height), Ok(width)]) if height >= 1.0 && width >= 1.0 => Some([height as usize, width as usize]),
        // Some tools write zeros where they do not know it.
        _ => None,
    };
    let mut boxes = Vec::new();
    for (index, object) in (1..).zip(root.children().filter(|node| node.has_tag_name("object"))) {
        boxes.extend(
            read_object(object, classes, first_pixel).map_err(|reason| bad(format!("object {index} {reason}")))?,
        );
    }
    Ok(VocImage { size, boxes })
}

fn read_object(object: Node<'_, '_>, classes: &[String], first_pixel: u8) -> Result<Option<LabelBox>, String> {
    let name = child(object, "name").and_then(|name| name.text()).unwrap_or_default().trim();
    if name.is_empty() {
        return Err("has no <name>".to_owned());
    }
    let place = child(object, "bndbox").ok_or_else(|| format!("(`{name}`) has no <bndbox>"))?;
    let edge = |tag: &str| number(place, tag).map_err(|reason| format!("(`{name}`) {reason}"));
    let before = f64::from(first_pixel);
    let edges = [edge("xmin")? - before, edge("ymin")? - before, edge("xmax")?, edge("ymax")?];
    if edges[2] <= edges[0] || edges[3] <= edges[1] {
        return Err(format!(
            "(`{name}`) has a box without area: x {} to {}, y {} to {}",
            edges[0], edges[2], edges[1], edges[3]
        ));
    }
    let is_difficult = child(object, "difficult").and_then(|node| node.text()).is_some_and(|text| text.trim() == "1");
    let class = classes.iter().position(|class| class == name);
    Ok(class.map(|class| LabelBox {
        edges: edges.map(|edge| edge as f32),
        class: class as u8,
        kind: if is_difficult { BoxKind::Difficult } else { BoxKind::Object },
        area: ((edges[2] - edges[0]) * (edges[3] - edges[1])) as f32,
    }))
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

    fn read(text: &str, first_pixel: u8) -> Result<VocImage, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.xml");
        std::fs::write(&path, text).unwrap();
        let classes = ["dog", "cat"].map(str::to_owned);
        read_voc(&path, &classes, first_pixel)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "a.xml"))
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
        assert_eq!(found, VocImage { size: None, boxes: Vec::new() });
    }

    #[test]
    fn what_is_no_box_is_named_with_its_object() {
        let good = object("cat", "", ["5", "10", "30", "40"]);
        for (object, expected) in [
            (
                object("cat", "", ["30", "10", "5", "40"]),
                "object 2 (`cat`) has a box without area: x 30 to 5, y 10 to 40",
            ),
            (object("cat", "", ["x", "10", "5", "40"]), "object 2 (`cat`) has no number in <xmin>, but \"x\""),
            (object("", "", ["1", "1", "5", "40"]), "object 2 has no <name>"),
            ("<object><name>cat</name></object>".to_owned(), "object 2 (`cat`) has no <bndbox>"),
        ] {
            let message = read(&format!("<annotation>{good}{object}</annotation>"), 0).unwrap_err();
            assert_eq!(message, format!("a.xml: {expected}"));
        }
        assert!(read("<annotation><object></annotation>", 0).unwrap_err().starts_with("a.xml: is no XML: "));
        assert!(read("<html/>", 0).unwrap_err().ends_with("holds <html>, not <annotation>"));
    }
}
