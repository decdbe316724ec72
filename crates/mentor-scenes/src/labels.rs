//! Labels, read from the planes.

use mentor_types::LabelMask;

use crate::canvas::Canvas;
use crate::classes::CLASSES;

/// A thing in a scene, as far as it is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its class, an index of [`CLASSES`](crate::CLASSES).
    pub class: u8,
    /// The box around what is seen of it: left, top, right, bottom, in pixels of the picture, exact to a half.
    pub extent: [f32; 4],
    /// How much of it is seen, in pixels of the picture.
    pub area: f32,
    /// The share of it that lies in the picture and is not seen for what is above it; about right, since crowns have lobes.
    pub occluded: f32,
    /// Whether it goes on beyond the picture.
    pub truncated: bool,
}

/// Things are labelled that show so much of themselves.
const SEEN: f32 = 0.3;
/// And so many pixels of the picture.
const LEAST_AREA: f32 = 10.0;
/// And no side shorter, in pixels of the picture.
const LEAST_SIDE: f32 = 2.0;

/// The class of each pixel of the picture: the commonest of its four, the higher number where two are.
pub(crate) fn mask(canvas: &Canvas) -> LabelMask {
    let size = canvas.side / 2;
    let class = |at: usize| {
        let first = 2 * canvas.side * (at / size) + 2 * (at % size);
        let four = [first, first + 1, first + canvas.side, first + canvas.side + 1].map(|at| canvas.class[at]);
        let votes = |class: u8| four.iter().filter(|other| **other == class).count();
        (0..CLASSES.len() as u8).max_by_key(|class| votes(*class)).unwrap_or_default()
    };
    LabelMask::new(size, size, (0..size * size).map(class).collect())
}

/// The things of which enough is seen, in the order in which they were made.
pub(crate) fn objects(canvas: &Canvas) -> Vec<Object> {
    #[derive(Clone, Copy)]
    struct Seen {
        pixels: usize,
        extent: [usize; 4],
    }
    let nothing = Seen { pixels: 0, extent: [usize::MAX, usize::MAX, 0, 0] };
    let mut seen = vec![nothing; canvas.objects.len()];
    for (at, number) in canvas.instance.iter().enumerate().filter(|(_, number)| **number > 0) {
        let (x, y) = (at % canvas.side, at / canvas.side);
        let one = &mut seen[*number as usize - 1];
        let [left, top, right, bottom] = one.extent;
        one.pixels += 1;
        one.extent = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
    }
    let object = |(seen, (class, whole)): (&Seen, &(u8, f32))| {
        let [left, top, right, bottom] = seen.extent;
        let (area, whole) = (seen.pixels as f32, whole.max(1.0));
        let short = right.saturating_sub(left).min(bottom.saturating_sub(top)) as f32;
        if area < SEEN * whole || area < 4.0 * LEAST_AREA || short < 2.0 * LEAST_SIDE {
            return None;
        }
        let truncated = left == 0 || top == 0 || right == canvas.side || bottom == canvas.side;
        Some(Object {
            class: *class,
            extent: seen.extent.map(|pixel| pixel as f32 / 2.0),
            area: area / 4.0,
            occluded: if truncated { 0.0 } else { (1.0 - area / whole).max(0.0) },
            truncated,
        })
    };
    seen.iter().zip(&canvas.objects).filter_map(object).collect()
}
