//! Exponential and logarithm that the compiler vectorises where a kernel calls them in its loop.
//!
//! The C library's are a call per number, and their bits differ between machines. The polynomials
//! were fitted for the smallest largest error.

const LN_2_HIGH: f32 = 0.693_359_4;
/// What `LN_2_HIGH` lacks. It has so few digits that its multiples are exact.
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Added and taken away again, it leaves a whole number, which stands in its lowest bits meanwhile.
const ROUNDING: f32 = 12_582_912.0;
const MANTISSA_BITS: u32 = 23;
const ONE: i32 = 127 << MANTISSA_BITS;

/// `2^n` for `n` in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n << MANTISSA_BITS) + ONE) as u32)
}

/// The value of a polynomial whose highest coefficient comes first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |value, coefficient| value * x + coefficient)
}

/// `e^x` to two units in the last place, of any `x`; NaN of NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these everything is infinite or zero. Comparisons are false for NaN, which so stays.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUNDING;
    let twos = rounded - ROUNDING;
    let rest = (x - twos * LN_2_HIGH) - twos * LN_2_LOW;
    let square_factor = polynomial(rest, [0.001_394_112, 0.008_363_181, 0.041_666_374, 0.166_665_77, 0.5]);
    let mantissa = 1.0 + (rest + rest * rest * square_factor);
    // In two halves, since the result may be smaller or larger than a normal power of two.
    let twos = (rounded.to_bits() as i32).wrapping_sub(ROUNDING.to_bits() as i32);
    let half = twos >> 1;
    mantissa * power_of_two(half) * power_of_two(twos.wrapping_sub(half))
}

/// The natural logarithm to two units in the last place, of a normal positive `x`; NaN of NaN.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const ROOT_OF_HALF: i32 = std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;
    let bits = x.to_bits() as i32;
    let twos = bits.wrapping_sub(ROOT_OF_HALF) >> MANTISSA_BITS;
    // Between the roots of 1/2 and 2.
    let mantissa = f32::from_bits(bits.wrapping_sub(twos << MANTISSA_BITS) as u32);
    let (rest, twos) = (mantissa - 1.0, twos as f32);
    let cube_factor = polynomial(
        rest,
        [
            0.073_324_375,
            -0.116_598_874,
            0.116_346_77,
            -0.123_967_074,
            0.142_511_55,
            -0.166_691_51,
            0.200_006_89,
            -0.249_999_8,
            0.333_333_3,
        ],
    );
    let square = rest * rest;
    let small = rest * square * cube_factor + twos * LN_2_LOW - 0.5 * square;
    let value = twos * LN_2_HIGH + (rest + small);
    if x.is_nan() { x } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance in units in the last place of what is right.
    fn error(found: f32, expected: f64) -> f64 {
        let near = (expected as f32).abs().clamp(f32::from_bits(1), f32::MAX);
        let unit = f64::from(near) - f64::from(near.next_down());
        (f64::from(found) - expected).abs() / unit
    }

    #[test]
    fn the_exponential_is_that_of_f64_over_the_whole_range() {
        for step in 0..=2_000_000 {
            let x = -104.5 + step as f32 * 9.66e-5;
            let expected = f64::from(x).exp();
            if expected > f64::from(f32::MAX) {
                assert_eq!(exp(x), f32::INFINITY, "exp({x})");
            } else {
                assert!(error(exp(x), expected) <= 2.0, "exp({x}) = {}, expected {expected}", exp(x));
            }
        }
        assert_eq!([exp(0.0), exp(-0.0), exp(f32::from_bits(1))], [1.0; 3]);
    }

    #[test]
    fn the_exponential_has_its_limits() {
        for x in [-104.1, -1e4, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "exp({x})");
        }
        for x in [88.73, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!(exp(x), f32::INFINITY, "exp({x})");
        }
        assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
    }

    #[test]
    fn the_logarithm_is_that_of_f64_for_every_normal_number() {
        let (first, last) = (f32::MIN_POSITIVE.to_bits(), f32::MAX.to_bits());
        for x in (first..=last).step_by(1009).chain(0x3f7f_0000..0x3f81_0000).map(f32::from_bits) {
            let expected = f64::from(x).ln();
            assert!(error(ln(x), expected) <= 2.0, "ln({x}) = {}, expected {expected}", ln(x));
        }
        assert_eq!(ln(1.0), 0.0);
        assert!(ln(f32::NAN).is_nan());
    }
}
