//! Maps to the tiles of a Winograd convolution, in vector registers whose lanes are tiles.
//!
//! The rows that a block of tiles sees of a channel are laid end to end, so that four registers of
//! pixels are the first four columns of a register of tiles, however short the rows are. The last two
//! columns of a tile are the first two of the next, but for the last tile of a row: those follow apart.
#![allow(clippy::needless_range_loop)] // Loops over registers, with bounds that the compiler knows.

use std::arch::x86_64::{__m256, __m512};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::conv::micro::{lanes, no_microkernels};
use crate::conv::winograd::filter::{input, output_gradient, split_by_four};
use crate::conv::winograd::tiles::{Block, IN, OUT, PRODUCTS, Sides};
use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::instructions::Instructions;
use crate::cpu::lanes::Lanes;

/// A loop over registers with its operands.
pub(crate) trait Work {
    /// It must be marked `inline(always)`, to be compiled for the instructions.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn run<V: Lanes>(self);
}

/// # Safety
/// The CPU must have the instructions.
pub(crate) unsafe fn run(instructions: Instructions, work: impl Work) {
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512(work: impl Work) {
        // SAFETY: this function has the instructions.
        unsafe { work.run::<__m512>() }
    }
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(work: impl Work) {
        // SAFETY: as above.
        unsafe { work.run::<__m256>() }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match instructions {
            Instructions::Avx512 => avx512(work),
            Instructions::Avx2 => avx2(work),
            Instructions::Portable => no_microkernels(),
        }
    }
}

/// Floats between frequencies: without a cache line between them all would share a set of the cache.
pub(crate) const GAP: usize = 16;

/// How the transformed values of some channels lie in memory: frequency after frequency, in each channel
/// after channel, of each channel a value for every tile.
#[derive(Clone, Copy)]
pub(crate) struct Spectrum {
    pub(crate) tiles: usize,
    /// Floats between frequencies.
    pub(crate) step: usize,
}

impl Spectrum {
    pub(crate) fn new(channels: usize, tiles: usize) -> Self {
        Self { tiles, step: channels * tiles + GAP }
    }

    /// Writes what no channel's values are in a frequency.
    fn fill_gap(&self, frequency: &mut [MaybeUninit<f32>]) {
        frequency[self.step - GAP..].fill(MaybeUninit::new(0.0));
    }

    /// That of the largest of some blocks, filled up to whole registers of `lanes` tiles.
    pub(crate) fn of_blocks(channels: usize, blocks: &[Block], lanes: usize) -> Self {
        let tiles = blocks.iter().map(|block| block.tiles).max().unwrap_or(0);
        Self::new(channels, tiles.next_multiple_of(lanes))
    }

    pub(crate) fn len(&self) -> usize {
        PRODUCTS * self.step
    }

    /// Floats of a frequency without what is behind it.
    pub(crate) fn values(&self) -> usize {
        self.step - GAP
    }

    /// What is written or read of one channel, from its first value of the first frequency on.
    pub(crate) fn span(&self) -> usize {
        (PRODUCTS - 1) * self.step + self.tiles
    }
}

/// Floats of scratch memory for the transforms of a channel of blocks of up to `tiles` tiles.
pub(crate) fn scratch_len(tiles: usize) -> usize {
    // Rows of four columns for every tile and two more for every run; then planes of tiles.
    IN * row_len(tiles) + PRODUCTS * tiles
}

/// Floats of a row of all tiles.
fn row_len(tiles: usize) -> usize {
    (OUT + 2) * tiles
}

/// A whole map that is transformed.
#[derive(Clone, Copy)]
pub(crate) enum Map<'a> {
    /// By `Bt d B`.
    Input(&'a [f32]),
    /// By `A y At`.
    OutputGradient(&'a [f32]),
}

/// Channels whose transform is a task.
const TASK_CHANNELS: usize = 8;

/// The transformed map of some blocks: block after block for every group.
pub(crate) fn transform(
    instructions: Instructions,
    sides: &Sides,
    blocks: &[Block],
    spectrum: Spectrum,
    map: Map,
) -> Vec<f32> {
    let channels = spectrum.values() / spectrum.tiles;
    let (units, parts) = (sides.groups * blocks.len(), channels.div_ceil(TASK_CHANNELS));
    let compute = |out: &Interleaved, task: usize| {
        let (unit, part) = (task / parts, task % parts);
        let (group, block) = (unit / blocks.len(), &blocks[unit % blocks.len()]);
        with_scratch(scratch_len(spectrum.tiles), |scratch| {
            for index in part * TASK_CHANNELS..channels.min((part + 1) * TASK_CHANNELS) {
                let to = (out, unit * spectrum.len() + index * spectrum.tiles);
                let channel = Channel { sides, block, channel: group * channels + index };
                // SAFETY: the CPU has the instructions; a channel of a block is one task's alone.
                unsafe {
                    match map {
                        Map::Input(map) => {
                            run(instructions, Transform::<IN>::new(instructions, &channel, map, spectrum, scratch, to));
                        }
                        Map::OutputGradient(map) => {
                            run(
                                instructions,
                                Transform::<OUT>::new(instructions, &channel, map, spectrum, scratch, to),
                            );
                        }
                    }
                }
            }
        });
    };
    // SAFETY: every channel of every block is written in full, and what is behind the frequencies.
    unsafe {
        filled(units * spectrum.len(), |out| {
            out.chunks_exact_mut(spectrum.step).for_each(|frequency| spectrum.fill_gap(frequency));
            let out = Interleaved::new(out);
            (0..units * parts).into_par_iter().for_each(|task| compute(&out, task));
        })
    }
}

/// A channel of a block of tiles.
struct Channel<'a> {
    sides: &'a Sides,
    block: &'a Block,
    /// Among the channels of all groups.
    channel: usize,
}

/// A channel of tiles of `SIDE` rows and columns on its way to the frequencies.
struct Transform<'a, const SIDE: usize> {
    channel: &'a Channel<'a>,
    map: &'a [f32],
    rows: &'a mut [f32],
    planes: &'a mut [f32],
    spectrum: Spectrum,
    /// Tiles, filled up to whole registers.
    width: usize,
    to: *mut f32,
}

impl<'a, const SIDE: usize> Transform<'a, SIDE> {
    fn new(
        instructions: Instructions,
        channel: &'a Channel,
        map: &'a [f32],
        spectrum: Spectrum,
        scratch: &'a mut [f32],
        (out, at): (&Interleaved, usize),
    ) -> Self {
        let (width, tiles) = (spectrum.tiles, channel.block.tiles);
        assert!(width.is_multiple_of(lanes(instructions)), "{width} tiles do not fill registers");
        assert!(channel.block.runs.len() <= tiles && tiles <= width, "{tiles} tiles where there is room for {width}");
        let (rows, planes) = scratch[..scratch_len(spectrum.tiles)].split_at_mut(IN * row_len(spectrum.tiles));
        Self { channel, map, rows, planes, spectrum, width, to: out.address(at, spectrum.span()) }
    }

    /// Lays the rows of all tiles end to end, with zeros where there is no pixel.
    #[inline(always)]
    fn fetch(&mut self) {
        let Channel { sides, block, channel } = *self.channel;
        let is_input = SIDE == IN;
        let (size, origin) = if is_input { (sides.size, sides.origin) } else { (sides.out_size, [0, 0]) };
        let channels = sides.groups * if is_input { sides.in_channels } else { sides.out_channels };
        let [down, right] = sides.dilation;
        let area = size[0] * size[1];
        for (row, to) in self.rows.chunks_exact_mut(row_len(self.spectrum.tiles)).take(SIDE).enumerate() {
            let (pixels, ends) = to.split_at_mut(OUT * self.width);
            for (index, run) in block.runs.iter().enumerate() {
                let plane = &self.map[(run.image * channels + channel) * area..][..area];
                let y = (run.place[0] + row * down) as isize + origin[0];
                let x = run.place[1] as isize + origin[1];
                let pixels = &mut pixels[OUT * run.first..][..OUT * run.tiles];
                let ends = &mut ends[2 * index..][..2];
                if !(0..size[0] as isize).contains(&y) {
                    pixels.fill(0.0);
                    ends.fill(0.0);
                    continue;
                }
                let from = &plane[y as usize * size[1]..][..size[1]];
                fetch_every(right, from, x, pixels);
                if is_input {
                    let end = x + (OUT * run.tiles * right) as isize;
                    ends.copy_from_slice(&[pixel(from, end), pixel(from, end + right as isize)]);
                }
            }
            pixels[OUT * block.tiles..].fill(0.0);
        }
    }

    /// Transforms the columns of all rows, which are as many as there are frequencies then.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    #[inline(always)]
    unsafe fn transform_columns<V: Lanes>(&mut self) {
        let row_len = row_len(self.spectrum.tiles);
        let ends = if SIDE == IN { 2 * self.channel.block.runs.len() } else { 0 };
        // Whole registers are inside a row: it has room for two ends of every tile.
        for column in (0..OUT * self.width + ends).step_by(V::LANES) {
            let at = self.rows[column..].as_mut_ptr();
            // SAFETY: the caller's promise; there are `IN` rows.
            unsafe {
                let mut values = [V::splat(0.0); SIDE];
                for row in 0..SIDE {
                    values[row] = V::load(at.add(row * row_len));
                }
                for (row, value) in frequencies::<V, SIDE>(values).into_iter().enumerate() {
                    value.store(at.add(row * row_len));
                }
            }
        }
    }

    /// Splits the rows into the columns of tiles: plane after plane for every row.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    #[inline(always)]
    unsafe fn split_columns<V: Lanes>(&mut self) {
        let (tiles, width) = (self.spectrum.tiles, self.width);
        let rows = self.rows.chunks_exact(row_len(tiles)).zip(self.planes.chunks_exact_mut(IN * tiles));
        for (row, planes) in rows {
            for tile in (0..width).step_by(V::LANES) {
                let from = row[OUT * tile..][..OUT * V::LANES].as_ptr();
                let to = planes[tile..][..3 * tiles + V::LANES].as_mut_ptr();
                // SAFETY: the caller's promise, and the bounds that were just checked.
                unsafe {
                    let mut pixels = [V::splat(0.0); OUT];
                    for register in 0..OUT {
                        pixels[register] = V::load(from.add(register * V::LANES));
                    }
                    for (column, values) in split_by_four(pixels).into_iter().enumerate() {
                        values.store(to.add(column * tiles));
                    }
                }
            }
            if SIDE == IN {
                let (ends, block) = (&row[OUT * width..], self.channel.block);
                let (from, to) = planes.split_at_mut(OUT * tiles);
                for column in 0..2 {
                    let to = &mut to[column * tiles..][..width];
                    to[..width - 1].copy_from_slice(&from[column * tiles + 1..][..width - 1]);
                    for (index, run) in block.runs.iter().enumerate() {
                        to[run.first + run.tiles - 1] = ends[2 * index + column];
                    }
                    // What is behind the last tile is zero, as its other columns are.
                    to[block.tiles..].fill(0.0);
                }
            }
        }
    }

    /// Transforms the rows of all tiles and writes their frequencies.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the values be written by nobody else.
    #[inline(always)]
    unsafe fn transform_rows<V: Lanes>(&self) {
        let Spectrum { tiles, step } = self.spectrum;
        for (row, planes) in self.planes.chunks_exact(IN * tiles).enumerate() {
            for tile in (0..self.width).step_by(V::LANES) {
                let from = planes[tile..][..(SIDE - 1) * tiles + V::LANES].as_ptr();
                // SAFETY: the caller's promise, the bounds that were just checked, and those that
                // `Interleaved::address` checked for all frequencies of a channel.
                unsafe {
                    let mut values = [V::splat(0.0); SIDE];
                    for column in 0..SIDE {
                        values[column] = V::load(from.add(column * tiles));
                    }
                    for (column, value) in frequencies::<V, SIDE>(values).into_iter().enumerate() {
                        value.store(self.to.add((row * IN + column) * step + tile));
                    }
                }
            }
        }
    }
}

impl<const SIDE: usize> Work for Transform<'_, SIDE> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        self.fetch();
        // SAFETY: the caller's promise.
        unsafe {
            self.transform_columns::<V>();
            self.split_columns::<V>();
            self.transform_rows::<V>();
        }
    }
}

/// The transform of a row or column of the input, or of the output's gradient.
///
/// # Safety
/// The CPU must have the instructions.
#[inline(always)]
unsafe fn frequencies<V: Lanes, const SIDE: usize>(values: [V; SIDE]) -> [V; IN] {
    // SAFETY: the caller's promise.
    unsafe {
        if SIDE == IN {
            input(std::array::from_fn(|index| values[index]))
        } else {
            output_gradient(std::array::from_fn(|index| values[index]))
        }
    }
}

/// A pixel of a row, or the zero beside it.
#[inline(always)]
fn pixel(row: &[f32], at: isize) -> f32 {
    usize::try_from(at).ok().and_then(|at| row.get(at)).copied().unwrap_or(0.0)
}

/// Every `step`-th pixel of a row from pixel `first` on, which need not be on it: zeros are around it.
#[inline(always)]
fn fetch_every(step: usize, row: &[f32], first: isize, to: &mut [f32]) {
    let len = row.len() as isize;
    let before = if first >= 0 { 0 } else { first.unsigned_abs().div_ceil(step).min(to.len()) };
    let end = if first >= len { 0 } else { (len - first).unsigned_abs().div_ceil(step).min(to.len()) };
    let end = end.max(before);
    // Few runs touch the border: that is asked first, for to fill nothing is a call, too.
    if before > 0 {
        to[..before].fill(0.0);
    }
    if end < to.len() {
        to[end..].fill(0.0);
    }
    if before < end {
        let from = &row[(first + (before * step) as isize) as usize..];
        match step {
            1 => to[before..end].copy_from_slice(&from[..end - before]),
            _ => to[before..end].iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from),
        }
    }
}
