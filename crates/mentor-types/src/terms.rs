//! The terms of a loss, and numbers that are only logged.

use burn::tensor::Tensor;

/// One summand of the loss.
#[derive(Clone, Debug)]
pub struct Term {
    /// The name of the term in recipes and logs, with `@tap` where it has a place.
    pub name: String,
    /// Its factor in the sum at this step, ramps included.
    pub weight: f64,
    /// Its unweighted value, one number.
    pub value: Tensor<1>,
}

/// A loss as the sum of named, weighted terms.
#[derive(Clone, Debug, Default)]
pub struct LossTerms(Vec<Term>);

impl LossTerms {
    /// Adds one term.
    pub fn push(&mut self, name: impl Into<String>, weight: f64, value: Tensor<1>) {
        self.0.push(Term { name: name.into(), weight, value });
    }

    /// The terms in the order in which they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = &Term> {
        self.0.iter()
    }

    /// The weighted sum, or `None` where there is no term. A term of weight 0 stays out of it, so
    /// that it costs no backward pass.
    #[must_use]
    pub fn total(&self) -> Option<Tensor<1>> {
        self.0
            .iter()
            .filter(|term| term.weight != 0.0)
            .map(|term| term.value.clone().mul_scalar(term.weight))
            .reduce(|sum, value| sum + value)
    }
}

/// A number that is logged and trains nothing.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Its column in the log.
    pub name: String,
    /// What is logged is `numerator / denominator` over all steps between two log lines.
    pub numerator: Tensor<1>,
    /// See `numerator`.
    pub denominator: Tensor<1>,
}

/// Numbers that are only logged, as ratios, so that they average rightly over steps.
#[derive(Clone, Debug, Default)]
pub struct Stats(Vec<Stat>);

impl Stats {
    /// Adds a ratio of two one-element tensors, off the graph.
    pub fn push(&mut self, name: impl Into<String>, numerator: Tensor<1>, denominator: Tensor<1>) {
        self.0.push(Stat { name: name.into(), numerator, denominator });
    }

    /// The statistics in the order in which they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = &Stat> {
        self.0.iter()
    }
}
