//! The difference of two rows of a study, and how far it can be trusted.

use crate::result::RowResult;
use crate::shares::{Shares, deviation_over_images};
use crate::statistics::{interval, mean, spread};

/// What rows are compared by.
#[derive(Clone, Copy)]
pub(crate) struct Measure<'a> {
    /// The metric, by its name in a row's result.
    pub(crate) metric: &'a str,
    /// Whether that is the score that models are judged by: only for this is known what each image adds to it.
    pub(crate) is_score: bool,
    /// What one is on the scale of the table: 100 where it shows per cent.
    pub(crate) one: f64,
}

impl Measure<'_> {
    /// The metric of a result, on the scale of the table.
    pub(crate) fn of(&self, result: &RowResult) -> Option<f64> {
        result.metrics.get(self.metric).map(|value| value * self.one)
    }
}

/// The difference of a row to another, on the scale of the table.
pub(crate) struct Difference {
    /// The mean of the one less that of the other: over the seeds that both have, or over all where they share none.
    pub(crate) mean: f64,
    /// The 95 % interval of the mean; `None` of fewer than two shared seeds.
    pub(crate) interval: Option<[f64; 2]>,
    /// The standard deviation of the differences of single seeds; `None` of fewer than two.
    pub(crate) spread: Option<f64>,
    /// That of the mean over the images that all seeds were judged on; 0 where it is not known.
    pub(crate) over_images: f64,
}

impl Difference {
    /// Compares two rows by their results; `None` where one has none.
    pub(crate) fn of(measure: Measure<'_>, own: &[&RowResult], others: &[&RowResult]) -> Option<Self> {
        let other_of = |result: &RowResult| others.iter().copied().find(|other| other.seed == result.seed);
        let pairs: Vec<[&RowResult; 2]> = own.iter().filter_map(|result| Some([*result, other_of(result)?])).collect();
        let both = |[own, other]: &[&RowResult; 2]| Some(measure.of(own)? - measure.of(other)?);
        let by_seed: Vec<f64> = pairs.iter().filter_map(both).collect();
        let all = |results: &[&RowResult]| -> Vec<f64> { results.iter().filter_map(|one| measure.of(one)).collect() };
        let mean = if pairs.is_empty() { mean(&all(own)) - mean(&all(others)) } else { mean(&by_seed) };
        let over_images = over_images(&pairs).filter(|_| measure.is_score).map_or(0.0, |part| part * measure.one);
        let (interval, spread) = (interval(&by_seed, over_images), spread(&by_seed));
        (!mean.is_nan()).then_some(Self { mean, interval, spread, over_images })
    }
}

/// How far the mean difference in score hangs on the images that it was measured on; `None` where they are not known.
fn over_images(pairs: &[[&RowResult; 2]]) -> Option<f64> {
    let shares = |result: &RowResult| Shares::read(&result.images).filter(|_| !result.images.is_empty());
    let pairs: Vec<[Shares; 2]> =
        pairs.iter().filter_map(|[own, other]| Some([shares(own)?, shares(other)?])).collect();
    deviation_over_images(&pairs)
}
