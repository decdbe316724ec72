//! The global norm of gradients, and clipping by it. (burn clips each parameter on its own.)

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::reduce::sum_all;

struct SquaredNorm<'a> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            let squares = sum_all(grad.clone() * grad);
            self.sum = Some(match self.sum.take() {
                None => squares,
                Some(sum) => sum + squares,
            });
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad * self.factor.clone().reshape([1; D]));
        }
    }
}

/// The Euclidean norm of all gradients of `module` taken as one vector, on the device; `None`
/// where no parameter has a gradient.
#[must_use]
pub fn global_norm<M: Module>(grads: &GradientsParams, module: &M) -> Option<Tensor<1>> {
    let mut norm = SquaredNorm { grads, sum: None };
    module.visit(&mut norm);
    norm.sum.map(Tensor::sqrt)
}

/// Scales all gradients by `min(1, max_norm / (norm + 1e-6))`, as `PyTorch`'s `clip_grad_norm_`;
/// also returns the norm before. No host read-back.
#[must_use]
pub fn clip_by_global_norm<M: Module>(
    mut grads: GradientsParams,
    module: &M,
    max_norm: f64,
) -> (GradientsParams, Option<Tensor<1>>) {
    let norm = global_norm(&grads, module);
    if let Some(norm) = &norm {
        let factor = (norm.clone() + 1e-6).recip().mul_scalar(max_norm).clamp_max(1.0);
        module.visit(&mut Scale { grads: &mut grads, factor });
    }
    (grads, norm)
}
