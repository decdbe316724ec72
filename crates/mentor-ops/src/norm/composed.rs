//! Batch normalisation by burn's operations, for every device and type that our kernels do not do.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{DType, Shape};

use crate::norm::options::{NormOptions, Normalised, Saved};

/// By the statistics of the batch: output, mean and biased variance.
pub(crate) fn composed_batch_norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    residual: Option<FloatTensor<B>>,
    options: NormOptions,
) -> Normalised<B> {
    let dtype = x.dtype();
    let normed = B::batch_norm_train(wide::<B>(x), gamma, beta, options.epsilon);
    (finished::<B>(cast::<B>(normed.output, dtype), residual, options), normed.mean, normed.variance)
}

/// By the statistics that are given.
pub(crate) fn composed_frozen_norm<B: Backend>(
    [x, gamma, beta, mean, variance]: [FloatTensor<B>; 5],
    residual: Option<FloatTensor<B>>,
    options: NormOptions,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let y = B::batch_norm(wide::<B>(x), gamma, beta, mean, variance, options.epsilon);
    finished::<B>(cast::<B>(y, dtype), residual, options)
}

/// A map of half-width numbers as f32, in which statistics are taken; others as they are.
fn wide<B: Backend>(map: FloatTensor<B>) -> FloatTensor<B> {
    if matches!(map.dtype(), DType::F16 | DType::BF16) { cast::<B>(map, DType::F32) } else { map }
}

fn cast<B: Backend>(map: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if map.dtype() == dtype { map } else { B::float_cast(map, dtype.into()) }
}

fn finished<B: Backend>(y: FloatTensor<B>, residual: Option<FloatTensor<B>>, options: NormOptions) -> FloatTensor<B> {
    let y = match residual {
        Some(residual) => B::float_add(y, residual),
        None => y,
    };
    if options.relu { B::relu(y) } else { y }
}

/// The gradients of x, gamma, beta and the residual.
pub(crate) fn composed_gradients<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    saved: Saved<FloatTensor<B>>,
    grad: FloatTensor<B>,
) -> Vec<FloatTensor<B>> {
    let Saved { mean, variance, y, fixed, epsilon } = saved;
    let grad = match y {
        Some(y) => B::relu_backward(y, grad),
        None => grad,
    };
    let (dtype, residual_grad) = (x.dtype(), grad.clone());
    let (x, grad) = (wide::<B>(x), wide::<B>(grad));
    if !fixed {
        let all = B::batch_norm_train_backward(x, gamma, mean, variance, epsilon, grad);
        return vec![cast::<B>(all.x_grad, dtype), all.gamma_grad, all.beta_grad, residual_grad];
    }
    let dims = x.shape().dims::<4>();
    let by_channel = |values: FloatTensor<B>| B::float_reshape(values, Shape::new([1, dims[1], 1, 1]));
    let sums = |map: FloatTensor<B>| {
        let rows = B::float_reshape(B::float_swap_dims(map, 0, 1), Shape::new([dims[1], dims[0] * dims[2] * dims[3]]));
        B::float_reshape(B::float_sum_dim(rows, 1), Shape::new([dims[1]]))
    };
    let inverse = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, Scalar::Float(epsilon))));
    let normed = B::float_mul(B::float_sub(x, by_channel(mean)), by_channel(inverse.clone()));
    let x_grad = B::float_mul(grad.clone(), by_channel(B::float_mul(gamma, inverse)));
    let gamma_grad = sums(B::float_mul(grad.clone(), normed));
    vec![cast::<B>(x_grad, dtype), gamma_grad, sums(grad), residual_grad]
}
