//! Walks over a module's weights by path (`backbone.layer1.0.conv1.weight`).
//!
//! Paths, not parameter ids, name a weight: ids of running statistics change when a module is
//! loaded, paths never do.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The path to where a walk stands.
#[derive(Clone, Debug, Default)]
pub struct PathStack(Vec<String>);

impl PathStack {
    /// Goes one level down.
    pub fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// Goes one level up.
    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// The path with dots between its segments.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.0.join(".")
    }
}

/// Whether a path names a buffer (a batch-norm running statistic) and not a trained weight.
#[must_use]
pub fn is_buffer(path: &str) -> bool {
    path.ends_with("running_mean") || path.ends_with("running_var")
}

struct Collect {
    path: PathStack,
    found: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data();
        let shape = data.shape().to_vec();
        let values = data.try_into_vec_as::<f32>().expect("a float tensor reads as f32");
        self.found.insert(self.path.dotted(), (shape, values));
    }
}

/// Every weight and buffer of a module on the host: path to (shape, values). Reads the device, so
/// not for use inside a step.
///
/// Running statistics are read as they are after the last forward pass.
#[must_use]
pub fn named_weights<M: Module>(module: &M) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut collect = Collect { path: PathStack::default(), found: BTreeMap::new() };
    module.valid().visit(&mut collect);
    collect.found
}

/// A hash over all paths, shapes and bits of a module's weights and buffers.
#[must_use]
pub fn weights_fingerprint<M: Module>(module: &M) -> String {
    let mut hasher = blake3::Hasher::new();
    for (path, (shape, values)) in named_weights(module) {
        hasher.update(path.as_bytes());
        for side in shape {
            hasher.update(&(side as u64).to_le_bytes());
        }
        for value in values {
            hasher.update(&value.to_bits().to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}
