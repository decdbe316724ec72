//! Initial weights as a function of (seed, parameter path).

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use mentor_types::Key;
use rand::RngExt;

use crate::path::{PathStack, is_buffer};

/// Sets every parameter of a fresh module from a stream of its own, keyed by seed and path; never
/// touches burn's process-wide generator.
///
/// Convolutions and linear layers get He's normal initialisation by fan-out (as torchvision's
/// `ResNet`), biases zero; norms and running statistics stay as they were built.
#[derive(Debug)]
pub struct SeededInit {
    seed: u64,
    path: PathStack,
}

impl SeededInit {
    /// Initialises `module` by `seed`.
    #[must_use]
    pub fn apply<M: Module>(module: M, seed: u64) -> M {
        module.map(&mut Self { seed, path: PathStack::default() })
    }

    fn values(&self, path: &str, dims: &[usize]) -> Vec<f32> {
        let elements = dims.iter().product();
        if dims.len() < 2 {
            return vec![0.0; elements];
        }
        // A linear layer of burn is [in, out], a convolution [out, in, kh, kw].
        let fan_out = if dims.len() == 2 { dims[1] } else { dims[0] * dims[2..].iter().product::<usize>() };
        let deviation = (2.0 / fan_out as f64).sqrt();
        let mut rng = Key::new(self.seed).at(path, 0).rng();
        let mut normal = move || {
            // Box-Muller; the first draw is kept away from zero.
            let (radius, angle): (f64, f64) = (rng.random(), rng.random());
            (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
        };
        (0..elements).map(|_| (normal() * deviation) as f32).collect()
    }
}

impl ModuleMapper for SeededInit {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.dotted();
        if is_buffer(&path) || path.ends_with("gamma") || path.ends_with("beta") {
            return param;
        }
        let shape = param.lazy_shape();
        let values = self.values(&path, &shape.to_vec());
        let (device, id) = (param.lazy_device(), param.id);
        param.transform_for_load(Tensor::from_data(TensorData::new(values, shape), &device), id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{named_weights, weights_fingerprint};
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Net {
        first: Conv2d,
        bn: BatchNorm,
        second: Conv2d,
    }

    fn net(seed: u64) -> Net {
        let device = Device::flex().autodiff();
        let conv = || Conv2dConfig::new([8, 16], [3, 3]).init(&device);
        SeededInit::apply(Net { first: conv(), bn: BatchNormConfig::new(16).init(&device), second: conv() }, seed)
    }

    #[test]
    fn weights_depend_on_seed_and_path_alone() {
        let fingerprint = weights_fingerprint(&net(1));
        // Whatever other modules were made before, and on whatever thread.
        let _ = net(7);
        assert_eq!(std::thread::spawn(|| weights_fingerprint(&net(1))).join().unwrap(), fingerprint);
        assert_ne!(weights_fingerprint(&net(2)), fingerprint);
        let weights = named_weights(&net(1));
        assert_ne!(weights["first.weight"], weights["second.weight"]);
    }

    #[test]
    fn weights_have_the_deviation_of_the_fan_out_and_biases_are_zero() {
        let weights = named_weights(&net(1));
        let values = &weights["first.weight"].1;
        let square = values.iter().map(|value| f64::from(value * value)).sum::<f64>() / values.len() as f64;
        assert!((square / (2.0 / (16.0 * 9.0)) - 1.0).abs() < 0.1, "mean square {square}");
        assert!(weights["first.bias"].1.iter().all(|value| *value == 0.0));
        assert!(weights["bn.gamma"].1.iter().all(|value| *value == 1.0));
    }

    #[test]
    fn weights_still_get_gradients() {
        assert!(net(1).first.weight.val().is_require_grad());
    }
}
