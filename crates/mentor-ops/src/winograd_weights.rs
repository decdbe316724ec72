//! The weights of a Winograd convolution, transformed, and their gradient on its way back.
#![allow(clippy::needless_range_loop)] // Loops over lanes, with bounds that the compiler knows.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::buffer::Interleaved;
use crate::simd::{Kernel, vectorised};
use crate::winograd_filter::{weight, weight_gradient};
use crate::winograd_maps::GAP;
use crate::winograd_tiles::{IN, PRODUCTS, Sides};

/// Taps of a kernel.
const TAPS: usize = 9;

/// Where the taps of every pair of channels lie.
pub(crate) struct Taps<'a> {
    pub(crate) values: &'a [f32],
    /// A factor for every output channel of every group.
    pub(crate) scale: Option<&'a [f32]>,
    /// Taps between the output channels of a group, and between its input channels.
    pub(crate) steps: [usize; 2],
    /// Whether the taps are read from the last to the first.
    pub(crate) is_reversed: bool,
}

/// `G g Gt` of all weights as the products read them: frequency after frequency, in each group after
/// group, block after block of output channels, and in a block for every input channel those of its
/// output channels.
pub(crate) struct Transformed {
    values: Vec<f32>,
    /// Floats between frequencies.
    step: usize,
    blocks: usize,
    block_len: usize,
}

impl Transformed {
    pub(crate) fn new(block: usize, sides: &Sides, taps: &Taps) -> Self {
        let (blocks, block_len) = (sides.out_channels.div_ceil(block), sides.in_channels * block);
        let step = sides.groups * blocks * block_len + GAP;
        let mut values = Vec::with_capacity(PRODUCTS * step);
        let memory = &mut values.spare_capacity_mut()[..PRODUCTS * step];
        for frequency in memory.chunks_exact_mut(step) {
            frequency[step - GAP..].fill(MaybeUninit::new(0.0));
        }
        let out = Interleaved::new(memory);
        (0..sides.groups * blocks).into_par_iter().for_each(|index| {
            let pack = Pack { sides, taps, group: index / blocks, block: index % blocks, at: index * block_len };
            match block {
                6 => vectorised(PackBlock::<6>(pack, &out, step)),
                8 => vectorised(PackBlock::<8>(pack, &out, step)),
                _ => unreachable!("blocks of {block} channels"),
            }
        });
        // SAFETY: every block of every frequency was written, and what is between the frequencies.
        unsafe { values.set_len(PRODUCTS * step) };
        Self { values, step, blocks, block_len }
    }

    pub(crate) fn block(&self, frequency: usize, group: usize, block: usize) -> &[f32] {
        &self.values[frequency * self.step + (group * self.blocks + block) * self.block_len..][..self.block_len]
    }
}

/// A block of output channels.
struct Pack<'a> {
    sides: &'a Sides,
    taps: &'a Taps<'a>,
    group: usize,
    block: usize,
    /// Where its weights of the first frequency go.
    at: usize,
}

struct PackBlock<'a, const BLOCK: usize>(Pack<'a>, &'a Interleaved<'a>, usize);

impl<const BLOCK: usize> Kernel for PackBlock<'_, BLOCK> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(Pack { sides, taps, group, block, at }, out, step) = self;
        let group_len = sides.in_channels * sides.out_channels * TAPS;
        let values = &taps.values[group * group_len..][..group_len];
        // Behind the last channel that one is repeated: nobody reads the sums of those.
        let channels: [usize; BLOCK] = std::array::from_fn(|lane| (block * BLOCK + lane).min(sides.out_channels - 1));
        let scale = channels.map(|channel| taps.scale.map_or(1.0, |scale| scale[group * sides.out_channels + channel]));
        for from in 0..sides.in_channels {
            let mut rows = [[[0.0; BLOCK]; 3]; 3];
            for lane in 0..BLOCK {
                let kernel = &values[channels[lane] * taps.steps[0] + from * taps.steps[1]..][..TAPS];
                for tap in 0..TAPS {
                    let place = if taps.is_reversed { TAPS - 1 - tap } else { tap };
                    rows[tap / 3][tap % 3][lane] = kernel[place] * scale[lane];
                }
            }
            let columns = [0, 1, 2].map(|column| weight([rows[0][column], rows[1][column], rows[2][column]]));
            for row in 0..IN {
                let values = weight([columns[0][row], columns[1][row], columns[2][row]]);
                for column in 0..IN {
                    let at = (row * IN + column) * step + at + from * BLOCK;
                    // SAFETY: the blocks are apart, and this one is this task's alone.
                    let to = unsafe { out.part(at, BLOCK) };
                    for lane in 0..BLOCK {
                        to[lane].write(values[column][lane]);
                    }
                }
            }
        }
    }
}

/// The gradient of the weights from the sums of all frequencies: frequency after frequency, in each group
/// after group, for every input channel those of the output channels of the group, `padded_out` of them.
pub(crate) fn gradient(sides: &Sides, padded_out: usize, sums: &[f32]) -> Vec<f32> {
    /// Output channels at a time: those of a cache line.
    const BLOCK: usize = 16;
    let (in_channels, out_channels) = (sides.in_channels, sides.out_channels);
    let step = sides.groups * in_channels * padded_out;
    assert_eq!(sums.len(), PRODUCTS * step, "sums of another size");
    let mut total = vec![0.0; sides.groups * out_channels * in_channels * TAPS];
    let groups = total.chunks_mut(out_channels * in_channels * TAPS).enumerate();
    let parts: Vec<_> = groups
        .flat_map(|(group, total)| {
            total.chunks_mut(BLOCK * in_channels * TAPS).enumerate().map(move |part| (group, part))
        })
        .collect();
    parts.into_par_iter().for_each(|(group, (block, to))| {
        let lanes = to.len() / (in_channels * TAPS);
        let at = group * in_channels * padded_out + block * BLOCK;
        vectorised(GradientBlock::<BLOCK> { sums, at, steps: [step, padded_out], lanes, to });
    });
    total
}

/// A block of output channels of the gradient.
struct GradientBlock<'a, const BLOCK: usize> {
    sums: &'a [f32],
    at: usize,
    /// Floats between frequencies, and between input channels.
    steps: [usize; 2],
    lanes: usize,
    to: &'a mut [f32],
}

impl<const BLOCK: usize> Kernel for GradientBlock<'_, BLOCK> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let in_channels = self.to.len() / (self.lanes * TAPS);
        for channel in 0..in_channels {
            let value = |frequency: usize| {
                let from = &self.sums[self.at + frequency * self.steps[0] + channel * self.steps[1]..][..self.lanes];
                let mut values = [0.0; BLOCK];
                values[..self.lanes].copy_from_slice(from);
                values
            };
            let mut columns = [[[0.0; BLOCK]; IN]; 3];
            for column in 0..IN {
                let sums = std::array::from_fn(|row| value(row * IN + column));
                for (row, values) in weight_gradient(sums).into_iter().enumerate() {
                    columns[row][column] = values;
                }
            }
            for (row, columns) in columns.into_iter().enumerate() {
                for (column, values) in weight_gradient(columns).into_iter().enumerate() {
                    let to = &mut self.to[channel * TAPS + row * 3 + column..];
                    to.iter_mut().step_by(in_channels * TAPS).zip(&values[..self.lanes]).for_each(|(to, value)| {
                        *to = *value;
                    });
                }
            }
        }
    }
}
