//! What a norm is told, what it hands back, and what its backward pass keeps.

use burn::backend::tensor::FloatTensor;

/// The numbers of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormOptions {
    pub(crate) epsilon: f64,
    pub(crate) relu: bool,
}

/// Output, mean and biased variance.
pub(crate) type Normalised<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// What the backward pass needs besides x and gamma, which the graph keeps.
#[derive(Clone, Debug)]
pub(crate) struct Saved<T> {
    pub(crate) mean: T,
    pub(crate) variance: T,
    /// The output, if it went through `ReLU`.
    pub(crate) y: Option<T>,
    /// Whether the statistics are constants.
    pub(crate) fixed: bool,
    pub(crate) epsilon: f64,
}
