//! Weights by their PyTorch names.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use mentor_weights::{PathStack, is_buffer};

/// The PyTorch name of a weight at `path`: variants of enums (the segments in `CamelCase`) are
/// dropped, `conv_0` is `0`, and a norm's gamma and beta are weight and bias.
#[must_use]
pub fn pytorch_name(path: &str) -> String {
    let segments = path.split('.').filter(|segment| !segment.starts_with(|c: char| c.is_ascii_uppercase()));
    let renamed = segments.map(|segment| match segment {
        "gamma" => "weight",
        "beta" => "bias",
        _ => match segment.rsplit_once('_') {
            Some((_, index)) if !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()) => index,
            _ => segment,
        },
    });
    renamed.collect::<Vec<_>>().join(".")
}

/// A weight or buffer of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

struct Slots {
    path: PathStack,
    found: Vec<Slot>,
}

impl ModuleVisitor for Slots {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.dotted();
        self.found.push(Slot { name: pytorch_name(&path), path, shape: param.lazy_shape().to_vec() });
    }
}

/// Every weight and buffer in the order of the module, without initialising any.
pub(crate) fn slots<M: Module>(module: &M) -> Vec<Slot> {
    let mut slots = Slots { path: PathStack::default(), found: Vec::new() };
    module.visit(&mut slots);
    slots.found
}

/// Shapes of all weights and buffers by PyTorch name.
#[must_use]
pub fn pytorch_shapes<M: Module>(module: &M) -> BTreeMap<String, Vec<usize>> {
    slots(module).into_iter().map(|slot| (slot.name, slot.shape)).collect()
}

/// How many numbers a module trains: running statistics are not counted, frozen weights are.
#[must_use]
pub fn num_params<M: Module>(module: &M) -> u64 {
    let trained = slots(module).into_iter().filter(|slot| !is_buffer(&slot.path));
    trained.map(|slot| slot.shape.iter().product::<usize>() as u64).sum()
}

struct Fill<F> {
    path: PathStack,
    value: F,
}

impl<F: FnMut(&str, &[usize]) -> Option<Vec<f32>>> ModuleMapper for Fill<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let Some(values) = (self.value)(&pytorch_name(&self.path.dotted()), &shape.to_vec()) else {
            return param;
        };
        let (device, id) = (param.lazy_device(), param.id);
        param.transform_for_load(Tensor::from_data(TensorData::new(values, shape), &device), id)
    }
}

/// Replaces the weights and buffers for which `value(PyTorch name, shape)` returns values in row
/// order; whether a weight trains stays as it was.
///
/// # Panics
/// If the number of values does not fit a shape.
#[must_use]
pub fn fill_weights<M: Module>(module: M, value: impl FnMut(&str, &[usize]) -> Option<Vec<f32>>) -> M {
    // A pending update of running statistics would overwrite what is filled in; `valid` settles it.
    let _ = module.valid();
    module.map(&mut Fill { path: PathStack::default(), value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ConvNorm, ConvSpec, Fresh};
    use burn::tensor::Device;
    use mentor_weights::named_weights;

    #[test]
    fn names_are_those_of_pytorch() {
        for (path, name) in [
            ("Fcn.backbone.ResNet.layer1.0.Basic.conv1.weight", "backbone.layer1.0.conv1.weight"),
            ("layer2.0.Basic.downsample.conv_0.weight", "layer2.0.downsample.0.weight"),
            ("layer2.0.Basic.downsample.bn_1.gamma", "layer2.0.downsample.1.weight"),
            ("features.3.Block.conv.0.Activated.bn_1.beta", "features.3.conv.0.1.bias"),
            ("bn1.running_mean", "bn1.running_mean"),
            ("classifier.score_4.bias", "classifier.4.bias"),
        ] {
            assert_eq!(pytorch_name(path), name);
        }
    }

    #[test]
    fn a_filled_weight_survives_a_pending_update_of_statistics() {
        let device = Device::flex().autodiff();
        let net = ConvNorm::new(ConvSpec::new(3, 2, 1), &Fresh::on(&device));
        let _ = net.linear(Tensor::<4>::ones([1, 3, 2, 2], &device));
        let net = fill_weights(net, |_, shape| Some(vec![0.5; shape.iter().product()]));
        assert!(named_weights(&net).values().all(|(_, values)| values.iter().all(|value| *value == 0.5)));
        assert!(net.conv_0.weight.val().is_require_grad());
        assert_eq!(num_params(&net), 6 + 2 + 2);
    }
}
