//! Convolutions by one tap of stride one: every output pixel sees the input pixel at its own place.
//!
//! The rows of a map mean nothing here, so all pixels are cut into panels as wide as the microkernel's
//! registers, and a panel holds channel after channel: what the kernel reads lies in one piece of the
//! first-level cache, where rows of many channels would push each other out.

use rayon::prelude::*;

use crate::conv::direct::tasks::{Packed, Task, Tasks, Weights};
use crate::conv::epilogue::Epilogue;
use crate::conv::micro::{Offsets, Source, Target, channel_block, pixels_at_once, products};
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::gemm::span;
use crate::cpu::instructions::Instructions;

/// Whether a convolution is one.
pub(crate) fn is_pointwise(shape: &ConvShape) -> bool {
    shape.kernel == [1, 1] && shape.stride == [1, 1] && shape.padding == [0, 0] && shape.size == shape.out_size
}

/// The output map.
pub(crate) fn forward(
    instructions: Instructions,
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
) -> Vec<f32> {
    let weights = Weights {
        values: weight,
        scale: epilogue.scale,
        groups: shape.groups,
        channels: shape.group_out(),
        channel_step: shape.group_in(),
        places: (0..shape.group_in()).collect(),
    };
    Pointwise::new(instructions, shape, [shape.group_in(), shape.group_out()], &weights, epilogue).map(x)
}

/// The gradient of the input map.
pub(crate) fn input_gradient(instructions: Instructions, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let weights = Weights {
        values: weight,
        scale: None,
        groups: shape.groups,
        channels: shape.group_in(),
        channel_step: 1,
        places: (0..shape.group_out()).map(|channel| channel * shape.group_in()).collect(),
    };
    let channels = [shape.group_out(), shape.group_in()];
    Pointwise::new(instructions, shape, channels, &weights, Epilogue::bias(None)).map(grad)
}

/// A product of weights with the pixels of a map.
struct Pointwise<'a> {
    instructions: Instructions,
    images: usize,
    groups: usize,
    area: usize,
    /// Channels of a group that are read, and that are written.
    channels: [usize; 2],
    packed: Packed,
    offsets: Offsets,
    /// Their rows are panels.
    tasks: Tasks,
    /// What each sum starts from, for all channels.
    start: Vec<f32>,
    epilogue: Epilogue<'a>,
}

impl<'a> Pointwise<'a> {
    fn new(
        instructions: Instructions,
        shape: &ConvShape,
        channels: [usize; 2],
        weights: &Weights,
        epilogue: Epilogue<'a>,
    ) -> Self {
        let (block, width, [from, to]) = (channel_block(instructions), pixels_at_once(instructions), channels);
        let panels = shape.area().div_ceil(width);
        Self {
            instructions,
            images: shape.images,
            groups: shape.groups,
            area: shape.area(),
            channels,
            packed: Packed::new(block, weights),
            offsets: Offsets::new(from, width, &[vec![0]]),
            tasks: Tasks::new(shape, panels, from * width, to, block),
            start: epilogue.bias.map_or_else(|| vec![0.0; shape.groups * to], <[f32]>::to_vec),
            epilogue,
        }
    }

    fn map(&self, from: &[f32]) -> Vec<f32> {
        // SAFETY: the tasks cover the whole map.
        unsafe {
            filled(self.images * self.groups * self.channels[1] * self.area, |out| {
                let out = Interleaved::new(out);
                let count = self.tasks.count(self.images);
                (0..count).into_par_iter().for_each(|index| self.compute(from, &out, &self.tasks.at(index)));
            })
        }
    }

    fn compute(&self, from: &[f32], out: &Interleaved, task: &Task) {
        let (width, [in_channels, out_channels]) = (pixels_at_once(self.instructions), self.channels);
        let panel = in_channels * width;
        let (first, block) = (task.row * width, channel_block(self.instructions));
        let pixels = (task.rows * width).min(self.area - first);
        let group = task.image * self.groups + task.group;
        with_scratch(task.rows * panel, |panels| {
            let planes = &from[group * in_channels * self.area..][..in_channels * self.area];
            for (channel, plane) in planes.chunks_exact(self.area).enumerate() {
                for (pixels, panel) in plane[first..][..pixels].chunks(width).zip(panels.chunks_exact_mut(panel)) {
                    panel[channel * width..][..pixels.len()].copy_from_slice(pixels);
                }
            }
            for index in task.blocks[0]..task.blocks[1] {
                let channel = index * block;
                let channels = block.min(out_channels - channel);
                let at = (group * out_channels + channel) * self.area + first;
                let start = &self.start[task.group * out_channels + channel..][..channels];
                // The panel behind the last whole one has fewer pixels.
                for (panels_before, rows, width) in [(0, pixels / width, width), (pixels / width, 1, pixels % width)] {
                    if rows == 0 || width == 0 {
                        continue;
                    }
                    let at = at + panels_before * pixels_at_once(self.instructions);
                    let source = Source {
                        pixels: &panels[panels_before * panel..],
                        offsets: &self.offsets,
                        terms: 0..in_channels,
                        row_step: panel,
                        rows: 0..rows,
                        width,
                    };
                    let target = Target {
                        address: out.address(at, span(channels, rows * width, self.area)),
                        channel_step: self.area,
                        row_step: width,
                        residual: self.epilogue.residual_from(at),
                        bounds: self.epilogue.activation.bounds(),
                    };
                    let weights = self.packed.block(task.group, index);
                    // SAFETY: the CPU has the instructions; these pixels of these channels are inside
                    // the output and this task's alone.
                    unsafe { products(self.instructions, &source, weights, start, &target) };
                }
            }
        });
    }
}
