//! SGD and `AdamW` in `PyTorch`'s meaning, with state by path.
//!
//! burn's own optimizers key their state by parameter id and take other defaults; keyed by path,
//! a state that does not belong to the model is an error when it is loaded, not a silent restart.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use mentor_ops::{AdamwStep, SgdStep, adamw_update, sgd_update};
use mentor_types::Group;
use mentor_weights::{NamedTensors, PathStack};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[optimizer.sgd]` or `[optimizer.adamw]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum, as `torch.optim.SGD`.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    Adamw(AdamwConfig),
}

/// `[optimizer.sgd]`: stochastic gradient descent with momentum and no dampening, as
/// `torch.optim.SGD`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Momentum in [0, 1). Default 0.9.
    #[serde(default = "point_nine")]
    pub momentum: f64,
    /// Weight decay, added to the gradient; not on norms and biases. Default 1e-4.
    #[serde(default = "sgd_decay")]
    pub weight_decay: f64,
    /// Nesterov's momentum. Default false.
    #[serde(default)]
    pub nesterov: bool,
    /// Factor on the learning rate of all that is not the backbone. Default 1.
    #[serde(default = "one")]
    pub head_lr_factor: f64,
}

/// `[optimizer.adamw]`: Adam with decoupled weight decay, as `torch.optim.AdamW`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamwConfig {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decay of the two moments. Default [0.9, 0.999].
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment. Default 1e-8.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
    /// Decoupled weight decay; not on norms and biases. Default 1e-2.
    #[serde(default = "adamw_decay")]
    pub weight_decay: f64,
    /// Factor on the learning rate of all that is not the backbone. Default 1.
    #[serde(default = "one")]
    pub head_lr_factor: f64,
}

fn point_nine() -> f64 {
    0.9
}
fn sgd_decay() -> f64 {
    1e-4
}
fn adamw_decay() -> f64 {
    1e-2
}
fn betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn epsilon() -> f64 {
    1e-8
}
fn one() -> f64 {
    1.0
}

impl OptimizerConfig {
    /// The learning rate before the schedule.
    #[must_use]
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd(sgd) => sgd.lr,
            Self::Adamw(adamw) => adamw.lr,
        }
    }

    fn head_lr_factor(&self) -> f64 {
        match self {
            Self::Sgd(sgd) => sgd.head_lr_factor,
            Self::Adamw(adamw) => adamw.head_lr_factor,
        }
    }

    /// Reports values out of range as (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        let mut range = |key: &str, value: f64, ok: bool, what: &str| {
            if !(ok && value.is_finite()) {
                problems.push((key.to_owned(), format!("must {what}, found {value}")));
            }
        };
        match self {
            Self::Sgd(sgd) => {
                range("sgd.lr", sgd.lr, sgd.lr > 0.0, "be above 0");
                range("sgd.momentum", sgd.momentum, (0.0..1.0).contains(&sgd.momentum), "lie in [0, 1)");
                range("sgd.weight_decay", sgd.weight_decay, sgd.weight_decay >= 0.0, "be at least 0");
                range("sgd.head_lr_factor", sgd.head_lr_factor, sgd.head_lr_factor > 0.0, "be above 0");
                if sgd.nesterov && sgd.momentum == 0.0 {
                    problems.push(("sgd.nesterov".to_owned(), "has no effect without momentum".to_owned()));
                }
            }
            Self::Adamw(adamw) => {
                range("adamw.lr", adamw.lr, adamw.lr > 0.0, "be above 0");
                for beta in adamw.betas {
                    range("adamw.betas", beta, (0.0..1.0).contains(&beta), "lie in [0, 1)");
                }
                range("adamw.epsilon", adamw.epsilon, adamw.epsilon > 0.0, "be above 0");
                range("adamw.weight_decay", adamw.weight_decay, adamw.weight_decay >= 0.0, "be at least 0");
                range("adamw.head_lr_factor", adamw.head_lr_factor, adamw.head_lr_factor > 0.0, "be above 0");
            }
        }
    }
}

// What stands behind the `#` in the names of saved states.
const VELOCITY: &str = "velocity";
const MEAN: &str = "mean";
const SQUARE: &str = "square";
const TIME: &str = "time";

/// What the optimizer remembers of one weight, flat.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
enum State {
    Sgd { velocity: Tensor<1> },
    Adamw { mean: Tensor<1>, square: Tensor<1>, time: u64 },
}

/// Updates the weights of a module from their gradients.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    states: BTreeMap<String, State>,
}

impl Optimizer {
    /// An optimizer without memory.
    #[must_use]
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, states: BTreeMap::new() }
    }

    /// The learning rate before the schedule.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.config.lr()
    }

    /// One update of `module` at `lr_factor` times the configured learning rate; `group` says of a weight at a path, with
    /// so many dimensions, how. A weight without a gradient stays as it is and does not decay.
    #[must_use]
    pub fn step<M: Module>(
        &mut self,
        module: M,
        grads: GradientsParams,
        lr_factor: f64,
        group: &dyn Fn(&str, usize) -> Group,
    ) -> M {
        let lr = self.config.lr() * lr_factor;
        let head_lr = lr * self.config.head_lr_factor();
        module.map(&mut Update { optimizer: self, grads, lr, head_lr, group, path: PathStack::default() })
    }

    fn updated(&mut self, path: String, weight: Tensor<1>, grad: Tensor<1>, lr: f64, decays: bool) -> Tensor<1> {
        match &self.config {
            OptimizerConfig::Sgd(config) => {
                let weight_decay = if decays { config.weight_decay } else { 0.0 };
                if config.momentum == 0.0 {
                    let grad = if decays { grad + weight.clone().mul_scalar(weight_decay) } else { grad };
                    return weight - grad.mul_scalar(lr);
                }
                let velocity = match self.states.remove(&path) {
                    Some(State::Sgd { velocity }) => velocity,
                    _ => weight.zeros_like(),
                };
                let step = SgdStep { lr, momentum: config.momentum, weight_decay, nesterov: config.nesterov };
                let (weight, velocity) = sgd_update(weight, grad, velocity, step);
                self.states.insert(path, State::Sgd { velocity });
                weight
            }
            OptimizerConfig::Adamw(config) => {
                let weight_decay = if decays { config.weight_decay } else { 0.0 };
                let (moments, time) = match self.states.remove(&path) {
                    Some(State::Adamw { mean, square, time }) => ([mean, square], time + 1),
                    _ => ([weight.zeros_like(), weight.zeros_like()], 1),
                };
                let AdamwConfig { betas, epsilon, .. } = *config;
                let step = AdamwStep { lr, betas, epsilon, weight_decay, time };
                let (weight, [mean, square]) = adamw_update(weight, grad, moments, step);
                self.states.insert(path, State::Adamw { mean, square, time });
                weight
            }
        }
    }

    /// The memory as named tensors on the host.
    #[must_use]
    pub fn save(&self) -> NamedTensors {
        let flat = |tensor: &Tensor<1>| {
            let data = tensor.clone().into_data();
            (data.shape().to_vec(), data.try_into_vec::<f32>().expect("optimizer state is f32"))
        };
        let mut tensors = NamedTensors::new();
        for (path, state) in &self.states {
            match state {
                State::Sgd { velocity } => {
                    tensors.insert(format!("{path}#{VELOCITY}"), flat(velocity));
                }
                State::Adamw { mean, square, time } => {
                    tensors.insert(format!("{path}#{MEAN}"), flat(mean));
                    tensors.insert(format!("{path}#{SQUARE}"), flat(square));
                    // Exact up to 2^24 steps.
                    tensors.insert(format!("{path}#{TIME}"), (vec![1], vec![*time as f32]));
                }
            }
        }
        tensors
    }

    /// An optimizer of `module`'s weights that goes on from [`save`](Self::save)'s tensors. A weight
    /// without a state is one that has not had a gradient yet.
    ///
    /// # Errors
    /// What is missing, belongs to another optimizer, or to no weight of the module.
    pub fn resumed<M: Module>(
        config: OptimizerConfig,
        mut tensors: NamedTensors,
        module: &M,
        device: &Device,
    ) -> Result<Self, String> {
        let sizes = sizes(module);
        let names: Vec<String> = tensors.keys().cloned().collect();
        let mut states = BTreeMap::new();
        let mut take = |path: &str, part: &str| {
            let name = format!("{path}#{part}");
            let (_, values) = tensors.remove(&name).ok_or_else(|| format!("no tensor `{name}`"))?;
            let size = *sizes.get(path).ok_or_else(|| format!("`{name}` belongs to no weight of the model"))?;
            let expected = if part == TIME { 1 } else { size };
            if values.len() != expected {
                return Err(format!("`{name}` holds {} values, must be {expected}", values.len()));
            }
            Ok(Tensor::<1>::from_data(TensorData::new(values, [expected]), device))
        };
        for name in names {
            let (path, part) = name.rsplit_once('#').ok_or_else(|| format!("`{name}` is no optimizer state"))?;
            let state = match (&config, part) {
                (OptimizerConfig::Sgd(_), VELOCITY) => State::Sgd { velocity: take(path, VELOCITY)? },
                (OptimizerConfig::Adamw(_), MEAN) => {
                    let time = take(path, TIME)?.into_scalar::<f32>() as u64;
                    State::Adamw { mean: take(path, MEAN)?, square: take(path, SQUARE)?, time }
                }
                // Taken with its mean, which comes before it.
                (OptimizerConfig::Adamw(_), SQUARE | TIME) => continue,
                _ => return Err(format!("`{name}` belongs to another optimizer")),
            };
            states.insert(path.to_owned(), state);
        }
        match tensors.into_keys().next() {
            Some(left) => Err(format!("`{left}` has no `{MEAN}` beside it")),
            None => Ok(Self { config, states }),
        }
    }
}

/// The number of values of every weight and buffer, by path.
fn sizes<M: Module>(module: &M) -> BTreeMap<String, usize> {
    let mut sizes = Sizes { path: PathStack::default(), found: BTreeMap::new() };
    module.visit(&mut sizes);
    sizes.found
}

struct Sizes {
    path: PathStack,
    found: BTreeMap<String, usize>,
}

impl ModuleVisitor for Sizes {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.insert(self.path.dotted(), param.lazy_shape().num_elements());
    }
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    grads: GradientsParams,
    lr: f64,
    head_lr: f64,
    group: &'a dyn Fn(&str, usize) -> Group,
    path: PathStack,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let path = self.path.dotted();
        let group = (self.group)(&path, D);
        let lr = if group.is_head { self.head_lr } else { self.lr };
        let (id, weight, mapper) = param.consume();
        let required = weight.is_require_grad();
        let shape = weight.shape();
        let elements = shape.num_elements();
        let updated = self.optimizer.updated(
            path,
            weight.inner().reshape([elements]),
            grad.reshape([elements]),
            lr,
            group.decays,
        );
        let weight = Tensor::from_inner(updated.reshape(shape)).set_require_grad(required);
        Param::from_mapped_value(id, weight, mapper)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ScheduleConfig;
    use mentor_ops::sum_all;
    use mentor_weights::{from_safetensors, named_weights};

    #[derive(Module, Debug)]
    struct Net {
        w: Param<Tensor<2>>,
        b: Param<Tensor<1>>,
    }

    struct Golden(NamedTensors);

    impl Golden {
        fn open() -> Self {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/optimizers.safetensors");
            Self(from_safetensors(&std::fs::read(path).unwrap()).unwrap())
        }
        fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
            let (shape, values) = self.0[name].clone();
            Tensor::from_data(TensorData::new(values, shape), &Device::flex())
        }
        fn net(&self, case: &str) -> Net {
            let net = Net {
                w: Param::from_tensor(self.tensor::<2>(&format!("{case}.w.0")).autodiff()),
                b: Param::from_tensor(self.tensor::<1>(&format!("{case}.b.0")).autodiff()),
            };
            net.set_require_grad(true)
        }
        /// The gradients of a step, as those of a loss that is linear in the weights.
        fn grads(&self, case: &str, step: u64, net: &Net) -> GradientsParams {
            let w = Tensor::from_inner(self.tensor::<2>(&format!("{case}.w.grad.{step}")));
            let b = Tensor::from_inner(self.tensor::<1>(&format!("{case}.b.grad.{step}")));
            let loss = sum_all(net.w.val() * w) + sum_all(net.b.val() * b);
            GradientsParams::from_grads(loss.backward(), net)
        }
    }

    fn config(case: &str) -> OptimizerConfig {
        let sgd = SgdConfig { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov: false, head_lr_factor: 1.0 };
        match case {
            "sgd" => OptimizerConfig::Sgd(sgd),
            "nesterov" => OptimizerConfig::Sgd(SgdConfig { nesterov: true, ..sgd }),
            "plain" => OptimizerConfig::Sgd(SgdConfig { momentum: 0.0, ..sgd }),
            _ => OptimizerConfig::Adamw(AdamwConfig {
                lr: 0.01,
                betas: [0.9, 0.999],
                epsilon: 1e-8,
                weight_decay: 0.05,
                head_lr_factor: 1.0,
            }),
        }
    }

    #[test]
    fn five_steps_are_pytorchs() {
        let golden = Golden::open();
        for case in ["sgd", "nesterov", "plain", "adamw"] {
            let (mut net, mut optimizer) = (golden.net(case), Optimizer::new(config(case)));
            for step in 1..=5 {
                let grads = golden.grads(case, step, &net);
                let factor = ScheduleConfig::default().factor(step - 1, 5);
                net = optimizer.step(net, grads, factor, &|_, rank| Group::of_rank(rank));
                for (name, (_, found)) in named_weights(&net) {
                    let (_, expected) = &golden.0[&format!("{case}.{name}.{step}")];
                    for (found, expected) in found.iter().zip(expected) {
                        assert!((found - expected).abs() < 2e-6, "{case} {name} step {step}: {found} != {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_saved_optimizer_goes_on_bit_for_bit() {
        let golden = Golden::open();
        for case in ["sgd", "adamw"] {
            let run = |resume_after: Option<u64>| {
                let (mut net, mut optimizer) = (golden.net(case), Optimizer::new(config(case)));
                for step in 1..=5 {
                    let grads = golden.grads(case, step, &net);
                    net = optimizer.step(net, grads, 1.0, &|_, rank| Group::of_rank(rank));
                    if Some(step) == resume_after {
                        optimizer = Optimizer::resumed(config(case), optimizer.save(), &net, &Device::flex()).unwrap();
                    }
                }
                named_weights(&net)
            };
            assert_eq!(run(None), run(Some(3)), "{case}");
        }
    }

    #[test]
    fn a_state_that_is_not_the_models_is_refused() {
        let golden = Golden::open();
        let saved = |case: &str| {
            let (net, mut optimizer) = (golden.net(case), Optimizer::new(config(case)));
            let grads = golden.grads(case, 1, &net);
            let net = optimizer.step(net, grads, 1.0, &|_, rank| Group::of_rank(rank));
            (net, optimizer.save())
        };
        let refused = |case: &str, tensors: NamedTensors, net: &Net| {
            Optimizer::resumed(config(case), tensors, net, &Device::flex()).unwrap_err()
        };
        let (net, sgd) = saved("sgd");
        assert_eq!(refused("adamw", sgd.clone(), &net), "`b#velocity` belongs to another optimizer");
        let mut renamed = sgd.clone();
        renamed.insert("c#velocity".to_owned(), sgd["b#velocity"].clone());
        assert_eq!(refused("sgd", renamed, &net), "`c#velocity` belongs to no weight of the model");
        let mut cut = sgd.clone();
        let (shape, values) = cut.get_mut("w#velocity").unwrap();
        values.pop();
        *shape = vec![values.len()];
        let message = refused("sgd", cut, &net);
        assert!(message.starts_with("`w#velocity` holds ") && message.contains("must be "), "{message}");
        let (net, adamw) = saved("adamw");
        for (gone, message) in [
            ("b#time", "no tensor `b#time`"),
            ("b#square", "no tensor `b#square`"),
            ("b#mean", "`b#square` has no `mean` beside it"),
        ] {
            let mut lacking = adamw.clone();
            lacking.remove(gone).unwrap();
            assert_eq!(refused("adamw", lacking, &net), message);
        }
    }

    #[test]
    fn the_head_learns_by_its_own_factor_and_a_weight_without_gradient_stays() {
        let golden = Golden::open();
        let net = golden.net("plain");
        let before = named_weights(&net);
        let OptimizerConfig::Sgd(sgd) = config("plain") else { unreachable!() };
        let sgd = SgdConfig { weight_decay: 0.0, head_lr_factor: 10.0, ..sgd };
        let grads = GradientsParams::from_grads(sum_all(net.b.val()).backward(), &net);
        let after = named_weights(
            &Optimizer::new(OptimizerConfig::Sgd(sgd))
                .step(net, grads, 1.0, &|path, rank| Group { is_head: path == "b", ..Group::of_rank(rank) }),
        );
        assert_eq!(before["w"], after["w"]);
        for (before, after) in before["b"].1.iter().zip(&after["b"].1) {
            assert!((before - after - 1.0).abs() < 1e-6);
        }
    }
}
