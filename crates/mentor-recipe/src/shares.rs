//! What single images add to a score, and how much the score hangs on which images there are.

use mentor_types::Key;
use rand::RngExt;

/// For each image, numerator and denominator of each column, of which the score is made; see
/// [`Scores::shares`](mentor_types::Scores::shares).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares(Vec<Vec<[u64; 2]>>);

/// The shares of an image on one line, as a result keeps them: `3/7 0/0 12/40`.
#[must_use]
pub fn shares_line(shares: &[[u64; 2]]) -> String {
    shares.iter().map(|[part, whole]| format!("{part}/{whole}")).collect::<Vec<_>>().join(" ")
}

impl Shares {
    /// Reads what [`shares_line`] wrote; `None` where a line is something else.
    pub(crate) fn read(lines: &[String]) -> Option<Self> {
        let column = |text: &str| {
            let (part, whole) = text.split_once('/')?;
            Some([part.parse().ok()?, whole.parse().ok()?])
        };
        let image = |line: &String| line.split(' ').filter(|text| !text.is_empty()).map(column).collect();
        lines.iter().map(image).collect::<Option<_>>().map(Self)
    }

    fn columns(&self) -> usize {
        self.0.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The score of the images, each counted so often: the mean over the columns that occur of part by whole.
    fn score(&self, times: &[u64]) -> f64 {
        let mut sums = vec![[0; 2]; self.columns()];
        for (shares, times) in self.0.iter().zip(times).filter(|(_, times)| **times > 0) {
            for (sum, share) in sums.iter_mut().zip(shares) {
                (0..2).for_each(|side| sum[side] += times * share[side]);
            }
        }
        let ratios: Vec<f64> =
            sums.iter().filter(|[_, whole]| *whole > 0).map(|[part, whole]| *part as f64 / *whole as f64).collect();
        ratios.iter().sum::<f64>() / ratios.len().max(1) as f64
    }
}

/// How often images are drawn anew.
const DRAWS: u64 = 1000;

/// The standard deviation, over draws of as many images with replacement (the bootstrap; Efron 1979), of the mean difference
/// in score of two rows, whose shares are given seed by seed. The same images are drawn for all seeds and both rows. `None`
/// where there are no images, or not the same number everywhere.
pub(crate) fn deviation_over_images(pairs: &[[Shares; 2]]) -> Option<f64> {
    let images = pairs.first().map_or(0, |[own, _]| own.0.len());
    if images == 0 || pairs.iter().flatten().any(|shares| shares.0.len() != images) {
        return None;
    }
    let difference = |draw: u64| {
        let mut rng = Key::new(0).at("images drawn anew", draw).rng();
        let mut times = vec![0; images];
        (0..images).for_each(|_| times[rng.random_range(0..images as u64) as usize] += 1);
        pairs.iter().map(|[own, other]| own.score(&times) - other.score(&times)).sum::<f64>() / pairs.len() as f64
    };
    let differences: Vec<f64> = (0..DRAWS).map(difference).collect();
    crate::statistics::spread(&differences)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shares(images: &[&[[u64; 2]]]) -> Shares {
        let lines: Vec<String> = images.iter().map(|image| shares_line(image)).collect();
        Shares::read(&lines).unwrap()
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let all = shares(&[&[[1, 2], [0, 0]], &[]]);
        assert_eq!(all, Shares(vec![vec![[1, 2], [0, 0]], vec![]]));
        assert_eq!(Shares::read(&["1/2 3".to_owned()]), None);
    }

    #[test]
    fn a_score_is_the_mean_of_the_ratios_of_sums() {
        let all = shares(&[&[[1, 2], [0, 0], [0, 0]], &[[3, 4], [1, 5], [0, 0]]]);
        // (4/6 + 1/5) / 2: the third column occurs nowhere.
        assert!((all.score(&[1, 1]) - (4.0 / 6.0 + 0.2) / 2.0).abs() < 1e-12);
        assert!((all.score(&[3, 0]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_difference_that_every_image_shows_hangs_on_none_and_one_of_few_images_on_these() {
        // One column of 100 pixels an image, so that the score is the mean over images.
        let row = |of: fn(u64) -> u64| Shares((0..64).map(|image| vec![[of(image), 100]]).collect());
        let (even, better) = (row(|_| 40), row(|_| 50));
        assert!(deviation_over_images(&[[better, even.clone()]]).unwrap() < 1e-12);
        // 20 more in every fourth image: a deviation of 0.0866 an image, by the square root of 64.
        let few = row(|image| if image % 4 == 0 { 60 } else { 40 });
        let deviation = deviation_over_images(&[[few.clone(), even.clone()]]).unwrap();
        assert!((0.0100..0.0117).contains(&deviation), "{deviation}");
        // More seeds do not help against images.
        let seeds = vec![[few.clone(), even]; 3];
        assert!((deviation_over_images(&seeds).unwrap() - deviation).abs() < 1e-12);
        // Rows of other images are not compared.
        assert_eq!(deviation_over_images(&[[few, shares(&[&[[1, 2]]])]]), None);
    }
}
