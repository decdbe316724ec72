//! The innermost loops of the convolutions: sums of products that stay in vector registers.
//!
//! No columns are made. What a tap of one channel sees of a padded map is the map itself from some
//! offset on (see [`crate::padded`]), so a sum over taps and channels is a sum over a list of offsets.
//!
//! The entries check their operands; what they read past a row of the map (the rest of a register) is
//! inside their source and never written anywhere.
#![allow(clippy::needless_range_loop)] // Loops over registers, with bounds that the compiler knows.

use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

use crate::instructions::Instructions;
use crate::lanes::{Lanes, MAX_LANES};

/// Floats of transposed gradients that stay in the first-level cache while all taps pass over them.
const CACHED_GRADS: usize = 4 * 1024;

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

fn no_microkernels() -> ! {
    panic!("the portable path has no microkernels")
}

/// Where the terms of a sum begin in a source: for every row of taps every channel, and of it every tap
/// of the row. So the terms of consecutive rows of taps follow each other.
pub(crate) struct Offsets {
    at: Vec<usize>,
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
    fn check(&self, lanes: usize) {
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
/// are apart.
pub(crate) struct Target {
    pub(crate) address: *mut f32,
    pub(crate) channel_step: usize,
    pub(crate) row_step: usize,
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
    assert!(start.len() <= block, "{} channels in a block of {block}", start.len());
    source.check(lanes(instructions));
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
    unsafe { products_of_rows::<__m512, 8, 3>(source, weights, start, target) }
}

/// # Safety
/// As [`products`], with operands that were checked.
#[target_feature(enable = "avx2,fma")]
unsafe fn products_avx2(source: &Source, weights: &[f32], start: &[f32], target: &Target) {
    // SAFETY: as above.
    unsafe { products_of_rows::<__m256, 6, 2>(source, weights, start, target) }
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
    let mut to = [target.address; REGISTERS];
    let mut lanes = [V::LANES; REGISTERS];
    for register in 0..REGISTERS {
        let (row, column) = ((first + register) / per_row, (first + register) % per_row * V::LANES);
        from[register] = from[register].wrapping_add(row * source.row_step + column);
        to[register] = to[register].wrapping_add(row * target.row_step + column);
        lanes[register] = V::LANES.min(source.width - column);
    }
    // SAFETY: every offset is valid for whole registers of all rows (`Source::check`), and the lanes
    // that are written are pixels of the target's rows.
    unsafe {
        let mut sums = [[V::splat(0.0); REGISTERS]; BLOCK];
        for (sums, start) in sums.iter_mut().zip(start) {
            *sums = [V::splat(*start); REGISTERS];
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
                    let to = to[register].add(channel * target.channel_step);
                    if lanes[register] == V::LANES {
                        sums[channel][register].store(to);
                    } else {
                        sums[channel][register].store_first(to, lanes[register]);
                    }
                }
            }
        }
    }
}

/// Pixels of some channels whose planes begin `plane_step` elements apart.
pub(crate) struct Planes<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) plane_step: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: usize,
}

/// Channels of a panel: those whose sums [`add_tap_sums`] holds in registers at a time.
#[cfg(test)]
fn panel_width(instructions: Instructions) -> usize {
    match instructions {
        Instructions::Avx512 => panel_registers::<__m512>() * <__m512 as Lanes>::LANES,
        Instructions::Avx2 => panel_registers::<__m256>() * <__m256 as Lanes>::LANES,
        Instructions::Portable => no_microkernels(),
    }
}

const fn panel_registers<V: Lanes>() -> usize {
    V::REGISTERS / 8
}

/// Copies planes into panels: in each, the channels of a pixel lie side by side, pixel after pixel.
/// The channels are filled up with zeros to whole registers.
///
/// # Safety
/// The CPU must have the instructions.
pub(crate) unsafe fn fill_panels(instructions: Instructions, planes: &Planes, panels: &mut [f32]) {
    let span = (planes.channels - 1) * planes.plane_step + planes.pixels;
    assert!(span <= planes.values.len(), "planes span {span} of {} values", planes.values.len());
    let len = planes.channels.next_multiple_of(lanes(instructions)) * planes.pixels;
    assert!(len <= panels.len(), "panels of {len} values in {}", panels.len());
    // SAFETY: the caller's promise; the operands fit, as was just checked.
    unsafe {
        match instructions {
            Instructions::Avx512 => fill_panels_avx512(planes, panels),
            Instructions::Avx2 => fill_panels_avx2(planes, panels),
            Instructions::Portable => no_microkernels(),
        }
    }
}

/// # Safety
/// As [`fill_panels`], with operands that were checked.
#[target_feature(enable = "avx512f")]
unsafe fn fill_panels_avx512(planes: &Planes, panels: &mut [f32]) {
    // SAFETY: this function has the instructions; the rest is the caller's promise.
    unsafe { fill_panels_with::<__m512>(planes, panels) }
}

/// # Safety
/// As [`fill_panels`], with operands that were checked.
#[target_feature(enable = "avx2,fma")]
unsafe fn fill_panels_avx2(planes: &Planes, panels: &mut [f32]) {
    // SAFETY: as above.
    unsafe { fill_panels_with::<__m256>(planes, panels) }
}

/// # Safety
/// As [`fill_panels`], with operands that were checked.
#[inline(always)]
unsafe fn fill_panels_with<V: Lanes>(planes: &Planes, panels: &mut [f32]) {
    let registers = planes.channels.div_ceil(V::LANES);
    for register in 0..registers {
        let panel = register / panel_registers::<V>() * panel_registers::<V>();
        let width = panel_registers::<V>().min(registers - panel) * V::LANES;
        let start = panel * V::LANES * planes.pixels + (register - panel) * V::LANES;
        let channel = register * V::LANES;
        let channels = V::LANES.min(planes.channels - channel);
        for pixel in (0..planes.pixels).step_by(V::LANES) {
            let pixels = V::LANES.min(planes.pixels - pixel);
            // SAFETY: `channels` planes have `pixels` values from here on, and the panels have room
            // for a register of channels of each of these pixels.
            unsafe {
                let from = planes.values.as_ptr().add(channel * planes.plane_step + pixel);
                let to = panels.as_mut_ptr().add(start + pixel * width);
                transpose::<V>([channels, pixels], from, planes.plane_step, to, width);
            }
        }
    }
}

/// Transposes `sides` (rows, columns) of a matrix, up to a register each; the rows are filled up with
/// zeros to a whole register.
///
/// # Safety
/// The CPU must have the instructions, and both matrices be valid.
#[inline(always)]
unsafe fn transpose<V: Lanes>(sides: [usize; 2], from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    // SAFETY: the caller's promise; only `sides` are read, and only whole registers of the columns
    // that there are written.
    unsafe {
        let mut rows = [V::splat(0.0); MAX_LANES];
        for row in 0..V::LANES {
            if row < sides[0] {
                rows[row] = V::load_first(from.add(row * from_step), sides[1]);
            }
        }
        // To zip the halves of all rows as often as the number of rows has bits is to transpose.
        for _ in 0..V::LANES.ilog2() {
            let halves = rows;
            for row in 0..V::LANES / 2 {
                (rows[2 * row], rows[2 * row + 1]) = halves[row].zip(halves[row + V::LANES / 2]);
            }
        }
        for column in 0..V::LANES {
            if column < sides[1] {
                rows[column].store(to.add(column * to_step));
            }
        }
    }
}

/// Adds to `sums`, for every term and every channel of the panels, the sum over all pixels of the
/// term's pixel times the panels' value there. `sums` has for each offset a value for every channel,
/// filled up to whole registers; the panels have `band` pixels, of which the source sees some rows.
///
/// # Safety
/// The CPU must have the instructions.
pub(crate) unsafe fn add_tap_sums(
    instructions: Instructions,
    source: &Source,
    panels: &[f32],
    band: usize,
    sums: &mut [f32],
) {
    source.check(1);
    let channels = sums.len() / source.offsets.len();
    assert_eq!(channels * source.offsets.len(), sums.len(), "sums of another number of terms");
    assert_eq!(channels % lanes(instructions), 0, "the channels do not fill registers");
    assert!(source.rows.end * source.width <= band, "a band of fewer pixels than the source");
    assert!(channels * band <= panels.len(), "panels of fewer pixels than the band");
    // SAFETY: the caller's promise; the operands fit, as was just checked.
    unsafe {
        match instructions {
            Instructions::Avx512 => add_tap_sums_avx512(source, &panels[..channels * band], channels, sums),
            Instructions::Avx2 => add_tap_sums_avx2(source, &panels[..channels * band], channels, sums),
            Instructions::Portable => no_microkernels(),
        }
    }
}

/// # Safety
/// As [`add_tap_sums`], with operands that were checked.
#[target_feature(enable = "avx512f")]
unsafe fn add_tap_sums_avx512(source: &Source, panels: &[f32], channels: usize, sums: &mut [f32]) {
    // SAFETY: this function has the instructions; the rest is the caller's promise.
    unsafe { add_tap_sums_with::<__m512>(source, panels, channels, sums) }
}

/// # Safety
/// As [`add_tap_sums`], with operands that were checked.
#[target_feature(enable = "avx2,fma")]
unsafe fn add_tap_sums_avx2(source: &Source, panels: &[f32], channels: usize, sums: &mut [f32]) {
    // SAFETY: as above.
    unsafe { add_tap_sums_with::<__m256>(source, panels, channels, sums) }
}

/// # Safety
/// As [`add_tap_sums`], with operands that were checked.
#[inline(always)]
unsafe fn add_tap_sums_with<V: Lanes>(source: &Source, panels: &[f32], channels: usize, sums: &mut [f32]) {
    let registers = channels / V::LANES;
    let rows_at_once = (CACHED_GRADS / (panel_registers::<V>().min(registers) * V::LANES * source.width)).max(1);
    let band = panels.len() / channels;
    for row in source.rows.clone().step_by(rows_at_once) {
        let rows = rows_at_once.min(source.rows.end - row);
        for register in (0..registers).step_by(panel_registers::<V>()) {
            let panel = Panel {
                row,
                rows,
                values: panels[register * V::LANES * band..].as_ptr(),
                sums: sums[register * V::LANES..].as_mut_ptr(),
                sums_step: channels,
            };
            // SAFETY: the panel has as many registers of channels as are matched here. With 16
            // registers in all it has no more than two.
            unsafe {
                match (registers - register).min(panel_registers::<V>()) {
                    1 => panel.add_all::<V, 12, 1>(source),
                    2 if V::REGISTERS == 16 => panel.add_all::<V, 6, 2>(source),
                    2 => panel.add_all::<V, 12, 2>(source),
                    3 => panel.add_all::<V, 8, 3>(source),
                    _ => panel.add_all::<V, 6, 4>(source),
                }
            }
        }
    }
}

/// Some rows of a panel, and where the sums of its channels go.
struct Panel {
    row: usize,
    rows: usize,
    /// The whole panel.
    values: *const f32,
    /// Those of the first term; the next term's are `sums_step` elements on.
    sums: *mut f32,
    sums_step: usize,
}

impl Panel {
    /// # Safety
    /// As [`add_tap_sums`], with operands that were checked; the panel must have `REGISTERS` registers
    /// of channels.
    #[inline(always)]
    unsafe fn add_all<V: Lanes, const TERMS: usize, const REGISTERS: usize>(&self, source: &Source) {
        for first in source.terms.clone().step_by(TERMS) {
            // SAFETY: the caller's promise.
            unsafe { self.add_terms::<V, TERMS, REGISTERS>(source, first) };
        }
    }

    /// Adds the sums of up to `TERMS` terms from term `first` on.
    ///
    /// # Safety
    /// As [`Self::add_all`], and there must be such a term.
    #[inline(always)]
    unsafe fn add_terms<V: Lanes, const TERMS: usize, const REGISTERS: usize>(&self, source: &Source, first: usize) {
        let offsets = &source.offsets.at[first..source.terms.end];
        let mut from = [source.pixels.as_ptr(); TERMS];
        for term in 0..TERMS {
            // Terms that are too many repeat the first: their sums are dropped.
            from[term] = from[term].wrapping_add(offsets.get(term).unwrap_or(&offsets[0]) + self.row * source.row_step);
        }
        // SAFETY: the source has the pixels of these rows for every term (`Source::check`), the panel
        // has a register of each of its channels for every pixel, and `sums` one for every term.
        unsafe {
            let mut sums = [[V::splat(0.0); REGISTERS]; TERMS];
            let mut values = self.values.add(self.row * source.width * REGISTERS * V::LANES);
            for row in 0..self.rows {
                for pixel in row * source.row_step..row * source.row_step + source.width {
                    let mut grads = [V::splat(0.0); REGISTERS];
                    for register in 0..REGISTERS {
                        grads[register] = V::load(values.add(register * V::LANES));
                    }
                    for term in 0..TERMS {
                        let factor = V::splat(*from[term].add(pixel));
                        for register in 0..REGISTERS {
                            sums[term][register] = factor.multiply_add(grads[register], sums[term][register]);
                        }
                    }
                    values = values.add(REGISTERS * V::LANES);
                }
            }
            for term in 0..TERMS {
                if term < offsets.len() {
                    for register in 0..REGISTERS {
                        let to = self.sums.add((first + term) * self.sums_step + register * V::LANES);
                        V::load(to).add(sums[term][register]).store(to);
                    }
                }
            }
        }
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
            let target = Target { address: out[4..].as_mut_ptr(), channel_step: rows * step, row_step: step };
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
                let target = Target { address: out.as_mut_ptr(), channel_step: 1, row_step: 1 };
                // SAFETY: the CPU has the instructions, and the target is one pixel.
                unsafe { products(instructions, &source, &vec![0.0; channel_block(instructions)], &[0.0], &target) };
            });
            assert!(refused.is_err(), "{instructions:?}");
        }
    }

    #[test]
    fn panels_have_the_channels_of_a_pixel_side_by_side() {
        for instructions in with_microkernels() {
            let (lanes, pixels) = (lanes(instructions), 37);
            for channels in [1, lanes, 2 * lanes + 3, 5 * lanes - 1] {
                // The last plane ends with its last pixel.
                let values: Vec<f32> = (0..(channels - 1) * 40 + pixels).map(|value| value as f32).collect();
                let planes = Planes { values: &values, plane_step: 40, channels, pixels };
                let (padded, panel) = (channels.next_multiple_of(lanes), panel_width(instructions));
                let mut panels = vec![GUARD; padded * pixels + 1];
                // SAFETY: the CPU has the instructions.
                unsafe { fill_panels(instructions, &planes, &mut panels) };
                for (channel, pixel) in (0..padded).flat_map(|channel| (0..pixels).map(move |pixel| (channel, pixel))) {
                    let first = channel / panel * panel;
                    let found = panels[first * pixels + pixel * panel.min(padded - first) + channel - first];
                    let expected = if channel < channels { (channel * 40 + pixel) as f32 } else { 0.0 };
                    assert_eq!(found, expected, "channel {channel} of {channels}, pixel {pixel}, {instructions:?}");
                }
                assert_eq!(panels[padded * pixels], GUARD);
            }
        }
    }
}
