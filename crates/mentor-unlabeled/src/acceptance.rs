//! How many pseudo-labels were taken, and how many of them were right.

use burn::tensor::Tensor;
use mentor_ops::sum_all;
use mentor_types::Stats;

/// Counts over the candidates (pixels, boxes) of one micro-batch, one number each, on the device
/// and off the graph.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// Candidates that may take a pseudo-label.
    pub candidates: Tensor<1>,
    /// Of these, the ones that took one.
    pub accepted: Tensor<1>,
    /// Of the accepted, the ones whose truth is known.
    pub known: Tensor<1>,
    /// Of the known, the ones whose pseudo-label is the truth.
    pub correct: Tensor<1>,
}

impl Acceptance {
    /// Counts masks of 0 and 1.
    ///
    /// # Shapes
    /// Any, all four the same. Each mask is taken within the one before it: a pixel that is `known`
    /// but not `accepted` does not count as known.
    #[must_use]
    pub fn count<const D: usize>(
        candidates: Tensor<D>,
        accepted: Tensor<D>,
        known: Tensor<D>,
        correct: Tensor<D>,
    ) -> Self {
        let candidates = candidates.inner();
        let accepted = accepted.inner() * candidates.clone();
        let known = known.inner() * accepted.clone();
        let correct = correct.inner() * known.clone();
        Self {
            candidates: sum_all(candidates),
            accepted: sum_all(accepted),
            known: sum_all(known),
            correct: sum_all(correct),
        }
    }

    /// Adds the share accepted, `<term>_accepted`, and the precision of what was accepted,
    /// `<term>_precision`, to what is logged.
    pub fn push(self, term: &str, stats: &mut Stats) {
        stats.push(format!("{term}_accepted"), self.accepted, self.candidates);
        stats.push(format!("{term}_precision"), self.correct, self.known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn each_mask_counts_within_the_one_before_it() {
        let mask = |values: [f32; 5]| Tensor::<1>::from_data(values, &Device::flex());
        let counts = Acceptance::count(
            mask([1.0, 1.0, 1.0, 1.0, 0.0]),
            mask([1.0, 1.0, 1.0, 0.0, 1.0]),
            mask([1.0, 1.0, 0.0, 1.0, 1.0]),
            mask([1.0, 0.0, 1.0, 1.0, 1.0]),
        );
        let mut stats = Stats::default();
        counts.push("fixmatch", &mut stats);
        let read: Vec<(String, f32, f32)> = stats
            .iter()
            .map(|s| (s.name.clone(), s.numerator.clone().into_scalar(), s.denominator.clone().into_scalar()))
            .collect();
        assert_eq!(read, [("fixmatch_accepted".into(), 3.0, 4.0), ("fixmatch_precision".into(), 1.0, 2.0)]);
    }
}
