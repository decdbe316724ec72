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

    /// Adds the shares of a term, see [`TaughtShare`], to what is logged.
    pub fn push(self, term: &str, stats: &mut Stats) {
        stats.push(TaughtShare::Accepted.column(term), self.accepted, self.candidates);
        stats.push(TaughtShare::Precision.column(term), self.correct, self.known);
    }
}

/// A share that is logged of the pseudo-labels of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaughtShare {
    /// Of the candidates, those that took a pseudo-label.
    Accepted,
    /// Of those, the ones that are right, where the truth is known.
    Precision,
}

impl TaughtShare {
    const ALL: [Self; 2] = [Self::Accepted, Self::Precision];

    fn ending(self) -> &'static str {
        match self {
            Self::Accepted => "_accepted",
            Self::Precision => "_precision",
        }
    }

    /// Its column in the log.
    #[must_use]
    pub fn column(self, term: &str) -> String {
        format!("{term}{}", self.ending())
    }

    /// The term and the share that a column of the log holds; `None` where it holds something else.
    #[must_use]
    pub fn of_column(column: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|share| Some((column.strip_suffix(share.ending())?, share)))
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

    #[test]
    fn a_column_is_read_as_it_was_written() {
        for share in TaughtShare::ALL {
            assert_eq!(TaughtShare::of_column(&share.column("fixmatch")), Some(("fixmatch", share)));
        }
        assert_eq!(TaughtShare::of_column("holistic_distance"), None);
    }
}
