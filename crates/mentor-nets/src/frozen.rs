//! A teacher that cannot train.

use burn::module::Module;

/// A net without a train mode: made with `valid()`, so its running statistics are its own, its
/// weights carry no gradient, and it is only ever handed out by shared reference.
///
/// There is no way back: neither `Clone` (a clone of a module shares its running statistics with
/// the original) nor a way to take the net out.
#[derive(Debug)]
pub struct Frozen<M: Module>(M);

impl<M: Module> Frozen<M> {
    /// A frozen copy of `net`.
    #[must_use]
    pub fn of(net: &M) -> Self {
        Self(net.valid())
    }

    /// The net, for a forward pass. Fed with plain tensors its outputs are off the graph.
    #[must_use]
    pub fn net(&self) -> &M {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ConvNorm, ConvSpec, Fresh};
    use burn::tensor::{Device, Tensor};
    use mentor_ops::named_weights;

    #[test]
    fn a_frozen_net_is_untouched_by_forward_passes_of_either() {
        let device = Device::flex().autodiff();
        let net = Fresh::seeded(&device, 1, |fresh| ConvNorm::new(ConvSpec::new(3, 4, 3), fresh));
        let frozen = Frozen::of(&net);
        let before = named_weights(frozen.net());
        let x = Tensor::<4>::ones([2, 3, 5, 5], &device);
        let _ = net.relu(x.clone());
        let plain = frozen.net().relu(x.clone().inner());
        assert!(!plain.is_autodiff() && !plain.is_tracked());
        assert!(!frozen.net().relu(x).is_tracked());
        assert_eq!(named_weights(frozen.net()), before);
        assert_ne!(named_weights(&net), before);
    }
}
