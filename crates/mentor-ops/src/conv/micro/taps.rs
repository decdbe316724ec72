//! The innermost loops of weight gradients: sums over pixels that stay in vector registers.
//!
//! The gradient of the output is transposed into panels, in which the channels of a pixel lie side by
//! side; the source is read pixel by pixel.
#![allow(clippy::needless_range_loop)] // Loops over registers, with bounds that the compiler knows.

use std::arch::x86_64::{__m256, __m512};

use crate::conv::micro::{Source, lanes, no_microkernels};
use crate::cpu::instructions::Instructions;
use crate::cpu::lanes::{Lanes, MAX_LANES};

/// Floats of transposed gradients that stay in the first-level cache while all taps pass over them.
const CACHED_GRADS: usize = 4 * 1024;

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
pub(crate) unsafe fn transpose<V: Lanes>(
    sides: [usize; 2],
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
) {
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

    /// What lies behind the memory that a kernel may write.
    const GUARD: f32 = 12345.0;

    #[test]
    fn panels_have_the_channels_of_a_pixel_side_by_side() {
        for instructions in Instructions::available().filter(|instructions| *instructions != Instructions::Portable) {
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
