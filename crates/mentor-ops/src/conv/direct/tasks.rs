//! How a convolution by microkernels is cut into tasks, and its weights are packed.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::conv::micro::Offsets;
use crate::conv::padded::Layout;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::filled;

/// How many tasks a kernel is cut into at least, where the shapes allow it.
const TASKS: usize = 16;
/// Floats of the padded rows of a task: they should stay in the second-level cache.
const CACHED_ROWS: usize = 80 * 1024;
/// Output channels of a task at least, so that copying its rows pays.
const TASK_CHANNELS: usize = 64;

/// Tasks of an output map: bands of rows, and parts of the channels of a group.
pub(crate) struct Tasks {
    groups: usize,
    height: usize,
    /// Rows of a band, but for the last of an image.
    pub(crate) rows: usize,
    parts: usize,
    /// Blocks of channels of a group.
    blocks: usize,
}

pub(crate) struct Task {
    pub(crate) image: usize,
    pub(crate) group: usize,
    pub(crate) row: usize,
    pub(crate) rows: usize,
    /// The first block of channels, and the one behind the last.
    pub(crate) blocks: [usize; 2],
}

impl Tasks {
    /// Tasks for output of `height` rows and `channels` channels in each group, where every row asks
    /// for `row_floats` floats of scratch.
    pub(crate) fn new(shape: &ConvShape, height: usize, row_floats: usize, channels: usize, block: usize) -> Self {
        let pieces = shape.images * shape.groups;
        let bands = height.div_ceil((CACHED_ROWS / row_floats).clamp(1, height));
        let parts = TASKS.div_ceil(pieces * bands).clamp(1, (channels / TASK_CHANNELS).max(1));
        let bands = bands.max(TASKS.div_ceil(pieces * parts)).min(height);
        Self { groups: shape.groups, height, rows: height.div_ceil(bands), parts, blocks: channels.div_ceil(block) }
    }

    fn bands(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    pub(crate) fn count(&self, images: usize) -> usize {
        images * self.groups * self.bands() * self.parts
    }

    pub(crate) fn at(&self, index: usize) -> Task {
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
pub(crate) struct Packed {
    weights: Vec<f32>,
    blocks: usize,
    block_len: usize,
}

/// Where the weights of the channels that are packed lie.
pub(crate) struct Weights<'a> {
    pub(crate) values: &'a [f32],
    /// A factor for every channel of every group.
    pub(crate) scale: Option<&'a [f32]>,
    pub(crate) groups: usize,
    /// Channels of a group, and how far apart their weights are.
    pub(crate) channels: usize,
    pub(crate) channel_step: usize,
    /// Where each term of the first channel of the first group lies.
    pub(crate) places: Vec<usize>,
}

impl Packed {
    pub(crate) fn new(block: usize, from: &Weights) -> Self {
        let (blocks, block_len) = (from.channels.div_ceil(block), block * from.places.len());
        // SAFETY: a block is a chunk, and every chunk is written in full.
        let weights = unsafe {
            filled(from.groups * blocks * block_len, |weights| {
                weights.par_chunks_mut(block_len.max(1)).enumerate().for_each(|(index, to)| {
                    let (group, first) = (index / blocks, index % blocks * block);
                    match block {
                        6 => from.pack::<6>(group, first, to),
                        8 => from.pack::<8>(group, first, to),
                        _ => unreachable!("blocks of {block} channels"),
                    }
                });
            })
        };
        Self { weights, blocks, block_len }
    }

    pub(crate) fn block(&self, group: usize, block: usize) -> &[f32] {
        &self.weights[(group * self.blocks + block) * self.block_len..][..self.block_len]
    }
}

impl Weights<'_> {
    /// Packs the block of a group that begins at channel `first`. Behind the last channel that one is
    /// repeated: nobody reads the sums of those.
    fn pack<const BLOCK: usize>(&self, group: usize, first: usize, to: &mut [MaybeUninit<f32>]) {
        let group_len = self.values.len() / self.groups;
        let values = &self.values[group * group_len..][..group_len];
        let reach = self.places.iter().max().map_or(0, |furthest| furthest + 1);
        let channels: [usize; BLOCK] = std::array::from_fn(|channel| (first + channel).min(self.channels - 1));
        let scale = channels.map(|channel| self.scale.map_or(1.0, |scale| scale[group * self.channels + channel]));
        // All of one length, so that a place is checked once for all of them.
        let rows = channels.map(|channel| &values[channel * self.channel_step..][..reach]);
        for (to, place) in to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(&self.places) {
            for channel in 0..BLOCK {
                to[channel].write(rows[channel][*place] * scale[channel]);
            }
        }
    }
}

/// Where in the weights each term lies, in the order of [`Offsets`]: the given rows and columns of taps
/// of `channels` channels whose weights are `channel_step` apart.
pub(crate) fn term_places(
    shape: &ConvShape,
    channels: usize,
    channel_step: usize,
    rows: &[usize],
    columns: &[usize],
) -> Vec<usize> {
    let mut places = Vec::with_capacity(rows.len() * channels * columns.len());
    for row in rows {
        for channel in 0..channels {
            places.extend(columns.iter().map(|column| channel * channel_step + row * shape.kernel[1] + column));
        }
    }
    places
}

/// Copies the rows from `row` on of `channels` planes into the layout, plane after plane.
pub(crate) fn fill_rows(layout: &Layout, row: usize, planes: &[f32], area: usize, rows: &mut [f32]) {
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
pub(crate) fn segments(rows: usize, taps: usize, is_on_map: impl Fn(usize, usize) -> bool) -> Vec<Segment> {
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
