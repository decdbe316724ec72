//! A teacher that cannot train.

use burn::module::Module;
use burn::tensor::Tensor;

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

    /// What `part` of the net makes of something of the student's, for terms that send it through a
    /// teacher's head or a rival: the one door for gradients. They reach `student` and no weight of the
    /// net, whose statistics stay as they are, too.
    #[must_use]
    pub fn through<const D: usize, const E: usize>(
        &self,
        student: Tensor<D>,
        part: impl FnOnce(&M, Tensor<D>) -> Tensor<E>,
    ) -> Tensor<E> {
        part(&self.0, student)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ConvNorm, ConvSpec, Fresh};
    use burn::tensor::Device;
    use mentor_ops::sum_all;
    use mentor_weights::named_weights;

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

    #[test]
    fn a_gradient_goes_through_to_the_student_and_to_no_weight() {
        let device = Device::flex();
        let build = |fresh: &Fresh| ConvNorm::new(ConvSpec::new(3, 4, 3), fresh);
        let frozen = Frozen::of(&Fresh::seeded(&device.clone().autodiff(), 1, build));
        let before = named_weights(frozen.net());
        let student = Tensor::<4>::ones([2, 3, 5, 5], &device.autodiff()).require_grad();
        let seen = frozen.through(student.clone(), |net, x| net.relu(x));
        let grads = sum_all(seen).backward();
        let gradient = student.grad(&grads).unwrap().into_data().try_into_vec_as::<f32>().unwrap();
        assert!(gradient.iter().any(|slope| *slope != 0.0));
        assert!(frozen.net().conv_0.weight.val().grad(&grads).is_none());
        assert_eq!(named_weights(frozen.net()), before);
    }
}
