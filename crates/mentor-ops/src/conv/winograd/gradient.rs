//! The gradient of the weight of a convolution by Winograd's minimal filtering: the way back of
//! [`crate::conv::winograd`].
//!
//! With `V` for the transformed input and `A dY At` for the gradient of a tile of the output, every
//! frequency of the transformed weights has the sum of their products over all tiles as its gradient, and
//! the weights themselves have `Gt dU G`.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::conv::micro::taps::{Planes, add_tap_sums, fill_panels};
use crate::conv::micro::{Offsets, Source, lanes};
use crate::conv::shape::ConvShape;
use crate::conv::winograd::maps::{Map, Spectrum, transform};
use crate::conv::winograd::tiles::{Block, Sides, TILES, blocks};
use crate::conv::winograd::weights::{Sums, gradient};
use crate::cpu::buffer::{filled, with_scratch};
use crate::cpu::instructions::Instructions;

/// Floats of the transformed maps of the blocks that are computed together, at least: they should stay in
/// the second-level caches.
const CACHED: usize = 512 * 1024;

/// The gradient of the weight.
///
/// Every frequency is a task, which adds up all blocks of tiles in their order.
pub(crate) fn weight_gradient(instructions: Instructions, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let sides = Sides::forward(shape);
    let blocks = blocks(&sides, TILES, lanes(instructions));
    let [input, output] = [sides.in_channels, sides.out_channels]
        .map(|channels| Spectrum::of_blocks(channels, &blocks, lanes(instructions)));
    let layout = Sums::new(&sides, lanes(instructions));
    // Sums that are larger than the maps are not to be read more often than those.
    let at_once = (CACHED.max(layout.len()) / (sides.groups * (input.len() + output.len()))).max(1);
    // SAFETY: all sums are filled before the first blocks are added to them.
    let sums = unsafe {
        filled(layout.len(), |sums| {
            for (index, blocks) in blocks.chunks(at_once).enumerate() {
                let inputs = transform(instructions, &sides, blocks, input, Map::Input(x));
                let grads = transform(instructions, &sides, blocks, output, Map::OutputGradient(grad));
                let maps = Maps { instructions, sides: &sides, blocks, spectra: [input, output], inputs, grads };
                sums.par_chunks_mut(layout.step).enumerate().for_each(|(frequency, sums)| {
                    if index == 0 {
                        sums.fill(MaybeUninit::new(0.0));
                    }
                    maps.add(frequency, layout.padded_out, sums.assume_init_mut());
                });
            }
        })
    };
    gradient(&sides, layout, &sums)
}

/// The transformed maps of some blocks.
struct Maps<'a> {
    instructions: Instructions,
    sides: &'a Sides,
    blocks: &'a [Block],
    /// Of the input, and of the output's gradient.
    spectra: [Spectrum; 2],
    inputs: Vec<f32>,
    grads: Vec<f32>,
}

impl Maps<'_> {
    /// Adds a frequency of all blocks to its sums: group after group, a row of output channels for every
    /// input channel.
    fn add(&self, frequency: usize, padded_out: usize, sums: &mut [f32]) {
        let (sides, [input, output]) = (self.sides, self.spectra);
        let offsets = Offsets::new(sides.in_channels, input.tiles, &[vec![0]]);
        with_scratch(padded_out * output.tiles, |panels| {
            let groups = sums.chunks_exact_mut(sides.in_channels * padded_out).take(sides.groups);
            let blocks = &self.blocks;
            for (group, sums) in groups.enumerate() {
                for (index, block) in blocks.iter().enumerate() {
                    let unit = group * blocks.len() + index;
                    let grads = Planes {
                        values: &self.grads[unit * output.len() + frequency * output.step..][..output.values()],
                        plane_step: output.tiles,
                        channels: sides.out_channels,
                        pixels: block.tiles,
                    };
                    let source = Source {
                        pixels: &self.inputs[unit * input.len() + frequency * input.step..][..input.values()],
                        offsets: &offsets,
                        terms: 0..sides.in_channels,
                        row_step: 0,
                        rows: 0..1,
                        width: block.tiles,
                    };
                    let panels = &mut panels[..padded_out * block.tiles];
                    // SAFETY: the CPU has the instructions.
                    unsafe {
                        fill_panels(self.instructions, &grads, panels);
                        add_tap_sums(self.instructions, &source, panels, block.tiles, sums);
                    }
                }
            }
        });
    }
}
