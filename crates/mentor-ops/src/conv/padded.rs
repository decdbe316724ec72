//! A layout of a plane in which what a tap of a sliding window sees of a row is a plain slice,
//! whatever stride and padding are: padded, and with the columns of a strided row split by phase.

use std::mem::MaybeUninit;

use crate::conv::shape::ConvShape;

/// The padded layout of one input plane, or of the rows of it that a band of output rows sees.
pub(crate) struct Layout {
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    rows: usize,
    /// Columns of one phase, and of all phases of a row.
    phase: usize,
    pub(crate) row: usize,
    /// Whether any tap sees the rows, and the columns, of a phase; the others are left as they are.
    seen: [Vec<bool>; 2],
    /// Where each tap begins in the layout for the first output pixel.
    pub(crate) taps: Vec<usize>,
}

impl Layout {
    /// The layout of a whole plane.
    pub(crate) fn new(shape: &ConvShape) -> Self {
        Self::of_band(shape, shape.out_size[0])
    }

    /// The layout of what `out_rows` output rows see.
    pub(crate) fn of_band(shape: &ConvShape, out_rows: usize) -> Self {
        let (stride, kernel, dilation) = (shape.stride, shape.kernel, shape.dilation);
        let reach = |axis: usize, out: usize| (out - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1;
        let sees =
            |axis: usize, phase: usize| (0..kernel[axis]).any(|tap| tap * dilation[axis] % stride[axis] == phase);
        let phase = reach(1, shape.out_size[1]).div_ceil(stride[1]);
        let mut layout = Self {
            size: shape.size,
            stride,
            padding: shape.padding,
            rows: reach(0, out_rows),
            phase,
            row: phase * stride[1],
            seen: [0, 1].map(|axis| (0..stride[axis]).map(|phase| sees(axis, phase)).collect()),
            taps: Vec::new(),
        };
        let tap = |tap: usize| layout.place(tap / kernel[1] * dilation[0], tap % kernel[1] * dilation[1]);
        layout.taps = (0..shape.taps()).map(tap).collect();
        layout
    }

    /// The layout of `reach` rows and columns, all next to each other, of which the first `padding`
    /// lie before the plane.
    pub(crate) fn dense(size: [usize; 2], padding: [usize; 2], reach: [usize; 2]) -> Self {
        Self {
            size,
            stride: [1, 1],
            padding,
            rows: reach[0],
            phase: reach[1],
            row: reach[1],
            seen: [vec![true], vec![true]],
            taps: Vec::new(),
        }
    }

    /// Where the pixel `down` and `right` of the first padded one lies.
    pub(crate) fn place(&self, down: usize, right: usize) -> usize {
        down * self.row + right % self.stride[1] * self.phase + right / self.stride[1]
    }

    pub(crate) fn len(&self) -> usize {
        self.rows * self.row
    }

    /// The row of the plane at a padded row, if it is on the plane.
    fn plane_row(&self, row: usize) -> Option<usize> {
        row.checked_sub(self.padding[0]).filter(|row| *row < self.size[0])
    }

    /// The positions `first..end` of a phase that are on the plane, and the column of the first.
    fn run(&self, phase: usize) -> (usize, usize, usize) {
        // Position i of a phase is column i * stride + phase of the padded row.
        let (stride, padding) = (self.stride[1], self.padding[1]);
        let first = padding.saturating_sub(phase).div_ceil(stride).min(self.phase);
        let end = (self.size[1] + padding).saturating_sub(phase).div_ceil(stride).clamp(first, self.phase);
        (first, end, (first * stride + phase).saturating_sub(padding))
    }

    /// Copies a plane into the layout, from padded row `first_row` on, with `padding` around it.
    pub(crate) fn fill(&self, first_row: usize, plane: &[f32], padding: f32, padded: &mut [f32]) {
        for (row, padded) in padded[..self.len()].chunks_mut(self.row).enumerate() {
            if !self.seen[0][row % self.stride[0]] {
                continue;
            }
            let Some(y) = self.plane_row(first_row + row) else {
                padded.fill(padding);
                continue;
            };
            let pixels = &plane[y * self.size[1]..][..self.size[1]];
            for (phase, to) in padded.chunks_mut(self.phase).enumerate().filter(|(phase, _)| self.seen[1][*phase]) {
                let (first, end, column) = self.run(phase);
                to[..first].fill(padding);
                to[end..].fill(padding);
                if first < end {
                    copy_every(self.stride[1], &pixels[column..], &mut to[first..end]);
                }
            }
        }
    }

    /// Copies the plane back; pixels that no tap sees become zero.
    pub(crate) fn unfill(&self, padded: &[f32], plane: &mut [MaybeUninit<f32>]) {
        plane.fill(MaybeUninit::new(0.0));
        let stride = self.stride[1];
        for (row, padded) in padded[..self.len()].chunks(self.row).enumerate() {
            let Some(y) = self.plane_row(row) else { continue };
            let pixels = &mut plane[y * self.size[1]..][..self.size[1]];
            for (phase, from) in padded.chunks(self.phase).enumerate() {
                let (first, end, column) = self.run(phase);
                if first < end {
                    pixels[column..].iter_mut().step_by(stride).zip(&from[first..end]).for_each(|(to, from)| {
                        to.write(*from);
                    });
                }
            }
        }
    }
}

/// Copies every `stride`-th element.
fn copy_every(stride: usize, from: &[f32], to: &mut [f32]) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        // Pairs are what the compiler vectorises; the last element may have no partner.
        2 => {
            let (pairs, rest) = from.as_chunks::<2>();
            to.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
            if let Some((to, from)) = to.get_mut(pairs.len()).zip(rest.first()) {
                *to = *from;
            }
        }
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
    }
}
