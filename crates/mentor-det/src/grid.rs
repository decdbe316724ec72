//! The places of all levels of a detector, one after the other.

use burn::tensor::{DType, Device, Tensor, TensorData};
use mentor_nets::Level;
use mentor_types::{DetLevel, DetOutput, Tap};

/// The places of all levels: level by level from the finest, row by row. There are `p` of them.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Stride, height and width of each level.
    levels: Vec<(usize, [usize; 2])>,
    /// The points that places stand for, x and y in pixels, each `[1, 1, p]`.
    pub points: [Tensor<3>; 2],
    /// The stride of the level of each place, `[1, 1, p]`.
    pub strides: Tensor<3>,
    /// The shortest and the longest way, in pixels, from a point to the farthest edge of a box that the place may answer for,
    /// each `[1, 1, p]`: from 4 to 8 strides, but from 0 on the finest level and without an end on the coarsest.
    pub ranges: [Tensor<3>; 2],
}

/// Farther than any edge of a box in an image.
const NO_END: f32 = 1e8;

impl Grid {
    /// The places of an output, on the plain device.
    #[must_use]
    pub fn of(output: &DetOutput, device: &Device) -> Self {
        let level = |level: &DetLevel| {
            let [.., height, width] = level.class_logits.dims();
            (level.stride, [height, width])
        };
        let levels: Vec<_> = output.levels.iter().map(level).collect();
        let (mut x, mut y, mut strides) = (Vec::new(), Vec::new(), Vec::new());
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (index, &(stride, [height, width])) in levels.iter().enumerate() {
            let step = stride as f32;
            let places = height * width;
            x.extend((0..places).map(|place| ((place % width) as f32 + 0.5) * step));
            y.extend((0..places).map(|place| ((place / width) as f32 + 0.5) * step));
            strides.extend(vec![step; places]);
            from.extend(vec![if index == 0 { 0.0 } else { 4.0 * step }; places]);
            to.extend(vec![if index + 1 == levels.len() { NO_END } else { 8.0 * step }; places]);
        }
        let row = |values: Vec<f32>| {
            let places = values.len();
            Tensor::from_data(TensorData::new(values, [1, 1, places]), device)
        };
        Self { levels, points: [row(x), row(y)], strides: row(strides), ranges: [row(from), row(to)] }
    }

    /// Where the places of the level of a stride begin, and how many they are; `None` where no level has it.
    #[must_use]
    pub fn level(&self, stride: usize) -> Option<(usize, usize)> {
        let index = self.levels.iter().position(|(of_level, _)| *of_level == stride)?;
        let places = |(_, [height, width]): &(usize, [usize; 2])| height * width;
        Some((self.levels[..index].iter().map(places).sum(), places(&self.levels[index])))
    }
}

/// The stride of a level of the pyramid; `None` for other taps.
#[must_use]
pub(crate) fn stride_of(tap: Tap) -> Option<usize> {
    Level::ALL.iter().find(|level| level.tap() == tap).map(|level| level.stride())
}

/// What `part` takes of each level, at all places: `[n, c, h, w]` each to `[n, c, p]`, in f32.
#[must_use]
pub(crate) fn at_all_places(output: &DetOutput, part: impl Fn(&DetLevel) -> &Tensor<4>) -> Tensor<3> {
    Tensor::cat(output.levels.iter().map(|level| rows(part(level))).collect(), 2)
}

/// The places of a map in a row, in f32: `[n, c, h, w]` to `[n, c, h * w]`.
#[must_use]
pub(crate) fn rows(map_nchw: &Tensor<4>) -> Tensor<3> {
    map_nchw.clone().cast(DType::F32).flatten(2, 3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{output, values};

    #[test]
    fn places_stand_for_the_middle_of_their_cells() {
        let output = output(&[(8, [1, 2]), (16, [1, 1])], 1, 3, |_| 0.0);
        let grid = Grid::of(&output, &Device::flex());
        assert_eq!(values(grid.points[0].clone()), [4.0, 12.0, 8.0]);
        assert_eq!(values(grid.points[1].clone()), [4.0, 4.0, 8.0]);
        assert_eq!(values(grid.strides.clone()), [8.0, 8.0, 16.0]);
        assert_eq!(values(grid.ranges[0].clone()), [0.0, 0.0, 64.0]);
        assert_eq!(values(grid.ranges[1].clone()), [64.0, 64.0, NO_END]);
        assert_eq!([8, 16, 32].map(|stride| grid.level(stride)), [Some((0, 2)), Some((2, 1)), None]);
    }

    #[test]
    fn maps_of_all_levels_lie_in_the_order_of_the_places() {
        let output = output(&[(8, [2, 1]), (16, [1, 1])], 1, 2, |i| i as f32);
        // Two classes of two places, then two of one.
        let logits = at_all_places(&output, |level| &level.class_logits);
        assert_eq!(logits.dims(), [1, 2, 3]);
        let first = values(logits.clone().narrow(2, 0, 2));
        let last = values(logits.narrow(2, 2, 1));
        assert_eq!(first, values(output.levels[0].class_logits.clone()));
        assert_eq!(last, values(output.levels[1].class_logits.clone()));
    }

    #[test]
    fn only_levels_of_the_pyramid_have_a_stride() {
        assert_eq!(
            [Tap::P2, Tap::P3, Tap::P7, Tap::C3, Tap::Head].map(stride_of),
            [Some(4), Some(8), Some(128), None, None]
        );
    }
}
