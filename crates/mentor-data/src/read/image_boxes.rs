//! The boxes of one image, from a file of its own.

use mentor_types::{BoxKind, LabelBox};

use super::mistakes::{BoxMistake, BoxMistakeKind};

/// How far a box may reach out of its image before it is said, in pixels: tools round.
const ROUNDING_PX: f64 = 1.0;

/// What such a file says of its image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ImageBoxes {
    /// Height and width in pixels, where the file says them.
    pub(crate) size: Option<[usize; 2]>,
    /// The image's file, where the file says it.
    pub(crate) file_name: Option<String>,
    /// Its boxes without the wrong ones, in the order of the file.
    pub(crate) boxes: Vec<LabelBox>,
    /// What is wrong with single boxes.
    pub(crate) mistakes: Vec<BoxMistake>,
}

/// A box as it stands in a file, in pixels.
pub(super) struct RawBox {
    pub edges: [f64; 4],
    pub class: usize,
    pub kind: BoxKind,
    /// The area of the outline, where there is one.
    pub area: Option<f64>,
}

/// What is wrong with a box.
pub(super) type Wrong = (BoxMistakeKind, String);

impl ImageBoxes {
    /// Adds the box that was read in a line of the file, cut off at the edges of an image of a height and width, or what is
    /// wrong with it; `place` is put before that. An error of kind [`OtherClass`](BoxMistakeKind::OtherClass) stands alone.
    pub(super) fn push(&mut self, line: usize, place: &str, read: Result<RawBox, Wrong>, size: [usize; 2]) {
        let mut note = |kind, message: &str| {
            let message =
                if kind == BoxMistakeKind::OtherClass { message.to_owned() } else { format!("{place}{message}") };
            self.mistakes.push(BoxMistake { kind, line: Some(line), message });
        };
        match read.and_then(|raw| Ok((cut_off(raw.edges, size)?, raw))) {
            Ok(((edges, beyond), raw)) => {
                if beyond > ROUNDING_PX {
                    note(BoxMistakeKind::Leaves, &format!("reaches {beyond:.1} pixels out of its image"));
                }
                let [x0, y0, x1, y1] = edges;
                self.boxes.push(LabelBox {
                    edges: edges.map(|edge| edge as f32),
                    class: raw.class as u8,
                    kind: raw.kind,
                    area: raw.area.unwrap_or((x1 - x0) * (y1 - y0)) as f32,
                });
            }
            Err((kind, message)) => note(kind, &message),
        }
    }
}

/// The part of a box that lies in its image, and how far the rest reaches out of it.
fn cut_off([x0, y0, x1, y1]: [f64; 4], [height, width]: [usize; 2]) -> Result<([f64; 4], f64), Wrong> {
    let place = format!("x {x0} to {x1}, y {y0} to {y1}");
    if x1 < x0 || y1 < y0 {
        return Err((BoxMistakeKind::Reversed, format!("has a box without area: {place}")));
    }
    if x1 == x0 || y1 == y0 {
        return Err((BoxMistakeKind::NoSize, format!("has a box without area: {place}")));
    }
    let (height, width) = (height as f64, width as f64);
    if x0 >= width || y0 >= height || x1 <= 0.0 || y1 <= 0.0 {
        let message = format!("has a box outside of its image of {width}x{height} pixels: {place}");
        return Err((BoxMistakeKind::Outside, message));
    }
    let beyond = (-x0).max(-y0).max(x1 - width).max(y1 - height);
    Ok(([x0.max(0.0), y0.max(0.0), x1.min(width), y1.min(height)], beyond))
}
