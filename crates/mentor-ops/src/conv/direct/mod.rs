//! Convolution of f32 slices in groups by microkernels that need no columns.
//!
//! All work is cut into tasks by the shapes alone, so the bits do not depend on the number of threads.
//! They may depend on the instructions: these round a product and a sum once, and order sums by the
//! width of their registers.

pub(super) mod input;
pub(super) mod pointwise;
mod tasks;
pub(super) mod weight;

use rayon::prelude::*;

use crate::conv::direct::tasks::{
    Packed, Task, Tasks, Weights, fill_rows, forward_offsets, forward_segments, term_places,
};
use crate::conv::epilogue::Epilogue;
use crate::conv::micro::{Source, Target, channel_block, lanes, products};
use crate::conv::padded::Layout;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::gemm::span;
use crate::cpu::instructions::Instructions;

/// The weights of all taps.
fn packed(block: usize, shape: &ConvShape, weight: &[f32], scale: Option<&[f32]>) -> Packed {
    let [rows, columns] = shape.kernel.map(|side| (0..side).collect::<Vec<usize>>());
    let weights = Weights {
        values: weight,
        scale,
        groups: shape.groups,
        channels: shape.group_out(),
        channel_step: shape.depth(),
        places: term_places(shape, shape.group_in(), shape.taps(), &rows, &columns),
    };
    Packed::new(block, &weights)
}

/// The output map.
pub(crate) fn forward(
    instructions: Instructions,
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    epilogue: Epilogue,
) -> Vec<f32> {
    let (block, area, out_area) = (channel_block(instructions), shape.area(), shape.out_area());
    let (in_channels, out_channels) = (shape.group_in(), shape.group_out());
    let row_floats = in_channels * Layout::of_band(shape, 1).row * shape.stride[0];
    let tasks = Tasks::new(shape, shape.out_size[0], row_floats, out_channels, block);
    let layout = Layout::of_band(shape, tasks.rows);
    let offsets = forward_offsets(shape, in_channels, &layout);
    let packed = packed(block, shape, weight, epilogue.scale);
    let zeros = vec![0.0; shape.out_channels];
    let start = epilogue.bias.unwrap_or(&zeros);
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
                    residual: epilogue.residual_from(at),
                    bounds: epilogue.activation.bounds(),
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
