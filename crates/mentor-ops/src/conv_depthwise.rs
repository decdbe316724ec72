//! Depthwise convolution (one kernel per channel) of f32 slices and its gradients.
//!
//! A plane is copied once into a padded layout in which a strided row is split by phase: then what
//! a tap sees of a row is a plain slice, whatever stride and padding are.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::buffer::{filled, with_scratch};
use crate::conv_kernels::ConvShape;
use crate::simd;

/// The padded layout of one input plane.
struct Layout {
    rows: usize,
    /// Columns of one phase, and of all phases of a row.
    phase: usize,
    row: usize,
    /// Where each tap begins in the layout for the first output pixel.
    taps: Vec<usize>,
}

impl Layout {
    fn new(shape: &ConvShape) -> Self {
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

    fn len(&self) -> usize {
        self.rows * self.row
    }

    /// Calls `each(position in the layout, pixel of the plane)` for all that is on the plane, by
    /// runs: `(first position, first pixel, distance of pixels, length)`.
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

    fn fill(&self, shape: &ConvShape, plane: &[f32], padded: &mut [f32]) {
        padded.fill(0.0);
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

    fn unfill(&self, shape: &ConvShape, padded: &[f32], plane: &mut [MaybeUninit<f32>]) {
        plane.fill(MaybeUninit::new(0.0));
        self.for_each_run(shape, |at, pixel, len| {
            let run = &padded[at..at + len];
            plane[pixel..].iter_mut().step_by(shape.stride[1]).zip(run).for_each(|(to, from)| {
                to.write(*from);
            });
        });
    }
}

/// The output map; `weight` has the taps of one channel after those of another.
pub(crate) fn forward(shape: &ConvShape, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (layout, width, taps) = (Layout::new(shape), shape.out_size[1], shape.taps());
    let compute = |channel: usize, plane: &[f32], out: &mut [MaybeUninit<f32>]| {
        with_scratch(layout.len() + width, |scratch| {
            let (padded, sums) = scratch.split_at_mut(layout.len());
            layout.fill(shape, plane, padded);
            for (row, out) in out.chunks_mut(width).enumerate() {
                sums.fill(bias.map_or(0.0, |bias| bias[channel]));
                let padded = &padded[row * shape.stride[0] * layout.row..];
                for (tap, weight) in layout.taps.iter().zip(&weight[channel * taps..][..taps]) {
                    simd::add_scaled(sums, *weight, &padded[*tap..tap + width]);
                }
                out.write_copy_of_slice(sums);
            }
        });
    };
    // SAFETY: every row of every plane is written.
    unsafe {
        filled(shape.images * shape.out_channels * shape.out_area(), |out| {
            out.par_chunks_mut(shape.out_area())
                .zip(x.par_chunks(shape.area()))
                .enumerate()
                .for_each(|(index, (out, plane))| compute(index % shape.out_channels, plane, out));
        })
    }
}

/// The gradient of the input map.
pub(crate) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let (layout, width, taps) = (Layout::new(shape), shape.out_size[1], shape.taps());
    let compute = |channel: usize, grad: &[f32], out: &mut [MaybeUninit<f32>]| {
        with_scratch(layout.len(), |padded| {
            padded.fill(0.0);
            for (row, grad) in grad.chunks(width).enumerate() {
                let padded = &mut padded[row * shape.stride[0] * layout.row..];
                for (tap, weight) in layout.taps.iter().zip(&weight[channel * taps..][..taps]) {
                    simd::add_scaled(&mut padded[*tap..tap + width], *weight, grad);
                }
            }
            layout.unfill(shape, padded, out);
        });
    };
    // SAFETY: `unfill` writes every pixel of every plane.
    unsafe {
        filled(shape.images * shape.in_channels * shape.area(), |out| {
            out.par_chunks_mut(shape.area())
                .zip(grad.par_chunks(shape.out_area()))
                .enumerate()
                .for_each(|(index, (out, grad))| compute(index % shape.in_channels, grad, out));
        })
    }
}

/// The gradient of the weight: a channel is one task, its images are added in their order.
pub(crate) fn weight_gradient(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let (layout, width, taps) = (Layout::new(shape), shape.out_size[1], shape.taps());
    let (channels, area, out_area) = (shape.in_channels, shape.area(), shape.out_area());
    let mut out = vec![0.0; channels * taps];
    out.par_chunks_mut(taps).enumerate().for_each(|(channel, out)| {
        let mut sums = vec![0.0; taps];
        for image in 0..shape.images {
            let plane = &x[(image * channels + channel) * area..][..area];
            let grad = &grad[(image * channels + channel) * out_area..][..out_area];
            with_scratch(layout.len(), |padded| {
                layout.fill(shape, plane, padded);
                for (row, grad) in grad.chunks(width).enumerate() {
                    let padded = &padded[row * shape.stride[0] * layout.row..];
                    for (sum, tap) in sums.iter_mut().zip(&layout.taps) {
                        *sum += simd::dot(&padded[*tap..tap + width], grad);
                    }
                }
            });
        }
        out.iter_mut().zip(sums).for_each(|(to, from)| *to = from as f32);
    });
    out
}
