//! Depthwise convolution (one kernel per channel) of f32 slices and its gradients.
//!
//! A plane is copied once into a padded layout in which a strided row is split by phase: then what
//! a tap sees of a row is a plain slice, whatever stride and padding are.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::conv::epilogue::Epilogue;
use crate::conv::padded::Layout;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::{filled, with_scratch};
use crate::cpu::simd;

/// The output map; `weight` has the taps of one channel after those of another.
pub(crate) fn forward(shape: &ConvShape, x: &[f32], weight: &[f32], epilogue: Epilogue) -> Vec<f32> {
    let (layout, width, taps) = (Layout::new(shape), shape.out_size[1], shape.taps());
    let weight = &*epilogue.scaled(weight, taps);
    let compute = |index: usize, plane: &[f32], out: &mut [MaybeUninit<f32>]| {
        let channel = index % shape.out_channels;
        let start = epilogue.bias.map_or(0.0, |bias| bias[channel]);
        with_scratch(layout.len() + width, |scratch| {
            let (padded, sums) = scratch.split_at_mut(layout.len());
            layout.fill(0, plane, 0.0, padded);
            for (row, out) in out.chunks_mut(width).enumerate() {
                let padded = &padded[row * shape.stride[0] * layout.row..];
                simd::tap_sums(sums, start, &weight[channel * taps..][..taps], &layout.taps, padded);
                epilogue.finish(index * shape.out_area() + row * width, sums);
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
                .for_each(|(index, (out, plane))| compute(index, plane, out));
        })
    }
}

/// The gradient of the input map.
pub(crate) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    if let Some(turned) = turned(shape) {
        let turned_weight: Vec<f32> = weight.chunks(shape.taps()).flat_map(|taps| taps.iter().rev().copied()).collect();
        return forward(&turned, grad, &turned_weight, Epilogue::bias(None));
    }
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
            layout.unfill(padded, out);
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

/// The convolution by the kernel turned half around that maps the gradient of the output to that of the input; only one of
/// stride one has it, with no more padding than the kernel reaches.
fn turned(shape: &ConvShape) -> Option<ConvShape> {
    let padding = |axis: usize| (shape.dilation[axis] * (shape.kernel[axis] - 1)).checked_sub(shape.padding[axis]);
    let padding = [padding(0)?, padding(1)?];
    (shape.stride == [1, 1]).then(|| ConvShape { size: shape.out_size, out_size: shape.size, padding, ..shape.clone() })
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
            with_scratch(layout.len() + width, |scratch| {
                let (padded, products) = scratch.split_at_mut(layout.len());
                layout.fill(0, plane, 0.0, padded);
                for (sum, tap) in sums.iter_mut().zip(&layout.taps) {
                    products.fill(0.0);
                    for (row, grad) in grad.chunks(width).enumerate() {
                        simd::add_product(products, &padded[tap + row * shape.stride[0] * layout.row..], grad);
                    }
                    *sum += simd::sum(products);
                }
            });
        }
        out.iter_mut().zip(sums).for_each(|(to, from)| *to = from as f32);
    });
    out
}
