//! The products of a Winograd convolution to its output, in vector registers whose lanes are tiles.
#![allow(clippy::needless_range_loop)] // Loops over registers, with bounds that the compiler knows.

use crate::conv::micro::lanes;
use crate::conv::winograd::filter::{merge_four, output};
use crate::conv::winograd::maps::{Spectrum, Work, run};
use crate::conv::winograd::tiles::{Block, IN, OUT, PRODUCTS, Sides};
use crate::cpu::buffer::Interleaved;
use crate::cpu::instructions::Instructions;
use crate::cpu::lanes::Lanes;

/// A channel of the output whose products are summed.
pub(crate) struct Finish<'a> {
    pub(crate) sides: &'a Sides,
    pub(crate) block: &'a Block,
    /// Those of the channel begin at its first value of the first frequency.
    pub(crate) products: &'a [f32],
    pub(crate) spectrum: Spectrum,
    /// Among the channels of all groups.
    pub(crate) channel: usize,
    pub(crate) bias: f32,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) bounds: [f32; 2],
    /// The whole map.
    pub(crate) out: &'a Interleaved<'a>,
}

/// Writes `At m A` of all tiles of a channel to the output, with bias, residual and bounds.
///
/// # Safety
/// The CPU must have the instructions, and the pixels of these tiles be this caller's alone.
pub(crate) unsafe fn finish(instructions: Instructions, finish: &Finish, scratch: &mut [f32]) {
    let width = finish.block.tiles.next_multiple_of(lanes(instructions));
    assert!(width <= finish.spectrum.tiles, "a block of {width} tiles in a spectrum of {}", finish.spectrum.tiles);
    assert!(finish.spectrum.span() <= finish.products.len(), "{} products of a channel", finish.products.len());
    let rows = &mut scratch[..OUT * OUT * width];
    // SAFETY: the caller's promise.
    unsafe { run(instructions, FinishWork { finish, rows, width }) };
}

struct FinishWork<'a> {
    finish: &'a Finish<'a>,
    /// Four rows of all tiles, end to end.
    rows: &'a mut [f32],
    width: usize,
}

impl Work for FinishWork<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            for tile in (0..self.width).step_by(V::LANES) {
                self.transform::<V>(tile);
            }
            self.write::<V>();
        }
    }
}

impl FinishWork<'_> {
    /// The pixels of a register of tiles.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    #[inline(always)]
    unsafe fn transform<V: Lanes>(&mut self, tile: usize) {
        let step = self.finish.spectrum.step;
        let from = self.finish.products[tile..][..(PRODUCTS - 1) * step + V::LANES].as_ptr();
        // SAFETY: the caller's promise, and the bounds that were just checked.
        unsafe {
            let mut rows = [[V::splat(0.0); IN]; OUT];
            for column in 0..IN {
                let mut values = [V::splat(0.0); IN];
                for row in 0..IN {
                    values[row] = V::load(from.add((row * IN + column) * step));
                }
                for (row, value) in output(values).into_iter().enumerate() {
                    rows[row][column] = value;
                }
            }
            let bias = V::splat(self.finish.bias);
            for (row, values) in rows.into_iter().enumerate() {
                let mut values = output(values);
                for column in 0..OUT {
                    values[column] = values[column].add(bias);
                }
                let to = self.rows[OUT * (row * self.width + tile)..][..OUT * V::LANES].as_mut_ptr();
                for (register, pixels) in merge_four(values).into_iter().enumerate() {
                    pixels.store(to.add(register * V::LANES));
                }
            }
        }
    }

    /// Writes the rows to the output.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the pixels be this caller's alone.
    #[inline(always)]
    unsafe fn write<V: Lanes>(&self) {
        let Finish { sides, block, channel, residual, bounds, out, .. } = *self.finish;
        let ([height, width], [down, right]) = (sides.out_size, sides.dilation);
        let channels = sides.groups * sides.out_channels;
        for run in &block.runs {
            let plane = (run.image * channels + channel) * sides.out_area();
            let count = (OUT * run.tiles).min((width - run.place[1]).div_ceil(right));
            let span = (count - 1) * right + 1;
            for row in 0..OUT.min((height - run.place[0]).div_ceil(down)) {
                let at = plane + (run.place[0] + row * down) * width + run.place[1];
                let from = &self.rows[OUT * (row * self.width + run.first)..][..count];
                let residual = residual.map(|residual| &residual[at..at + span]);
                let to = out.address(at, span);
                // SAFETY: the caller's promise; a span was checked for each.
                unsafe {
                    if right == 1 {
                        write_row::<V>(from, residual, bounds, to);
                    } else {
                        for (pixel, value) in from.iter().enumerate() {
                            let value = value + residual.map_or(0.0, |residual| residual[pixel * right]);
                            *to.add(pixel * right) = value.clamp(bounds[0], bounds[1]);
                        }
                    }
                }
            }
        }
    }
}

/// Writes pixels side by side.
///
/// # Safety
/// The CPU must have the instructions, there must be as many pixels of the residual, and room for them.
#[inline(always)]
unsafe fn write_row<V: Lanes>(from: &[f32], residual: Option<&[f32]>, bounds: [f32; 2], to: *mut f32) {
    for pixel in (0..from.len()).step_by(V::LANES) {
        let count = V::LANES.min(from.len() - pixel);
        // SAFETY: the caller's promise; only `count` pixels are read and written.
        unsafe {
            let mut values = V::load_first(from[pixel..].as_ptr(), count);
            if let Some(residual) = residual {
                values = values.add(V::load_first(residual[pixel..].as_ptr(), count));
            }
            values.clamp(V::splat(bounds[0]), V::splat(bounds[1])).store_first(to.add(pixel), count);
        }
    }
}
