//! The gradient of a convolution's weight by microkernels that need no columns.

use rayon::prelude::*;

use crate::conv::direct::tasks::{forward_offsets, forward_segments};
use crate::conv::micro::taps::{Planes, add_tap_sums, fill_panels};
use crate::conv::micro::{Offsets, Source, lanes};
use crate::conv::padded::Layout;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::with_scratch;
use crate::cpu::instructions::Instructions;

/// How many tasks the work is cut into at least, where the shapes allow it.
const TASKS: usize = 16;
/// Floats of a band's padded rows and panels: they should stay in the second-level cache.
const CACHED_BAND: usize = 128 * 1024;
/// Floats of all partial sums, at most.
const PARTIAL_SUMS: usize = 1024 * 1024;

/// How the work is cut: partial sums over runs of bands, and blocks of input channels.
struct Cut {
    sums: usize,
    /// Input channels of a block, but for the last.
    channels: usize,
    /// Output rows of a band, but for the last of an image.
    rows: usize,
    /// Bands of an image.
    bands: usize,
    /// Output channels of a group, filled up to whole registers.
    padded_out: usize,
}

impl Cut {
    /// Small weights get a partial sum for each of a fixed number of runs of bands, large ones are
    /// split by input channel.
    fn new(instructions: Instructions, shape: &ConvShape) -> Self {
        let (in_channels, height) = (shape.group_in(), shape.out_size[0]);
        let padded_out = shape.group_out().next_multiple_of(lanes(instructions));
        let wanted = (PARTIAL_SUMS / (shape.groups * shape.depth() * padded_out)).clamp(1, TASKS);
        let blocks = TASKS.div_ceil(wanted * shape.groups).min(in_channels);
        let channels = in_channels.div_ceil(blocks);
        let row_floats = channels * Layout::of_band(shape, 1).row * shape.stride[0] + padded_out * shape.out_size[1];
        let bands = height.div_ceil((CACHED_BAND / row_floats).clamp(1, height));
        let bands = bands.max(wanted.div_ceil(shape.images)).min(height);
        let rows = height.div_ceil(bands);
        let bands = height.div_ceil(rows);
        Self { sums: wanted.min(shape.images * bands), channels, rows, bands, padded_out }
    }
}

/// The gradient of the weight.
pub(crate) fn weight_gradient(instructions: Instructions, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let cut = Cut::new(instructions, shape);
    let layout = Layout::of_band(shape, cut.rows);
    let blocks = shape.group_in().div_ceil(cut.channels);
    let offsets_of = |channels: usize| forward_offsets(shape, channels, &layout);
    let last = shape.group_in() - (shape.group_in() - 1) / cut.channels * cut.channels;
    let mut task = BandSums {
        instructions,
        shape,
        x,
        grad,
        offsets: [offsets_of(cut.channels), offsets_of(last)],
        layout: &layout,
        cut: &cut,
        panels: None,
    };
    if blocks > 1 {
        task.panels = Some(task.all_panels());
    }
    let task = task;
    let sum_len = shape.depth() * cut.padded_out;
    let mut partial = vec![0.0; shape.groups * cut.sums * sum_len];
    let per_sum = partial.chunks_mut(sum_len);
    let parts: Vec<_> = per_sum.flat_map(|sum| sum.chunks_mut(cut.channels * shape.taps() * cut.padded_out)).collect();
    parts.into_par_iter().enumerate().for_each(|(index, part)| {
        let (sum, block) = (index / blocks, index % blocks);
        task.add(sum / cut.sums, sum % cut.sums, block, part);
    });
    add_partial_sums(shape, &cut, &partial)
}

/// The sums over a run of bands.
struct BandSums<'a> {
    instructions: Instructions,
    shape: &'a ConvShape,
    x: &'a [f32],
    grad: &'a [f32],
    /// Those of a whole block of input channels, and those of the last.
    offsets: [Offsets; 2],
    layout: &'a Layout,
    cut: &'a Cut,
    /// Those of all bands, where several blocks of input channels share them.
    panels: Option<Vec<f32>>,
}

impl BandSums<'_> {
    /// Floats of the panels of a whole band.
    fn panels_len(&self) -> usize {
        self.cut.padded_out * self.cut.rows * self.shape.out_size[1]
    }

    /// The panels of every band of every image of every group.
    fn all_panels(&self) -> Vec<f32> {
        let per_group = self.shape.images * self.cut.bands;
        let mut panels = vec![0.0; self.shape.groups * per_group * self.panels_len()];
        panels.par_chunks_mut(self.panels_len()).enumerate().for_each(|(index, panels)| {
            let (group, index) = (index / per_group, index % per_group);
            self.fill_panels(group, index / self.cut.bands, index % self.cut.bands * self.cut.rows, panels);
        });
        panels
    }

    /// Fills the panels of the band that begins at row `row`.
    fn fill_panels(&self, group: usize, image: usize, row: usize, panels: &mut [f32]) {
        let (shape, [height, width]) = (self.shape, self.shape.out_size);
        let plane = (image * shape.groups + group) * shape.group_out();
        let grads = Planes {
            values: &self.grad[plane * shape.out_area() + row * width..],
            plane_step: shape.out_area(),
            channels: shape.group_out(),
            pixels: self.cut.rows.min(height - row) * width,
        };
        // SAFETY: the CPU has the instructions.
        unsafe { fill_panels(self.instructions, &grads, panels) };
    }

    /// Adds the sums of run `sum` of bands for a block of input channels of a group to `out`.
    fn add(&self, group: usize, sum: usize, block: usize, out: &mut [f32]) {
        let (cut, shape) = (self.cut, self.shape);
        let count = shape.images * cut.bands;
        let channel = group * shape.group_in() + block * cut.channels;
        let channels = out.len() / (shape.taps() * cut.padded_out);
        let rows_len = channels * self.layout.len();
        let own_len = if self.panels.is_some() { 0 } else { self.panels_len() };
        with_scratch(rows_len + own_len, |scratch| {
            let (rows, own) = scratch.split_at_mut(rows_len);
            for index in sum * count / cut.sums..(sum + 1) * count / cut.sums {
                let (image, row) = (index / cut.bands, index % cut.bands * cut.rows);
                let planes = &self.x[(image * shape.in_channels + channel) * shape.area()..];
                for (plane, rows) in planes.chunks(shape.area()).zip(rows.chunks_mut(self.layout.len())) {
                    self.layout.fill(row * shape.stride[0], plane, 0.0, rows);
                }
                let panels = match &self.panels {
                    Some(panels) => &panels[(group * count + index) * self.panels_len()..][..self.panels_len()],
                    None => {
                        self.fill_panels(group, image, row, own);
                        &*own
                    }
                };
                self.add_band(row, rows, panels, out);
            }
        });
    }

    /// Adds the sums of a band whose padded rows and panels are given.
    fn add_band(&self, row: usize, padded: &[f32], panels: &[f32], out: &mut [f32]) {
        let (shape, [height, width]) = (self.shape, self.shape.out_size);
        let rows = self.cut.rows.min(height - row);
        let is_last = padded.len() < self.cut.channels * self.layout.len();
        let channels = padded.len() / self.layout.len();
        for segment in forward_segments(shape, row, rows) {
            let source = Source {
                pixels: padded,
                offsets: &self.offsets[usize::from(is_last)],
                terms: segment.terms(channels * shape.kernel[1]),
                row_step: shape.stride[0] * self.layout.row,
                rows: segment.rows,
                width,
            };
            // SAFETY: the CPU has the instructions.
            unsafe { add_tap_sums(self.instructions, &source, panels, rows * width, out) };
        }
    }
}

/// Adds the partial sums into the weight's layout. They have a row of output channels for every term,
/// and their terms are ordered by block of input channels, row of taps, channel and column of taps.
fn add_partial_sums(shape: &ConvShape, cut: &Cut, partial: &[f32]) -> Vec<f32> {
    /// Output channels at a time: those of a cache line.
    const BLOCK: usize = 16;
    let (depth, out_channels, in_channels) = (shape.depth(), shape.group_out(), shape.group_in());
    // Where each term belongs in the weight of an output channel.
    let mut places = Vec::with_capacity(depth);
    for first in (0..in_channels).step_by(cut.channels) {
        let block = first..in_channels.min(first + cut.channels);
        for (tap_row, channel) in (0..shape.kernel[0]).flat_map(|row| block.clone().map(move |channel| (row, channel)))
        {
            let start = (channel * shape.kernel[0] + tap_row) * shape.kernel[1];
            places.extend(start..start + shape.kernel[1]);
        }
    }
    let mut total = vec![0.0; shape.groups * out_channels * depth];
    let per_group = total.chunks_mut(out_channels * depth).zip(partial.chunks(cut.sums * depth * cut.padded_out));
    let parts: Vec<_> = per_group
        .flat_map(|(total, sums)| total.chunks_mut(BLOCK * depth).enumerate().map(move |part| (part, sums)))
        .collect();
    parts.into_par_iter().for_each(|((block, total), sums)| {
        let channels = total.len() / depth;
        for (term, place) in places.iter().enumerate() {
            let mut values = [0.0; BLOCK];
            for sum in sums.chunks(depth * cut.padded_out) {
                let from = &sum[term * cut.padded_out + block * BLOCK..][..channels];
                values.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
            total.chunks_exact_mut(depth).zip(values).for_each(|(to, from)| to[*place] = from);
        }
    });
    total
}
