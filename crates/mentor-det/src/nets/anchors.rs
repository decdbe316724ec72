//! Anchors: boxes about each point of a level, which a detector's boxes are told from.

use burn::tensor::{Device, Tensor, TensorData};
use mentor_types::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The side, in strides, of the objects that a level is for, where there is no anchor to say it.
const OBJECT: f32 = 8.0;

/// The most sizes of a doubling, and the most ratios.
const MOST: usize = 8;

/// The anchors at each point of a level: one for each ratio and size, centred on the point.
///
/// An anchor of side `a = floor(side * stride * 2^(i / sizes))` and ratio `r` is `a / sqrt(r)` wide and `a sqrt(r)` high, and
/// half of each side is rounded to whole pixels, as torchvision does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Anchors {
    /// The side of the smallest anchor, in strides. Default 4.
    pub side: f64,
    /// How many sizes there are before the side has doubled, 1 to 8. Default 3.
    pub sizes: usize,
    /// Heights over widths. Default 0.5, 1 and 2.
    pub ratios: Vec<f64>,
}

impl Default for Anchors {
    fn default() -> Self {
        Self { side: 4.0, sizes: 3, ratios: vec![0.5, 1.0, 2.0] }
    }
}

impl Anchors {
    /// How many there are at each point.
    pub(super) fn count(&self) -> usize {
        self.sizes * self.ratios.len()
    }

    /// Widths and heights in pixels at the points of the level of this stride: ratio by ratio, each from the smallest on.
    pub(super) fn at(&self, stride: usize) -> Vec<[f32; 2]> {
        let side =
            |index: usize| (self.side * stride as f64 * 2f64.powf(index as f64 / self.sizes as f64)).trunc() as f32;
        let rounded = |side: f32| 2.0 * (side / 2.0).round_ties_even();
        let of_ratio = |ratio: &f64| {
            let high = (*ratio as f32).sqrt();
            (0..self.sizes).map(move |index| [rounded(side(index) * (1.0 / high)), rounded(side(index) * high)])
        };
        self.ratios.iter().flat_map(of_ratio).collect()
    }

    /// Reports values out of range, and anchors without an area on the finest level, whose stride this is.
    pub(super) fn check(&self, finest: usize, found: &mut Found) {
        let before = found.len();
        if !(self.side.is_finite() && self.side > 0.0 && self.side <= 64.0) {
            found.push(("side".into(), format!("must be above 0 and at most 64 strides, found {}", self.side)));
        }
        if !(1..=MOST).contains(&self.sizes) {
            found.push(("sizes".into(), format!("found {}, expected 1 to {MOST}", self.sizes)));
        }
        if !(1..=MOST).contains(&self.ratios.len()) {
            found.push(("ratios".into(), format!("found {} ratios, expected 1 to {MOST}", self.ratios.len())));
        }
        for (index, ratio) in self.ratios.iter().enumerate().filter(|(_, ratio)| !(0.01..=100.0).contains(*ratio)) {
            found.push((format!("ratios[{index}]"), format!("must lie in [0.01, 100], found {ratio}")));
        }
        if found.len() > before {
            return;
        }
        if let Some([width, height]) = self.at(finest).into_iter().find(|sides| sides.contains(&0.0)) {
            let message = format!("an anchor of {width} by {height} pixels on the level of stride {finest}");
            found.push(("side".into(), message));
        }
    }
}

/// What stands for the objects of a level in a detector without anchors: a square.
pub(super) fn square(stride: usize) -> [f32; 2] {
    [OBJECT * stride as f32; 2]
}

/// The widths (`axis` 0) or heights of the anchors at so many points, `[1, 1, points * anchors]`.
pub(super) fn sides(anchors: &[[f32; 2]], axis: usize, points: usize, device: &Device) -> Tensor<3> {
    let values: Vec<f32> = anchors.iter().map(|sides| sides[axis]).collect();
    let count = values.len();
    let of_point: Tensor<4> = Tensor::from_data(TensorData::new(values, [1, 1, 1, count]), device);
    of_point.expand([1, 1, points, count]).reshape([1, 1, points * count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_torchvision() {
        // `AnchorGenerator(((32, 40, 50),), ((0.5, 1.0, 2.0),)).cell_anchors`, right less left and bottom less top.
        let expected = [
            [46.0, 22.0],
            [56.0, 28.0],
            [70.0, 36.0],
            [32.0, 32.0],
            [40.0, 40.0],
            [50.0, 50.0],
            [22.0, 46.0],
            [28.0, 56.0],
            [36.0, 70.0],
        ];
        assert_eq!(Anchors::default().at(8), expected);
        // Sides of 64, 80 and 101: a half of 50.5 goes to the even number.
        assert_eq!(Anchors::default().at(16)[3..6], [[64.0; 2], [80.0; 2], [100.0; 2]]);
        assert_eq!(Anchors::default().count(), 9);
        let one = Anchors { side: 8.0, sizes: 1, ratios: vec![1.0] };
        assert_eq!((one.at(4), one.at(4)[0]), (vec![square(4)], [32.0; 2]));
    }

    #[test]
    fn values_out_of_range_and_anchors_without_an_area_are_named() {
        let keys = |anchors: Anchors| {
            let mut found = Found::new();
            anchors.check(4, &mut found);
            found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(Anchors::default()), [""; 0]);
        assert_eq!(keys(Anchors { side: 0.0, sizes: 0, ratios: vec![] }), ["side", "sizes", "ratios"]);
        assert_eq!(
            keys(Anchors { ratios: vec![1.0, -1.0, f64::NAN], ..Anchors::default() }),
            ["ratios[1]", "ratios[2]"]
        );
        assert_eq!(keys(Anchors { side: 0.2, ..Anchors::default() }), ["side"]);
    }
}
