//! Convolutions of 3x3 taps with stride one by Winograd's minimal filtering (Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks", arXiv 1509.09308): output and gradient of the input.
//!
//! It is F(4x4, 3x3): a tile of 4x4 pixels of the output, which sees 6x6 of the input, takes 36 products
//! for each pair of channels where a sum over taps takes 144. Tiles of the input and the weights are
//! transformed ([`crate::conv::winograd::filter`] has the matrices), multiplied frequency by frequency, which is
//! a sum over the input channels for every output channel ([`products`]), and the sums are transformed
//! back. A dilation of `d` makes `d * d` maps without one, of every `d`-th row and column.
//!
//! # Accuracy
//! The points of the transforms are 0, ±5/8, ±3/2 and infinity. With them the largest error against f64,
//! over the largest value, is 1e-6 to 4e-6 for 64 to 512 channels of values in -1..1, where the direct way,
//! which sums over taps, has 1e-6 to 2e-6; for gradients of weights it is 1e-6. (The usual points 0, ±1 and
//! ±2 would have 6e-6 to 2e-5.)
//!
//! What is not finite spreads: a NaN or an infinity in the input makes all pixels NaN whose tile sees it,
//! also those whose taps do not.

mod filter;
mod finish;
pub(super) mod gradient;
mod maps;
mod tiles;
mod weights;

use std::ops::Range;

use rayon::prelude::*;

use crate::conv::epilogue::Epilogue;
use crate::conv::micro::{Offsets, Source, Target, channel_block, lanes, products};
use crate::conv::shape::ConvShape;
use crate::conv::winograd::finish::{Finish, finish};
use crate::conv::winograd::maps::{Map, Spectrum, scratch_len, transform};
use crate::conv::winograd::tiles::{Block, OUT, PRODUCTS, Sides, TILES, blocks, tiles_per_image};
use crate::conv::winograd::weights::{Layout, Pack, Taps, transform_all};
use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::instructions::Instructions;

/// Floats of the transformed input of the blocks that are computed together: they should stay in the
/// second-level caches.
const CACHED: usize = 512 * 1024;
/// Output channels of a task: their products should stay in the second-level cache.
const TASK_CHANNELS: usize = 16;
/// How many tasks there are at least where each transforms its own weights.
const TASKS: usize = 16;
/// How many times the transformed input the weights are at least where each task transforms its own.
const LARGE_WEIGHTS: usize = 4;

// When this is the faster way, as measured against the direct one on a core of AMD Zen 4 with AVX-512 and
// with AVX2.
/// With fewer channels the transforms of the maps take longer than the products save.
const MIN_CHANNELS: usize = 32;
/// The same for dilated maps, whose rows are gathered pixel by pixel: channels times tiles in a row.
const MIN_CHANNELS_BY_TILES: usize = 256;
/// With fewer tiles the transform of the weights does.
const MIN_TILES: usize = 24;
/// How many times as many products the direct way has to take, counted in whole registers: tiles that reach
/// over the border are wasted here, and the ends of rows there.
const MIN_GAIN: f32 = 2.75;

/// Whether a convolution can be computed this way.
pub(crate) fn fits(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3] && shape.stride == [1, 1]
}

/// Whether this is the faster way to the output and to the gradient of the input.
pub(crate) fn suits(instructions: Instructions, shape: &ConvShape) -> bool {
    let channels = shape.group_in().min(shape.group_out());
    let in_row = shape.out_size[1].div_ceil(shape.dilation[1] * OUT);
    let are_rows_cheap = shape.dilation == [1, 1] || channels * in_row >= MIN_CHANNELS_BY_TILES;
    let tiles = shape.images * tiles_per_image(shape.out_size, shape.dilation);
    // Registers of products for a pair of channels, here and there.
    let lanes = lanes(instructions);
    let by_tiles = PRODUCTS * tiles.div_ceil(lanes);
    let by_taps = shape.taps() * shape.images * shape.out_size[0] * shape.out_size[1].div_ceil(lanes);
    fits(shape)
        && channels >= MIN_CHANNELS
        && are_rows_cheap
        && tiles >= MIN_TILES
        && by_taps as f32 >= MIN_GAIN * by_tiles as f32
}

/// Whether this is the faster way to the gradient of the weight, where [`suits`] holds.
pub(crate) fn suits_weight_gradient(shape: &ConvShape) -> bool {
    shape.images * tiles_per_image(shape.out_size, shape.dilation) >= TILES
}

/// The output map.
pub(crate) fn forward(
    instructions: Instructions,
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
) -> Vec<f32> {
    let steps = [shape.depth(), shape.taps()];
    let taps = Taps { values: weight, scale: epilogue.scale, steps, is_reversed: false };
    Filtering::new(instructions, Sides::forward(shape), x, taps, epilogue).compute()
}

/// The gradient of the input map.
pub(crate) fn input_gradient(instructions: Instructions, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let steps = [shape.taps(), shape.depth()];
    let taps = Taps { values: weight, scale: None, steps, is_reversed: true };
    Filtering::new(instructions, Sides::input_gradient(shape), grad, taps, Epilogue::bias(None)).compute()
}

/// A convolution by tiles.
struct Filtering<'a> {
    instructions: Instructions,
    sides: Sides,
    x: &'a [f32],
    taps: Taps<'a>,
    epilogue: Epilogue<'a>,
    blocks: Vec<Block>,
    /// How the transformed input of a block lies in memory.
    spectrum: Spectrum,
    /// Where the input channels begin in a frequency of it.
    offsets: Offsets,
}

/// A block of tiles of a group.
struct Unit<'a> {
    group: usize,
    block: &'a Block,
    /// Its transformed input.
    inputs: &'a [f32],
}

/// Transformed weights, the first of which are those of block `first` of a group's channels.
struct Weights<'a> {
    layout: Layout,
    values: &'a [f32],
    first: usize,
}

impl<'a> Filtering<'a> {
    fn new(instructions: Instructions, sides: Sides, x: &'a [f32], taps: Taps<'a>, epilogue: Epilogue<'a>) -> Self {
        let blocks = blocks(&sides, TILES, lanes(instructions));
        let spectrum = Spectrum::of_blocks(sides.in_channels, &blocks, lanes(instructions));
        let offsets = Offsets::new(sides.in_channels, spectrum.tiles, &[vec![0]]);
        Self { instructions, sides, x, taps, epilogue, blocks, spectrum, offsets }
    }

    /// Output channels that the products take at a time.
    fn channel_block(&self) -> usize {
        channel_block(self.instructions)
    }

    /// Output channels of a task, but for the last of a group.
    fn task_channels(&self) -> usize {
        TASK_CHANNELS.next_multiple_of(self.channel_block())
    }

    /// Tasks of the channels of a group.
    fn parts(&self) -> usize {
        self.sides.out_channels.div_ceil(self.task_channels())
    }

    /// The output channels of a task.
    fn channels(&self, part: usize) -> Range<usize> {
        let first = part * self.task_channels();
        first..self.sides.out_channels.min(first + self.task_channels())
    }

    fn compute(&self) -> Vec<f32> {
        let sides = &self.sides;
        let inputs_len = sides.groups * self.blocks.len() * self.spectrum.len();
        let weights_len = PRODUCTS * sides.groups * sides.in_channels * sides.out_channels;
        let by_task = sides.groups * self.parts() >= TASKS && weights_len >= LARGE_WEIGHTS * inputs_len;
        // SAFETY: the tiles of all blocks cover the output.
        unsafe {
            filled(sides.images * sides.groups * sides.out_channels * sides.out_area(), |out| {
                let out = Interleaved::new(out);
                if by_task { self.transform_weights_by_task(&out) } else { self.transform_weights_first(&out) }
            })
        }
    }

    /// The transformed input of some blocks, block after block for every group.
    fn inputs(&self, blocks: &[Block]) -> Vec<f32> {
        transform(self.instructions, &self.sides, blocks, self.spectrum, Map::Input(self.x))
    }

    /// A block of a group among some whose transformed input is given.
    fn unit<'u>(&self, index: usize, blocks: &'u [Block], inputs: &'u [f32]) -> Unit<'u> {
        let (group, block) = (index / blocks.len(), &blocks[index % blocks.len()]);
        Unit { group, block, inputs: &inputs[index * self.spectrum.len()..][..self.spectrum.len()] }
    }

    /// Weights that several tasks read are transformed before all of them.
    fn transform_weights_first(&self, out: &Interleaved) {
        let per_group = self.sides.out_channels.div_ceil(self.channel_block());
        let layout = Layout::new(self.channel_block(), self.sides.in_channels, self.sides.groups * per_group);
        let weights = transform_all(layout, self.channel_block(), &self.sides, &self.taps);
        let at_once = (CACHED / (self.sides.groups * self.spectrum.len())).max(1);
        for blocks in self.blocks.chunks(at_once) {
            let inputs = self.inputs(blocks);
            let units = self.sides.groups * blocks.len();
            (0..self.parts() * units).into_par_iter().for_each(|task| {
                let (part, unit) = (task / units, self.unit(task % units, blocks, &inputs));
                let first = unit.group * per_group + part * self.task_channels() / self.channel_block();
                with_scratch(self.scratch_len(), |scratch| {
                    self.write(&unit, part, &Weights { layout, values: &weights, first }, scratch, out);
                });
            });
        }
    }

    /// Large weights of few tiles are transformed by the only task that reads them, so that they stay in
    /// the second-level cache.
    fn transform_weights_by_task(&self, out: &Interleaved) {
        let inputs = self.inputs(&self.blocks);
        let (block, parts) = (self.channel_block(), self.parts());
        let layout = Layout::new(block, self.sides.in_channels, self.task_channels() / block);
        (0..self.sides.groups * parts).into_par_iter().for_each(|task| {
            let (group, part) = (task / parts, task % parts);
            with_scratch(layout.len() + self.scratch_len(), |scratch| {
                let (weights, scratch) = scratch.split_at_mut(layout.len());
                for (index, first) in self.channels(part).step_by(block).enumerate() {
                    let pack = Pack { sides: &self.sides, taps: &self.taps, block, group, first };
                    // SAFETY: the CPU has AVX2 and FMA, and the memory is this task's alone.
                    unsafe { pack.write(layout, index, &Interleaved::of(weights)) };
                }
                let weights = Weights { layout, values: weights, first: 0 };
                for index in 0..self.blocks.len() {
                    let unit = self.unit(group * self.blocks.len() + index, &self.blocks, &inputs);
                    self.write(&unit, part, &weights, scratch, out);
                }
            });
        });
    }

    /// How the products of a task lie in memory.
    fn sums(&self) -> Spectrum {
        Spectrum::new(self.task_channels(), self.spectrum.tiles)
    }

    /// Floats of scratch memory of a task.
    fn scratch_len(&self) -> usize {
        self.sums().len() + scratch_len(self.spectrum.tiles)
    }

    /// Writes the output of a task: of the tiles of a block in some channels.
    fn write(&self, unit: &Unit, part: usize, weights: &Weights, scratch: &mut [f32], out: &Interleaved) {
        let (spectrum, channels) = (self.sums(), self.channels(part));
        let (sums, scratch) = scratch.split_at_mut(spectrum.len());
        self.multiply(unit, channels.len(), weights, spectrum, sums);
        for (index, channel) in channels.enumerate() {
            let channel = unit.group * self.sides.out_channels + channel;
            let done = Finish {
                sides: &self.sides,
                block: unit.block,
                products: &sums[index * spectrum.tiles..],
                spectrum,
                channel,
                bias: self.epilogue.bias.map_or(0.0, |bias| bias[channel]),
                residual: self.epilogue.residual,
                bounds: self.epilogue.activation.bounds(),
                out,
            };
            // SAFETY: the CPU has the instructions; these tiles of a channel are this task's alone.
            unsafe { finish(self.instructions, &done, scratch) };
        }
    }

    /// The products of every frequency, summed over the input channels.
    fn multiply(&self, unit: &Unit, channels: usize, weights: &Weights, spectrum: Spectrum, sums: &mut [f32]) {
        let (block, in_channels) = (self.channel_block(), self.sides.in_channels);
        let zeros = vec![0.0; block];
        for frequency in 0..PRODUCTS {
            let source = Source {
                pixels: &unit.inputs[frequency * self.spectrum.step..][..in_channels * self.spectrum.tiles],
                offsets: &self.offsets,
                terms: 0..in_channels,
                row_step: 0,
                rows: 0..1,
                width: unit.block.tiles.next_multiple_of(lanes(self.instructions)),
            };
            for first in (0..channels).step_by(block) {
                let to = &mut sums[frequency * spectrum.step + first * spectrum.tiles..][..block * spectrum.tiles];
                let target = Target::plain(to.as_mut_ptr(), spectrum.tiles, spectrum.tiles);
                let weights = weights.layout.block(weights.values, frequency, weights.first + first / block);
                // SAFETY: the CPU has the instructions; the target has room for a whole block.
                unsafe { products(self.instructions, &source, weights, &zeros, &target) };
            }
        }
    }
}
