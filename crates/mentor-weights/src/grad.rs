//! The global norm of gradients, and clipping by it. (burn clips each parameter on its own.)

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use mentor_ops::sum_all;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, values};
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    /// A module whose gradients are 3 and 4 (weight) and 12 (bias): the norm is 13.
    fn module_and_grads() -> (Linear, GradientsParams) {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(2, 1).init(&device);
        let x = Tensor::<2>::from_data([[3.0f32, 4.0]], &device);
        let bias = linear.bias.as_ref().unwrap().val();
        let loss = x.matmul(linear.weight.val()).sum() + (bias * 12.0).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &linear);
        (linear, grads)
    }

    fn gradients(module: &Linear, grads: &GradientsParams) -> Vec<f32> {
        let mut all = values(grads.get::<2>(module.weight.id).unwrap());
        all.extend(values(grads.get::<1>(module.bias.as_ref().unwrap().id).unwrap()));
        all
    }

    #[test]
    fn large_gradients_are_scaled_to_the_norm() {
        let (module, grads) = module_and_grads();
        let (grads, norm) = clip_by_global_norm(grads, &module, 1.0);
        assert_close(&values(norm.unwrap()), &[13.0], 1e-6, "norm before");
        assert_close(&gradients(&module, &grads), &[3.0 / 13.0, 4.0 / 13.0, 12.0 / 13.0], 1e-6, "gradients");
        assert_close(&values(global_norm(&grads, &module).unwrap()), &[1.0], 1e-5, "norm after");
    }

    #[test]
    fn small_gradients_stay() {
        let (module, grads) = module_and_grads();
        let (grads, _) = clip_by_global_norm(grads, &module, 14.0);
        assert_eq!(gradients(&module, &grads), [3.0, 4.0, 12.0]);
    }

    #[test]
    fn no_gradients_have_no_norm() {
        let (module, _) = module_and_grads();
        let (_, norm) = clip_by_global_norm(GradientsParams::new(), &module, 1.0);
        assert!(norm.is_none());
    }
}
