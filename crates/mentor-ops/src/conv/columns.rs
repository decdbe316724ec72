//! Dense convolution of f32 slices and its gradients on any CPU: columns of one tile of the map at a
//! time, and matrix products over them.
//!
//! All work is cut into tasks by the shapes alone, and partial sums are added in the order of the
//! tasks, so the bits do not depend on the number of threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::conv::epilogue::Epilogue;
use crate::conv::shape::ConvShape;
use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::gemm::{Matrix, multiply, multiply_raw, span};
use crate::cpu::simd;

/// How many tasks a kernel is cut into at least, where the shapes allow it.
const TASKS: usize = 16;
/// Floats of a tile's columns: they should stay in the second-level cache.
const TILE: usize = 64 * 1024;
/// Output pixels of a tile at least, so that reading the weights pays.
const TILE_PIXELS: usize = 128;
/// Floats of all partial sums of a weight gradient, at most.
const PARTIAL_SUMS: usize = 1024 * 1024;

impl ConvShape {
    /// Whether the map is its own column matrix.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0] && self.size == self.out_size
    }

    /// For tap `tap` along `axis`: the outputs `first..end` that it feeds, and the input of `first`.
    fn reach(&self, axis: usize, tap: usize) -> (usize, usize, usize) {
        let (stride, out, input) = (self.stride[axis], self.out_size[axis], self.size[axis]);
        let (ahead, padding) = (tap * self.dilation[axis], self.padding[axis]);
        let first = padding.saturating_sub(ahead).div_ceil(stride).min(out);
        let end = (input + padding).saturating_sub(ahead).div_ceil(stride).clamp(first, out);
        (first, end, (first * stride + ahead).saturating_sub(padding))
    }

    /// The input row that output row `row` sees through vertical tap `tap`, if it is on the map.
    fn input_row(&self, row: usize, tap: usize) -> Option<usize> {
        let padded = row * self.stride[0] + tap * self.dilation[0];
        padded.checked_sub(self.padding[0]).filter(|row| *row < self.size[0])
    }

    /// Tiles that need `per_pixel` floats of scratch for each of their pixels.
    fn tiles(&self, per_pixel: usize) -> Tiles {
        let [height, width] = self.out_size;
        let rows = (TILE / (per_pixel * width)).max(TILE_PIXELS.div_ceil(width)).clamp(1, height);
        let per_image = height.div_ceil(rows).max((TASKS / 2).div_ceil(self.images)).min(height);
        Tiles { rows: height.div_ceil(per_image), height, width }
    }

    /// Channel blocks per image such that images and blocks make enough tasks.
    fn channel_block(&self, images: usize) -> usize {
        self.in_channels.div_ceil(TASKS.div_ceil(images).min(self.in_channels))
    }
}

/// Bands of output rows, image after image.
struct Tiles {
    rows: usize,
    height: usize,
    width: usize,
}

struct Tile {
    image: usize,
    row: usize,
    rows: usize,
    /// The first pixel in the image's plane, and how many there are.
    start: usize,
    pixels: usize,
}

impl Tiles {
    fn per_image(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    fn at(&self, index: usize) -> Tile {
        let (image, row) = (index / self.per_image(), index % self.per_image() * self.rows);
        let rows = self.rows.min(self.height - row);
        Tile { image, row, rows, start: row * self.width, pixels: rows * self.width }
    }
}

/// One row of pixels of one tap in a tile's columns.
struct Run {
    /// Where it begins in the columns.
    column: usize,
    /// The pixels `first..end` of the row lie on the map; the others see padding.
    first: usize,
    end: usize,
    /// Where the first of them lies on the map.
    pixel: usize,
}

/// Calls `each` for every row of pixels of every tap of the first `channels` channels.
fn for_each_run(shape: &ConvShape, channels: usize, tile: &Tile, mut each: impl FnMut(Run)) {
    let (width, taps) = (shape.out_size[1], shape.taps());
    for tap_row in 0..channels * taps {
        let (channel, tap) = (tap_row / taps, tap_row % taps);
        let (first, end, input) = shape.reach(1, tap % shape.kernel[1]);
        for row in 0..tile.rows {
            let column = tap_row * tile.pixels + row * width;
            each(match shape.input_row(tile.row + row, tap / shape.kernel[1]) {
                Some(y) if first < end => {
                    Run { column, first, end, pixel: channel * shape.area() + y * shape.size[1] + input }
                }
                _ => Run { column, first: 0, end: 0, pixel: 0 },
            });
        }
    }
}

/// The columns of a tile of `map`: a row for every tap of its channels, a column for every pixel.
fn gather(shape: &ConvShape, channels: usize, tile: &Tile, map: &[f32], columns: &mut [f32]) {
    let (width, stride) = (shape.out_size[1], shape.stride[1]);
    for_each_run(shape, channels, tile, |Run { column, first, end, pixel }| {
        let row = &mut columns[column..column + width];
        row[..first].fill(0.0);
        row[end..].fill(0.0);
        if stride == 1 {
            row[first..end].copy_from_slice(&map[pixel..pixel + end - first]);
        } else {
            row[first..end].iter_mut().zip(map[pixel..].iter().step_by(stride)).for_each(|(to, from)| *to = *from);
        }
    });
}

/// Adds the columns of a tile to the pixels of `map` they would be gathered from.
fn scatter_add(shape: &ConvShape, channels: usize, tile: &Tile, columns: &[f32], map: &mut [f32]) {
    let stride = shape.stride[1];
    for_each_run(shape, channels, tile, |Run { column, first, end, pixel }| {
        let row = &columns[column + first..column + end];
        if stride == 1 {
            simd::add(&mut map[pixel..pixel + end - first], row);
        } else {
            map[pixel..].iter_mut().step_by(stride).zip(row).for_each(|(to, from)| *to += from);
        }
    });
}

/// The output map.
pub(crate) fn forward(shape: &ConvShape, x: &[f32], weight: &[f32], epilogue: Epilogue) -> Vec<f32> {
    let depth = shape.depth();
    let weight = &*epilogue.scaled(weight, depth);
    product_with_columns(shape, x, Matrix::new(weight, shape.out_channels, depth, depth), epilogue)
}

/// The product of `[out_channels, depth]` weights, scaled already, with the columns of a map.
fn product_with_columns(shape: &ConvShape, x: &[f32], weight: Matrix, epilogue: Epilogue) -> Vec<f32> {
    let (depth, area, channels) = (shape.depth(), shape.out_area(), shape.out_channels);
    let tiles = shape.tiles(depth);
    let compute = |out: &Interleaved, index: usize| {
        let tile = tiles.at(index);
        let map = &x[tile.image * shape.in_channels * shape.area()..][..shape.in_channels * shape.area()];
        let start = tile.image * channels * area + tile.start;
        if let Some(bias) = epilogue.bias {
            for (channel, bias) in bias.iter().enumerate() {
                // SAFETY: these rows of this tile are written by this task alone.
                let row = unsafe { out.part(start + channel * area, tile.pixels) };
                row.fill(MaybeUninit::new(*bias));
            }
        }
        let to = out.address(start, span(channels, tile.pixels, area));
        // SAFETY: the rows of a tile are inside the output, belong to this task alone, and hold the
        // bias where there is one to add to.
        let product = |columns: Matrix| unsafe { multiply_raw(to, area, epilogue.bias.is_some(), weight, columns) };
        if shape.is_pointwise() {
            product(Matrix::new(&map[tile.start..], depth, tile.pixels, area));
        } else {
            with_scratch(depth * tile.pixels, |columns| {
                gather(shape, shape.in_channels, &tile, map, columns);
                product(Matrix::new(columns, depth, tile.pixels, tile.pixels));
            });
        }
        if !epilogue.is_bias_only() {
            for start in (0..channels).map(|channel| start + channel * area) {
                // SAFETY: as above; the product has written these rows.
                let sums = unsafe { out.part(start, tile.pixels).assume_init_mut() };
                epilogue.finish(start, sums);
            }
        }
    };
    // SAFETY: the tiles cover the whole output.
    unsafe {
        filled(shape.images * channels * area, |out| {
            let out = Interleaved::new(out);
            (0..shape.images * tiles.per_image()).into_par_iter().for_each(|index| compute(&out, index));
        })
    }
}

/// The gradient of the input map.
pub(crate) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let (depth, area, out_area, taps) = (shape.depth(), shape.area(), shape.out_area(), shape.taps());
    let out_channels = shape.out_channels;
    if shape.is_pointwise() {
        let weight = Matrix::new(weight, out_channels, depth, depth).transposed();
        let swapped = ConvShape { in_channels: out_channels, out_channels: shape.in_channels, ..shape.clone() };
        return product_with_columns(&swapped, grad, weight, Epilogue::bias(None));
    }
    let block = shape.channel_block(shape.images);
    let tiles = shape.tiles(block * taps);
    let compute = |image: usize, channel: usize, out: &mut [MaybeUninit<f32>]| {
        let channels = out.len() / area;
        let weight = Matrix::new(&weight[channel * taps..], out_channels, channels * taps, depth).transposed();
        let grad = &grad[image * out_channels * out_area..][..out_channels * out_area];
        out.fill(MaybeUninit::new(0.0));
        // SAFETY: filled in the line above.
        let out = unsafe { out.assume_init_mut() };
        for index in 0..tiles.per_image() {
            let tile = tiles.at(index);
            let grad = Matrix::new(&grad[tile.start..], out_channels, tile.pixels, out_area);
            with_scratch(channels * taps * tile.pixels, |columns| {
                multiply(columns, false, weight, grad);
                scatter_add(shape, channels, &tile, columns, out);
            });
        }
    };
    // SAFETY: the channel blocks of all images cover the whole map, and each is written in full.
    unsafe {
        filled(shape.images * shape.in_channels * area, |out| {
            let blocks = shape.in_channels.div_ceil(block);
            let maps = out.chunks_mut(shape.in_channels * area);
            let parts: Vec<_> = maps.flat_map(|map| map.chunks_mut(block * area)).collect();
            parts.into_par_iter().enumerate().for_each(|(index, part)| {
                compute(index / blocks, index % blocks * block, part);
            });
        })
    }
}

/// The gradient of the weight.
///
/// Small weights get a partial sum for each of a fixed number of runs of tiles, large ones are
/// split by input channel.
pub(crate) fn weight_gradient(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let (depth, area, out_area, taps) = (shape.depth(), shape.area(), shape.out_area(), shape.taps());
    let channels = shape.out_channels;
    let wanted = (PARTIAL_SUMS / (channels * depth)).clamp(1, TASKS);
    let block = shape.channel_block(wanted);
    let tiles = shape.tiles(block * taps + channels);
    let count = shape.images * tiles.per_image();
    let sums = wanted.min(count);
    let compute = |sum: usize, channel: usize, out: &mut [f32]| {
        let in_channels = out.len() / (channels * taps);
        for index in sum * count / sums..(sum + 1) * count / sums {
            let tile = tiles.at(index);
            let map = &x[(tile.image * shape.in_channels + channel) * area..][..in_channels * area];
            let grad = &grad[tile.image * channels * out_area + tile.start..];
            let taps = in_channels * taps;
            // Both operands are copied into short rows: rows a whole plane apart share cache sets.
            with_scratch((taps + channels) * tile.pixels, |scratch| {
                let (columns, grads) = scratch.split_at_mut(taps * tile.pixels);
                gather(shape, in_channels, &tile, map, columns);
                for (to, from) in grads.chunks_mut(tile.pixels).zip(grad.chunks(out_area)) {
                    to.copy_from_slice(&from[..tile.pixels]);
                }
                let columns = Matrix::new(columns, taps, tile.pixels, tile.pixels);
                multiply(out, true, Matrix::new(grads, channels, tile.pixels, tile.pixels), columns.transposed());
            });
        }
    };
    let mut partial = vec![0.0; sums * channels * depth];
    let blocks = shape.in_channels.div_ceil(block);
    let per_sum = partial.chunks_mut(channels * depth);
    let parts: Vec<_> = per_sum.flat_map(|sum| sum.chunks_mut(channels * block * taps)).collect();
    parts.into_par_iter().enumerate().for_each(|(index, part)| {
        compute(index / blocks, index % blocks * block, part);
    });
    add_partial_sums(&partial, channels, depth, block * taps)
}

/// Adds partial sums, each laid out as column blocks of `block` columns, into one `[rows, columns]`
/// matrix.
fn add_partial_sums(partial: &[f32], rows: usize, columns: usize, block: usize) -> Vec<f32> {
    let mut total = vec![0.0; rows * columns];
    total.par_chunks_mut(columns).enumerate().for_each(|(row, total)| {
        for sum in partial.chunks(rows * columns) {
            for (index, part) in total.chunks_mut(block).enumerate() {
                let from = &sum[index * rows * block + row * part.len()..][..part.len()];
                part.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    });
    total
}
