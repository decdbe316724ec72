//! What is trained: the student with its adapters.

use burn::module::Module;
use burn::tensor::Tensor;
use mentor_nets::Adapter;

use crate::nets::SegNet;

/// The student and the learnable adapters of its distillation terms. The optimizer and the
/// checkpoint see both; averages, evaluation and exports see the net alone.
#[derive(Module, Debug)]
pub struct SegModel {
    /// The student.
    pub net: SegNet,
    /// One for each term and place that asks for one.
    pub adapters: Vec<Adapter>,
}

impl SegModel {
    /// Features through the adapter of a name.
    ///
    /// # Panics
    /// If there is no such adapter.
    #[must_use]
    pub fn adapt(&self, name: &str, features_nchw: Tensor<4>) -> Tensor<4> {
        let adapter = self.adapters.iter().find(|adapter| adapter.name() == name);
        adapter.unwrap_or_else(|| panic!("no adapter `{name}`")).forward(features_nchw)
    }

    /// The path of every weight of the backbone starts so; all else is head or adapter.
    #[must_use]
    pub fn is_head(path: &str) -> bool {
        !path.split('.').any(|segment| segment == "backbone")
    }
}
