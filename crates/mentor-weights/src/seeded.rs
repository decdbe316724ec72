//! How weights start: what the builder of a layer says of them, drawn as a function of (seed, path).

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::{BatchNorm, Initializer};
use burn::tensor::{Device, Tensor, TensorData};
use mentor_types::Key;
use rand::RngExt;

use crate::path::{PathStack, is_buffer};

/// How a weight of a fresh module starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every value is this one.
    Constant(f64),
    /// Normal around 0 with this deviation.
    Normal(f64),
    /// He's: normal around 0 with deviation `sqrt(2 / fan-out)`, for layers with a `ReLU` behind them; what
    /// torchvision gives the convolutions of its backbones (`kaiming_normal_`, mode `fan_out`).
    HeNormal,
    /// Uniform within `1 / sqrt(fan-in)`: weight and bias of every layer of `PyTorch` of which nobody says
    /// more (`kaiming_uniform_` with `a = sqrt(5)`).
    FanIn,
    /// Uniform within `sqrt(3 / fan-in)`, so that an output varies as its inputs do (`kaiming_uniform_` with `a = 1`):
    /// what torchvision gives the convolutions of its feature pyramids.
    UnitVariance,
}

impl Init {
    /// A bias with which a sigmoid says `probability` at the start: so that a focal loss is not drowned
    /// by easy negatives (arXiv 1708.02002, section 4.1).
    #[must_use]
    pub fn prior(probability: f64) -> Self {
        Self::Constant(-((1.0 - probability) / probability).ln())
    }

    fn values(self, fans: Fans, count: usize, key: Key) -> Vec<f32> {
        let mut rng = key.rng();
        let mut normal = |deviation: f64| {
            // Box-Muller; the first draw is kept away from zero.
            let (radius, angle): (f64, f64) = (rng.random(), rng.random());
            (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos() * deviation
        };
        match self {
            Self::Constant(value) => vec![value as f32; count],
            Self::Normal(deviation) => (0..count).map(|_| normal(deviation) as f32).collect(),
            Self::HeNormal => {
                let deviation = (2.0 / fans.output as f64).sqrt();
                (0..count).map(|_| normal(deviation) as f32).collect()
            }
            Self::FanIn | Self::UnitVariance => {
                let square = if self == Self::UnitVariance { 3.0 } else { 1.0 };
                let bound = (square / fans.input as f64).sqrt();
                (0..count).map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32).collect()
            }
        }
    }
}

/// The size of a layer as its start sees it; the bias has those of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fans {
    /// How many values one output is a sum of.
    pub input: usize,
    /// How many outputs one value goes into, without regard to groups: as `PyTorch` counts it.
    pub output: usize,
}

impl Fans {
    /// For a start that asks for neither.
    const NONE: Self = Self { input: 0, output: 0 };

    /// Those of a convolution `[out, in / groups, kernel sides ..]`.
    ///
    /// # Panics
    /// If the shape has no output channels.
    #[must_use]
    pub fn of_conv(shape: &[usize]) -> Self {
        let [output, sums @ ..] = shape else { panic!("a convolution of shape {shape:?}") };
        Self { input: sums.iter().product(), output: output * sums.iter().skip(1).product::<usize>() }
    }
}

/// Where a fresh module is built: its device, and what the builders of its layers say of their weights.
///
/// Until they are drawn convolutions are zero, and allocated only when they are used, so a net can be built
/// for counting, or for a file to fill.
#[derive(Debug)]
pub struct Fresh {
    device: Device,
    starts: RefCell<BTreeMap<ParamId, (Init, Fans)>>,
}

impl Fresh {
    /// A place on `device`.
    #[must_use]
    pub fn on(device: &Device) -> Self {
        Self { device: device.clone(), starts: RefCell::default() }
    }

    /// The module that `build` makes, each weight drawn as its builder said from a stream of its own, keyed by
    /// seed and path: never from burn's process-wide generator, and whatever else the module holds.
    ///
    /// # Panics
    /// If the module holds a weight of which no builder said how it starts.
    #[must_use]
    pub fn seeded<M: Module>(device: &Device, seed: u64, build: impl FnOnce(&Self) -> M) -> M {
        let fresh = Self::on(device);
        let module = build(&fresh);
        module.map(&mut Draw { starts: fresh.starts.into_inner(), seed, path: PathStack::default() })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Says how a weight starts.
    pub fn says<const D: usize>(&self, weight: &Param<Tensor<D>>, init: Init, fans: Fans) {
        self.starts.borrow_mut().insert(weight.id, (init, fans));
    }

    /// A weight of this shape that starts so.
    #[must_use]
    pub fn weight<const D: usize>(&self, shape: [usize; D], init: Init, fans: Fans) -> Param<Tensor<D>> {
        let weight = Initializer::Zeros.init(shape, &self.device);
        self.says(&weight, init, fans);
        weight
    }

    /// A weight of this shape whose values all start at `value`.
    #[must_use]
    pub fn constant<const D: usize>(&self, shape: [usize; D], value: f64) -> Param<Tensor<D>> {
        self.weight(shape, Init::Constant(value), Fans::NONE)
    }

    /// A norm that starts as the identity, as it was built.
    #[must_use]
    pub fn norm(&self, norm: BatchNorm) -> BatchNorm {
        self.says(&norm.gamma, Init::Constant(1.0), Fans::NONE);
        self.says(&norm.beta, Init::Constant(0.0), Fans::NONE);
        norm
    }
}

struct Draw {
    starts: BTreeMap<ParamId, (Init, Fans)>,
    seed: u64,
    path: PathStack,
}

impl ModuleMapper for Draw {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.dotted();
        if is_buffer(&path) {
            return param;
        }
        let (init, fans) = *self.starts.get(&param.id).unwrap_or_else(|| panic!("nobody says how `{path}` starts"));
        let shape = param.lazy_shape();
        let values = init.values(fans, shape.num_elements(), Key::new(self.seed).at(&path, 0));
        let (device, id) = (param.lazy_device(), param.id);
        param.transform_for_load(Tensor::from_data(TensorData::new(values, shape), &device), id)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{named_weights, weights_fingerprint};
    use burn::nn::BatchNormConfig;
    use burn::nn::conv::{Conv2d, Conv2dConfig};

    /// A layer as `PyTorch` starts it.
    pub(crate) fn conv(channels: [usize; 2], kernel: usize, fresh: &Fresh) -> Conv2d {
        let zeros = Conv2dConfig::new(channels, [kernel; 2]).with_initializer(Initializer::Zeros);
        let conv = zeros.init(fresh.device());
        let fans = Fans::of_conv(&conv.weight.lazy_shape().to_vec());
        fresh.says(&conv.weight, Init::FanIn, fans);
        fresh.says(conv.bias.as_ref().unwrap(), Init::FanIn, fans);
        conv
    }

    #[derive(Module, Debug)]
    struct Net {
        first: Conv2d,
        bn: BatchNorm,
        second: Conv2d,
        he: Param<Tensor<4>>,
        narrow: Param<Tensor<2>>,
        unit: Param<Tensor<2>>,
        prior: Param<Tensor<1>>,
    }

    fn net(seed: u64) -> Net {
        Fresh::seeded(&Device::flex().autodiff(), seed, |fresh| Net {
            first: conv([8, 16], 3, fresh),
            bn: fresh.norm(BatchNormConfig::new(16).init(fresh.device())),
            second: conv([8, 16], 3, fresh),
            he: fresh.weight([64, 1, 3, 3], Init::HeNormal, Fans::of_conv(&[64, 1, 3, 3])),
            narrow: fresh.weight([40, 50], Init::Normal(0.01), Fans { input: 40, output: 50 }),
            unit: fresh.weight([50, 40], Init::UnitVariance, Fans { input: 40, output: 50 }),
            prior: fresh.weight([6], Init::prior(0.01), Fans { input: 40, output: 6 }),
        })
    }

    /// Mean square and largest value.
    fn moments(values: &[f32]) -> (f64, f64) {
        let square = values.iter().map(|value| f64::from(value * value)).sum::<f64>() / values.len() as f64;
        (square, values.iter().fold(0.0, |largest, value| f64::from(value.abs()).max(largest)))
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
    fn a_layer_starts_uniform_within_the_root_of_its_inputs_bias_included() {
        let weights = named_weights(&net(1));
        let bound = 1.0 / (8.0f64 * 9.0).sqrt();
        let (square, largest) = moments(&weights["first.weight"].1);
        assert!((square / (bound * bound / 3.0) - 1.0).abs() < 0.1, "mean square {square}");
        assert!(largest <= bound && largest > 0.98 * bound, "largest {largest} of {bound}");
        let (_, largest) = moments(&weights["first.bias"].1);
        assert!(largest <= bound && largest > 0.5 * bound, "largest {largest} of {bound}");
    }

    #[test]
    fn normals_have_their_deviation_and_he_counts_outputs_as_pytorch_does_for_depthwise() {
        let weights = named_weights(&net(1));
        let (square, largest) = moments(&weights["he"].1);
        let he = 2.0 / (64.0 * 9.0);
        assert!((square / he - 1.0).abs() < 0.2 && largest > 2.0 * he.sqrt(), "mean square {square}");
        let (square, _) = moments(&weights["narrow"].1);
        assert!((square / 1e-4 - 1.0).abs() < 0.1, "mean square {square}");
    }

    #[test]
    fn a_pyramids_weights_pass_a_variance_on() {
        let (square, largest) = moments(&named_weights(&net(1))["unit"].1);
        assert!((40.0 * square - 1.0).abs() < 0.1, "mean square {square}");
        let bound = (3.0f64 / 40.0).sqrt();
        assert!(largest <= bound && largest > 0.98 * bound, "largest {largest} of {bound}");
    }

    #[test]
    fn constants_are_kept_a_prior_among_them() {
        let weights = named_weights(&net(1));
        assert!(weights["bn.gamma"].1.iter().all(|value| *value == 1.0));
        assert!(weights["bn.beta"].1.iter().all(|value| *value == 0.0));
        for bias in &weights["prior"].1 {
            assert!((1.0 / (1.0 + (-bias).exp()) - 0.01).abs() < 1e-6, "{bias}");
        }
    }

    #[test]
    fn weights_still_get_gradients_and_statistics_are_those_of_a_fresh_norm() {
        let net = net(1);
        assert!(net.first.weight.val().is_require_grad() && net.prior.val().is_require_grad());
        assert!(named_weights(&net)["bn.running_var"].1.iter().all(|value| *value == 1.0));
    }

    #[test]
    #[should_panic(expected = "nobody says how `weight` starts")]
    fn a_weight_of_which_nobody_speaks_is_no_silent_zero() {
        let build = |fresh: &Fresh| Conv2dConfig::new([1, 1], [1, 1]).init(fresh.device());
        let _ = Fresh::seeded(&Device::flex(), 1, build);
    }
}
