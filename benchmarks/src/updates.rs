//! Updates of a whole net's weights: SGD with momentum, and the moving average.

use std::collections::BTreeMap;

use anyhow::Result;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mentor_nets::{Backbone, BackboneKind, BackboneSpec, Fresh, pytorch_name};
use mentor_train::Optimizer;
use mentor_types::Group;
use mentor_weights::{Buffers, Ema, NamedTensors, is_buffer, named_weights};
use serde_json::json;

use crate::steps::{optimizer, prefixed};
use crate::work::{Built, Case, Sizes, Tolerance, Work, noise, tensor};

/// The share of the average that stays.
const DECAY: f64 = 0.99;

/// Updates that are compared.
const CHECKED: usize = 3;

/// The rows of this group.
pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let width = if sizes.quick { 16 } else { 64 };
    let case = |name: &str, kind: &str, build: fn(usize, &Device) -> Built| Case {
        name: format!("op/{name}-resnet18-{width}"),
        spec: json!({ "kind": kind, "updates": CHECKED, "decay": DECAY }),
        tolerance: Tolerance::Largest(1e-4),
        images: None,
        fresh: false,
        build: Box::new(move |device| -> Result<Built> { Ok(build(width, device)) }),
    };
    vec![case("sgd_momentum", "sgd", sgd), case("ema", "ema", ema)]
}

fn net(width: usize, seed: u64, device: &Device) -> Backbone {
    let spec = BackboneSpec { kind: BackboneKind::Resnet18, width, output_stride: 32 };
    Fresh::seeded(device, seed, |fresh| spec.init(fresh))
}

fn results(net: &Backbone) -> NamedTensors {
    named_weights(net).into_iter().map(|(path, values)| (pytorch_name(&path), values)).collect()
}

/// A gradient for every trained weight of a module, by path.
fn gradients(net: &Backbone) -> NamedTensors {
    let gradient = |path: String, shape: Vec<usize>| {
        let values = noise(&path, shape.iter().product()).into_iter().map(|value| value * 1e-2).collect();
        (path, (shape, values))
    };
    let weights = named_weights(net).into_iter().filter(|(path, _)| !is_buffer(path));
    weights.map(|(path, (shape, _))| gradient(path, shape)).collect()
}

/// Copies gradients into what an optimizer takes; it uses them up.
struct Register<'a> {
    path: mentor_weights::PathStack,
    tensors: &'a NamedTensors,
    grads: GradientsParams,
    device: &'a Device,
}

impl ModuleVisitor for Register<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((shape, values)) = self.tensors.get(&self.path.dotted()) {
            let shape: [usize; D] = shape.clone().try_into().expect("the shape of the weight");
            self.grads.register(param.id, tensor(values.clone(), shape, self.device));
        }
    }
}

struct Sgd {
    net: Option<Backbone>,
    optimizer: Optimizer,
    tensors: NamedTensors,
    grads: Option<GradientsParams>,
    device: Device,
}

fn sgd(width: usize, device: &Device) -> Built {
    let net = net(width, 1, &device.clone().autodiff());
    let gradients = gradients(&net);
    let mut tensors = prefixed("net.", &net);
    for (path, values) in &gradients {
        tensors.insert(format!("grad.{}", pytorch_name(path)), values.clone());
    }
    let work = Sgd { net: Some(net), optimizer: optimizer(), tensors: gradients, grads: None, device: device.clone() };
    Built { tensors, work: Box::new(work) }
}

impl Work for Sgd {
    fn check(&mut self) -> NamedTensors {
        for _ in 0..CHECKED {
            self.prepare();
            self.run();
        }
        self.net.as_ref().map_or_else(BTreeMap::new, results)
    }

    fn prepare(&mut self) {
        let mut register = Register {
            path: mentor_weights::PathStack::default(),
            tensors: &self.tensors,
            grads: GradientsParams::new(),
            device: &self.device,
        };
        if let Some(net) = &self.net {
            net.visit(&mut register);
        }
        self.grads = Some(register.grads);
    }

    fn run(&mut self) {
        let (net, grads) = (self.net.take().expect("present"), self.grads.take().expect("prepared"));
        self.net = Some(self.optimizer.step(net, grads, 1.0, &|_, rank| Group::of_rank(rank)));
    }
}

struct Average {
    student: Backbone,
    ema: Ema<Backbone>,
}

fn ema(width: usize, device: &Device) -> Built {
    let on = device.clone().autodiff();
    let (student, start) = (net(width, 1, &on), net(width, 2, &on));
    let mut tensors = prefixed("student.", &student);
    tensors.extend(prefixed("average.", &start));
    Built { tensors, work: Box::new(Average { student, ema: Ema::of(&start, Buffers::Average) }) }
}

impl Work for Average {
    fn check(&mut self) -> NamedTensors {
        for _ in 0..CHECKED {
            self.run();
        }
        results(self.ema.net())
    }

    fn run(&mut self) {
        self.ema.update(&self.student, DECAY);
    }
}
