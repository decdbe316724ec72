//! The innermost loops of convolutions: sums over taps and channels that stay in vector registers.
//!
//! No columns are made. What a tap of one channel sees of a padded map is the map itself from some
//! offset on (see [`crate::conv::padded`]), so a sum over taps and channels is a sum over a list of offsets.
//!
//! The entries check their operands; what they read past a row of the map (the rest of a register) is
//! inside their source and never written anywhere.
#![allow(clippy::needless_range_loop)] // Loops over registers, with bounds that the compiler knows.

pub(super) mod taps;

use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

use crate::conv::epilogue::Activation;
use crate::cpu::instructions::Instructions;
use crate::cpu::lanes::Lanes;

/// Lanes of a register.
pub(crate) fn lanes(instructions: Instructions) -> usize {
    match instructions {
        Instructions::Avx512 => <__m512 as Lanes>::LANES,
        Instructions::Avx2 => <__m256 as Lanes>::LANES,
        Instructions::Portable => no_microkernels(),
    }
}

/// Output channels whose sums [`products`] holds in registers at a time.
pub(crate) fn channel_block(instructions: Instructions) -> usize {
    match instructions {
        Instructions::Avx512 => 8,
        Instructions::Avx2 => 6,
        Instructions::Portable => no_microkernels(),
    }
}

/// Pixels of a row that [`products`] works on at a time.
pub(crate) fn pixels_at_once(instructions: Instructions) -> usize {
    match instructions {
        Instructions::Avx512 => AVX512_REGISTERS * lanes(instructions),
        Instructions::Avx2 => AVX2_REGISTERS * lanes(instructions),
        Instructions::Portable => no_microkernels(),
    }
}

/// Registers of pixels that the sums of a block are held for at a time.
const AVX512_REGISTERS: usize = 3;
const AVX2_REGISTERS: usize = 2;

pub(crate) fn no_microkernels() -> ! {
    panic!("the portable path has no microkernels")
}

/// Where the terms of a sum begin in a source: for every row of taps every channel, and of it every tap
/// of the row. So the terms of consecutive rows of taps follow each other.
pub(crate) struct Offsets {
    pub(crate) at: Vec<usize>,
    furthest: usize,
}

impl Offsets {
    /// All taps of all channels, where tap (row, column) begins at `taps[row][column]` and the channels
    /// are `channel_step` pixels apart.
    pub(crate) fn new(channels: usize, channel_step: usize, taps: &[Vec<usize>]) -> Self {
        let places = |channel: usize, row: &'_ [usize]| -> Vec<usize> {
            row.iter().map(|tap| channel * channel_step + tap).collect()
        };
        let at: Vec<usize> =
            taps.iter().flat_map(|row| (0..channels).flat_map(move |channel| places(channel, row))).collect();
        let furthest = at.iter().copied().max().unwrap_or(0);
        Self { at, furthest }
    }

    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }
}

/// Some rows of pixels: term `t` of the sum for output pixel (row, column) is at
/// `offsets[t] + row * row_step + column`.
pub(crate) struct Source<'a> {
    pub(crate) pixels: &'a [f32],
    pub(crate) offsets: &'a Offsets,
    /// The terms that count; the others are known to be zero.
    pub(crate) terms: Range<usize>,
    pub(crate) row_step: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) width: usize,
}

impl Source<'_> {
    /// Panics if a row that is read up to a multiple of `lanes` pixels ends behind the last pixel.
    pub(crate) fn check(&self, lanes: usize) {
        assert!(!self.rows.is_empty() && self.width > 0, "a source without pixels");
        assert!(self.terms.start <= self.terms.end && self.terms.end <= self.offsets.len(), "terms that are not there");
        let last_row = self.offsets.furthest + (self.rows.end - 1) * self.row_step;
        let end = last_row + self.width.next_multiple_of(lanes);
        assert!(end <= self.pixels.len(), "a source of {} pixels is read up to {end}", self.pixels.len());
    }

    /// The offsets of the terms that count.
    fn offsets(&self) -> &[usize] {
        &self.offsets.at[self.terms.clone()]
    }
}

/// Rows of output pixels of some channels: where row zero of the first begins, and how many floats they
/// are apart; and what becomes of the sums before they are stored there.
pub(crate) struct Target<'a> {
    pub(crate) address: *mut f32,
    pub(crate) channel_step: usize,
    pub(crate) row_step: usize,
    /// What is added: as many floats apart as the target.
    pub(crate) residual: Option<&'a [f32]>,
    /// What the values are brought between at last.
    pub(crate) bounds: [f32; 2],
}

impl Target<'_> {
    /// Rows that receive the sums as they are.
    pub(crate) fn plain(address: *mut f32, channel_step: usize, row_step: usize) -> Self {
        Self { address, channel_step, row_step, residual: None, bounds: Activation::Identity.bounds() }
    }

    /// Panics if the last pixel of `rows` rows of `channels` channels lies behind the residual.
    fn check(&self, channels: usize, rows: usize, width: usize) {
        let end = (channels - 1) * self.channel_step + (rows - 1) * self.row_step + width;
        assert!(self.residual.is_none_or(|residual| end <= residual.len()), "a residual is read up to {end}");
    }
}

/// Writes the sums over all terms for up to [`channel_block`] output channels: as many as `start` has
/// values to start from. `weights` has a whole block for every offset, in their order.
///
/// # Safety
/// The CPU must have the instructions, and all rows of the target be valid and this caller's alone.
pub(crate) unsafe fn products(
    instructions: Instructions,
    source: &Source,
    weights: &[f32],
    start: &[f32],
    target: &Target,
) {
    let block = channel_block(instructions);
    assert_eq!(weights.len(), source.offsets.len() * block, "weights of another number of terms");
    assert!((1..=block).contains(&start.len()), "{} channels in a block of {block}", start.len());
    source.check(lanes(instructions));
    target.check(start.len(), source.rows.end, source.width);
    let weights = &weights[source.terms.start * block..source.terms.end * block];
    // SAFETY: the caller's promise; the operands fit, as was just checked.
    unsafe {
        match instructions {
            Instructions::Avx512 => products_avx512(source, weights, start, target),
            Instructions::Avx2 => products_avx2(source, weights, start, target),
            Instructions::Portable => no_microkernels(),
        }
    }
}

/// # Safety
/// As [`products`], with operands that were checked.
#[target_feature(enable = "avx512f")]
unsafe fn products_avx512(source: &Source, weights: &[f32], start: &[f32], target: &Target) {
    // SAFETY: this function has the instructions; the rest is the caller's promise.
    unsafe { products_of_rows::<__m512, 8, AVX512_REGISTERS>(source, weights, start, target) }
}

/// # Safety
/// As [`products`], with operands that were checked.
#[target_feature(enable = "avx2,fma")]
unsafe fn products_avx2(source: &Source, weights: &[f32], start: &[f32], target: &Target) {
    // SAFETY: as above.
    unsafe { products_of_rows::<__m256, 6, AVX2_REGISTERS>(source, weights, start, target) }
}

/// [`products`], two or three registers of pixels at a time, which may be of different rows.
///
/// # Safety
/// As [`products`], with operands that were checked.
#[inline(always)]
unsafe fn products_of_rows<V: Lanes, const BLOCK: usize, const AT_ONCE: usize>(
    source: &Source,
    weights: &[f32],
    start: &[f32],
    target: &Target,
) {
    let per_row = source.width.div_ceil(V::LANES);
    let count = source.rows.end * per_row;
    let mut first = source.rows.start * per_row;
    while first < count {
        // SAFETY: the registers `first..count` are those of the source's rows.
        unsafe {
            match (count - first).min(AT_ONCE) {
                1 => products_of_registers::<V, BLOCK, 1>(source, weights, start, target, first),
                2 => products_of_registers::<V, BLOCK, 2>(source, weights, start, target, first),
                _ => products_of_registers::<V, BLOCK, AT_ONCE>(source, weights, start, target, first),
            }
        }
        first += AT_ONCE;
    }
}

/// [`products`] of `REGISTERS` registers of pixels from register `first` of all rows on.
///
/// # Safety
/// As [`products`], with operands that were checked; the rows must have that many registers.
#[inline(always)]
unsafe fn products_of_registers<V: Lanes, const BLOCK: usize, const REGISTERS: usize>(
    source: &Source,
    weights: &[f32],
    start: &[f32],
    target: &Target,
    first: usize,
) {
    let per_row = source.width.div_ceil(V::LANES);
    let mut from = [source.pixels.as_ptr(); REGISTERS];
    let mut to = [0; REGISTERS];
    let mut lanes = [V::LANES; REGISTERS];
    for register in 0..REGISTERS {
        let (row, column) = ((first + register) / per_row, (first + register) % per_row * V::LANES);
        from[register] = from[register].wrapping_add(row * source.row_step + column);
        to[register] = row * target.row_step + column;
        lanes[register] = V::LANES.min(source.width - column);
    }
    // SAFETY: every offset is valid for whole registers of all rows (`Source::check`), and the lanes
    // that are written are pixels of the target's rows, as are those that are read of the residual
    // (`Target::check`).
    unsafe {
        let mut sums = [[V::splat(0.0); REGISTERS]; BLOCK];
        for channel in 0..BLOCK {
            // Indexed by a constant: a loop over `start` would send the sums through memory.
            if channel < start.len() {
                sums[channel] = [V::splat(start[channel]); REGISTERS];
            }
        }
        for (weights, offset) in weights.as_chunks::<BLOCK>().0.iter().zip(source.offsets()) {
            let mut pixels = [V::splat(0.0); REGISTERS];
            for register in 0..REGISTERS {
                pixels[register] = V::load(from[register].add(*offset));
            }
            for channel in 0..BLOCK {
                let weight = V::splat(weights[channel]);
                for register in 0..REGISTERS {
                    sums[channel][register] = weight.multiply_add(pixels[register], sums[channel][register]);
                }
            }
        }
        for channel in 0..BLOCK {
            if channel < start.len() {
                for register in 0..REGISTERS {
                    finish(
                        sums[channel][register],
                        target,
                        to[register] + channel * target.channel_step,
                        lanes[register],
                    );
                }
            }
        }
    }
}

/// Adds the residual to the first `lanes` of some sums, applies the bounds, and stores them at float `to`
/// of the target.
///
/// # Safety
/// The lanes must be valid in the target and in its residual.
#[inline(always)]
unsafe fn finish<V: Lanes>(sums: V, target: &Target, to: usize, lanes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_full = lanes == V::LANES;
        let sums = match target.residual.map(|residual| residual.as_ptr().add(to)) {
            None => sums,
            Some(residual) if is_full => sums.add(V::load(residual)),
            Some(residual) => sums.add(V::load_first(residual, lanes)),
        };
        let values = sums.clamp(V::splat(target.bounds[0]), V::splat(target.bounds[1]));
        let to = target.address.add(to);
        if is_full { values.store(to) } else { values.store_first(to, lanes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies around the memory that a kernel may write.
    const GUARD: f32 = 12345.0;

    fn with_microkernels() -> impl Iterator<Item = Instructions> {
        Instructions::available().filter(|instructions| *instructions != Instructions::Portable)
    }

    #[test]
    fn products_write_their_rows_and_nothing_else() {
        for (instructions, width) in with_microkernels().flat_map(|i| [1, 7, 16, 19, 33].map(|width| (i, width))) {
            let (rows, channels, step) = (3, channel_block(instructions) - 1, width + 2);
            let offsets = Offsets::new(2, rows * step, &[vec![0, 1]]);
            // The source ends where the last register that is read ends.
            let end = offsets.furthest + (rows - 1) * step + width.next_multiple_of(lanes(instructions));
            let pixels: Vec<f32> = (0..end).map(|pixel| pixel as f32).collect();
            let weights = vec![1.0; offsets.len() * channel_block(instructions)];
            let mut out = vec![GUARD; channels * rows * step + 8];
            let source =
                Source { pixels: &pixels, offsets: &offsets, terms: 0..4, row_step: step, rows: 0..rows, width };
            let target = Target::plain(out[4..].as_mut_ptr(), rows * step, step);
            // SAFETY: the CPU has the instructions, and the rows are inside `out`.
            unsafe { products(instructions, &source, &weights, &vec![0.5; channels], &target) };
            for (index, value) in out.iter().enumerate() {
                let place = index.checked_sub(4).map(|place| (place / step, place % step));
                let expected = match place.filter(|place| place.0 < channels * rows && place.1 < width) {
                    Some((row, column)) => {
                        let pixel = row % rows * step + column;
                        0.5 + offsets.at.iter().map(|offset| (pixel + offset) as f32).sum::<f32>()
                    }
                    None => GUARD,
                };
                assert_eq!(*value, expected, "element {index} of rows of {width} with {instructions:?}");
            }
        }
    }

    #[test]
    fn a_source_that_ends_inside_a_register_is_refused() {
        for instructions in with_microkernels() {
            let offsets = Offsets::new(1, 0, &[vec![3]]);
            let pixels = vec![0.0; 3 + lanes(instructions) - 1];
            let refused = std::panic::catch_unwind(|| {
                let source =
                    Source { pixels: &pixels, offsets: &offsets, terms: 0..1, row_step: 1, rows: 0..1, width: 1 };
                let mut out = [0.0];
                let target = Target::plain(out.as_mut_ptr(), 1, 1);
                // SAFETY: the CPU has the instructions, and the target is one pixel.
                unsafe { products(instructions, &source, &vec![0.0; channel_block(instructions)], &[0.0], &target) };
            });
            assert!(refused.is_err(), "{instructions:?}");
        }
    }
}
