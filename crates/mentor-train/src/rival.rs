//! Nets that are trained against the student, beside the model, each with an optimizer of its own.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mentor_types::{Found, Group};
use mentor_weights::{NamedError, NamedTensors, from_safetensors, load_named, named_weights, to_safetensors};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::optimizer::{AdamwConfig, Optimizer, OptimizerConfig};

/// `[distill.TERM.rival]`: the size of a discriminator and its optimizer, Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RivalConfig {
    /// Learning rate. Default 4e-4.
    pub lr: f64,
    /// Decay of Adam's two moments, each in [0, 1). Default [0.0, 0.9].
    pub betas: [f64; 2],
    /// Channels of the first convolution; the following have two and four times as many. At least 1.
    /// Default 64.
    pub channels: usize,
}

impl Default for RivalConfig {
    fn default() -> Self {
        Self { lr: 4e-4, betas: [0.0, 0.9], channels: 64 }
    }
}

impl RivalConfig {
    /// Reports values out of range, below `key`.
    pub fn check(&self, key: &str, found: &mut Found) {
        let mut problem = |name: &str, message: String| found.push((format!("{key}.{name}"), message));
        if !(self.lr.is_finite() && self.lr > 0.0) {
            problem("lr", format!("must be above 0, found {}", self.lr));
        }
        if let Some(beta) = self.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
            problem("betas", format!("must lie in [0, 1), found {beta}"));
        }
        if self.channels == 0 {
            problem("channels", "must be at least 1, found 0".to_owned());
        }
    }

    /// Adam: without weight decay `AdamW` is the same.
    fn adam(&self) -> OptimizerConfig {
        OptimizerConfig::Adamw(AdamwConfig {
            lr: self.lr,
            betas: self.betas,
            epsilon: 1e-8,
            weight_decay: 0.0,
            head_lr_factor: 1.0,
        })
    }
}

/// A net with its optimizer.
#[derive(Debug)]
pub struct RivalNet<N: Module> {
    config: RivalConfig,
    device: Device,
    /// Taken out only within a step.
    net: Option<N>,
    optimizer: Optimizer,
}

impl<N: Module> RivalNet<N> {
    /// A net on a device with autodiff, and an optimizer without memory; `device` is the plain one.
    #[must_use]
    pub fn new(config: &RivalConfig, net: N, device: &Device) -> Self {
        Self {
            config: config.clone(),
            device: device.clone(),
            net: Some(net),
            optimizer: Optimizer::new(config.adam()),
        }
    }

    /// The net.
    #[must_use]
    pub fn net(&self) -> &N {
        self.net.as_ref().expect("present outside of a step")
    }

    /// One step of the optimizer down a loss of the net, which is returned off the graph; what `after` makes of the net is kept.
    pub fn step(
        &mut self,
        lr_factor: f64,
        loss: impl FnOnce(&N) -> Tensor<1>,
        after: impl FnOnce(N) -> N,
    ) -> Tensor<1> {
        let net = self.net.take().expect("present outside of a step");
        let loss = loss(&net);
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        let net = self.optimizer.step(net, grads, lr_factor, &|_, rank| Group::of_rank(rank));
        self.net = Some(after(net));
        loss.inner()
    }

    /// Everything that training changed, as the bytes of a safetensors file; equal nets and optimizers give equal bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let weights = named_weights(self.net()).into_iter().map(|(name, tensor)| (format!("net.{name}"), tensor));
        let state = self.optimizer.save().into_iter().map(|(name, tensor)| (format!("optimizer.{name}"), tensor));
        to_safetensors(&weights.chain(state).collect()).expect("shapes and values of one tensor fit")
    }

    /// Goes on, bit for bit, from where [`save`](Self::save) was called; `fresh` is a net of the same shape.
    ///
    /// # Errors
    /// If the bytes are damaged or belong to a net of another shape; nothing is changed then.
    pub fn load(&mut self, bytes: &[u8], fresh: N) -> Result<(), String> {
        let wrong = |error: NamedError| error.to_string();
        let mut parts: BTreeMap<String, NamedTensors> = BTreeMap::new();
        for (name, tensor) in from_safetensors(bytes).map_err(wrong)? {
            let (part, name) = name.split_once('.').ok_or_else(|| wrong(NamedError::Unused(name.clone())))?;
            parts.entry(part.to_owned()).or_default().insert(name.to_owned(), tensor);
        }
        let net = load_named(fresh, parts.remove("net").unwrap_or_default()).map_err(wrong)?;
        let state = parts.remove("optimizer").unwrap_or_default();
        let optimizer = Optimizer::resumed(self.config.adam(), state, &net, &self.device)?;
        if let Some(part) = parts.into_keys().next() {
            return Err(wrong(NamedError::Unused(part)));
        }
        (self.net, self.optimizer) = (Some(net), optimizer);
        Ok(())
    }
}
