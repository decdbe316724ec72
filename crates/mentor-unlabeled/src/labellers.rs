//! The nets that make up labels, and what a term makes of them.

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use crate::teaching::Teaching;

/// The nets that label weak views.
#[derive(Debug)]
pub struct Labellers<'a, N> {
    /// The student.
    pub student: &'a N,
    /// Its moving average, where the run keeps one.
    pub average: Option<&'a N>,
    /// The type of numbers that the nets compute in.
    pub precision: DType,
}

// A derived one would ask that nets can be copied.
impl<N> Clone for Labellers<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Labellers<'_, N> {}

impl<N: Module> Labellers<'_, N> {
    /// What a labeller says of weak views `[n, 3, h, w]`, off the graph; `see` is a net's forward pass.
    ///
    /// # Panics
    /// If there is no average and it is asked: a checked recipe has an `[ema]` where a term needs one.
    #[must_use]
    pub fn weak<T>(&self, teaching: Teaching, weak_nchw: &Tensor<4>, see: impl FnOnce(&N, Tensor<4>) -> T) -> T {
        let images_nchw = weak_nchw.clone().cast(self.precision);
        match teaching {
            Teaching::Student => see(&self.student.valid(), images_nchw),
            Teaching::Ema => {
                see(self.average.expect("a checked recipe has an [ema] where a term needs one"), images_nchw)
            }
        }
    }
}

/// What a term teaches about unlabelled images.
#[derive(Clone, Debug, PartialEq)]
pub struct Taught<V> {
    /// The term.
    pub term: String,
    /// For each image, what is taught on its strong view.
    pub views: Vec<V>,
}
