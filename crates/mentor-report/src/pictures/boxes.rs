//! Boxes on photos.
//!
//! What stands in a box is told the same way everywhere: an object by a line in the colour of its class, one that need not be
//! found by a dashed line, a crowd by stripes. Where somebody looked for no class at all, the whole photo is striped.

use image::{Rgb, RgbImage};
use mentor_types::{BoxKind, BoxLabels, Detection, Edges, LabelBox};

use super::panels::{INK, PAPER, enlarged, striped};
use super::text::{Font, blend};
use crate::input::{LegendEntry, Swatch};

/// Photos narrower than this are enlarged, by a whole factor, so that lines cover little of them.
const NARROW: u32 = 320;
const CROWD: Rgb<u8> = Rgb([128, 128, 128]);

/// The photo as large as it is drawn with boxes.
#[must_use]
pub fn without_boxes(photo: &RgbImage) -> RgbImage {
    canvas(photo).0
}

/// The photo with its labelled boxes.
#[must_use]
pub fn labelled_boxes(photo: &RgbImage, labels: &BoxLabels, colours: &[[u8; 3]]) -> RgbImage {
    let (mut picture, factor) = canvas(photo);
    if labels.looked_for.as_ref().is_some_and(Vec::is_empty) {
        picture = RgbImage::from_fn(picture.width(), picture.height(), |x, y| striped(*picture.get_pixel(x, y), x, y));
    }
    // Large ones first, so that small ones are seen.
    let mut boxes: Vec<&LabelBox> = labels.boxes.iter().collect();
    boxes.sort_by(|a, b| area(b.edges).total_cmp(&area(a.edges)));
    for label in boxes {
        let line = match label.kind {
            BoxKind::Object => Line::Whole,
            BoxKind::Difficult => Line::Dashed,
            BoxKind::Crowd => Line::Stripes,
        };
        let colour = colours.get(usize::from(label.class)).map_or(CROWD, |colour| Rgb(*colour));
        draw(&mut picture, scaled(label.edges, factor), colour, line);
    }
    picture
}

/// The photo with boxes that a detector found, those of which it is surest on top, each with its score where there is room.
#[must_use]
pub fn detected_boxes(photo: &RgbImage, detections: &[Detection], colours: &[[u8; 3]]) -> RgbImage {
    let (mut picture, factor) = canvas(photo);
    let font = Font::for_width(picture.width());
    let mut boxes: Vec<&Detection> = detections.iter().collect();
    boxes.sort_by(|a, b| a.score.total_cmp(&b.score));
    for found in boxes {
        let colour = colours.get(usize::from(found.class)).map_or(CROWD, |colour| Rgb(*colour));
        let edges = scaled(found.edges, factor);
        draw(&mut picture, edges, colour, Line::Whole);
        let text = format!("{:.0}", 100.0 * found.score);
        let [left, top, right, bottom] = edges.map(|edge| edge.max(0.0) as u32);
        if right.saturating_sub(left) > font.width(&text) + 4 && bottom.saturating_sub(top) > font.height() + 2 {
            font.draw(&mut picture, left + 3, top + 2, &text, PAPER);
        }
    }
    picture
}

/// What the colours of these classes mean, and what stripes are where `unknown`.
#[must_use]
pub fn box_legend(names: &[String], colours: &[[u8; 3]], classes: &[u8], unknown: bool) -> Vec<LegendEntry> {
    let shown = (0..=u8::MAX).zip(names.iter().zip(colours)).filter(|(class, _)| classes.contains(class));
    let entries = shown.map(|(_, (name, colour))| LegendEntry { name: name.clone(), swatch: Swatch::Colour(*colour) });
    let unknown = unknown.then(|| LegendEntry { name: "unknown".to_owned(), swatch: Swatch::Unknown });
    entries.chain(unknown).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Whole,
    Dashed,
    Stripes,
}

fn canvas(photo: &RgbImage) -> (RgbImage, f32) {
    let factor = NARROW.div_ceil(photo.width().max(1)).max(1);
    (enlarged(photo, factor), factor as f32)
}

fn scaled(edges: Edges, factor: f32) -> Edges {
    edges.map(|edge| edge * factor)
}

fn area([left, top, right, bottom]: Edges) -> f32 {
    (right - left) * (bottom - top)
}

/// A line of two pixels inside the box, between thin dark ones; what falls outside of the picture is cut.
fn draw(picture: &mut RgbImage, edges: Edges, colour: Rgb<u8>, line: Line) {
    let limits = [picture.width(), picture.height(), picture.width(), picture.height()].map(i64::from);
    let edges = edges.map(|edge| edge.round() as i64);
    let [left, top, right, bottom]: [i64; 4] = std::array::from_fn(|side| edges[side].clamp(0, limits[side]));
    for y in top..bottom {
        for x in left..right {
            let depth = (x - left).min(right - 1 - x).min(y - top).min(bottom - 1 - y);
            let inside = line == Line::Stripes && (x + y) % 8 < 2;
            if depth > 2 && !inside {
                continue;
            }
            let pixel = picture.get_pixel_mut(x as u32, y as u32);
            *pixel = match (depth, line) {
                (2, _) => blend(*pixel, INK, 0.5),
                (0 | 1, Line::Dashed) if (x + y) % 12 < 6 => continue,
                (0 | 1, _) => colour,
                _ => blend(*pixel, colour, 0.6),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURS: [[u8; 3]; 2] = [[200, 0, 0], [0, 0, 200]];

    fn photo() -> RgbImage {
        RgbImage::from_pixel(320, 100, Rgb([10, 150, 50]))
    }

    fn label(edges: Edges, class: u8, kind: BoxKind) -> LabelBox {
        LabelBox { edges, class, kind, area: area(edges) }
    }

    fn count(picture: &RgbImage, colour: [u8; 3]) -> usize {
        picture.pixels().filter(|pixel| pixel.0 == colour).count()
    }

    #[test]
    fn an_object_has_a_line_in_its_colour_and_a_difficult_one_half_of_it() {
        let boxes = |kind| BoxLabels { boxes: vec![label([10.0, 10.0, 50.0, 40.0], 1, kind)], looked_for: None };
        let whole = labelled_boxes(&photo(), &boxes(BoxKind::Object), &COLOURS);
        // Two pixels deep: 40 x 30 less 36 x 26.
        assert_eq!(count(&whole, COLOURS[1]), 264);
        assert_eq!(whole.get_pixel(10, 10).0, COLOURS[1]);
        assert_eq!(whole.get_pixel(30, 25).0, photo().get_pixel(30, 25).0);
        let dashed = count(&labelled_boxes(&photo(), &boxes(BoxKind::Difficult), &COLOURS), COLOURS[1]);
        assert!((100..170).contains(&dashed), "{dashed}");
        assert_ne!(
            labelled_boxes(&photo(), &boxes(BoxKind::Crowd), &COLOURS).get_pixel(24, 24),
            photo().get_pixel(24, 24)
        );
    }

    #[test]
    fn a_photo_that_nobody_looked_at_is_striped_and_a_narrow_one_enlarged() {
        let picture = labelled_boxes(&RgbImage::new(100, 20), &BoxLabels::unknown(), &COLOURS);
        assert_eq!((picture.width(), picture.height()), (400, 80));
        assert_ne!(picture.get_pixel(0, 0), picture.get_pixel(4, 0));
    }

    #[test]
    fn a_box_beyond_the_picture_is_cut_and_the_surest_is_on_top() {
        let found = |edges, class, score| Detection { edges, class, score };
        let all = [found([-20.0, -5.0, 900.0, 900.0], 0, 0.9), found([0.0, 0.0, 60.0, 60.0], 1, 0.3)];
        let picture = detected_boxes(&photo(), &all, &COLOURS);
        assert_eq!(picture.get_pixel(0, 0).0, COLOURS[0]);
        assert_eq!(picture.get_pixel(319, 99).0, COLOURS[0]);
    }

    #[test]
    fn a_legend_names_the_classes_that_occur() {
        let names = ["a", "b"].map(str::to_owned);
        let found: Vec<String> = box_legend(&names, &COLOURS, &[1], true).into_iter().map(|entry| entry.name).collect();
        assert_eq!(found, ["b", "unknown"]);
    }
}
