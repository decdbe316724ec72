//! The weights of a Winograd convolution, transformed, and their gradient on its way back.
#![allow(clippy::needless_range_loop)] // Loops over lanes, with bounds that the compiler knows.

use std::arch::x86_64::__m256;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::conv::micro::taps::transpose;
use crate::conv::winograd::filter::{weight, weight_gradient};
use crate::conv::winograd::maps::GAP;
use crate::conv::winograd::tiles::{IN, PRODUCTS, Sides};
use crate::cpu::buffer::{Interleaved, filled};
use crate::cpu::lanes::Lanes;
use crate::cpu::simd::{Kernel, vectorised};

/// Taps of a kernel.
const TAPS: usize = 9;
/// Lanes of the registers of weights, which are those of AVX2: a block of channels has no more.
const LANES: usize = <__m256 as Lanes>::LANES;

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

/// `G g Gt` of blocks of output channels as the products read them: frequency after frequency, in each
/// block after block, and in a block for every input channel the values of its output channels.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Floats between frequencies.
    step: usize,
    block_len: usize,
}

impl Layout {
    pub(crate) fn new(block: usize, in_channels: usize, blocks: usize) -> Self {
        let block_len = in_channels * block;
        Self { step: blocks * block_len + GAP, block_len }
    }

    pub(crate) fn len(&self) -> usize {
        PRODUCTS * self.step
    }

    /// A block of a frequency.
    pub(crate) fn block<'a>(&self, weights: &'a [f32], frequency: usize, block: usize) -> &'a [f32] {
        &weights[frequency * self.step + block * self.block_len..][..self.block_len]
    }
}

/// A block of output channels of a group, and where it goes.
pub(crate) struct Pack<'a> {
    pub(crate) sides: &'a Sides,
    pub(crate) taps: &'a Taps<'a>,
    /// Output channels of a block.
    pub(crate) block: usize,
    pub(crate) group: usize,
    /// The first of the channels.
    pub(crate) first: usize,
}

/// The weights of all blocks of all groups.
pub(crate) fn transform_all(layout: Layout, block: usize, sides: &Sides, taps: &Taps) -> Vec<f32> {
    let blocks = sides.out_channels.div_ceil(block);
    // SAFETY: every block of every frequency is written, and what is between the frequencies.
    unsafe {
        filled(layout.len(), |out| {
            for frequency in out.chunks_exact_mut(layout.step) {
                frequency[layout.step - GAP..].fill(MaybeUninit::new(0.0));
            }
            let out = Interleaved::new(out);
            (0..sides.groups * blocks).into_par_iter().for_each(|index| {
                let pack = Pack { sides, taps, block, group: index / blocks, first: index % blocks * block };
                pack.write(layout, index, &out);
            });
        })
    }
}

impl Pack<'_> {
    /// Writes the block as the one of number `index`.
    ///
    /// # Safety
    /// The CPU must have AVX2 and FMA, and the block be this caller's alone.
    pub(crate) unsafe fn write(&self, layout: Layout, index: usize, out: &Interleaved) {
        let Self { sides, taps, group, first, block } = *self;
        let group_len = sides.in_channels * sides.out_channels * TAPS;
        let reach = (sides.out_channels - 1) * taps.steps[0] + (sides.in_channels - 1) * taps.steps[1] + TAPS;
        assert!(reach <= group_len && first < sides.out_channels, "taps up to {reach} of {group_len}");
        assert_eq!(layout.block_len, sides.in_channels * block, "blocks of another size");
        assert!(block <= LANES, "blocks of {block} channels");
        let channels = block.min(sides.out_channels - first);
        let mut scale = [0.0; LANES];
        for (lane, scale) in scale[..channels].iter_mut().enumerate() {
            *scale = taps.scale.map_or(1.0, |scale| scale[group * sides.out_channels + first + lane]);
        }
        let values = &taps.values[group * group_len..][..group_len];
        let from = &values[first * taps.steps[0]..];
        let to = out.address(index * layout.block_len, (PRODUCTS - 1) * layout.step + layout.block_len);
        // SAFETY: the caller's promise; the taps and the block have the size that is needed, as was
        // just checked.
        unsafe { self.write_checked(from.as_ptr(), channels, &scale, layout.step, to) };
    }

    /// # Safety
    /// As [`Self::write`], with operands that were checked.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn write_checked(&self, from: *const f32, channels: usize, scale: &[f32; LANES], step: usize, to: *mut f32) {
        let Self { sides, taps, block, .. } = *self;
        // SAFETY: the caller's promise: these channels have taps, and every input channel has a block of
        // weights in every frequency.
        unsafe {
            let (zero, scale) = (__m256::splat(0.0), __m256::load(scale.as_ptr()));
            // One tap of all channels after the other.
            let mut by_tap = [0.0; TAPS * LANES];
            for channel in 0..sides.in_channels {
                let from = from.add(channel * taps.steps[1]);
                let to = to.add(channel * block);
                let mut g = [[zero; 3]; 3];
                transpose::<__m256>([channels, LANES], from, taps.steps[0], by_tap.as_mut_ptr(), LANES);
                for lane in 0..channels {
                    by_tap[(TAPS - 1) * LANES + lane] = *from.add(lane * taps.steps[0] + TAPS - 1);
                }
                for tap in 0..TAPS {
                    let place = if taps.is_reversed { TAPS - 1 - tap } else { tap };
                    g[tap % 3][tap / 3] = __m256::load(by_tap[place * LANES..].as_ptr()).multiply_add(scale, zero);
                }
                let columns = [weight(g[0]), weight(g[1]), weight(g[2])];
                for row in 0..IN {
                    let values = weight([columns[0][row], columns[1][row], columns[2][row]]);
                    for column in 0..IN {
                        values[column].store_first(to.add((row * IN + column) * step), block);
                    }
                }
            }
        }
    }
}

/// How the sums of the weight's gradient lie in memory: frequency after frequency, in each group after
/// group, of each for every input channel a row of the output channels, filled up to whole registers.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) padded_out: usize,
    /// Floats between frequencies.
    pub(crate) step: usize,
}

impl Sums {
    pub(crate) fn new(sides: &Sides, lanes: usize) -> Self {
        let padded_out = sides.out_channels.next_multiple_of(lanes);
        Self { padded_out, step: sides.groups * sides.in_channels * padded_out + GAP }
    }

    pub(crate) fn len(&self) -> usize {
        PRODUCTS * self.step
    }
}

/// The gradient of the weights from the sums.
pub(crate) fn gradient(sides: &Sides, layout: Sums, sums: &[f32]) -> Vec<f32> {
    /// Input channels of a task: their taps of an output channel share cache lines.
    const CHANNELS: usize = 8;
    let (in_channels, out_channels) = (sides.in_channels, sides.out_channels);
    assert_eq!(sums.len(), layout.len(), "sums of another size");
    let parts = in_channels.div_ceil(CHANNELS);
    // SAFETY: every pair of channels is one task's alone, and has its taps written.
    unsafe {
        filled(sides.groups * out_channels * in_channels * TAPS, |out| {
            let out = Interleaved::new(out);
            (0..sides.groups * parts).into_par_iter().for_each(|task| {
                let (group, part) = (task / parts, task % parts);
                for channel in part * CHANNELS..in_channels.min((part + 1) * CHANNELS) {
                    vectorised(GradientRow { sides, layout, sums, group, channel, out: &out });
                }
            });
        })
    }
}

/// The gradient of all weights of an input channel.
struct GradientRow<'a> {
    sides: &'a Sides,
    layout: Sums,
    sums: &'a [f32],
    group: usize,
    channel: usize,
    out: &'a Interleaved<'a>,
}

impl Kernel for GradientRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (in_channels, out_channels) = (self.sides.in_channels, self.sides.out_channels);
        let Sums { padded_out, step } = self.layout;
        let row = &self.sums[(self.group * in_channels + self.channel) * padded_out..];
        for first in (0..out_channels).step_by(LANES) {
            let mut columns = [[[0.0; LANES]; IN]; 3];
            for column in 0..IN {
                let mut sums = [[0.0; LANES]; IN];
                for line in 0..IN {
                    sums[line].copy_from_slice(&row[(line * IN + column) * step + first..][..LANES]);
                }
                for (line, values) in weight_gradient(sums).into_iter().enumerate() {
                    columns[line][column] = values;
                }
            }
            let taps = columns.map(weight_gradient);
            for lane in 0..LANES.min(out_channels - first) {
                let pair = (self.group * out_channels + first + lane) * in_channels + self.channel;
                // SAFETY: this pair of channels is this task's alone.
                let to = unsafe { self.out.part(pair * TAPS, TAPS) };
                for tap in 0..TAPS {
                    to[tap].write(taps[tap / 3][tap % 3][lane]);
                }
            }
        }
    }
}
