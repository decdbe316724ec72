//! Two-dimensional convolution.

use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;

/// The convolution of `x_nchw` with `weight` `[out, in / groups, kh, kw]`.
///
/// # Shapes
/// `[n, in, h, w]` to `[n, out, h', w']`; `bias` is `[out]`.
///
/// # Panics
/// If the channels of `x_nchw` and `weight` do not fit.
#[must_use]
pub fn conv2d(x_nchw: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: ConvOptions<2>) -> Tensor<4> {
    burn::tensor::module::conv2d(x_nchw, weight, bias, options)
}
