//! What is trained: the student with its adapters.

use burn::module::Module;
use mentor_nets::Adapter;

use crate::nets::SegNet;

/// The student and the learnable adapters of its distillation terms. The optimizer and the
/// checkpoint see both; averages, evaluation and exports see the net alone.
#[derive(Module, Debug)]
pub struct SegModel {
    /// The student.
    pub net: SegNet,
    /// For each teacher, in the order of their names, one for each term and place that asks for one.
    pub adapters: Vec<Vec<Adapter>>,
}

impl SegModel {
    /// Whether a weight is none of the backbone's, which have a segment `backbone` in their path: all else is
    /// head or adapter.
    #[must_use]
    pub fn is_head(path: &str) -> bool {
        !path.split('.').any(|segment| segment == "backbone")
    }
}
