//! Initial weights as a function of (seed, parameter path).

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use mentor_types::Key;
use rand::RngExt;

use crate::weights::{PathStack, is_buffer};

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
