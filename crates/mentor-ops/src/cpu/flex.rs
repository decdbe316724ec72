//! Tensors of burn's CPU backend as slices for the kernels, and back.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Whether our kernels take a map.
pub(crate) fn is_ours<const D: usize>(x: &Tensor<D>) -> bool {
    x.device().without_autodiff() == Device::flex() && x.dtype() == DType::F32 && x.shape().num_elements() > 0
}

/// The values of a dense f32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a dense tensor of f32, as was checked before")
}

/// The same values in row order. One value everywhere, as `sum` hands it back, is written at once:
/// burn would look up every pixel's.
pub(crate) fn dense(tensor: &FlexTensor) -> FlexTensor {
    let (layout, shape) = (tensor.layout(), tensor.shape());
    let is_repeated = layout.strides().iter().zip(shape.iter()).all(|(stride, side)| *stride == 0 || *side == 1);
    if !is_repeated || tensor.dtype() != DType::F32 || shape.num_elements() == 0 {
        return tensor.to_contiguous();
    }
    FlexTensor::filled_typed(shape, DType::F32, tensor.storage::<f32>()[layout.start_offset()])
}

/// A tensor of values in row order.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
