//! A layout of a plane in which what a tap of a sliding window sees of a row is a plain slice,
//! whatever stride and padding are: padded, and with the columns of a strided row split by phase.

use std::mem::MaybeUninit;

use crate::conv_kernels::ConvShape;

/// The padded layout of one input plane.
pub(crate) struct Layout {
    rows: usize,
    /// Columns of one phase, and of all phases of a row.
    phase: usize,
    pub(crate) row: usize,
    /// Where each tap begins in the layout for the first output pixel.
    pub(crate) taps: Vec<usize>,
}

impl Layout {
    pub(crate) fn new(shape: &ConvShape) -> Self {
        let reach = |axis: usize| {
            (shape.out_size[axis] - 1) * shape.stride[axis] + (shape.kernel[axis] - 1) * shape.dilation[axis] + 1
        };
        let stride = shape.stride[1];
        let phase = reach(1).div_ceil(stride);
        let row = phase * stride;
        let tap = |tap: usize| {
            let (down, right) = (tap / shape.kernel[1] * shape.dilation[0], tap % shape.kernel[1] * shape.dilation[1]);
            down * row + right % stride * phase + right / stride
        };
        Self { rows: reach(0), phase, row, taps: (0..shape.taps()).map(tap).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows * self.row
    }

    /// Calls `each(first position in the layout, first pixel of the plane, length)` for every run of
    /// positions that is on the plane; the pixels of a run are a stride apart.
    fn for_each_run(&self, shape: &ConvShape, mut each: impl FnMut(usize, usize, usize)) {
        let ([height, width], stride) = (shape.size, shape.stride[1]);
        for row in 0..self.rows {
            let Some(y) = row.checked_sub(shape.padding[0]).filter(|y| *y < height) else { continue };
            for phase in 0..stride {
                // Position i of a phase is column i * stride + phase of the padded row.
                let first = shape.padding[1].saturating_sub(phase).div_ceil(stride);
                let end = (width + shape.padding[1]).saturating_sub(phase).div_ceil(stride).min(self.phase);
                if first < end {
                    let pixel = y * width + first * stride + phase - shape.padding[1];
                    each(row * self.row + phase * self.phase + first, pixel, end - first);
                }
            }
        }
    }

    /// Copies a plane into the layout, with `padding` around it.
    pub(crate) fn fill(&self, shape: &ConvShape, plane: &[f32], padding: f32, padded: &mut [f32]) {
        padded.fill(padding);
        let stride = shape.stride[1];
        self.for_each_run(shape, |at, pixel, len| {
            let run = &mut padded[at..at + len];
            if stride == 1 {
                run.copy_from_slice(&plane[pixel..pixel + len]);
            } else {
                run.iter_mut().zip(plane[pixel..].iter().step_by(stride)).for_each(|(to, from)| *to = *from);
            }
        });
    }

    /// Copies the plane back; pixels that no tap sees become zero.
    pub(crate) fn unfill(&self, shape: &ConvShape, padded: &[f32], plane: &mut [MaybeUninit<f32>]) {
        plane.fill(MaybeUninit::new(0.0));
        self.for_each_run(shape, |at, pixel, len| {
            let run = &padded[at..at + len];
            plane[pixel..].iter_mut().step_by(shape.stride[1]).zip(run).for_each(|(to, from)| {
                to.write(*from);
            });
        });
    }
}
