//! Learnable bridges between the widths of student and teacher.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use mentor_types::{AdapterKind, AdapterSpec, Key};
use rand::Rng;

use crate::{ConvSpec, Cost, Fresh, conv};

/// What an [`AdapterSpec`] asks for, from the student's channels to the teacher's; it starts as `PyTorch`'s
/// layers do. It lives beside the student in the trained model, so it is optimised and checkpointed, and an
/// export drops it.
#[derive(Module, Debug)]
pub struct Adapter {
    name: String,
    conv: Conv2d,
}

impl Adapter {
    /// A fresh adapter, its weights a function of seed and name.
    #[must_use]
    pub fn fresh(spec: &AdapterSpec, seed: u64, device: &Device) -> Self {
        let AdapterKind::Conv { kernel } = spec.kind;
        // The path of a weight within an adapter is always the same, so the name goes into the seed.
        let seed = Key::new(seed).at("adapter", 0).at(&spec.name, 0).rng().next_u64();
        Fresh::seeded(device, seed, |fresh| Self {
            name: spec.name.clone(),
            conv: ConvSpec::new(spec.student_channels, spec.teacher_channels, kernel).build(fresh),
        })
    }

    /// The name of its [`AdapterSpec`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `[n, student channels, h, w]` to `[n, teacher channels, h, w]`.
    ///
    /// # Panics
    /// If the features have other channels.
    #[must_use]
    pub fn forward(&self, features_nchw: Tensor<4>) -> Tensor<4> {
        conv(&self.conv, features_nchw)
    }

    /// Multiply-adds for one map of `size` (height, width).
    #[must_use]
    pub fn macs(&self, size: [usize; 2]) -> u64 {
        let mut cost = Cost::at(size);
        cost.conv(&self.conv);
        cost.macs
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_weights::named_weights;

    #[test]
    fn an_adapter_changes_channels_and_depends_on_seed_and_name() {
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = |name: &str| AdapterSpec { name: name.into(), kind, student_channels: 3, teacher_channels: 5 };
        let device = Device::flex();
        let adapter = Adapter::fresh(&spec("pair_wise@c5"), 1, &device);
        assert_eq!(adapter.forward(Tensor::ones([2, 3, 4, 6], &device)).dims(), [2, 5, 4, 6]);
        assert_eq!(adapter.name(), "pair_wise@c5");
        let weights = |name, seed| named_weights(&Adapter::fresh(&spec(name), seed, &device));
        assert_eq!(weights("a", 1), weights("a", 1));
        assert_ne!(weights("a", 1), weights("b", 1));
        assert_ne!(weights("a", 1), weights("a", 2));
        let bound = 1.0 / 3f32.sqrt();
        let largest = weights("a", 1)["conv.weight"].1.iter().fold(0.0, |largest: f32, value| value.abs().max(largest));
        assert!(largest < bound && largest > 0.7 * bound, "starts within {largest}");
    }
}
