//! The places of all levels of a detector, one after the other.

use burn::tensor::{DType, Device, Tensor, TensorData};
use mentor_nets::Level;
use mentor_types::{DetLevel, DetOutput, LevelLayout, Tap};

/// The places of all levels: level by level from the finest, each in its own order. There are `p` of them.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The levels, the finest first.
    pub levels: Vec<LevelLayout>,
    /// The points that places stand for, x and y in pixels, each `[1, 1, p]`.
    pub points: [Tensor<3>; 2],
    /// The stride of the level of each place, `[1, 1, p]`.
    pub strides: Tensor<3>,
    /// Width and height of the anchor of each place, in pixels, each `[1, 1, p]`.
    pub anchors: [Tensor<3>; 2],
}

impl Grid {
    /// The places of an output, on the plain device.
    #[must_use]
    pub fn of(output: &DetOutput, device: &Device) -> Self {
        Self::of_levels(output.levels.iter().map(|level| level.layout.clone()).collect(), device)
    }

    /// The places of levels, on the plain device.
    #[must_use]
    pub fn of_levels(levels: Vec<LevelLayout>, device: &Device) -> Self {
        let row = |value: &dyn Fn(&LevelLayout, usize) -> f32| {
            let values: Vec<f32> =
                levels.iter().flat_map(|level| (0..level.places()).map(|place| value(level, place))).collect();
            let places = values.len();
            Tensor::from_data(TensorData::new(values, [1, 1, places]), device)
        };
        let point = |level: &LevelLayout, index: usize| (index as f32 + level.point) * level.stride as f32;
        let column = |level: &LevelLayout, place: usize| place / level.anchors.len() % level.size[1];
        let line = |level: &LevelLayout, place: usize| place / level.anchors.len() / level.size[1];
        let side = |axis: usize| {
            row(&move |level: &LevelLayout, place: usize| level.anchors[place % level.anchors.len()][axis])
        };
        Self {
            points: [
                row(&|level, place| point(level, column(level, place))),
                row(&|level, place| point(level, line(level, place))),
            ],
            strides: row(&|level, _| level.stride as f32),
            anchors: [side(0), side(1)],
            levels,
        }
    }

    /// The left, top, right and lower edges of boxes about the places, given by their ways from there, `[n, 4, p]`; each `[n, 1, p]`
    /// in pixels, cut off where the image of `image_size` (height, width) ends.
    #[must_use]
    pub(crate) fn edges_within(&self, distances_n4p: &Tensor<3>, image_size: [usize; 2]) -> [Tensor<3>; 4] {
        let [height, width] = image_size.map(|side| side as f64);
        let [x, y] = self.points.clone();
        let way = |edge: usize| distances_n4p.clone().narrow(1, edge, 1);
        [
            (x.clone() - way(0)).clamp(0.0, width),
            (y.clone() - way(1)).clamp(0.0, height),
            (x + way(2)).clamp(0.0, width),
            (y + way(3)).clamp(0.0, height),
        ]
    }

    /// How many places each level has.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        self.levels.iter().map(LevelLayout::places).collect()
    }

    /// The part of the level of a stride in what is true of all places, `[n, c, p]`.
    ///
    /// # Panics
    /// If no level has the stride.
    #[must_use]
    pub fn at_level(&self, stride: usize, of_places_ncp: &Tensor<3>) -> Tensor<3> {
        let index = self.levels.iter().position(|level| level.stride == stride);
        let index = index.unwrap_or_else(|| panic!("no level has a stride of {stride}"));
        let counts = self.counts();
        of_places_ncp.clone().narrow(2, counts[..index].iter().sum(), counts[index])
    }
}

/// The largest of what is true of the anchors at each point of a level, `[n, 1, p]`, as a map `[n, 1, h, w]`.
#[must_use]
pub(crate) fn largest_at_points(level: &LevelLayout, of_places_n1p: Tensor<3>) -> Tensor<4> {
    let [n, ..] = of_places_n1p.dims();
    let [height, width] = level.size;
    of_places_n1p.reshape([n, height * width, level.anchors.len()]).max_dim(2).reshape([n, 1, height, width])
}

/// The stride of a level of the pyramid; `None` for other taps.
#[must_use]
pub(crate) fn stride_of(tap: Tap) -> Option<usize> {
    Level::ALL.iter().find(|level| level.tap() == tap).map(|level| level.stride())
}

/// What an output says at a level of its pyramid.
///
/// # Panics
/// If the tap is no level, or the output has no such level.
#[must_use]
pub(crate) fn level_of(output: &DetOutput, tap: Tap) -> &DetLevel {
    let level = output.levels.iter().find(|level| Some(level.layout.stride) == stride_of(tap));
    level.unwrap_or_else(|| panic!("a detector has no level at `{tap}`"))
}

/// What `part` takes of each level, at all places: `[n, c, p]` of each level to those of all, in f32.
#[must_use]
pub(crate) fn at_all_places(output: &DetOutput, part: impl Fn(&DetLevel) -> &Tensor<3>) -> Tensor<3> {
    Tensor::cat(output.levels.iter().map(|level| part(level).clone().cast(DType::F32)).collect(), 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{output, rows, values};

    #[test]
    fn places_stand_for_the_middle_of_their_cells() {
        let output = output(&[(8, [1, 2]), (16, [1, 1])], 1, 3, |_| 0.0);
        let grid = Grid::of(&output, &Device::flex());
        assert_eq!(values(grid.points[0].clone()), [4.0, 12.0, 8.0]);
        assert_eq!(values(grid.points[1].clone()), [4.0, 4.0, 8.0]);
        assert_eq!(values(grid.strides.clone()), [8.0, 8.0, 16.0]);
        assert_eq!(values(grid.anchors[0].clone()), [64.0, 64.0, 128.0]);
        assert_eq!([8, 16].map(|stride| values(grid.at_level(stride, &grid.strides))), [vec![8.0; 2], vec![16.0]]);
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
    fn anchors_at_a_point_follow_each_other() {
        let mut output = output(&[(8, [1, 2])], 1, 3, |_| 0.0);
        let layout = &mut output.levels[0].layout;
        layout.anchors = vec![[4.0, 8.0], [6.0, 3.0]];
        layout.point = 0.0;
        let grid = Grid::of(&output, &Device::flex());
        assert_eq!(values(grid.points[0].clone()), [0.0, 0.0, 8.0, 8.0]);
        assert_eq!(values(grid.points[1].clone()), [0.0; 4]);
        assert_eq!(values(grid.anchors[0].clone()), [4.0, 6.0, 4.0, 6.0]);
        assert_eq!(values(grid.anchors[1].clone()), [8.0, 3.0, 8.0, 3.0]);
        assert_eq!(values(largest_at_points(&grid.levels[0], rows(&[[1.0, 5.0, 7.0, 2.0]]))), [5.0, 7.0]);
    }

    #[test]
    fn only_levels_of_the_pyramid_have_a_stride() {
        assert_eq!(
            [Tap::P2, Tap::P3, Tap::P7, Tap::C3, Tap::Head].map(stride_of),
            [Some(4), Some(8), Some(128), None, None]
        );
    }
}
