//! A module's weights as named tensors on the host, and the bytes of a safetensors file.
//!
//! Checkpoints are made of these: they know nothing of parameter ids or devices, and equal weights
//! give equal bytes.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use thiserror::Error;

use crate::path::PathStack;

/// Tensors by name, as (shape, values in row order).
pub type NamedTensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Why named tensors could not be read or put into a module.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NamedError {
    /// The bytes are not a safetensors file.
    #[error("not a readable safetensors file: {0}")]
    Format(String),
    /// A tensor is not of type f32.
    #[error("tensor `{name}` has type {found}, expected F32")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
    /// A weight of the module is not among the tensors.
    #[error("no tensor for the weight `{0}`")]
    Missing(String),
    /// A tensor has another shape than the weight of its name.
    #[error("tensor `{name}` has shape {found:?}, the weight has {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape of the tensor.
        found: Vec<usize>,
        /// The shape of the weight.
        expected: Vec<usize>,
    },
    /// A tensor names no weight of the module.
    #[error("tensor `{0}` belongs to no weight")]
    Unused(String),
}

/// The bytes of a safetensors file with `tensors` as f32.
///
/// # Errors
/// [`NamedError::Format`] if a shape and its values do not fit.
pub fn to_safetensors(tensors: &NamedTensors) -> Result<Vec<u8>, NamedError> {
    let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name.as_str(), (shape.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        })
        .collect();
    let format = |error: safetensors::SafeTensorError| NamedError::Format(error.to_string());
    let views = bytes
        .iter()
        .map(|(name, (shape, bytes))| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(format)?)))
        .collect::<Result<Vec<_>, NamedError>>()?;
    safetensors::serialize(views, None).map_err(format)
}

/// The tensors of a safetensors file of f32.
///
/// # Errors
/// [`NamedError::Format`] or [`NamedError::Type`].
pub fn from_safetensors(bytes: &[u8]) -> Result<NamedTensors, NamedError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| NamedError::Format(error.to_string()))?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(NamedError::Type { name, found: format!("{:?}", view.dtype()) });
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    Ok(tensors)
}

/// Puts `tensors` into a fresh `module`, every weight and buffer by its path.
///
/// A module that already ran a training forward pass must not be used: its pending batch-norm
/// update would overwrite what is loaded.
///
/// # Errors
/// If names or shapes differ in any way; the module is lost then, never half-changed.
pub fn load_named<M: Module>(module: M, tensors: NamedTensors) -> Result<M, NamedError> {
    let mut load = Load { path: PathStack::default(), tensors, error: None };
    let module = module.map(&mut load);
    match (load.error, load.tensors.into_keys().next()) {
        (Some(error), _) => Err(error),
        (None, Some(unused)) => Err(NamedError::Unused(unused)),
        (None, None) => Ok(module),
    }
}

struct Load {
    path: PathStack,
    tensors: NamedTensors,
    error: Option<NamedError>,
}

impl ModuleMapper for Load {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.dotted();
        let expected = param.lazy_shape().to_vec();
        match self.tensors.remove(&name) {
            None => self.error = self.error.take().or(Some(NamedError::Missing(name))),
            Some((found, _)) if found != expected => {
                self.error = self.error.take().or(Some(NamedError::Shape { name, found, expected }));
            }
            Some((shape, values)) => {
                let (device, id) = (param.lazy_device(), param.id);
                return param.transform_for_load(Tensor::from_data(TensorData::new(values, shape), &device), id);
            }
        }
        param
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Fresh, named_weights, seeded};
    use burn::nn::conv::Conv2d;
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
        bn: BatchNorm,
    }

    fn net(seed: u64) -> Net {
        Fresh::seeded(&Device::flex().autodiff(), seed, |fresh| Net {
            conv: seeded::tests::conv([3, 4], 3, fresh),
            bn: fresh.norm(BatchNormConfig::new(4).init(fresh.device())),
        })
    }

    #[test]
    fn weights_survive_a_file() {
        let source = net(1);
        let _ = source.bn.forward(Tensor::<4>::ones([1, 4, 2, 2], &Device::flex()).autodiff() * 3.0);
        let weights = named_weights(&source);
        let bytes = to_safetensors(&weights).unwrap();
        let loaded = load_named(net(2), from_safetensors(&bytes).unwrap()).unwrap();
        assert_eq!(named_weights(&loaded), weights);
        assert_eq!(to_safetensors(&named_weights(&loaded)).unwrap(), bytes);
        assert!(loaded.conv.weight.val().is_require_grad());
    }

    #[test]
    fn a_missing_a_foreign_and_a_misshapen_tensor_are_named() {
        let weights = named_weights(&net(1));
        let mut missing = weights.clone();
        missing.remove("conv.weight");
        assert_eq!(load_named(net(2), missing).unwrap_err(), NamedError::Missing("conv.weight".into()));
        let mut unused = weights.clone();
        unused.insert("x".into(), (vec![1], vec![0.0]));
        assert_eq!(load_named(net(2), unused).unwrap_err(), NamedError::Unused("x".into()));
        let mut shape = weights;
        shape.insert("bn.gamma".into(), (vec![2], vec![0.0; 2]));
        assert!(matches!(load_named(net(2), shape).unwrap_err(), NamedError::Shape { .. }));
    }

    #[test]
    fn junk_is_an_error() {
        assert!(matches!(from_safetensors(b"hello"), Err(NamedError::Format(_))));
    }
}
