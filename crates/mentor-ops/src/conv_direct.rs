//! Convolution of f32 slices in groups and its gradients, by microkernels that need no columns.
//!
//! All work is cut into tasks by the shapes alone, and partial sums are added in the order of the
//! tasks, so the bits do not depend on the number of threads. They may depend on the instructions:
//! these round a product and a sum once, and order sums by the width of their registers.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::buffer::{Interleaved, filled, with_scratch};
use crate::conv_micro::{Offsets, Source, Target, channel_block, lanes, products};
use crate::conv_shape::ConvShape;
use crate::gemm::span;
use crate::instructions::Instructions;
use crate::padded::Layout;

/// How many tasks a kernel is cut into at least, where the shapes allow it.
const TASKS: usize = 16;
/// Floats of the padded rows of a task: they should stay in the second-level cache.
const CACHED_ROWS: usize = 80 * 1024;
/// Output channels of a task at least, so that copying its rows pays.
const TASK_CHANNELS: usize = 64;

/// Tasks of an output map: bands of rows, and parts of the channels of a group.
struct Tasks {
    groups: usize,
    height: usize,
    /// Rows of a band, but for the last of an image.
    rows: usize,
    parts: usize,
    /// Blocks of channels of a group.
    blocks: usize,
}

struct Task {
    image: usize,
    group: usize,
    row: usize,
    rows: usize,
    /// The first block of channels, and the one behind the last.
    blocks: [usize; 2],
}

impl Tasks {
    /// Tasks for output of `height` rows and `channels` channels in each group, where every row asks
    /// for `row_floats` floats of scratch.
    fn new(shape: &ConvShape, height: usize, row_floats: usize, channels: usize, block: usize) -> Self {
        let pieces = shape.images * shape.groups;
        let bands = height.div_ceil((CACHED_ROWS / row_floats).clamp(1, height));
        let parts = TASKS.div_ceil(pieces * bands).clamp(1, (channels / TASK_CHANNELS).max(1));
        let bands = bands.max(TASKS.div_ceil(pieces * parts)).min(height);
        Self { groups: shape.groups, height, rows: height.div_ceil(bands), parts, blocks: channels.div_ceil(block) }
    }

    fn bands(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    fn count(&self, images: usize) -> usize {
        images * self.groups * self.bands() * self.parts
    }

    fn at(&self, index: usize) -> Task {
        let (index, part) = (index / self.parts, index % self.parts);
        let (index, row) = (index / self.bands(), index % self.bands() * self.rows);
        Task {
            image: index / self.groups,
            group: index % self.groups,
            row,
            rows: self.rows.min(self.height - row),
            blocks: [part, part + 1].map(|part| part * self.blocks / self.parts),
        }
    }
}

/// Weights as [`products`] reads them: block after block of channels, group after group, and in a
/// block for every term those of its channels.
struct Packed {
    weights: Vec<f32>,
    blocks: usize,
    block_len: usize,
}

impl Packed {
    /// `fill(group, first channel, channels, to)` writes a block whose terms have `block` weights each.
    fn new(
        [groups, channels, block]: [usize; 3],
        terms: usize,
        fill: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
    ) -> Self {
        let (blocks, block_len) = (channels.div_ceil(block), block * terms);
        let mut weights = vec![0.0; groups * blocks * block_len];
        weights.par_chunks_mut(block_len.max(1)).enumerate().for_each(|(index, to)| {
            let first = index % blocks * block;
            fill(index / blocks, first, block.min(channels - first), to);
        });
        Self { weights, blocks, block_len }
    }

    fn block(&self, group: usize, block: usize) -> &[f32] {
        &self.weights[(group * self.blocks + block) * self.block_len..][..self.block_len]
    }
}

/// Copies the rows from `row` on of `channels` planes into the layout, plane after plane.
fn fill_rows(layout: &Layout, row: usize, planes: &[f32], area: usize, rows: &mut [f32]) {
    for (plane, rows) in planes.chunks(area).zip(rows.chunks_mut(layout.len())) {
        layout.fill(row, plane, 0.0, rows);
    }
}

/// Rows of a band that see the same rows of taps on the map; the other taps see padding.
pub(crate) struct Segment {
    /// Counted from the first row of the band.
    pub(crate) rows: Range<usize>,
    taps: Range<usize>,
}

impl Segment {
    /// The terms of the segment's rows of taps, where every row of taps has `per_row` terms.
    pub(crate) fn terms(&self, per_row: usize) -> Range<usize> {
        self.taps.start * per_row..self.taps.end * per_row
    }
}

/// The segments of a band of `rows` rows; `is_on_map(row, tap row)` must hold for neighbouring taps.
fn segments(rows: usize, taps: usize, is_on_map: impl Fn(usize, usize) -> bool) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for row in 0..rows {
        let first = (0..taps).find(|tap| is_on_map(row, *tap)).unwrap_or(0);
        let count = (first..taps).take_while(|tap| is_on_map(row, *tap)).count();
        let taps = first..first + count;
        match segments.last_mut() {
            Some(last) if last.taps == taps => last.rows.end += 1,
            _ => segments.push(Segment { rows: row..row + 1, taps }),
        }
    }
    segments
}

/// The segments of a band of output rows.
pub(crate) fn forward_segments(shape: &ConvShape, first_row: usize, rows: usize) -> Vec<Segment> {
    segments(rows, shape.kernel[0], |row, tap| {
        let padded = (first_row + row) * shape.stride[0] + tap * shape.dilation[0];
        (shape.padding[0]..shape.padding[0] + shape.size[0]).contains(&padded)
    })
}

/// Where every tap of some input channels sees the first pixel of a band.
pub(crate) fn forward_offsets(shape: &ConvShape, channels: usize, layout: &Layout) -> Offsets {
    let rows: Vec<Vec<usize>> = layout.taps.chunks(shape.kernel[1]).map(<[usize]>::to_vec).collect();
    Offsets::new(channels, layout.len(), &rows)
}

/// The output map.
pub(crate) fn forward(
    instructions: Instructions,
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (block, depth, area, out_area) = (channel_block(instructions), shape.depth(), shape.area(), shape.out_area());
    let (in_channels, out_channels) = (shape.group_in(), shape.group_out());
    let row_floats = in_channels * Layout::of_band(shape, 1).row * shape.stride[0];
    let tasks = Tasks::new(shape, shape.out_size[0], row_floats, out_channels, block);
    let layout = Layout::of_band(shape, tasks.rows);
    let offsets = forward_offsets(shape, in_channels, &layout);
    let packed = Packed::new([shape.groups, out_channels, block], depth, |group, first, channels, to| {
        let rows = &weight[(group * out_channels + first) * depth..][..channels * depth];
        let columns = shape.kernel[1];
        for (channel, row) in rows.chunks(depth).enumerate() {
            for (index, from) in row.chunks(columns).enumerate() {
                let (from_channel, tap_row) = (index / shape.kernel[0], index % shape.kernel[0]);
                let to = &mut to[(tap_row * in_channels + from_channel) * columns * block..];
                to.chunks_exact_mut(block).zip(from).for_each(|(to, from)| to[channel] = *from);
            }
        }
    });
    let zeros = vec![0.0; shape.out_channels];
    let start = bias.unwrap_or(&zeros);
    let compute = |out: &Interleaved, task: Task| {
        with_scratch(in_channels * layout.len() + lanes(instructions), |rows| {
            let planes = &x[(task.image * shape.groups + task.group) * in_channels * area..][..in_channels * area];
            fill_rows(&layout, task.row * shape.stride[0], planes, area, rows);
            let sources: Vec<Source> = forward_segments(shape, task.row, task.rows)
                .into_iter()
                .map(|segment| Source {
                    pixels: rows,
                    offsets: &offsets,
                    terms: segment.terms(in_channels * shape.kernel[1]),
                    row_step: shape.stride[0] * layout.row,
                    rows: segment.rows,
                    width: shape.out_size[1],
                })
                .collect();
            for index in task.blocks[0]..task.blocks[1] {
                let first = task.group * out_channels + index * block;
                let channels = block.min(out_channels - index * block);
                let at = (task.image * shape.out_channels + first) * out_area + task.row * shape.out_size[1];
                let target = Target {
                    address: out.address(at, span(channels, task.rows * shape.out_size[1], out_area)),
                    channel_step: out_area,
                    row_step: shape.out_size[1],
                };
                let start = &start[first..first + channels];
                for source in &sources {
                    // SAFETY: the CPU has the instructions; these rows of these channels are inside
                    // the output and this task's alone.
                    unsafe { products(instructions, source, packed.block(task.group, index), start, &target) };
                }
            }
        });
    };
    // SAFETY: the tasks cover the whole output.
    unsafe {
        filled(shape.lens()[1], |out| {
            let out = Interleaved::new(out);
            (0..tasks.count(shape.images)).into_par_iter().for_each(|index| compute(&out, tasks.at(index)));
        })
    }
}

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
    let packed = Packed::new([shape.groups, in_channels, block], offsets.len(), |group, first, channels, to| {
        let per_channel = (block * columns.taps.len()).max(1);
        for (index, to) in to.chunks_mut(per_channel).enumerate() {
            let (tap_row, out_channel) = (rows.taps[index / out_channels].0, index % out_channels);
            let from = ((group * out_channels + out_channel) * in_channels + first) * all_taps;
            let from = &weight[from..from + channels * all_taps];
            for (channel, from) in from.chunks(all_taps).enumerate() {
                let from = &from[tap_row * shape.kernel[1]..][..shape.kernel[1]];
                to.chunks_exact_mut(block).zip(&columns.taps).for_each(|(to, (tap, _))| to[channel] = from[*tap]);
            }
        }
    });
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
            let target = Target {
                address: out.address(
                    plane + (filter.rows.first + task.row * stride) * width,
                    span(channels, row_span, shape.area()),
                ),
                channel_step: shape.area(),
                row_step: stride * width,
            };
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
                let target = Target { address: phase.as_mut_ptr(), channel_step: step, row_step: width };
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
