//! A layer every output of which is a sum of all inputs.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use mentor_weights::{Fans, Fresh, Init};

/// `x W^T + b`, with weights as `PyTorch` writes them, `[out, in]`: burn's layer has them the other way around.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct FullyConnected {
    pub weight: Param<Tensor<2>>,
    pub bias: Param<Tensor<1>>,
}

impl FullyConnected {
    /// A fresh layer, which starts as `PyTorch`'s does.
    #[must_use]
    pub fn new(input: usize, output: usize, fresh: &Fresh) -> Self {
        let fans = Fans { input, output };
        Self {
            weight: fresh.weight([output, input], Init::FanIn, fans),
            bias: fresh.weight([output], Init::FanIn, fans),
        }
    }

    /// What it makes of rows, `[rows, in]` to `[rows, out]`, in their type.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        x.matmul(self.weight.val().cast(dtype).transpose()) + self.bias.val().cast(dtype).unsqueeze_dim::<2>(0)
    }

    /// How many numbers come out.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.bias.lazy_shape()[0]
    }

    /// Multiply-adds of one row.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.weight.lazy_shape().iter().map(|side| *side as u64).product()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fill_weights;
    use burn::tensor::Device;

    #[test]
    fn a_row_by_hand_with_weights_in_the_order_of_pytorch() {
        let layer = FullyConnected::new(3, 2, &Fresh::on(&Device::flex()));
        let layer = fill_weights(layer, |name, _| {
            Some(if name == "weight" { vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] } else { vec![0.5, -0.5] })
        });
        let y = layer.forward(Tensor::from_data([[1.0f32, 10.0, 100.0]], &Device::flex()));
        assert_eq!(y.into_data().try_into_vec_as::<f32>().unwrap(), [321.5, 653.5]);
        assert_eq!((layer.outputs(), layer.macs()), (2, 6));
    }

    #[test]
    fn it_starts_within_the_bound_of_pytorch() {
        let layer = Fresh::seeded(&Device::flex(), 3, |fresh| FullyConnected::new(100, 50, fresh));
        let values = layer.weight.val().into_data().try_into_vec_as::<f32>().unwrap();
        let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(largest <= 0.1 && largest > 0.098, "{largest}");
    }
}
