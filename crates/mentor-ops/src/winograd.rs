//! Convolutions of 3x3 taps with stride one by Winograd's minimal filtering.

use rayon::prelude::*;

use crate::buffer::{Interleaved, filled, with_scratch};
use crate::conv_epilogue::Epilogue;
use crate::conv_micro::{Offsets, Source, Target, channel_block, lanes, products};
use crate::conv_micro_taps::{Planes, add_tap_sums, fill_panels};
use crate::conv_shape::ConvShape;
use crate::instructions::Instructions;
use crate::winograd_maps::{
    Channel, Finish, Spectrum, finish, scratch_len, transform_input, transform_output_gradient,
};
use crate::winograd_tiles::{Block, PRODUCTS, Sides, blocks, tiles_per_image, OUT};
use crate::winograd_weights::{Taps, Transformed, gradient};

/// Tiles of a block: three registers of AVX-512, which is what the products take at a time.
const TILES: usize = 48;
/// Floats of the transformed maps that are held at a time: they should stay in the third-level cache.
const CACHED: usize = 2 * 1024 * 1024;
/// Output channels of a task: their products should stay in the second-level cache.
const TASK_CHANNELS: usize = 32;
/// Input channels whose transform is a task.
const CHANNELS_AT_ONCE: usize = 8;

/// Whether it can be computed this way.
pub(crate) fn fits(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3] && shape.stride == [1, 1]
}

/// Whether this way is the faster one.
pub(crate) fn suits(shape: &ConvShape) -> bool {
    let tiles = tiles_per_image(shape.out_size, shape.dilation);
    fits(shape) && shape.group_in() >= 32 && shape.group_out() >= 32 && OUT * OUT * tiles <= 2 * shape.out_area()
}

/// The output map.
pub(crate) fn forward(
    instructions: Instructions,
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
) -> Vec<f32> {
    let depth = shape.depth();
    let taps = Taps { values: weight, scale: epilogue.scale, steps: [depth, shape.taps()], is_reversed: false };
    convolve(instructions, &Sides::forward(shape), x, &taps, epilogue)
}

/// The gradient of the input map.
pub(crate) fn input_gradient(instructions: Instructions, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let depth = shape.depth();
    let taps = Taps { values: weight, scale: None, steps: [shape.taps(), depth], is_reversed: true };
    convolve(instructions, &Sides::input_gradient(shape), grad, &taps, Epilogue::bias(None))
}

/// Blocks of tiles whose maps are transformed together, and how they lie in memory.
struct Held {
    blocks: Vec<Block>,
    /// Blocks at a time.
    at_once: usize,
    /// Of the input and of the output's gradient, for each block of each group.
    spectra: [Spectrum; 2],
}

impl Held {
    fn new(instructions: Instructions, sides: &Sides, maps: usize, at_least: usize) -> Self {
        let blocks = blocks(sides, TILES, lanes(instructions));
        let most = blocks.iter().map(|block| block.tiles).max().unwrap_or(0).next_multiple_of(lanes(instructions));
        let spectra = [sides.in_channels, sides.out_channels].map(|channels| Spectrum::new(channels, most));
        let len: usize = spectra[..maps].iter().map(Spectrum::len).sum();
        let at_once = (CACHED.max(at_least) / (sides.groups * len)).clamp(1, blocks.len());
        Self { blocks, at_once, spectra }
    }
}

/// Output channels of a task.
fn task_channels(instructions: Instructions) -> usize {
    TASK_CHANNELS.next_multiple_of(channel_block(instructions))
}

/// Transforms the channels of all groups of a map for some blocks: the input (0) or the output's gradient (1).
fn transform(
    instructions: Instructions,
    sides: &Sides,
    blocks: &[Block],
    (index, spectrum): (usize, Spectrum),
    map: &[f32],
) -> Vec<f32> {
    let channels = [sides.in_channels, sides.out_channels][index];
    let parts = channels.div_ceil(CHANNELS_AT_ONCE);
    let units = sides.groups * blocks.len();
    let compute = |out: &Interleaved, task: usize| {
        let (unit, part) = (task / parts, task % parts);
        let (group, block) = (unit / blocks.len(), &blocks[unit % blocks.len()]);
        with_scratch(scratch_len(spectrum.tiles), |scratch| {
            for channel in part * CHANNELS_AT_ONCE..channels.min((part + 1) * CHANNELS_AT_ONCE) {
                let at = unit * spectrum.len() + channel * spectrum.tiles;
                let channel = Channel { sides, block, map, channel: group * channels + channel };
                // SAFETY: the CPU has the instructions; a channel's values of a block are one task's alone.
                unsafe {
                    match index {
                        0 => transform_input(instructions, &channel, spectrum, scratch, (out, at)),
                        _ => transform_output_gradient(instructions, &channel, spectrum, scratch, (out, at)),
                    }
                }
            }
        });
    };
    // SAFETY: every channel of every block is written in full, and what is between the frequencies.
    unsafe {
        filled(units * spectrum.len(), |out| {
            out.chunks_exact_mut(spectrum.step).for_each(|frequency| spectrum.fill_gap(frequency));
            let out = Interleaved::new(out);
            (0..units * parts).into_par_iter().for_each(|task| compute(&out, task));
        })
    }
}

/// The convolution of a map.
fn convolve(instructions: Instructions, sides: &Sides, x: &[f32], taps: &Taps, epilogue: Epilogue) -> Vec<f32> {
    let held = Held::new(instructions, sides, 1, 0);
    let spectrum = held.spectra[0];
    let weights = Transformed::new(channel_block(instructions), sides, taps);
    let offsets = Offsets::new(sides.in_channels, spectrum.tiles, &[vec![0]]);
    let parts = sides.out_channels.div_ceil(task_channels(instructions));
    // SAFETY: the tiles of all blocks cover the output.
    unsafe {
        filled(sides.images * sides.groups * sides.out_channels * sides.out_area(), |out| {
            let out = Interleaved::new(out);
            for blocks in held.blocks.chunks(held.at_once) {
                let inputs = transform(instructions, sides, blocks, (0, spectrum), x);
                let units = sides.groups * blocks.len();
                (0..parts * units).into_par_iter().for_each(|task| {
                    let (part, unit) = (task / units, task % units);
                    let task = Products {
                        instructions,
                        sides,
                        block: &blocks[unit % blocks.len()],
                        group: unit / blocks.len(),
                        part,
                        offsets: &offsets,
                        inputs: &inputs[unit * spectrum.len()..][..spectrum.len()],
                        input_spectrum: spectrum,
                        weights: &weights,
                        epilogue,
                    };
                    task.compute(&out);
                });
            }
        })
    }
}

struct Products<'a> {
    instructions: Instructions,
    sides: &'a Sides,
    block: &'a Block,
    group: usize,
    part: usize,
    offsets: &'a Offsets,
    inputs: &'a [f32],
    input_spectrum: Spectrum,
    weights: &'a Transformed,
    epilogue: Epilogue<'a>,
}

impl Products<'_> {
    fn compute(&self, out: &Interleaved) {
        let block = channel_block(self.instructions);
        let first = self.part * task_channels(self.instructions);
        let end = (first + task_channels(self.instructions)).min(self.sides.out_channels.next_multiple_of(block));
        let spectrum = Spectrum::new(end - first, self.input_spectrum.tiles);
        with_scratch(spectrum.len() + scratch_len(spectrum.tiles), |scratch| {
            let (sums, scratch) = scratch.split_at_mut(spectrum.len());
            self.multiply(first..end, spectrum, sums);
            for channel in first..end.min(self.sides.out_channels) {
                let of_all = self.group * self.sides.out_channels + channel;
                let done = Finish {
                    sides: self.sides,
                    block: self.block,
                    products: &sums[(channel - first) * spectrum.tiles..],
                    spectrum,
                    channel: of_all,
                    bias: self.epilogue.bias.map_or(0.0, |bias| bias[of_all]),
                    residual: self.epilogue.residual,
                    bounds: self.epilogue.activation.bounds(),
                    out,
                };
                // SAFETY: the CPU has the instructions; these tiles of a channel are this task's alone.
                unsafe { finish(self.instructions, &done, scratch) };
            }
        });
    }

    fn multiply(&self, channels: std::ops::Range<usize>, spectrum: Spectrum, sums: &mut [f32]) {
        let block = channel_block(self.instructions);
        let zeros = vec![0.0; block];
        for frequency in 0..PRODUCTS {
            let from = &self.inputs[frequency * self.input_spectrum.step..];
            let source = Source {
                pixels: &from[..self.sides.in_channels * self.input_spectrum.tiles],
                offsets: self.offsets,
                terms: 0..self.sides.in_channels,
                row_step: 0,
                rows: 0..1,
                width: self.block.tiles.next_multiple_of(lanes(self.instructions)),
            };
            for first in channels.clone().step_by(block) {
                let to = &mut sums[frequency * spectrum.step + (first - channels.start) * spectrum.tiles..];
                let to = &mut to[..block * spectrum.tiles];
                let target = Target::plain(to.as_mut_ptr(), spectrum.tiles, spectrum.tiles);
                let weights = self.weights.block(frequency, self.group, first / block);
                // SAFETY: the CPU has the instructions; the target has room for a whole block.
                unsafe { products(self.instructions, &source, weights, &zeros, &target) };
            }
        }
    }
}

/// The gradient of the weight.
pub(crate) fn weight_gradient(instructions: Instructions, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let sides = Sides::forward(shape);
    let padded_out = sides.out_channels.next_multiple_of(lanes(instructions));
    let sum_len = sides.in_channels * padded_out;
    let held = Held::new(instructions, &sides, 2, PRODUCTS * sides.groups * sum_len);
    let [input, output] = held.spectra;
    let offsets = Offsets::new(sides.in_channels, input.tiles, &[vec![0]]);
    let mut sums = vec![0.0; PRODUCTS * sides.groups * sum_len];
    for blocks in held.blocks.chunks(held.at_once) {
        let inputs = transform(instructions, &sides, blocks, (0, input), x);
        let outputs = transform(instructions, &sides, blocks, (1, output), grad);
        sums.par_chunks_mut(sum_len).enumerate().for_each(|(index, sums)| {
            let (frequency, group) = (index / sides.groups, index % sides.groups);
            with_scratch(padded_out * output.tiles, |panels| {
                for (index, block) in blocks.iter().enumerate() {
                    let unit = group * blocks.len() + index;
                    let grads = &outputs[unit * output.len() + frequency * output.step..];
                    let planes = Planes {
                        values: &grads[..sides.out_channels * output.tiles],
                        plane_step: output.tiles,
                        channels: sides.out_channels,
                        pixels: block.tiles,
                    };
                    let from = &inputs[unit * input.len() + frequency * input.step..];
                    let source = Source {
                        pixels: &from[..sides.in_channels * input.tiles],
                        offsets: &offsets,
                        terms: 0..sides.in_channels,
                        row_step: 0,
                        rows: 0..1,
                        width: block.tiles,
                    };
                    let panels = &mut panels[..padded_out * block.tiles];
                    // SAFETY: the CPU has the instructions.
                    unsafe {
                        fill_panels(instructions, &planes, panels);
                        add_tap_sums(instructions, &source, panels, block.tiles, sums);
                    }
                }
            });
        });
    }
    gradient(&sides, padded_out, &sums)
}
