//! A feature pyramid over the stages of a backbone.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::ops::MaxPoolOptions;
use mentor_ops::max_pool2d;
use mentor_types::{Tap, Taps};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BackboneSpec, ConvSpec, Cost, Fresh, Init, PyramidKind, StepUp, conv};

/// A level of a pyramid: `p3` has one place for every 8 by 8 pixels of the image, and each further one doubles that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Level {
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
}

impl Level {
    /// Every level, the finest first.
    pub const ALL: [Self; 6] = [Self::P2, Self::P3, Self::P4, Self::P5, Self::P6, Self::P7];

    /// Pixels of the image from one place to the next.
    #[must_use]
    pub fn stride(self) -> usize {
        4 << self as usize
    }

    /// Its features as a tap.
    #[must_use]
    pub fn tap(self) -> Tap {
        [Tap::P2, Tap::P3, Tap::P4, Tap::P5, Tap::P6, Tap::P7][self as usize]
    }

    /// The stage of the backbone that it looks at; `None` for those above all stages.
    #[must_use]
    pub fn stage(self) -> Option<Tap> {
        [Tap::C2, Tap::C3, Tap::C4, Tap::C5].get(self as usize).copied()
    }
}

/// What is wrong with the levels of a pyramid: they follow each other from the finest on, which has a stage of the
/// backbone below it.
///
/// # Errors
/// A message that says what was found and what would be right.
pub fn check_levels(levels: &[Level]) -> Result<(), String> {
    let names: Vec<&str> = levels.iter().map(|level| level.tap().name()).collect();
    let rise = levels.windows(2).all(|pair| pair[1] as usize == pair[0] as usize + 1);
    match levels.first() {
        Some(first) if first.stage().is_some() && rise => Ok(()),
        _ => Err(format!("found {names:?}, expected levels that follow each other, from one of p2 to p5 on")),
    }
}

/// What the levels above all stages stand on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum P6From {
    /// The level `p5`, as FCOS was published.
    #[default]
    P5,
    /// The last stage of the backbone, `c5`, as `RetinaNet` was published.
    C5,
    /// Every second value of the level `p5`, without weights and without a `p7`, as feature pyramids were published for
    /// Faster R-CNN.
    Pooled,
}

/// A convolution that torchvision wraps in a `Sequential` of its own.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct FpnConv {
    pub conv_0: Conv2d,
}

/// The levels above all stages, each by a 3x3 convolution of stride 2 on the one before.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct ExtraLevels {
    pub p6: Conv2d,
    pub p7: Option<Conv2d>,
}

/// How a pyramid is built.
#[derive(Clone, Copy, Debug)]
pub struct PyramidSpec<'a> {
    /// Its levels, the finest first.
    pub levels: &'a [Level],
    /// Which way it is gone through.
    pub kind: PyramidKind,
    /// What `p6` stands on; says nothing where there is none.
    pub p6_from: P6From,
    /// Channels of every level.
    pub channels: usize,
}

/// A feature pyramid: for each stage a 1x1 convolution, to which the coarser level's is added, doubled in size, and a 3x3
/// convolution on the sum, and of [`Pafpn`](PyramidKind::Pafpn) the way up again; `p6` is made of `p5` or `c5` by a 3x3 convolution of stride 2, and `p7` so of `p6` after a `ReLU`.
///
/// # Source
/// arXiv 1612.03144, section 3; structure, names and start as torchvision's `FeaturePyramidNetwork` with `LastLevelP6P7`,
/// which stands on `p5` (arXiv 1904.01355) or on `c5` (arXiv 1708.02002), where the channels of the two decide which; or with
/// `LastLevelMaxPool`, which takes every second value of `p5`.
///
/// # Differs
/// The pyramid may begin with `p2` and end anywhere.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Fpn {
    pub inner_blocks: Vec<FpnConv>,
    pub layer_blocks: Vec<FpnConv>,
    pub extra_blocks: Option<ExtraLevels>,
    /// From each level that has a stage to the next, where it is gone through both ways.
    pub bottom_up: Vec<StepUp>,
    #[module(skip)]
    levels: Vec<Level>,
    #[module(skip)]
    p6_from: P6From,
}

impl Fpn {
    /// A fresh pyramid over the stages of a backbone.
    ///
    /// # Panics
    /// If [`check_levels`] finds something, or the backbone's stages do not halve the size ([`BackboneSpec`]'s output
    /// stride is not 32).
    #[must_use]
    pub fn new(backbone: &BackboneSpec, spec: PyramidSpec<'_>, fresh: &Fresh) -> Self {
        let PyramidSpec { levels, kind, p6_from, channels } = spec;
        if let Err(message) = check_levels(levels) {
            panic!("levels: {message}");
        }
        assert_eq!(backbone.output_stride, 32, "the output stride of a backbone under a pyramid");
        let build = |spec: ConvSpec| spec.start(Init::UnitVariance).bias(Init::Constant(0.0)).build(fresh);
        let stages = levels.iter().filter_map(|level| level.stage());
        let of_stage = |stage| backbone.channels(stage).expect("every backbone has c2 to c5");
        let inputs = stages.map(of_stage);
        let inner_blocks: Vec<_> =
            inputs.map(|input| FpnConv { conv_0: build(ConvSpec::new(input, channels, 1)) }).collect();
        let layer = || FpnConv { conv_0: build(ConvSpec::new(channels, channels, 3)) };
        let down = |input| build(ConvSpec::new(input, channels, 3).stride(2));
        let below = match p6_from {
            P6From::P5 | P6From::Pooled => channels,
            P6From::C5 => of_stage(Tap::C5),
        };
        assert!(p6_from != P6From::Pooled || !levels.contains(&Level::P7), "no p7 stands on a pooled p6");
        let extra_blocks = (levels.contains(&Level::P6) && p6_from != P6From::Pooled)
            .then(|| ExtraLevels { p6: down(below), p7: levels.contains(&Level::P7).then(|| down(channels)) });
        Self {
            layer_blocks: inner_blocks.iter().map(|_| layer()).collect(),
            bottom_up: match kind {
                PyramidKind::Fpn => Vec::new(),
                PyramidKind::Pafpn => inner_blocks.iter().skip(1).map(|_| StepUp::new(channels, fresh)).collect(),
            },
            inner_blocks,
            extra_blocks,
            levels: levels.to_vec(),
            p6_from,
        }
    }

    /// Its levels, the finest first.
    #[must_use]
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn is_pooled(&self) -> bool {
        self.p6_from == P6From::Pooled && self.levels.contains(&Level::P6)
    }

    /// Channels of every level.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.layer_blocks[0].conv_0.weight.lazy_shape()[0]
    }

    /// The maps of its levels, the finest first.
    ///
    /// # Shapes
    /// `stages` holds `c2` to `c5` of images `[n, 3, h, w]`; a level's map is `[n, channels, h / stride, w / stride]`, rounded
    /// up.
    ///
    /// # Panics
    /// If a stage that a level stands on is missing.
    #[must_use]
    pub fn forward(&self, stages: &Taps) -> Vec<(Level, Tensor<4>)> {
        let mut maps = Vec::new();
        let mut above: Option<Tensor<4>> = None;
        let blocks = self.inner_blocks.iter().zip(&self.layer_blocks).zip(&self.levels);
        for ((inner, layer), level) in blocks.rev() {
            let stage = level.stage().and_then(|stage| stages.get(stage));
            let stage = stage.unwrap_or_else(|| panic!("the backbone has no stage below {}", level.tap())).clone();
            let lateral = conv(&inner.conv_0, stage);
            let sum = match above {
                None => lateral,
                Some(above) => {
                    let [.., height, width] = lateral.dims();
                    lateral + doubled(above, [height, width])
                }
            };
            maps.push((*level, conv(&layer.conv_0, sum.clone())));
            above = Some(sum);
        }
        maps.reverse();
        for (index, step) in self.bottom_up.iter().enumerate() {
            maps[index + 1].1 = step.forward(maps[index].1.clone(), maps[index + 1].1.clone());
        }
        if self.is_pooled() {
            let p5 = maps.last().expect("checked: a level has a stage below").1.clone();
            let every_second = MaxPoolOptions::new([1, 1]).with_stride([2, 2]);
            maps.push((Level::P6, max_pool2d(p5, every_second)));
        }
        if let Some(extra) = &self.extra_blocks {
            let below = match self.p6_from {
                P6From::P5 | P6From::Pooled => &maps.last().expect("checked: a level has a stage below").1,
                P6From::C5 => stages.get(Tap::C5).expect("every backbone has c5"),
            };
            let p6 = conv(&extra.p6, below.clone());
            maps.push((Level::P6, p6.clone()));
            maps.extend(extra.p7.as_ref().map(|layer| (Level::P7, conv(layer, relu(p6)))));
        }
        maps
    }

    /// Multiply-adds of the convolutions, and the size of each level's map, for an image whose stages have the sizes
    /// that `stage` says.
    #[must_use]
    pub fn count(&self, stage: impl Fn(Tap) -> [usize; 2]) -> (u64, Vec<(Level, [usize; 2])>) {
        let (mut macs, mut sizes) = (0, Vec::new());
        for ((inner, layer), level) in self.inner_blocks.iter().zip(&self.layer_blocks).zip(&self.levels) {
            let mut cost = Cost::at(stage(level.stage().expect("a block has a stage")));
            cost.conv(&inner.conv_0);
            cost.conv(&layer.conv_0);
            macs += cost.macs;
            sizes.push((*level, cost.size));
        }
        for (step, (_, finer)) in self.bottom_up.iter().zip(&sizes) {
            let mut cost = Cost::at(*finer);
            step.count(&mut cost);
            macs += cost.macs;
        }
        if self.is_pooled() {
            let halved = sizes[sizes.len() - 1].1.map(|side: usize| side.div_ceil(2));
            sizes.push((Level::P6, halved));
        }
        if let Some(extra) = &self.extra_blocks {
            let mut cost = Cost::at(sizes[sizes.len() - 1].1);
            for (level, layer) in [(Level::P6, Some(&extra.p6)), (Level::P7, extra.p7.as_ref())] {
                if let Some(layer) = layer {
                    cost.conv(layer);
                    sizes.push((level, cost.size));
                }
            }
            macs += cost.macs;
        }
        (macs, sizes)
    }
}

/// The map with every value twice along both sides, cut to `size`: nearest-neighbour resizing as `PyTorch` does it where a
/// side becomes twice as long, or one less.
fn doubled(x_nchw: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [n, channels, height, width] = x_nchw.dims();
    let halves = size.map(|side| side.div_ceil(2));
    assert_eq!([height, width], halves, "a level of {height}x{width} does not double to {size:?}");
    let x = x_nchw.reshape([n, channels, height, 1, width, 1]).expand([n, channels, height, 2, width, 2]);
    let x = x.reshape([n, channels, 2 * height, 2 * width]);
    if size == [2 * height, 2 * width] { x } else { x.slice([0..n, 0..channels, 0..size[0], 0..size[1]]) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::BackboneKind;
    use burn::tensor::{Device, TensorData};
    use mentor_ops::{nearest_indices, sum_all};
    use mentor_weights::named_weights;

    const BACKBONE: BackboneSpec = BackboneSpec { kind: BackboneKind::Resnet18, width: 2, output_stride: 32 };

    fn spec(levels: &[Level], kind: PyramidKind, p6_from: P6From, channels: usize) -> PyramidSpec<'_> {
        PyramidSpec { levels, kind, p6_from, channels }
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn doubling_is_nearest_neighbour_resizing_to_even_and_odd_sizes() {
        let device = Device::flex().autodiff();
        let data = TensorData::new((0..24).map(|i| i as f32).collect::<Vec<_>>(), [1, 2, 3, 4]);
        for [height, width] in [[6, 8], [5, 8], [6, 7], [5, 7]] {
            let x = Tensor::<4>::from_data(data.clone(), &device).require_grad();
            let (rows, columns) = (nearest_indices(3, height), nearest_indices(4, width));
            let mut expected = Vec::new();
            for channel in 0..2 {
                for row in &rows {
                    expected.extend(columns.iter().map(|column| (channel * 12 + row * 4 + column) as f32));
                }
            }
            let y = doubled(x.clone(), [height, width]);
            // Each value gets as much of a gradient as it has copies.
            let mut copies = vec![0.0; 24];
            expected.iter().for_each(|value| copies[*value as usize] += 1.0);
            let gradients = sum_all(y.clone()).backward();
            assert_eq!(values(y), expected);
            assert_eq!(values(x.grad(&gradients).unwrap()), copies);
        }
    }

    #[test]
    fn sizes_channels_and_strides_are_as_told_for_every_row_of_levels() {
        let both = [PyramidKind::Fpn, PyramidKind::Pafpn];
        for (first, kind) in (0..4).flat_map(|first| both.map(|kind| (first, kind))) {
            for last in first..6 {
                let levels = &Level::ALL[first..=last];
                assert_eq!(check_levels(levels), Ok(()));
                let (body, fpn) = Fresh::seeded(&Device::flex(), 1, |fresh| {
                    (BACKBONE.init(fresh), Fpn::new(&BACKBONE, spec(levels, kind, P6From::P5, 6), fresh))
                });
                assert_eq!((fpn.levels(), fpn.channels()), (levels, 6));
                let size = [67, 93];
                let maps = fpn.forward(&body.forward(Tensor::ones([1, 3, 67, 93], &Device::flex())));
                let mut stages = std::collections::BTreeMap::new();
                body.count(&mut Cost::at(size), |tap, size| {
                    stages.insert(tap, size);
                });
                let (macs, sizes) = fpn.count(|tap| stages[&tap]);
                assert!(macs > 0);
                let told: Vec<_> = maps.iter().map(|(level, map)| (*level, map.dims())).collect();
                let expected: Vec<_> = levels
                    .iter()
                    .map(|level| (*level, [1, 6, size[0].div_ceil(level.stride()), size[1].div_ceil(level.stride())]))
                    .collect();
                assert_eq!(told, expected);
                assert_eq!(sizes, expected.iter().map(|(level, [.., h, w])| (*level, [*h, *w])).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_way_up_costs_what_its_convolutions_cost_and_leaves_the_finest_level_alone() {
        let levels = &Level::ALL[1..5];
        let [plain, both] = [PyramidKind::Fpn, PyramidKind::Pafpn].map(|kind| {
            Fresh::seeded(&Device::flex(), 1, |fresh| Fpn::new(&BACKBONE, spec(levels, kind, P6From::P5, 6), fresh))
        });
        // Stages of 9, 5 and 3 rows: the two convolutions of a step end on a coarser one.
        let size = |tap: Tap| {
            [9, 5, 3].map(|side| [side, 1])[[Tap::C3, Tap::C4, Tap::C5].iter().position(|c| *c == tap).unwrap()]
        };
        assert_eq!(both.count(size).0 - plain.count(size).0, 2 * 6 * 6 * 9 * (5 + 3));
        let body = Fresh::seeded(&Device::flex(), 1, |fresh| BACKBONE.init(fresh));
        let stages = body.forward(Tensor::ones([1, 3, 70, 64], &Device::flex()));
        let [before, after] = [plain.forward(&stages), both.forward(&stages)];
        assert_eq!(values(before[0].1.clone()), values(after[0].1.clone()));
        for level in 1..4 {
            assert_ne!(values(before[level].1.clone()), values(after[level].1.clone()), "{level}");
        }
    }

    #[test]
    fn the_levels_above_all_stages_stand_on_p5_or_on_c5() {
        let [on_p5, on_c5] = [P6From::P5, P6From::C5].map(|from| {
            Fresh::seeded(&Device::flex(), 1, |fresh| {
                (BACKBONE.init(fresh), Fpn::new(&BACKBONE, spec(&Level::ALL, PyramidKind::Fpn, from, 6), fresh))
            })
        });
        let inputs = |fpn: &Fpn| fpn.extra_blocks.as_ref().unwrap().p6.weight.dims()[1];
        assert_eq!((inputs(&on_p5.1), inputs(&on_c5.1)), (6, BACKBONE.channels(Tap::C5).unwrap()));
        let image = || Tensor::ones([1, 3, 64, 64], &Device::flex());
        let (body, mut fpn) = on_c5;
        let before = fpn.forward(&body.forward(image()));
        // Another p5 leaves p6 as it was.
        fpn.layer_blocks.last_mut().unwrap().conv_0 = fpn.layer_blocks[0].conv_0.clone();
        let after = fpn.forward(&body.forward(image()));
        assert_ne!(values(before[3].1.clone()), values(after[3].1.clone()));
        assert_eq!(values(before[4].1.clone()), values(after[4].1.clone()));
    }

    #[test]
    fn a_pooled_level_is_every_second_value_of_p5_and_has_no_weights() {
        let levels = &Level::ALL[..5];
        let (body, fpn) = Fresh::seeded(&Device::flex(), 1, |fresh| {
            (BACKBONE.init(fresh), Fpn::new(&BACKBONE, spec(levels, PyramidKind::Fpn, P6From::Pooled, 6), fresh))
        });
        assert!(named_weights(&fpn).keys().all(|name| !name.contains("extra")));
        let maps = fpn.forward(&body.forward(Tensor::ones([1, 3, 70, 97], &Device::flex())));
        let [p5, p6] = [3, 4].map(|index| maps[index].1.clone());
        assert_eq!((p5.dims(), p6.dims()), ([1, 6, 3, 4], [1, 6, 2, 2]));
        let (p5, p6) = (values(p5), values(p6));
        let expected: Vec<f32> = (0..6).flat_map(|channel| [0, 2, 8, 10].map(|at| p5[channel * 12 + at])).collect();
        assert_eq!(p6, expected);
    }

    #[test]
    fn weights_start_within_their_bound_and_biases_at_zero() {
        let all = spec(&Level::ALL, PyramidKind::Pafpn, P6From::P5, 16);
        let fpn = Fresh::seeded(&Device::flex(), 1, |fresh| Fpn::new(&BACKBONE, all, fresh));
        let weights = named_weights(&fpn);
        for (name, fan_in) in [
            ("layer_blocks.0.conv_0", 144.0),
            ("inner_blocks.3.conv_0", 16.0),
            ("bottom_up.2.down", 144.0),
            ("extra_blocks.p7", 144.0f64),
        ] {
            let bound = (3.0 / fan_in).sqrt();
            let largest = weights[&format!("{name}.weight")].1.iter().fold(0.0, |most, x| f64::from(x.abs()).max(most));
            assert!(largest <= bound && largest > 0.95 * bound, "{name}: {largest} of {bound}");
            assert!(weights[&format!("{name}.bias")].1.iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn levels_follow_each_other_from_a_stage_on() {
        use Level::{P2, P3, P4, P5, P6, P7};
        for bad in [&[][..], &[P6, P7], &[P3, P5], &[P4, P3], &[P3, P3]] {
            assert!(check_levels(bad).unwrap_err().contains("follow each other"), "{bad:?}");
        }
        assert_eq!([P2, P3, P5, P7].map(Level::stride), [4, 8, 32, 128]);
    }
}
