//! Means, spreads, and how far a difference can be trusted.

/// The mean; NaN of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation; a single value has none.
#[must_use]
pub fn spread(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// Student's t that 2.5 % lie above, by degrees of freedom from 1.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// Deviations of a bell that 2.5 % lie above.
const BELL: f64 = 1.960;

/// The 95 % interval of the mean of differences, one for each seed; none of fewer than two. It takes in two things that could
/// have come out otherwise: the seeds, by Student's t, and the images that all seeds were judged on, whose part in the
/// mean has the standard deviation `over_images`.
pub(crate) fn interval(differences: &[f64], over_images: f64) -> Option<[f64; 2]> {
    let spread = spread(differences)?;
    let t = T.get(differences.len() - 2).copied().unwrap_or(BELL + 2.5 / differences.len() as f64);
    let half = (t * spread / (differences.len() as f64).sqrt()).hypot(BELL * over_images);
    Some([mean(differences) - half, mean(differences) + half])
}

/// How many seeds show a difference of `least` four times of five, where those of single seeds have this spread; `None` where
/// none do, since what hangs on the images, with the standard deviation `over_images`, grows no smaller with seeds.
pub(crate) fn seeds_to_show(least: f64, spread: f64, over_images: f64) -> Option<f64> {
    // Deviations of a bell that 20 % lie above.
    const MISSED: f64 = 0.842;
    let left = (least / (BELL + MISSED)).powi(2) - over_images.powi(2);
    (left > 0.0).then(|| (spread.powi(2) / left).ceil().max(2.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_interval_takes_in_seeds_and_images() {
        assert_eq!(interval(&[1.0], 0.0), None);
        // Deviation 1; 4.303 / sqrt(3) = 2.484.
        let [low, high] = interval(&[1.0, 2.0, 3.0], 0.0).unwrap();
        assert!((low + 0.484).abs() < 1e-3 && (high - 4.484).abs() < 1e-3, "{low} {high}");
        // Without a spread between seeds the images are left: 1.96 deviations.
        assert_eq!(interval(&[2.0, 2.0], 0.5).unwrap(), [1.02, 2.98]);
        // hypot(2.484, 1.96) = 3.164.
        let [low, high] = interval(&[1.0, 2.0, 3.0], 1.0).unwrap();
        assert!((high - low - 2.0 * 3.164).abs() < 2e-3, "{low} {high}");
    }

    #[test]
    fn a_smaller_difference_needs_more_seeds() {
        // (2.802 * 0.577)^2 = 2.6.
        assert_eq!(seeds_to_show(1.0, 0.577, 0.0), Some(3.0));
        assert_eq!(seeds_to_show(0.5, 0.577, 0.0), Some(11.0));
        assert_eq!(seeds_to_show(9.0, 0.577, 0.0), Some(2.0));
        // 0.333 / (0.127 - 0.040) = 3.8; and 1 / 2.802 = 0.357.
        assert_eq!(seeds_to_show(1.0, 0.577, 0.2), Some(4.0));
        assert_eq!(seeds_to_show(1.0, 0.577, 0.36), None);
    }
}
