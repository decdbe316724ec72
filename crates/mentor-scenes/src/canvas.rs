//! The planes that everything is painted into, at twice the size of the picture.

use std::ops::Range;

use crate::colour::Colour;

/// Lengths are in units of the world: a car is about 19 long, and a pixel of the planes `1 / zoom`.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    /// Pixels along a side.
    pub(crate) side: usize,
    /// Pixels for a unit.
    pub(crate) zoom: f32,
    /// Units along a side.
    pub(crate) extent: f32,
    pub(crate) albedo: Vec<Colour>,
    pub(crate) height: Vec<f32>,
    /// How fast the height rises along x and along y.
    pub(crate) slope: Vec<[f32; 2]>,
    pub(crate) class: Vec<u8>,
    /// The object that a pixel shows, counted from 1; 0 for none.
    pub(crate) instance: Vec<u32>,
    /// Where nothing may be built any more.
    pub(crate) taken: Vec<bool>,
    /// Class and whole area, in pixels, of each object, the first one's first.
    pub(crate) objects: Vec<(u8, f32)>,
}

/// How far a place is from what it has nothing to do with.
pub(crate) const FAR: f32 = 1e6;

/// A pixel near a place: its number, and where its middle lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixel {
    pub(crate) at: usize,
    pub(crate) x: f32,
    pub(crate) y: f32,
}

/// A place with a direction, from which lengths are measured along it and across.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pose {
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// The direction, radians.
    pub(crate) angle: f32,
    cos: f32,
    sin: f32,
}

impl Pose {
    pub(crate) fn new(x: f32, y: f32, angle: f32) -> Self {
        Self { x, y, angle, cos: libm::cosf(angle), sin: libm::sinf(angle) }
    }

    /// How far along and across a pixel lies.
    pub(crate) fn seen(&self, pixel: Pixel) -> (f32, f32) {
        let (dx, dy) = (pixel.x - self.x, pixel.y - self.y);
        (dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin)
    }

    /// The place that lies so far along and across, in the same direction turned by `turn`.
    pub(crate) fn moved(&self, along: f32, across: f32, turn: f32) -> Self {
        let [x, y] = self.turned(along, across);
        Self::new(self.x + x, self.y + y, self.angle + turn)
    }

    /// A direction along and across as one in the world.
    pub(crate) fn turned(&self, along: f32, across: f32) -> [f32; 2] {
        [along * self.cos - across * self.sin, along * self.sin + across * self.cos]
    }
}

impl Canvas {
    pub(crate) fn new(side: usize, zoom: f32) -> Self {
        let pixels = side * side;
        Self {
            side,
            zoom,
            extent: side as f32 / zoom,
            albedo: vec![[0.0; 3]; pixels],
            height: vec![0.0; pixels],
            slope: vec![[0.0; 2]; pixels],
            class: vec![0; pixels],
            instance: vec![0; pixels],
            taken: vec![false; pixels],
            objects: Vec::new(),
        }
    }

    /// Every pixel, row by row.
    pub(crate) fn pixels(&self) -> impl Iterator<Item = Pixel> + use<> {
        self.near(self.extent / 2.0, self.extent / 2.0, self.extent)
    }

    /// The pixels of a square around a place, row by row.
    pub(crate) fn near(&self, x: f32, y: f32, reach: f32) -> impl Iterator<Item = Pixel> + use<> {
        self.every(1, [x - reach, y - reach], [x + reach, y + reach])
    }

    /// Every `step`-th pixel of every `step`-th row of a rectangle between two corners.
    pub(crate) fn every(&self, step: usize, from: [f32; 2], to: [f32; 2]) -> impl Iterator<Item = Pixel> + use<> {
        let (side, zoom) = (self.side, self.zoom);
        let [columns, rows] = self.rectangle(from, to);
        rows.step_by(step).flat_map(move |row| {
            let y = middle(row, zoom);
            let pixel = move |column| Pixel { at: row * side + column, x: middle(column, zoom), y };
            columns.clone().step_by(step).map(pixel)
        })
    }

    /// The columns and the rows of a rectangle between two corners.
    pub(crate) fn rectangle(&self, from: [f32; 2], to: [f32; 2]) -> [Range<usize>; 2] {
        let pixel = |length: f32| (length * self.zoom).clamp(0.0, self.side as f32) as usize;
        [0, 1].map(|axis| pixel(from[axis])..(pixel(to[axis]) + 2).min(self.side))
    }

    /// The number of the pixel at a place; of the nearest one, where it lies beyond the planes.
    pub(crate) fn at(&self, x: f32, y: f32) -> usize {
        let pixel = |length: f32| (length * self.zoom).clamp(0.0, (self.side - 1) as f32) as usize;
        pixel(y) * self.side + pixel(x)
    }

    pub(crate) fn is_inside(&self, x: f32, y: f32) -> bool {
        (0.0..self.extent).contains(&x) && (0.0..self.extent).contains(&y)
    }

    /// A new object of a class that covers so many square units; its number.
    pub(crate) fn object(&mut self, class: u8, area: f32) -> u32 {
        self.objects.push((class, area * self.zoom * self.zoom));
        self.objects.len() as u32
    }

    /// Marks pixels, and all within some pixels of them, as taken.
    pub(crate) fn take(&mut self, pixels: &[usize], margin: usize) {
        for at in pixels {
            let (row, column) = (at / self.side, at % self.side);
            for row in row.saturating_sub(margin)..(row + margin + 1).min(self.side) {
                let first = row * self.side + column.saturating_sub(margin);
                let last = row * self.side + (column + margin).min(self.side - 1);
                self.taken[first..=last].fill(true);
            }
        }
    }

    /// The share of a rectangle, with a margin around it, that is taken, as every second pixel of every second row has it;
    /// none where it lies beyond the planes.
    pub(crate) fn share_taken(&self, pose: Pose, half: [f32; 2], margin: f32) -> Option<f32> {
        let [along, across] = half.map(|half| half + margin);
        let (mut all, mut taken) = (0, 0);
        let (cos, sin) = (pose.cos.abs(), pose.sin.abs());
        let (wide, high) = (along * cos + across * sin, along * sin + across * cos);
        self.every(2, [pose.x - wide, pose.y - high], [pose.x + wide, pose.y + high]).for_each(|pixel| {
            let (p, q) = pose.seen(pixel);
            if p.abs() < along && q.abs() < across {
                all += 1;
                taken += usize::from(self.taken[pixel.at]);
            }
        });
        (all > 0).then(|| taken as f32 / all as f32)
    }
}

/// Where the middle of a pixel of a row or column lies.
pub(crate) fn middle(pixel: usize, zoom: f32) -> f32 {
    // Numbers of this size go into floats several at once.
    (pixel as i32 as f32 + 0.5) / zoom
}

/// The largest whole number that is not above `x`, for numbers that fit an `i32`.
pub(crate) fn floor(x: f32) -> f32 {
    let whole = x as i32 as f32;
    if whole > x { whole - 1.0 } else { whole }
}

/// The length of the way to a place `x` and `y` away.
pub(crate) fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// What is left of `x` after whole periods, in `[0, period)`.
pub(crate) fn phase(x: f32, period: f32) -> f32 {
    x - floor(x / period) * period
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_floor_is_that_of_the_library() {
        for x in [0.0, 0.3, -0.3, 7.0, -7.0, -7.5, 1e6 + 0.25, -1e6 - 0.25] {
            assert_eq!(floor(x), x.floor(), "{x}");
        }
    }

    #[test]
    fn a_pose_goes_there_and_back() {
        let pose = Pose::new(3.0, 4.0, 0.7);
        let place = pose.moved(5.0, -2.0, 0.1);
        let (along, across) = pose.seen(Pixel { at: 0, x: place.x, y: place.y });
        assert!((along - 5.0).abs() < 1e-5 && (across + 2.0).abs() < 1e-5);
        assert!((place.angle - 0.8).abs() < 1e-6);
    }

    #[test]
    fn squares_are_cut_at_the_border_and_lie_where_they_should() {
        let canvas = Canvas::new(10, 2.0);
        assert_eq!(canvas.pixels().map(|pixel| pixel.at).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(canvas.near(-9.0, 2.0, 1.0).all(|pixel| pixel.at % 10 < 2));
        for pixel in canvas.near(2.0, 3.0, 0.4) {
            assert_eq!(canvas.at(pixel.x, pixel.y), pixel.at);
        }
        let mut canvas = canvas;
        canvas.take(&[0, 55], 1);
        assert_eq!(canvas.taken.iter().filter(|taken| **taken).count(), 4 + 9);
        assert_eq!(canvas.share_taken(Pose::new(2.75, 2.75, 0.0), [0.6, 0.6], 0.0), Some(1.0));
        assert_eq!(canvas.share_taken(Pose::new(-50.0, 2.75, 0.0), [0.6, 0.6], 0.0), None);
    }
}
