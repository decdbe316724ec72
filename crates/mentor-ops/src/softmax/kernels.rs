//! Softmax over the channels of f32 slices, what is built on it, and their gradients.
//!
//! A map is cut into blocks of pixels. A block with all its channels stays in the cache between the
//! passes over it, and its loops run over pixels, which lie side by side.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::buffer::{Interleaved, filled, with_scratch};
use crate::cpu::exp::{exp, ln};
use crate::cpu::simd::{Kernel, vectorised};

/// The sizes of a map `[images, channels, area]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) area: usize,
}

/// Some pixels of one image.
#[derive(Clone, Copy)]
struct Block {
    image: usize,
    first: usize,
    len: usize,
}

impl Size {
    /// Numbers of a block: they fit the first cache.
    const BLOCK: usize = 6 * 1024;
    /// A map of fewer numbers is not worth a second thread.
    const ALONE: usize = 16 * 1024;

    pub(crate) fn len(self) -> usize {
        self.images * self.channels * self.area
    }

    fn pixels(self) -> usize {
        self.images * self.area
    }

    /// Where the pixels of a block are in `[images, area]`.
    fn place(self, block: Block) -> Range<usize> {
        let start = block.image * self.area + block.first;
        start..start + block.len
    }

    /// Where a block's row of a channel is in `[images, channels, area]`.
    fn row(self, block: Block, channel: usize) -> Range<usize> {
        let start = (block.image * self.channels + channel) * self.area + block.first;
        start..start + block.len
    }

    fn block_len(self) -> usize {
        (Self::BLOCK / self.channels).next_multiple_of(64).clamp(64, 1024)
    }

    fn blocks(self) -> impl Iterator<Item = Block> {
        (0..self.images).flat_map(move |image| {
            let firsts = (0..self.area).step_by(self.block_len());
            firsts.map(move |first| Block { image, first, len: self.block_len().min(self.area - first) })
        })
    }

    /// The part of each block in `[images, area]`.
    fn parts<T>(self, values: &mut [T]) -> impl Iterator<Item = &mut [T]> {
        values.chunks_mut(self.area).flat_map(move |plane| plane.chunks_mut(self.block_len()))
    }

    /// Does the work of every block, side by side where it is worth it.
    fn run<T: Send>(self, blocks: impl Iterator<Item = T>, work: impl Fn(T) + Send + Sync) {
        if self.len() < Self::ALONE {
            blocks.for_each(work);
        } else {
            blocks.collect::<Vec<_>>().into_par_iter().for_each(work);
        }
    }
}

/// Copies the rows of a block one after the other, and finds the largest of every pixel. It passes
/// over NaN: the sum of exponentials will be NaN then.
#[inline(always)]
fn copy_and_largest<'a>(copy: &mut [f32], largest: &mut [f32], rows: impl Iterator<Item = &'a [f32]>) {
    largest.fill(f32::NEG_INFINITY);
    for (copy, row) in copy.chunks_exact_mut(largest.len()).zip(rows) {
        for ((copy, largest), x) in copy.iter_mut().zip(&mut *largest).zip(row) {
            *copy = *x;
            *largest = x.max(*largest);
        }
    }
}

/// What the gradient of the cross-entropy needs of every pixel besides the logits.
#[derive(Clone, Debug)]
pub(crate) struct LogSums<T> {
    /// The largest logit.
    pub(crate) largest: T,
    /// The logarithm of the sum of `e^(logit - largest)`.
    pub(crate) log_sum: T,
}

/// The cross-entropy of a block of pixels.
struct CrossEntropy<'a> {
    size: Size,
    block: Block,
    logits: &'a [f32],
    classes: &'a [i32],
    scratch: &'a mut [f32],
    value: &'a mut [f32],
    largest: &'a mut [f32],
    log_sum: &'a mut [f32],
}

impl Kernel for CrossEntropy<'_> {
    type Output = ();
    const IS_COMPUTE_BOUND: bool = true;
    #[inline(always)]
    fn run(self) {
        let Self { size, block, logits, classes, scratch, value, largest, log_sum } = self;
        let (sum, copy) = scratch.split_at_mut(block.len);
        copy_and_largest(copy, largest, (0..size.channels).map(|channel| &logits[size.row(block, channel)]));
        sum.fill(0.0);
        value.fill(0.0);
        for (channel, row) in copy.chunks_exact(block.len).enumerate() {
            let pixels = row.iter().zip(&*largest).zip(classes);
            for (((x, largest), class), (sum, own)) in pixels.zip(sum.iter_mut().zip(&mut *value)) {
                let distance = x - largest;
                *sum += exp(distance);
                // To choose between old and new would be a masked store, which some CPUs are slow at.
                *own += if *class == channel as i32 { distance } else { 0.0 };
            }
        }
        for ((value, log_sum), sum) in value.iter_mut().zip(log_sum).zip(sum) {
            *log_sum = ln(*sum);
            *value = *log_sum - *value;
        }
    }
}

/// The cross-entropy of every pixel with its class, `log(sum_k e^(logit_k)) - logit_class`.
///
/// # Panics
/// If there is no such class.
pub(crate) fn cross_entropy(size: Size, logits: &[f32], classes: &[i32]) -> (Vec<f32>, LogSums<Vec<f32>>) {
    let classes_fit = classes.iter().fold(true, |all, class| all & (0..size.channels as i32).contains(class));
    assert!(classes_fit, "a class is not below {}", size.channels);
    let [mut value, mut largest, mut log_sum] = [(); 3].map(|()| vec![0.0; size.pixels()]);
    let sums = size.parts(&mut largest).zip(size.parts(&mut log_sum));
    size.run(size.blocks().zip(size.parts(&mut value)).zip(sums), |((block, value), (largest, log_sum))| {
        with_scratch((size.channels + 1) * block.len, |scratch| {
            let classes = &classes[size.place(block)];
            vectorised(CrossEntropy { size, block, logits, classes, scratch, value, largest, log_sum });
        });
    });
    (value, LogSums { largest, log_sum })
}

/// The gradient of the cross-entropy of a block of pixels.
struct CrossEntropyGradient<'a> {
    size: Size,
    block: Block,
    logits: &'a [f32],
    classes: &'a [i32],
    sums: LogSums<&'a [f32]>,
    grad: &'a [f32],
    out: &'a Interleaved<'a>,
}

impl Kernel for CrossEntropyGradient<'_> {
    type Output = ();
    const IS_COMPUTE_BOUND: bool = true;
    #[inline(always)]
    fn run(self) {
        let Self { size, block, logits, classes, sums, grad, out } = self;
        for channel in 0..size.channels {
            let row = size.row(block, channel);
            // SAFETY: no other block has this row.
            let out = unsafe { out.part(row.start, row.len()) };
            let pixels = sums.largest.iter().zip(sums.log_sum).zip(classes.iter().zip(grad));
            for ((out, x), ((largest, log_sum), (class, grad))) in out.iter_mut().zip(&logits[row]).zip(pixels) {
                let probability = exp(x - largest - log_sum);
                let own = if *class == channel as i32 { 1.0 } else { 0.0 };
                out.write((probability - own) * grad);
            }
        }
    }
}

/// The gradient of [`cross_entropy`]'s logits, `(softmax - onehot) * grad`.
pub(crate) fn cross_entropy_gradient(
    size: Size,
    logits: &[f32],
    classes: &[i32],
    sums: LogSums<&[f32]>,
    grad: &[f32],
) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = &Interleaved::new(out);
        size.run(size.blocks(), |block| {
            let place = size.place(block);
            let (classes, grad) = (&classes[place.clone()], &grad[place.clone()]);
            let sums = LogSums { largest: &sums.largest[place.clone()], log_sum: &sums.log_sum[place] };
            vectorised(CrossEntropyGradient { size, block, logits, classes, sums, grad, out });
        });
    };
    // SAFETY: every channel of every block is written.
    unsafe { filled(size.len(), write) }
}

/// Softmax of a block of pixels, or its logarithm.
struct Softmax<'a, const LOG: bool> {
    size: Size,
    block: Block,
    x: &'a [f32],
    scratch: &'a mut [f32],
    out: &'a Interleaved<'a>,
}

impl<const LOG: bool> Kernel for Softmax<'_, LOG> {
    type Output = ();
    const IS_COMPUTE_BOUND: bool = true;
    #[inline(always)]
    fn run(self) {
        let Self { size, block, x, scratch, out } = self;
        let (sum, rest) = scratch.split_at_mut(block.len);
        let (largest, copy) = rest.split_at_mut(block.len);
        copy_and_largest(copy, largest, (0..size.channels).map(|channel| &x[size.row(block, channel)]));
        sum.fill(0.0);
        for row in copy.chunks_exact_mut(block.len) {
            for ((x, largest), sum) in row.iter_mut().zip(&*largest).zip(&mut *sum) {
                let distance = *x - largest;
                let power = exp(distance);
                *sum += power;
                *x = if LOG { distance } else { power };
            }
        }
        sum.iter_mut().for_each(|sum| *sum = if LOG { ln(*sum) } else { 1.0 / *sum });
        for (channel, row) in copy.chunks_exact(block.len).enumerate() {
            let place = size.row(block, channel);
            // SAFETY: no other block has this row.
            let out = unsafe { out.part(place.start, place.len()) };
            for ((out, x), sum) in out.iter_mut().zip(row).zip(&*sum) {
                out.write(if LOG { x - sum } else { x * sum });
            }
        }
    }
}

/// Softmax over the channels, or its logarithm.
pub(crate) fn softmax(size: Size, x: &[f32], log: bool) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = &Interleaved::new(out);
        size.run(size.blocks(), |block| {
            with_scratch((size.channels + 2) * block.len, |scratch| {
                if log {
                    vectorised(Softmax::<true> { size, block, x, scratch, out });
                } else {
                    vectorised(Softmax::<false> { size, block, x, scratch, out });
                }
            });
        });
    };
    // SAFETY: every channel of every block is written.
    unsafe { filled(size.len(), write) }
}

/// The gradient of [`Softmax`] for a block of pixels.
struct SoftmaxGradient<'a, const LOG: bool> {
    size: Size,
    block: Block,
    y: &'a [f32],
    grad: &'a [f32],
    sum: &'a mut [f32],
    out: &'a Interleaved<'a>,
}

impl<const LOG: bool> Kernel for SoftmaxGradient<'_, LOG> {
    type Output = ();
    const IS_COMPUTE_BOUND: bool = true;
    #[inline(always)]
    fn run(self) {
        let Self { size, block, y, grad, sum, out } = self;
        sum.fill(0.0);
        for place in (0..size.channels).map(|channel| size.row(block, channel)) {
            for ((sum, y), grad) in sum.iter_mut().zip(&y[place.clone()]).zip(&grad[place]) {
                *sum += if LOG { *grad } else { grad * y };
            }
        }
        for place in (0..size.channels).map(|channel| size.row(block, channel)) {
            // SAFETY: no other block has this row.
            let out = unsafe { out.part(place.start, place.len()) };
            let pixels = y[place.clone()].iter().zip(&grad[place]).zip(&*sum);
            for (out, ((y, grad), sum)) in out.iter_mut().zip(pixels) {
                out.write(if LOG { grad - exp(*y) * sum } else { y * (grad - sum) });
            }
        }
    }
}

/// The gradient of [`softmax`], given its output.
pub(crate) fn softmax_gradient(size: Size, y: &[f32], grad: &[f32], log: bool) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = &Interleaved::new(out);
        size.run(size.blocks(), |block| {
            with_scratch(block.len, |sum| {
                if log {
                    vectorised(SoftmaxGradient::<true> { size, block, y, grad, sum, out });
                } else {
                    vectorised(SoftmaxGradient::<false> { size, block, y, grad, sum, out });
                }
            });
        });
    };
    // SAFETY: every channel of every block is written.
    unsafe { filled(size.len(), write) }
}
