//! The one-dimensional transforms of Winograd's minimal filtering F(4, 3), by points.
//!
//! A polynomial product is evaluated at the points 0, ±5/8, ±3/2 and infinity. With `a` and `b` for the
//! two magnitudes and one column for each point in this order, the output is `At((G g) (Bt d))`:
//!
//! ```text
//! Bt = a²b²    0  -a²-b²    0  1  0    At = 1  1   1   1   1  0    G = 1/n0    0      0
//!        0  -ab²     -b²    a  1  0         0  a  -a   b  -b  0        1/na   a/na  a²/na
//!        0   ab²     -b²   -a  1  0         0  a²  a²  b²  b² 0        1/na  -a/na  a²/na
//!        0  -a²b     -a²    b  1  0         0  a³ -a³  b³ -b³ 1        1/nb   b/nb  b²/nb
//!        0   a²b     -a²   -b  1  0                                    1/nb  -b/nb  b²/nb
//!        0  a²b²       0 -a²-b² 0  1                                     0      0      1
//! ```
//!
//! where `n0 = a²b²`, `na = 2a²(a²-b²)` and `nb = 2b²(b²-a²)`. All numbers of `Bt` and `At` are exact in
//! f32.
#![allow(clippy::needless_range_loop)] // Loops over registers, with bounds that the compiler knows.

use crate::conv::winograd::tiles::{IN, OUT};
use crate::cpu::lanes::Lanes;

const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
const A3: f32 = A * A2;
const B3: f32 = B * B2;
/// The factors of the rows of `G`, in f64 for the sake of their last bit.
const G_ZERO: f32 = (1.0 / (A2 as f64 * B2 as f64)) as f32;
const G_A: f32 = (1.0 / (2.0 * A2 as f64 * (A2 as f64 - B2 as f64))) as f32;
const G_B: f32 = (1.0 / (2.0 * B2 as f64 * (B2 as f64 - A2 as f64))) as f32;

/// `Bt d`.
///
/// # Safety
/// The CPU must have the instructions, as for all functions of registers below.
#[inline(always)]
pub(crate) unsafe fn input<V: Lanes>(d: [V; IN]) -> [V; IN] {
    // SAFETY: the caller's promise.
    unsafe {
        let by = |factor: f32, value: V, sum: V| V::splat(factor).multiply_add(value, sum);
        let (even_a, odd_a) = (by(-B2, d[2], d[4]), by(-B2, d[1], d[3]));
        let (even_b, odd_b) = (by(-A2, d[2], d[4]), by(-A2, d[1], d[3]));
        [
            by(A2 * B2, d[0], by(-A2 - B2, d[2], d[4])),
            by(A, odd_a, even_a),
            by(-A, odd_a, even_a),
            by(B, odd_b, even_b),
            by(-B, odd_b, even_b),
            by(A2 * B2, d[1], by(-A2 - B2, d[3], d[5])),
        ]
    }
}

/// `At m`.
///
/// # Safety
/// As [`input`].
#[inline(always)]
pub(crate) unsafe fn output<V: Lanes>(m: [V; IN]) -> [V; OUT] {
    // SAFETY: the caller's promise.
    unsafe {
        let by = |factor: f32, value: V, sum: V| V::splat(factor).multiply_add(value, sum);
        let (even_a, odd_a) = (m[1].add(m[2]), by(-1.0, m[2], m[1]));
        let (even_b, odd_b) = (m[3].add(m[4]), by(-1.0, m[4], m[3]));
        let zero = V::splat(0.0);
        [
            m[0].add(even_a.add(even_b)),
            by(A, odd_a, by(B, odd_b, zero)),
            by(A2, even_a, by(B2, even_b, zero)),
            by(A3, odd_a, by(B3, odd_b, m[5])),
        ]
    }
}

/// `A y`: the way back of [`output`].
///
/// # Safety
/// As [`input`].
#[inline(always)]
pub(crate) unsafe fn output_gradient<V: Lanes>(y: [V; OUT]) -> [V; IN] {
    // SAFETY: the caller's promise.
    unsafe {
        let by = |factor: f32, value: V, sum: V| V::splat(factor).multiply_add(value, sum);
        let zero = V::splat(0.0);
        let (even_a, odd_a) = (by(A2, y[2], y[0]), by(A3, y[3], by(A, y[1], zero)));
        let (even_b, odd_b) = (by(B2, y[2], y[0]), by(B3, y[3], by(B, y[1], zero)));
        [y[0], even_a.add(odd_a), by(-1.0, odd_a, even_a), even_b.add(odd_b), by(-1.0, odd_b, even_b), y[3]]
    }
}

/// `G g`.
///
/// # Safety
/// As [`input`].
#[inline(always)]
pub(crate) unsafe fn weight<V: Lanes>(g: [V; 3]) -> [V; IN] {
    // SAFETY: the caller's promise.
    unsafe {
        let by = |factor: f32, value: V, sum: V| V::splat(factor).multiply_add(value, sum);
        let zero = V::splat(0.0);
        let even_a = by(G_A * A2, g[2], by(G_A, g[0], zero));
        let even_b = by(G_B * B2, g[2], by(G_B, g[0], zero));
        [
            by(G_ZERO, g[0], zero),
            by(G_A * A, g[1], even_a),
            by(-G_A * A, g[1], even_a),
            by(G_B * B, g[1], even_b),
            by(-G_B * B, g[1], even_b),
            g[2],
        ]
    }
}

/// `Gt u`, of several weights side by side: the way back of [`weight`].
#[inline(always)]
pub(crate) fn weight_gradient<const N: usize>(u: [[f32; N]; IN]) -> [[f32; N]; 3] {
    let mut g = [[0.0; N]; 3];
    for lane in 0..N {
        let (even_a, odd_a) = (G_A * (u[1][lane] + u[2][lane]), G_A * (u[1][lane] - u[2][lane]));
        let (even_b, odd_b) = (G_B * (u[3][lane] + u[4][lane]), G_B * (u[3][lane] - u[4][lane]));
        g[0][lane] = G_ZERO * u[0][lane] + even_a + even_b;
        g[1][lane] = A * odd_a + B * odd_b;
        g[2][lane] = A2 * even_a + B2 * even_b + u[5][lane];
    }
    g
}

/// Four registers of pixels, every fourth of them by register: pixel `4 i + p` becomes lane `i` of `p`.
///
/// # Safety
/// As [`input`].
#[inline(always)]
pub(crate) unsafe fn split_by_four<V: Lanes>(pixels: [V; OUT]) -> [V; OUT] {
    // SAFETY: the caller's promise.
    unsafe { rotated(pixels, V::LANES.ilog2()) }
}

/// The way back of [`split_by_four`].
///
/// # Safety
/// As [`input`].
#[inline(always)]
pub(crate) unsafe fn merge_four<V: Lanes>(parts: [V; OUT]) -> [V; OUT] {
    // SAFETY: the caller's promise.
    unsafe { rotated(parts, OUT.ilog2()) }
}

/// The numbers of the places of all lanes, as bits, rotated to the left: to zip the halves of the
/// registers is to do so by one bit.
///
/// # Safety
/// As [`input`].
#[inline(always)]
unsafe fn rotated<V: Lanes>(mut values: [V; OUT], bits: u32) -> [V; OUT] {
    for _ in 0..bits {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { (values[0].zip(values[2]), values[1].zip(values[3])) };
        values = [low.0, low.1, high.0, high.1];
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::arch::x86_64::__m256;

    /// The first lanes of some registers.
    fn first<const N: usize>(values: [__m256; N]) -> [f32; N] {
        values.map(|value| {
            let mut lanes = [0.0; 8];
            // SAFETY: the caller has asked for AVX2; there are as many lanes.
            unsafe { value.store(lanes.as_mut_ptr()) };
            lanes[0]
        })
    }

    /// Registers with a value in all lanes.
    fn splat<const N: usize>(values: [f32; N]) -> [__m256; N] {
        // SAFETY: the caller has asked for AVX2.
        values.map(|value| unsafe { __m256::splat(value) })
    }

    fn has_avx2() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    #[test]
    fn six_products_are_four_sums_over_three_taps_and_their_gradient() {
        if !has_avx2() {
            return;
        }
        let (d, g, y) = ([1.0, -2.0, 0.5, 3.0, -1.5, 0.25], [0.75, -1.0, 2.0], [1.0, -0.5, 2.0, 0.125]);
        // SAFETY: the CPU has the instructions.
        let (v, u, dm) = unsafe { (first(input(splat(d))), first(weight(splat(g))), first(output_gradient(splat(y)))) };
        let products: [f32; IN] = std::array::from_fn(|index| u[index] * v[index]);
        // SAFETY: as above.
        let sums = first(unsafe { output(splat(products)) });
        for (index, sum) in sums.into_iter().enumerate() {
            let expected: f32 = (0..3).map(|tap| g[tap] * d[index + tap]).sum();
            assert!((sum - expected).abs() < 1e-5, "sum {index} is {sum}, expected {expected}");
        }
        let gradient = weight_gradient::<1>(std::array::from_fn(|index| [dm[index] * v[index]]));
        for (tap, [found]) in gradient.into_iter().enumerate() {
            let expected: f32 = (0..OUT).map(|index| y[index] * d[index + tap]).sum();
            assert!((found - expected).abs() < 1e-5, "gradient {tap} is {found}, expected {expected}");
        }
    }

    #[test]
    fn every_fourth_pixel_goes_to_one_register_and_back() {
        if !has_avx2() {
            return;
        }
        let mut pixels = [0.0; 32];
        for (index, pixel) in pixels.iter_mut().enumerate() {
            *pixel = index as f32;
        }
        let (mut parts, mut merged) = ([0.0; 32], [0.0; 32]);
        // SAFETY: the CPU has the instructions, and four registers have 32 lanes.
        unsafe {
            let registers: [__m256; OUT] = std::array::from_fn(|index| __m256::load(pixels[8 * index..].as_ptr()));
            let split = split_by_four(registers);
            for (index, values) in split.into_iter().enumerate() {
                values.store(parts[8 * index..].as_mut_ptr());
            }
            for (index, values) in merge_four(split).into_iter().enumerate() {
                values.store(merged[8 * index..].as_mut_ptr());
            }
        }
        for (index, part) in parts.into_iter().enumerate() {
            assert_eq!(part, (index % 8 * 4 + index / 8) as f32);
        }
        assert_eq!(merged, pixels);
    }
}
