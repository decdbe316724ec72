//! An operand that may be left out.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};

/// An `Option` of a tensor: burn's dispatch of extensions does not know the one of Rust.
#[derive(ExtensionType)]
pub(crate) enum Optional<B: Backend> {
    /// The tensor is given.
    Present(FloatTensor<B>),
    /// It is left out.
    Absent,
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Optional<B> {
    fn from(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::Absent, Self::Present)
    }
}

impl<B: Backend> Optional<B> {
    pub(crate) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Present(tensor) => Some(tensor),
            Self::Absent => None,
        }
    }
}
