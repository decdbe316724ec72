//! Cross-entropy per pixel: our own kernel for f32 on the CPU, burn's operations elsewhere.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, IntDType, Tensor};

use crate::cpu::flex::{dense, is_ours, tensor, values};
use crate::softmax::kernels::{self, LogSums, Size};

/// The cross-entropy of every pixel with its class, `-log softmax(logits)[class]`.
///
/// # Shapes
/// Logits `[n, k, h, w]`, classes `[n, h, w]`, each below `k`; the result is `[n, h, w]`.
///
/// # Panics
/// If the shapes differ, or on the CPU if there is no such class.
#[must_use]
pub fn pixel_cross_entropy(logits_nkhw: Tensor<4>, classes_nhw: Tensor<3, Int>) -> Tensor<3> {
    let [n, _, height, width] = logits_nkhw.dims();
    let found = classes_nhw.dims();
    assert_eq!([n, height, width], found, "logits {:?} for labels {found:?}", logits_nkhw.dims());
    if !is_ours(&logits_nkhw) {
        return log_softmax(logits_nkhw, 1).gather(1, classes_nhw.unsqueeze_dim::<4>(1)).squeeze_dim::<3>(1).neg();
    }
    let value = Dispatch::mentor_cross_entropy(logits_nkhw.into_dispatch(), classes_nhw.into_dispatch());
    Tensor::from_dispatch(value)
}

/// The cross-entropy that is routed by autodiff or not; it only gets f32 on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait CrossEntropy: Backend {
    fn mentor_cross_entropy(logits: FloatTensor<Self>, classes: IntTensor<Self>) -> FloatTensor<Self>;
}

/// What only the backward pass needs, called on the backend below autodiff.
pub(crate) trait CrossEntropyGradient: Backend {
    fn mentor_cross_entropy_with_sums(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
    ) -> (FloatTensor<Self>, LogSums<FloatTensor<Self>>);

    /// The gradient of the logits.
    fn mentor_cross_entropy_gradient(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        sums: LogSums<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

fn size(logits: &FlexTensor) -> Size {
    let [images, channels, height, width] = logits.shape().dims::<4>();
    Size { images, channels, area: height * width }
}

/// The classes in row order, of one type whatever the labels came in.
fn dense_classes(classes: IntTensor<Flex>) -> FlexTensor {
    Flex::int_cast(classes, IntDType::I32).to_contiguous()
}

fn class_values(classes: &FlexTensor) -> &[i32] {
    classes.as_slice().expect("dense, as was just made")
}

impl CrossEntropy for Flex {
    fn mentor_cross_entropy(logits: FlexTensor, classes: FlexTensor) -> FlexTensor {
        Self::mentor_cross_entropy_with_sums(logits, classes).0
    }
}

impl CrossEntropyGradient for Flex {
    fn mentor_cross_entropy_with_sums(logits: FlexTensor, classes: FlexTensor) -> (FlexTensor, LogSums<FlexTensor>) {
        let (logits, classes) = (logits.to_contiguous(), dense_classes(classes));
        let (value, sums) = kernels::cross_entropy(size(&logits), values(&logits), class_values(&classes));
        let dims = classes.shape().dims::<3>();
        let sums = LogSums { largest: tensor(sums.largest, dims), log_sum: tensor(sums.log_sum, dims) };
        (tensor(value, dims), sums)
    }

    fn mentor_cross_entropy_gradient(
        logits: FlexTensor,
        classes: FlexTensor,
        sums: LogSums<FlexTensor>,
        grad: FlexTensor,
    ) -> FlexTensor {
        let (logits, classes, grad) = (logits.to_contiguous(), dense_classes(classes), dense(&grad));
        let sums = LogSums { largest: values(&sums.largest), log_sum: values(&sums.log_sum) };
        let gradient = kernels::cross_entropy_gradient(
            size(&logits),
            values(&logits),
            class_values(&classes),
            sums,
            values(&grad),
        );
        tensor(gradient, logits.shape().dims::<4>())
    }
}

/// The backward pass. The graph keeps the logits.
#[derive(Debug)]
struct CrossEntropyBackward;

impl<B: CrossEntropyGradient> Backward<B, 1> for CrossEntropyBackward {
    type State = (NodeId, IntTensor<B>, LogSums<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (logits, classes, sums) = ops.state;
        let logits = checkpointer.retrieve_node_output(logits);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::mentor_cross_entropy_gradient(logits, classes, sums, grad));
        }
    }
}

impl<B: CrossEntropy + CrossEntropyGradient, C: CheckpointStrategy> CrossEntropy for Autodiff<B, C> {
    fn mentor_cross_entropy(logits: FloatTensor<Self>, classes: IntTensor<Self>) -> FloatTensor<Self> {
        let prepared = Backward::<B, 1>::prepare::<C>(CrossEntropyBackward, [logits.node()]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let saved = prepared.checkpoint(&logits);
                let (value, sums) = B::mentor_cross_entropy_with_sums(logits.into_primitive(), classes.clone());
                prepared.finish((saved, classes, sums), value)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::mentor_cross_entropy(logits.into_primitive(), classes)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_maps::{assert_close, noise, values, with_one_and_four_threads};
    use burn::tensor::{DType, Device};

    /// Classes that all occur, of the given type.
    fn classes([n, k, height, width]: [usize; 4], dtype: DType) -> Tensor<3, Int> {
        let all = Tensor::<1, Int>::arange(0..(n * height * width) as i64, (&Device::flex(), DType::I64));
        (all * 7).remainder_scalar(k as i64).reshape([n, height, width]).cast(dtype)
    }

    /// Output and gradient.
    fn results(dims: [usize; 4], form: impl Fn(Tensor<4>, Tensor<3, Int>) -> Tensor<3>, dtype: DType) -> [Vec<f32>; 2] {
        let logits = (noise(dims, "logits") * 20.0).detach().require_grad();
        let value = form(logits.clone(), classes(dims, dtype));
        let grads = (value.clone() * noise(value.dims(), "grad")).sum().backward();
        [values(value), values(logits.grad(&grads).unwrap())]
    }

    fn composed(logits: Tensor<4>, classes: Tensor<3, Int>) -> Tensor<3> {
        log_softmax(logits, 1).gather(1, classes.unsqueeze_dim::<4>(1)).squeeze_dim::<3>(1).neg()
    }

    #[test]
    fn output_and_gradient_are_as_burns_for_labels_of_any_type() {
        for dims in [[2, 5, 7, 9], [1, 1, 3, 4], [3, 21, 40, 31], [1, 150, 13, 17], [2, 2, 1, 1]] {
            let burns = results(dims, composed, DType::I64);
            for dtype in [DType::I64, DType::I32, DType::U8] {
                let ours = results(dims, pixel_cross_entropy, dtype);
                assert_close(&ours[0], &burns[0], 1e-6, &format!("value of {dims:?}"));
                assert_close(&ours[1], &burns[1], 1e-6, &format!("gradient of {dims:?}"));
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let [one, four] = with_one_and_four_threads(|| results([3, 21, 40, 31], pixel_cross_entropy, DType::I64));
        assert_eq!(one, four);
    }

    #[test]
    fn views_work() {
        let logits = noise([2, 9, 4, 6], "logits");
        let labels = classes([2, 6, 9, 4], DType::I64);
        let view = logits.clone().permute([0, 3, 1, 2]);
        let copied = Tensor::<4>::from_data(view.clone().into_data(), &logits.device());
        assert_eq!(values(pixel_cross_entropy(view, labels.clone())), values(pixel_cross_entropy(copied, labels)));
        let slice = logits.clone().slice([1..2, 2..5]);
        let copied = Tensor::<4>::from_data(slice.clone().into_data(), &logits.device());
        let labels = classes([1, 3, 4, 6], DType::I64);
        assert_eq!(values(pixel_cross_entropy(slice, labels.clone())), values(pixel_cross_entropy(copied, labels)));
    }

    #[test]
    fn impossible_logits_are_probability_zero_and_nan_stays() {
        let device = Device::flex().autodiff();
        let logits = [[[[0.0, f32::NAN, 3.0]], [[f32::NEG_INFINITY, 0.0, -1e30]]]];
        let logits = Tensor::<4>::from_data(logits, &device).require_grad();
        let labels = Tensor::<3, Int>::from_data([[[0, 1, 1]]], &device);
        let value = pixel_cross_entropy(logits.clone(), labels);
        let grads = value.clone().sum().backward();
        let (value, gradient) = (values(value), values(logits.grad(&grads).unwrap()));
        assert_eq!([value[0], value[2]], [0.0, 1e30]);
        assert_eq!([gradient[0], gradient[2], gradient[3], gradient[5]], [0.0, 1.0, 0.0, -1.0]);
        assert!(value[1].is_nan() && gradient[1].is_nan() && gradient[4].is_nan());
    }

    #[test]
    #[should_panic(expected = "a class is not below 2")]
    fn a_class_that_does_not_exist_is_refused() {
        let labels = Tensor::<3, Int>::from_data([[[0, 2]]], &Device::flex());
        let _ = pixel_cross_entropy(noise([1, 2, 1, 2], "logits"), labels);
    }

    #[test]
    fn a_plain_device_and_other_types_work() {
        let dims = [1, 3, 5, 6];
        let (logits, labels) = (noise(dims, "logits"), classes(dims, DType::I64));
        let expected = values(composed(logits.clone(), labels.clone()));
        assert_close(&values(pixel_cross_entropy(logits.clone().inner(), labels.clone())), &expected, 1e-6, "plain");
        assert_close(&values(pixel_cross_entropy(logits.cast(DType::F64), labels)), &expected, 1e-6, "f64");
    }
}
