//! Loops over f32 slices that the compiler vectorises for the CPU they run on.
//!
//! Sums go through a fixed number of lanes and nothing is contracted, so the bits are the same on
//! every CPU.

use std::mem::MaybeUninit;

/// Running sums of a reduction.
const LANES: usize = 32;
/// Elements that are added in f32 before the lanes go over to f64.
const BLOCK: usize = 4096;

/// Runs `work`, a loop that gets inlined here, as compiled for the widest vectors of this CPU.
#[inline(always)]
fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2, as was just asked.
            return unsafe { wide(work) };
        }
    }
    work()
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f64 {
    lanes.iter().map(|lane| f64::from(*lane)).sum()
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    vectorised(|| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
}

/// `to += factor * from`.
pub(crate) fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    vectorised(|| to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from));
}

/// The sum of all elements.
pub(crate) fn sum(x: &[f32]) -> f64 {
    #[inline(always)]
    fn block(x: &[f32]) -> f64 {
        let mut lanes = [0.0; LANES];
        let (rows, rest) = x.as_chunks::<LANES>();
        for row in rows {
            (0..LANES).for_each(|i| lanes[i] += row[i]);
        }
        rest.iter().enumerate().for_each(|(i, value)| lanes[i] += value);
        total(lanes)
    }
    vectorised(|| x.chunks(BLOCK).map(block).sum())
}

/// The sum of squared distances from `centre`.
pub(crate) fn squared_distances(x: &[f32], centre: f32) -> f64 {
    #[inline(always)]
    fn block(x: &[f32], centre: f32) -> f64 {
        let mut lanes = [0.0; LANES];
        let (rows, rest) = x.as_chunks::<LANES>();
        for row in rows {
            (0..LANES).for_each(|i| lanes[i] += (row[i] - centre) * (row[i] - centre));
        }
        rest.iter().enumerate().for_each(|(i, value)| lanes[i] += (value - centre) * (value - centre));
        total(lanes)
    }
    vectorised(|| x.chunks(BLOCK).map(|x| block(x, centre)).sum())
}

/// The sums of `grad` and of `grad * (x - centre)`.
pub(crate) fn gradient_sums(grad: &[f32], x: &[f32], centre: f32) -> (f64, f64) {
    #[inline(always)]
    fn block(grad: &[f32], x: &[f32], centre: f32) -> (f64, f64) {
        let (mut plain, mut weighted) = ([0.0; LANES], [0.0; LANES]);
        let ((grads, grad_rest), (xs, x_rest)) = (grad.as_chunks::<LANES>(), x.as_chunks::<LANES>());
        for (grad, x) in grads.iter().zip(xs) {
            for i in 0..LANES {
                plain[i] += grad[i];
                weighted[i] += grad[i] * (x[i] - centre);
            }
        }
        for (i, (grad, x)) in grad_rest.iter().zip(x_rest).enumerate() {
            plain[i] += grad;
            weighted[i] += grad * (x - centre);
        }
        (total(plain), total(weighted))
    }
    let blocks = || grad.chunks(BLOCK).zip(x.chunks(BLOCK)).map(|(grad, x)| block(grad, x, centre));
    vectorised(|| blocks().fold((0.0, 0.0), |sums, block| (sums.0 + block.0, sums.1 + block.1)))
}

/// The sum of `left * right`.
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f64 {
    gradient_sums(left, right, 0.0).1
}

/// `out = scale * (x - centre) + shift`, then `residual` is added, then `ReLU`; `numbers` are centre,
/// scale and shift.
pub(crate) fn affine(out: &mut [MaybeUninit<f32>], x: &[f32], residual: Option<&[f32]>, relu: bool, numbers: [f32; 3]) {
    match (residual, relu) {
        (None, false) => scaled::<false>(out, x, numbers),
        (None, true) => scaled::<true>(out, x, numbers),
        (Some(residual), false) => scaled_and_summed::<false>(out, x, residual, numbers),
        (Some(residual), true) => scaled_and_summed::<true>(out, x, residual, numbers),
    }
}

/// `ReLU` if asked for. NaN stays NaN, as the comparison is false for it.
#[inline(always)]
fn rectified<const RELU: bool>(value: f32) -> f32 {
    if RELU && value < 0.0 { 0.0 } else { value }
}

fn scaled<const RELU: bool>(out: &mut [MaybeUninit<f32>], x: &[f32], [centre, scale, shift]: [f32; 3]) {
    vectorised(|| {
        for (out, x) in out.iter_mut().zip(x) {
            out.write(rectified::<RELU>(scale * (x - centre) + shift));
        }
    });
}

fn scaled_and_summed<const RELU: bool>(
    out: &mut [MaybeUninit<f32>],
    x: &[f32],
    residual: &[f32],
    [centre, scale, shift]: [f32; 3],
) {
    vectorised(|| {
        for (out, (x, residual)) in out.iter_mut().zip(x.iter().zip(residual)) {
            out.write(rectified::<RELU>(scale * (x - centre) + shift + residual));
        }
    });
}

/// `out = grad` where `y` is positive, else zero: the gradient of `ReLU`.
pub(crate) fn masked(out: &mut [f32], grad: &[f32], y: &[f32]) {
    vectorised(|| {
        for (out, (grad, y)) in out.iter_mut().zip(grad.iter().zip(y)) {
            *out = if *y > 0.0 { *grad } else { 0.0 };
        }
    });
}

/// `out = grad_factor * grad + x_factor * (x - centre) + shift`.
pub(crate) fn combined(
    out: &mut [MaybeUninit<f32>],
    grad: &[f32],
    x: &[f32],
    [grad_factor, x_factor, centre, shift]: [f32; 4],
) {
    vectorised(|| {
        for (out, (grad, x)) in out.iter_mut().zip(grad.iter().zip(x)) {
            out.write(grad_factor * grad + x_factor * (x - centre) + shift);
        }
    });
}
