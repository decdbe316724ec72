//! Maps between the pixels of two images, and boxes of pixels.

/// A map from points of a view to points of the image behind it: `scale * point + shift` for each axis (x, then y).
///
/// Points are measured in pixels from the upper left corner, so the centre of pixel 0 is at 0.5. A negative scale mirrors.
/// It is the 2x3 matrix of an affine map without its off-diagonal entries: views are scaled, moved and mirrored, never
/// turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Factors for x and y.
    pub scale: [f64; 2],
    /// What is added to x and y, in pixels of the image behind.
    pub shift: [f64; 2],
}

impl Geometry {
    /// Every point is itself.
    pub const IDENTITY: Self = Self { scale: [1.0, 1.0], shift: [0.0, 0.0] };

    /// Both axes times a factor.
    #[must_use]
    pub fn scaling(factor: f64) -> Self {
        Self { scale: [factor, factor], shift: [0.0, 0.0] }
    }

    /// Where a point (x, y) goes.
    #[must_use]
    pub fn apply(&self, point: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| self.scale[axis] * point[axis] + self.shift[axis])
    }

    /// First this map, then `next`.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        Self { scale: [0, 1].map(|axis| next.scale[axis] * self.scale[axis]), shift: next.apply(self.shift) }
    }

    /// The way back.
    ///
    /// # Panics
    /// Where a scale is 0.
    #[must_use]
    pub fn inverse(&self) -> Self {
        assert!(self.scale.iter().all(|scale| *scale != 0.0), "a map that flattens an axis: {self:?}");
        Self {
            scale: self.scale.map(|scale| 1.0 / scale),
            shift: [0, 1].map(|axis| -self.shift[axis] / self.scale[axis]),
        }
    }

    /// For each of `len` view pixels along an axis the pixel behind its centre, or `None` outside the `limit` pixels there.
    #[must_use]
    pub fn nearest(&self, axis: usize, len: usize, limit: usize) -> Vec<Option<usize>> {
        (0..len)
            .map(|place| {
                let point = self.scale[axis] * (place as f64 + 0.5) + self.shift[axis];
                (point >= 0.0 && point < limit as f64).then_some(point as usize)
            })
            .collect()
    }

    /// For each of `len` view pixels along an axis what it is made of, of the `limit` pixels behind; `None` where its centre
    /// lies outside of them. Bilinear where the view enlarges; where it shrinks, the same triangle is widened to cover the
    /// pixels that it skips, so that nothing aliases.
    #[must_use]
    pub fn weighed(&self, axis: usize, len: usize, limit: usize) -> Vec<Option<Weighed>> {
        let (scale, shift) = (self.scale[axis], self.shift[axis]);
        let radius = scale.abs().max(1.0);
        let one = |place: usize| {
            let centre = scale * (place as f64 + 0.5) + shift;
            if !(centre >= 0.0 && centre < limit as f64) {
                return None;
            }
            let start = (centre - radius).floor().max(0.0) as usize;
            let end = ((centre + radius).ceil() as usize).min(limit);
            let weight = |pixel: usize| (1.0 - (pixel as f64 + 0.5 - centre).abs() / radius).max(0.0);
            let start = (start..end).find(|pixel| weight(*pixel) > 0.0)?;
            let weights: Vec<f64> = (start..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            Some(Weighed { start, weights: weights.iter().map(|weight| (weight / sum) as f32).collect() })
        };
        (0..len).map(one).collect()
    }
}

/// Some pixels along an axis, one after the other, and how much each of them counts; the weights add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The first.
    pub start: usize,
    /// One for each.
    pub weights: Vec<f32>,
}

/// A box of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutBox {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_compose_and_go_back() {
        let first = Geometry { scale: [-0.5, 2.0], shift: [8.0, -3.0] };
        let second = Geometry { scale: [4.0, 0.25], shift: [1.0, 5.0] };
        let point = [3.0, 7.0];
        assert_eq!(first.then(&second).apply(point), second.apply(first.apply(point)));
        assert_eq!(first.then(&first.inverse()), Geometry::IDENTITY);
        assert_eq!(first.inverse().apply(first.apply(point)), point);
    }

    #[test]
    fn the_nearest_pixel_is_the_one_under_the_centre() {
        let mirror = Geometry { scale: [-1.0, 1.0], shift: [3.0, 0.0] };
        assert_eq!(mirror.nearest(0, 4, 3), [Some(2), Some(1), Some(0), None]);
        let half = Geometry::scaling(0.5);
        assert_eq!(half.nearest(1, 6, 2), [Some(0), Some(0), Some(1), Some(1), None, None]);
    }
}
