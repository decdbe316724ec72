//! Loops over f32 slices that the compiler vectorises for the CPU they run on.
//!
//! Sums go through a fixed number of lanes and nothing is contracted, so the bits are the same on
//! every CPU.

use std::mem::MaybeUninit;

use crate::cpu::instructions::Instructions;

/// Running sums of a reduction: they fit the registers of AVX2.
const LANES: usize = 32;
/// Elements that are added in f32 before the lanes go over to f64.
const BLOCK: usize = 4096;

type Lanes = [f32; LANES];

/// A loop with its operands.
pub(crate) trait Kernel {
    type Output;

    /// Whether arithmetic bounds it, not memory. Only then do registers of a whole cache line pay: nearly every read of one
    /// that is not aligned takes two lines.
    const IS_COMPUTE_BOUND: bool = false;

    /// Runs the loop. It must be marked `inline(always)`: otherwise it may stay a function of its
    /// own, compiled for any CPU.
    fn run(self) -> Self::Output;
}

/// Runs a kernel as compiled for the vectors of the chosen instructions. The bits are the same with all of them.
#[inline(always)]
pub(crate) fn vectorised<K: Kernel>(kernel: K) -> K::Output {
    vectorised_by(Instructions::chosen(), kernel)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn vectorised_by<K: Kernel>(instructions: Instructions, kernel: K) -> K::Output {
    // All of them: with AVX512F alone LLVM fails on some loops.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    #[target_feature(enable = "avx2")]
    fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
    match instructions {
        // SAFETY: the CPU has the instructions, or they would not be available.
        Instructions::Avx512 if K::IS_COMPUTE_BOUND => unsafe { avx512(kernel) },
        // SAFETY: as above.
        Instructions::Avx512 | Instructions::Avx2 => unsafe { avx2(kernel) },
        Instructions::Portable => kernel.run(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn vectorised_by<K: Kernel>(_: Instructions, kernel: K) -> K::Output {
    kernel.run()
}

#[inline(always)]
fn total(lanes: Lanes) -> f64 {
    lanes.iter().map(|lane| f64::from(*lane)).sum()
}

/// The end of a slice filled up to whole lanes. (Lanes that are indexed by a variable would leave
/// the registers for the whole loop.)
#[inline(always)]
fn filled_up(rest: &[f32], fill: f32) -> Lanes {
    let mut lanes = [fill; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    struct Add<'a>(&'a mut [f32], &'a [f32]);
    impl Kernel for Add<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(to, from) = self;
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
    vectorised(Add(to, from));
}

/// `to += factor * from`.
pub(crate) fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    struct AddScaled<'a>(&'a mut [f32], f32, &'a [f32]);
    impl Kernel for AddScaled<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(to, factor, from) = self;
            to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
        }
    }
    vectorised(AddScaled(to, factor, from));
}

/// `start` and the products of weights with what their taps see: `start + weights[t] * from[taps[t] + i]`, summed over `t`
/// in order.
pub(crate) fn tap_sums(to: &mut [f32], start: f32, weights: &[f32], taps: &[usize], from: &[f32]) {
    struct TapSums<'a>(&'a mut [f32], f32, &'a [f32], &'a [usize], &'a [f32]);
    impl Kernel for TapSums<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(to, start, weights, taps, from) = self;
            let whole = to.len() / LANES * LANES;
            let (lanes, rest) = to.split_at_mut(whole);
            for (index, to) in lanes.chunks_exact_mut(LANES).enumerate() {
                let mut sums = [start; LANES];
                for (weight, tap) in weights.iter().zip(taps) {
                    let from = &from[tap + index * LANES..][..LANES];
                    sums.iter_mut().zip(from).for_each(|(sum, from)| *sum += weight * from);
                }
                to.copy_from_slice(&sums);
            }
            rest.fill(start);
            for (weight, tap) in weights.iter().zip(taps) {
                let from = &from[tap + whole..][..rest.len()];
                rest.iter_mut().zip(from).for_each(|(sum, from)| *sum += weight * from);
            }
        }
    }
    vectorised(TapSums(to, start, weights, taps, from));
}

/// The sum of all elements.
pub(crate) fn sum(x: &[f32]) -> f64 {
    struct Sum<'a>(&'a [f32]);
    impl Kernel for Sum<'_> {
        type Output = f64;
        #[inline(always)]
        fn run(self) -> f64 {
            let Self(x) = self;
            let mut sum = 0.0;
            for x in x.chunks(BLOCK) {
                let mut lanes = [0.0; LANES];
                let (rows, rest) = x.as_chunks::<LANES>();
                for row in rows {
                    (0..LANES).for_each(|i| lanes[i] += row[i]);
                }
                sum += total(lanes) + total(filled_up(rest, 0.0));
            }
            sum
        }
    }
    vectorised(Sum(x))
}

/// The sum of squared distances from `centre`.
pub(crate) fn squared_distances(x: &[f32], centre: f32) -> f64 {
    struct SquaredDistances<'a>(&'a [f32], f32);
    impl Kernel for SquaredDistances<'_> {
        type Output = f64;
        #[inline(always)]
        fn run(self) -> f64 {
            let Self(x, centre) = self;
            let mut sum = 0.0;
            for x in x.chunks(BLOCK) {
                let mut lanes = [0.0; LANES];
                let (rows, rest) = x.as_chunks::<LANES>();
                let rest = filled_up(rest, centre);
                for row in rows.iter().chain([&rest]) {
                    (0..LANES).for_each(|i| lanes[i] += (row[i] - centre) * (row[i] - centre));
                }
                sum += total(lanes);
            }
            sum
        }
    }
    vectorised(SquaredDistances(x, centre))
}

/// The sums of `grad` and of `grad * (x - centre)`.
pub(crate) fn gradient_sums(grad: &[f32], x: &[f32], centre: f32) -> (f64, f64) {
    struct GradientSums<'a>(&'a [f32], &'a [f32], f32);
    impl Kernel for GradientSums<'_> {
        type Output = (f64, f64);
        #[inline(always)]
        fn run(self) -> (f64, f64) {
            let Self(grad, x, centre) = self;
            let mut sums = (0.0, 0.0);
            for (grad, x) in grad.chunks(BLOCK).zip(x.chunks(BLOCK)) {
                let (mut plain, mut weighted) = ([0.0; LANES], [0.0; LANES]);
                let ((grads, grad_rest), (xs, x_rest)) = (grad.as_chunks::<LANES>(), x.as_chunks::<LANES>());
                let (grad_rest, x_rest) = (filled_up(grad_rest, 0.0), filled_up(x_rest, centre));
                for (grad, x) in grads.iter().chain([&grad_rest]).zip(xs.iter().chain([&x_rest])) {
                    for i in 0..LANES {
                        plain[i] += grad[i];
                        weighted[i] += grad[i] * (x[i] - centre);
                    }
                }
                sums = (sums.0 + total(plain), sums.1 + total(weighted));
            }
            sums
        }
    }
    vectorised(GradientSums(grad, x, centre))
}

/// `to += left * right`.
pub(crate) fn add_product(to: &mut [f32], left: &[f32], right: &[f32]) {
    struct AddProduct<'a>(&'a mut [f32], &'a [f32], &'a [f32]);
    impl Kernel for AddProduct<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(to, left, right) = self;
            for (to, (left, right)) in to.iter_mut().zip(left.iter().zip(right)) {
                *to += left * right;
            }
        }
    }
    vectorised(AddProduct(to, left, right));
}

/// The larger of `best` and `x`, and NaN if either is.
pub(crate) fn raise(best: &mut [f32], x: &[f32]) {
    struct Raise<'a>(&'a mut [f32], &'a [f32]);
    impl Kernel for Raise<'_> {
        type Output = ();
        const IS_COMPUTE_BOUND: bool = true;
        #[inline(always)]
        fn run(self) {
            let Self(best, x) = self;
            for (best, x) in best.iter_mut().zip(x) {
                // Not one choice between old and new: it would be a masked store, which some CPUs are slow at.
                let larger = if *x > *best { *x } else { *best };
                *best = if x.is_nan() { *x } else { larger };
            }
        }
    }
    vectorised(Raise(best, x));
}

/// Where `x` is larger than `best` so far, or is NaN, it becomes the best, and `tap` its `place`.
pub(crate) fn keep_largest(best: &mut [f32], place: &mut [f32], x: &[f32], tap: f32) {
    struct KeepLargest<'a>(&'a mut [f32], &'a mut [f32], &'a [f32], f32);
    impl Kernel for KeepLargest<'_> {
        type Output = ();
        const IS_COMPUTE_BOUND: bool = true;
        #[inline(always)]
        fn run(self) {
            let Self(best, place, x, tap) = self;
            for ((best, place), x) in best.iter_mut().zip(place).zip(x) {
                // As in `raise`, without masked stores.
                let better = *x > *best || x.is_nan();
                let larger = if *x > *best { *x } else { *best };
                *best = if x.is_nan() { *x } else { larger };
                *place += if better { tap - *place } else { 0.0 };
            }
        }
    }
    vectorised(KeepLargest(best, place, x, tap));
}

/// `out = scale * (x - centre) + shift`, then `residual` is added, then `ReLU`; `numbers` are centre,
/// scale and shift.
pub(crate) fn affine(out: &mut [MaybeUninit<f32>], x: &[f32], residual: Option<&[f32]>, relu: bool, numbers: [f32; 3]) {
    match (residual, relu) {
        (None, false) => vectorised(Scaled::<false>(out, x, numbers)),
        (None, true) => vectorised(Scaled::<true>(out, x, numbers)),
        (Some(residual), false) => vectorised(ScaledAndSummed::<false>(out, x, residual, numbers)),
        (Some(residual), true) => vectorised(ScaledAndSummed::<true>(out, x, residual, numbers)),
    }
}

/// `ReLU` if asked for. NaN stays NaN, as the comparison is false for it.
#[inline(always)]
fn rectified<const RELU: bool>(value: f32) -> f32 {
    if RELU && value < 0.0 { 0.0 } else { value }
}

struct Scaled<'a, const RELU: bool>(&'a mut [MaybeUninit<f32>], &'a [f32], [f32; 3]);

impl<const RELU: bool> Kernel for Scaled<'_, RELU> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(out, x, [centre, scale, shift]) = self;
        for (out, x) in out.iter_mut().zip(x) {
            out.write(rectified::<RELU>(scale * (x - centre) + shift));
        }
    }
}

struct ScaledAndSummed<'a, const RELU: bool>(&'a mut [MaybeUninit<f32>], &'a [f32], &'a [f32], [f32; 3]);

impl<const RELU: bool> Kernel for ScaledAndSummed<'_, RELU> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(out, x, residual, [centre, scale, shift]) = self;
        for (out, (x, residual)) in out.iter_mut().zip(x.iter().zip(residual)) {
            out.write(rectified::<RELU>(scale * (x - centre) + shift + residual));
        }
    }
}

/// Brings `x` between two bounds. NaN stays NaN, as the comparisons are false for it.
pub(crate) fn clamp(x: &mut [f32], bounds: [f32; 2]) {
    struct Clamp<'a>(&'a mut [f32], [f32; 2]);
    impl Kernel for Clamp<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(x, [low, high]) = self;
            for x in x {
                let raised = if *x < low { low } else { *x };
                *x = if raised > high { high } else { raised };
            }
        }
    }
    vectorised(Clamp(x, bounds));
}

/// `out = grad` where `y` is positive, else zero: the gradient of `ReLU`.
pub(crate) fn masked(out: &mut [f32], grad: &[f32], y: &[f32]) {
    struct Affine<'a>(&'a mut [f32], &'a [f32], &'a [f32]);
    impl Kernel for Affine<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(out, grad, y) = self;
            for (out, (grad, y)) in out.iter_mut().zip(grad.iter().zip(y)) {
                *out = if *y > 0.0 { *grad } else { 0.0 };
            }
        }
    }
    vectorised(Affine(out, grad, y));
}

/// `out = grad_factor * grad + x_factor * (x - centre) + shift`; `numbers` are the two factors, centre
/// and shift.
pub(crate) fn combined(out: &mut [MaybeUninit<f32>], grad: &[f32], x: &[f32], numbers: [f32; 4]) {
    struct Combined<'a>(&'a mut [MaybeUninit<f32>], &'a [f32], &'a [f32], [f32; 4]);
    impl Kernel for Combined<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(out, grad, x, numbers) = self;
            let [grad_factor, x_factor, centre, shift] = numbers;
            for (out, (grad, x)) in out.iter_mut().zip(grad.iter().zip(x)) {
                out.write(grad_factor * grad + x_factor * (x - centre) + shift);
            }
        }
    }
    vectorised(Combined(out, grad, x, numbers));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::exp::{exp, ln};
    use crate::test_maps::noise_values;

    /// What the kernels are made of: polynomials, choices between values, and a sum by lanes.
    struct Mixture<'a>(&'a mut [f32], &'a [f32]);

    impl Kernel for Mixture<'_> {
        type Output = f32;
        const IS_COMPUTE_BOUND: bool = true;
        #[inline(always)]
        fn run(self) -> f32 {
            let Self(out, x) = self;
            let mut sums = [0.0; LANES];
            for (index, (out, x)) in out.iter_mut().zip(x).enumerate() {
                let (power, log) = (exp(20.0 * x), ln(x.abs() + 1e-3));
                *out = 0.3 * if *x < 0.1 { power + log } else { x * log - power };
                sums[index % LANES] += *out;
            }
            sums.iter().sum()
        }
    }

    #[test]
    fn all_instructions_give_the_same_bits() {
        let mut x = noise_values(1003, "x");
        x[17] = f32::NAN;
        x[18] = f32::INFINITY;
        let results = Instructions::available().map(|instructions| {
            let mut out = vec![0.0; x.len()];
            let sum = vectorised_by(instructions, Mixture(&mut out, &x));
            // The sign of a NaN is not theirs to say.
            let bits = |value: &f32| if value.is_nan() { 0 } else { value.to_bits() };
            out.iter().chain([&sum]).map(bits).collect()
        });
        let results: Vec<Vec<u32>> = results.collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
    }
}
