//! Draws from a stream of random numbers, the same on every platform.

use mentor_types::{Key, KeyRng};
use rand::Rng;

/// A stream of draws.
pub(crate) struct Chance(KeyRng);

impl Chance {
    pub(crate) fn new(key: Key) -> Self {
        Self(key.rng())
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Whether something of this probability happens.
    pub(crate) fn happens(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((self.unit() * end as f32) as usize).min(end - 1)
    }

    /// One of some, all alike.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of some, by weight.
    pub(crate) fn weighed<T: Copy>(&mut self, from: &[(T, f32)]) -> T {
        let mut left = self.unit() * from.iter().map(|(_, weight)| weight).sum::<f32>();
        for (one, weight) in from {
            left -= weight;
            if left < 0.0 {
                return *one;
            }
        }
        from[from.len() - 1].0
    }

    /// About normal, with mean 0 and deviation 1: a sum of four bytes.
    pub(crate) fn bell(&mut self) -> f32 {
        let bytes = self.0.next_u32().to_le_bytes();
        let sum: i32 = bytes.iter().map(|byte| i32::from(*byte)).sum();
        // Four uniform bytes have mean 510 and variance 4 * (256^2 - 1) / 12.
        (sum - 510) as f32 / 147.799_f32
    }

    /// How many rare things there are, `mean` on average (Poisson's law).
    pub(crate) fn how_many(&mut self, mean: f32) -> usize {
        let least = libm::expf(-mean);
        let (mut count, mut product) = (0, self.unit());
        while product > least && count < 200 {
            count += 1;
            product *= self.unit();
        }
        count
    }

    /// 1 or -1.
    pub(crate) fn sign(&mut self) -> f32 {
        if self.happens(0.5) { 1.0 } else { -1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_variance(values: &[f32]) -> (f32, f32) {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        (mean, values.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / values.len() as f32)
    }

    #[test]
    fn draws_have_the_moments_they_claim() {
        let mut chance = Chance::new(Key::new(1));
        let bells: Vec<f32> = (0..20_000).map(|_| chance.bell()).collect();
        let (mean, variance) = mean_and_variance(&bells);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        let counts: Vec<f32> = (0..20_000).map(|_| chance.how_many(2.5) as f32).collect();
        let (mean, variance) = mean_and_variance(&counts);
        assert!((mean - 2.5).abs() < 0.05 && (variance - 2.5).abs() < 0.1, "{mean} {variance}");
        let second = (0..20_000).filter(|_| chance.weighed(&[(0, 1.0), (1, 3.0)]) == 1).count();
        assert!((14_700..15_300).contains(&second), "{second}");
    }
}
