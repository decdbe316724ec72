//! The views of unlabelled images as tensors: which weak pixel each strong one shows, and what a labeller of the
//! weak ones says of it.

mod origin;
mod pseudo;

use std::cell::OnceCell;

use burn::tensor::{Int, Tensor};
pub use mentor_unlabeled::Teaching;

use crate::upload::PairPixels;

pub use origin::Origin;
pub(crate) use pseudo::weak_probabilities;
pub use pseudo::{Pseudo, PseudoLabels};

/// The views of unlabelled images; their geometry, and what a labeller says of the weak ones, is computed when a term
/// first asks.
pub struct Views<'a> {
    pixels: &'a PairPixels,
    labeller: &'a dyn Fn(Teaching) -> Tensor<4>,
    origin: OnceCell<Origin>,
    truth_nhw: OnceCell<Tensor<3, Int>>,
    /// By [`Teaching`].
    weak: [OnceCell<Tensor<4>>; 2],
    pseudo: [OnceCell<PseudoLabels>; 2],
}

impl std::fmt::Debug for Views<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("pixels", &self.pixels).finish_non_exhaustive()
    }
}

impl<'a> Views<'a> {
    /// The views of `pixels`; `labeller` gives the logits of the weak ones, `[n, k, h', w']` of any size.
    #[must_use]
    pub fn new(pixels: &'a PairPixels, labeller: &'a dyn Fn(Teaching) -> Tensor<4>) -> Self {
        let (origin, truth_nhw) = (OnceCell::new(), OnceCell::new());
        Self { pixels, labeller, origin, truth_nhw, weak: Default::default(), pseudo: Default::default() }
    }

    /// The geometry between them.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| Origin::new(self.pixels.origin.clone(), self.pixels.targets.clone()))
    }

    /// The class probabilities of the weak views at their size, off the graph, `[n, k, h, w]`.
    #[must_use]
    pub(crate) fn weak_probabilities(&self, teaching: Teaching) -> Tensor<4> {
        let ask = || weak_probabilities((self.labeller)(teaching), self.origin().view_size());
        self.weak[teaching as usize].get_or_init(ask).clone()
    }

    /// The pseudo-labels of the strong views.
    #[must_use]
    pub(crate) fn pseudo_labels(&self, teaching: Teaching) -> &PseudoLabels {
        let label = || PseudoLabels::new(self.weak_probabilities(teaching), self.origin());
        self.pseudo[teaching as usize].get_or_init(label)
    }

    /// The truth of the strong views where the data set has it, `[n, h, w]`, for statistics alone.
    #[must_use]
    pub fn truth(&self) -> Tensor<3, Int> {
        self.truth_nhw.get_or_init(|| self.origin().carry_labels(self.pixels.truth.clone())).clone()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of the terms share.
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{Device, Int, TensorData};
    use mentor_types::UNKNOWN;
    use mentor_weights::{NamedTensors, from_safetensors};

    pub fn golden() -> NamedTensors {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/unlabelled.safetensors");
        from_safetensors(&std::fs::read(path).unwrap()).unwrap()
    }

    pub fn map(golden: &NamedTensors, name: &str) -> Tensor<4> {
        let (shape, values) = golden[name].clone();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    pub fn labels(golden: &NamedTensors, name: &str) -> Tensor<3, Int> {
        let (shape, values) = golden[name].clone();
        let values: Vec<i64> = values.iter().map(|value| *value as i64).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    pub fn golden_origin(golden: &NamedTensors) -> Origin {
        Origin::new(labels(golden, "origin"), labels(golden, "weak_target"))
    }

    pub fn ints(values: &[i64], shape: [usize; 3]) -> Tensor<3, Int> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// Views that show the same pixels, of which nobody labelled one.
    pub fn identity(shape: [usize; 3]) -> Origin {
        let pixels: Vec<i64> = (0..shape.iter().product::<usize>() as i64).collect();
        Origin::new(ints(&pixels, shape), ints(&vec![i64::from(UNKNOWN); pixels.len()], shape))
    }

    pub fn leaf(x: Tensor<4>) -> Tensor<4> {
        Tensor::from_inner(x).require_grad()
    }

    pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec_as::<f32>().unwrap()
    }

    pub fn gradient(strong: &Tensor<4>, loss: &Tensor<1>) -> Vec<f32> {
        values(strong.grad(&loss.clone().backward()).unwrap())
    }

    /// Compares `loss` and its gradient with the golden ones, 1e-5 of the largest.
    pub fn agrees(golden: &NamedTensors, name: &str, strong: &Tensor<4>, loss: Tensor<1>) {
        let found = gradient(strong, &loss);
        let pairs = [(values(loss), &golden[&format!("{name}.value")].1), (found, &golden[&format!("{name}.grad")].1)];
        for (found, expected) in pairs {
            let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let off = found.iter().zip(expected).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(found.len() == expected.len() && largest > 0.0 && off <= 1e-5 * largest, "{name}: {off}/{largest}");
        }
    }

    /// Alone, on one fixed batch, a loss must fall by half within 100 steps.
    pub fn falls_by_half(strong: Tensor<4>, rate: f64, loss: impl Fn(Tensor<4>) -> Tensor<1>) {
        let first = values(loss(strong.clone()))[0];
        let mut strong = strong;
        for _ in 0..100 {
            let student = leaf(strong.clone());
            let gradient = student.grad(&loss(student.clone()).backward()).unwrap();
            strong = strong - gradient.mul_scalar(rate);
        }
        let last = values(loss(strong))[0];
        assert!(last < 0.5 * first, "{first} fell to {last}");
    }
}
