//! The gradient of a convolution's input by microkernels that need no columns.
//!
//! With a stride it is computed phase by phase, so nothing is added up in memory.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::conv::direct::tasks::{Packed, Task, Tasks, Weights, fill_rows, segments, term_places};
use crate::conv::micro::{Offsets, Source, Target, channel_block, lanes, products};
use crate::conv::padded::Layout;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::gemm::span;
use crate::cpu::instructions::Instructions;

/// The pixels of an axis of the input that see the same taps: every `stride`-th.
///
/// Over these pixels the gradient of the input is a convolution of stride one of the output's.
struct Phase {
    /// The first pixel, and how many there are.
    first: usize,
    len: usize,
    /// The taps, and where the first pixel sees each on the padded axis of the output.
    taps: Vec<(usize, usize)>,
}

/// The phases of an axis, and the padding before the axis of the output that they need.
fn phases(shape: &ConvShape, axis: usize) -> (Vec<Phase>, usize) {
    let (stride, dilation) = (shape.stride[axis], shape.dilation[axis]);
    // Output pixel `to` feeds padded input pixel `to * stride + tap * dilation`: all of one phase.
    let skipped = |phase: usize| shape.padding[axis].saturating_sub(phase).div_ceil(stride);
    let taps = |phase: usize| (0..shape.kernel[axis]).filter(move |tap| tap * dilation % stride == phase);
    let back = |tap: usize| tap * dilation / stride;
    let before = |phase: usize| taps(phase).map(back).max().unwrap_or(0).saturating_sub(skipped(phase));
    let padding = (0..stride).map(before).max().unwrap_or(0);
    let phase = |phase: usize| {
        let first = phase + stride * skipped(phase) - shape.padding[axis];
        Phase {
            first,
            len: shape.size[axis].saturating_sub(first).div_ceil(stride),
            taps: taps(phase).map(|tap| (tap, padding + skipped(phase) - back(tap))).collect(),
        }
    };
    ((0..stride).map(phase).collect(), padding)
}

/// A phase of rows with a phase of columns.
struct Filter<'a> {
    rows: &'a Phase,
    columns: &'a Phase,
    /// Where the columns' phase is in a list of them.
    column_phase: usize,
    offsets: Offsets,
    packed: Packed,
}

/// The gradient of the input map, which is computed phase by phase.
struct InputGradient<'a> {
    instructions: Instructions,
    shape: &'a ConvShape,
    grad: &'a [f32],
    tasks: Tasks,
    layout: Layout,
    /// Padded rows before those of the gradient.
    padding: usize,
    filters: Vec<Filter<'a>>,
    /// Columns of the longest phase.
    phase_width: usize,
    zeros: Vec<f32>,
}

/// The gradient of the input map.
pub(crate) fn input_gradient(instructions: Instructions, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let block = channel_block(instructions);
    let ([rows, columns], padding) = {
        let [(rows, before), (columns, left)] = [0, 1].map(|axis| phases(shape, axis));
        ([rows, columns], [before, left])
    };
    let [height, width] = [0, 1].map(|axis| shape.size[axis].div_ceil(shape.stride[axis]));
    let furthest = |phases: &[Phase]| phases.iter().flat_map(|phase| &phase.taps).map(|tap| tap.1).max().unwrap_or(0);
    let row_len = width + furthest(&columns);
    let tasks = Tasks::new(shape, height, shape.group_out() * row_len, shape.group_in(), block);
    let layout = Layout::dense(shape.out_size, padding, [tasks.rows + furthest(&rows), row_len]);
    let pairs = rows.iter().flat_map(|rows| columns.iter().enumerate().map(move |columns| (rows, columns)));
    let filters = pairs.map(|(rows, (index, columns))| filter(block, shape, weight, &layout, rows, (index, columns)));
    let filters: Vec<_> = filters.collect();
    let zeros = vec![0.0; block];
    let gradient = InputGradient {
        instructions,
        shape,
        grad,
        tasks,
        layout,
        padding: padding[0],
        filters,
        phase_width: width,
        zeros,
    };
    // SAFETY: the tasks cover the whole map.
    unsafe {
        filled(shape.lens()[0], |out| {
            let out = Interleaved::new(out);
            let tasks = &gradient.tasks;
            (0..tasks.count(shape.images)).into_par_iter().for_each(|index| gradient.compute(&out, &tasks.at(index)));
        })
    }
}

/// The taps of a pair of phases: their offsets in the padded rows of all output channels of a group,
/// and their weights.
fn filter<'a>(
    block: usize,
    shape: &ConvShape,
    weight: &[f32],
    layout: &Layout,
    rows: &'a Phase,
    (column_phase, columns): (usize, &'a Phase),
) -> Filter<'a> {
    let (in_channels, out_channels, all_taps) = (shape.group_in(), shape.group_out(), shape.taps());
    let place = |down: usize| columns.taps.iter().map(move |right| layout.place(down, right.1)).collect();
    let places: Vec<Vec<usize>> = rows.taps.iter().map(|down| place(down.1)).collect();
    let offsets = Offsets::new(out_channels, layout.len(), &places);
    let [tap_rows, tap_columns] =
        [rows, columns].map(|phase| phase.taps.iter().map(|tap| tap.0).collect::<Vec<usize>>());
    let packed = Packed::new(
        block,
        &Weights {
            values: weight,
            scale: None,
            groups: shape.groups,
            channels: in_channels,
            channel_step: all_taps,
            places: term_places(shape, out_channels, in_channels * all_taps, &tap_rows, &tap_columns),
        },
    );
    Filter { rows, columns, column_phase, offsets, packed }
}

impl InputGradient<'_> {
    /// Computes a task: a band of rows of every phase of rows, which together are a band of the map.
    fn compute(&self, out: &Interleaved, task: &Task) {
        let (shape, out_area, channels) = (self.shape, self.shape.out_area(), self.shape.group_out());
        let padded_len = channels * self.layout.len() + lanes(self.instructions);
        let phases_len = if shape.stride[1] == 1 { 0 } else { self.phases_len(task.rows) };
        with_scratch(padded_len + phases_len, |scratch| {
            let (padded, phases) = scratch.split_at_mut(padded_len);
            let planes = &self.grad[(task.image * shape.groups + task.group) * channels * out_area..];
            fill_rows(&self.layout, task.row, &planes[..channels * out_area], out_area, padded);
            for block in task.blocks[0]..task.blocks[1] {
                if shape.stride[1] == 1 {
                    self.write_rows(out, task, block, padded);
                } else {
                    self.merge_phases(out, task, block, padded, phases);
                }
            }
        });
    }

    /// Floats of all phases of columns of a block of channels.
    fn phases_len(&self, rows: usize) -> usize {
        channel_block(self.instructions) * rows * self.phase_width * self.shape.stride[1]
    }

    /// Rows of a task that are of the filter's phase.
    fn rows(&self, filter: &Filter, task: &Task) -> usize {
        filter.rows.len.min(task.row + task.rows).saturating_sub(task.row)
    }

    /// What a filter sees in the padded rows: nothing if its phases have no pixels in the task.
    fn sources<'a>(&'a self, filter: &'a Filter, task: &Task, padded: &'a [f32]) -> impl Iterator<Item = Source<'a>> {
        let (row, before, height) = (task.row, self.padding, self.shape.out_size[0]);
        let rows = if filter.columns.len == 0 { 0 } else { self.rows(filter, task) };
        let segments = segments(rows, filter.rows.taps.len(), move |index, tap| {
            (before..before + height).contains(&(row + index + filter.rows.taps[tap].1))
        });
        let per_row = self.shape.group_out() * filter.columns.taps.len();
        segments.into_iter().map(move |segment| Source {
            pixels: padded,
            offsets: &filter.offsets,
            terms: segment.terms(per_row),
            row_step: self.layout.row,
            rows: segment.rows,
            width: filter.columns.len,
        })
    }

    /// The first input channel of a block among those of all groups, and how many there are.
    fn channels(&self, task: &Task, block: usize) -> (usize, usize) {
        let (size, in_channels) = (channel_block(self.instructions), self.shape.group_in());
        (task.group * in_channels + block * size, size.min(in_channels - block * size))
    }

    /// With a horizontal stride of one a row of the map is a row of one phase, and is written at once.
    fn write_rows(&self, out: &Interleaved, task: &Task, block: usize, padded: &[f32]) {
        let (shape, (first, channels)) = (self.shape, self.channels(task, block));
        let (width, stride) = (shape.size[1], shape.stride[0]);
        let plane = (task.image * shape.in_channels + first) * shape.area();
        for filter in &self.filters {
            let row_span = span(self.rows(filter, task), width, stride * width);
            if row_span == 0 {
                continue;
            }
            let start = plane + (filter.rows.first + task.row * stride) * width;
            let address = out.address(start, span(channels, row_span, shape.area()));
            let target = Target::plain(address, shape.area(), stride * width);
            let weights = filter.packed.block(task.group, block);
            for source in self.sources(filter, task, padded) {
                // SAFETY: the CPU has the instructions; these rows of these channels are inside the map
                // and this task's alone.
                unsafe { products(self.instructions, &source, weights, &self.zeros[..channels], &target) };
            }
        }
    }

    /// With a horizontal stride the phases of columns are computed side by side, and merged.
    fn merge_phases(&self, out: &Interleaved, task: &Task, block: usize, padded: &[f32], phases: &mut [f32]) {
        let (shape, (first, channels)) = (self.shape, self.channels(task, block));
        let ([down, right], width) = (shape.stride, self.phase_width);
        let step = task.rows * width;
        let phase_len = channel_block(self.instructions) * step;
        // The filters of one phase of rows follow each other.
        for filters in self.filters.chunks(right) {
            for filter in filters {
                let phase = &mut phases[filter.column_phase * phase_len..][..phase_len];
                let target = Target::plain(phase.as_mut_ptr(), step, width);
                let weights = filter.packed.block(task.group, block);
                for source in self.sources(filter, task, padded) {
                    // SAFETY: the CPU has the instructions; the phase has room for a whole block.
                    unsafe { products(self.instructions, &source, weights, &self.zeros[..channels], &target) };
                }
            }
            let rows = self.rows(&filters[0], task);
            for (channel, row) in (0..channels).flat_map(|channel| (0..rows).map(move |row| (channel, row))) {
                let y = filters[0].rows.first + (task.row + row) * down;
                let plane = (task.image * shape.in_channels + first + channel) * shape.area();
                // SAFETY: the row is this task's alone.
                let to = unsafe { out.part(plane + y * shape.size[1], shape.size[1]) };
                for filter in filters.iter().filter(|filter| filter.columns.len > 0) {
                    let from = filter.column_phase * phase_len + channel * step + row * width;
                    write_every(right, &phases[from..][..filter.columns.len], &mut to[filter.columns.first..]);
                }
            }
        }
    }
}

/// Writes to every `stride`-th element.
fn write_every(stride: usize, from: &[f32], to: &mut [MaybeUninit<f32>]) {
    to.iter_mut().step_by(stride).zip(from).for_each(|(to, from)| {
        to.write(*from);
    });
}
