//! The convolutions of a dense head before its last ones.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{GroupNorm, GroupNormConfig, Relu};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};
use mentor_nets::{ConvSpec, Cost, Fans, Fresh, Init, conv};
use mentor_ops::group_norm_relu;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The published number of groups of a norm, and of channels in each of them.
const GROUPS: usize = 32;
const CHANNELS_OF_A_GROUP: usize = 8;

/// The deviation of all weights of a dense head at the start.
const DEVIATION: f64 = 0.01;

/// How probable each class is anywhere in a fresh net, so that the loss is not drowned by places without an object.
pub(super) const PRIOR: f64 = 0.01;

/// One entry of a tower's `Sequential`.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum TowerLayer {
    Conv(Conv2d),
    Norm(GroupNorm),
    Relu(Relu),
}

/// What follows each convolution of a head but the last ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadNorm {
    /// A group norm, without which a net of few channels hardly learns from scratch.
    #[default]
    Group,
    /// Nothing.
    None,
}

/// 3x3 convolutions, each with a group norm and `ReLU`: one set of weights for all levels of a pyramid.
///
/// # Source
/// torchvision's `FCOSClassificationHead` and `FCOSRegressionHead`, names and start included.
///
/// # Differs
/// A norm has 32 groups there, however many channels; here a group has at least 8 channels, as 32 groups have of the
/// published 256. A group of a single channel would be zero wherever a level has a single place.
pub(super) fn tower(channels: usize, convs: usize, fresh: &Fresh) -> Vec<TowerLayer> {
    let block = |_| {
        let conv = head_conv(channels, channels, Init::Constant(0.0), fresh);
        [TowerLayer::Conv(conv), TowerLayer::Norm(group_norm(channels, fresh)), TowerLayer::Relu(Relu::new())]
    };
    (0..convs).flat_map(block).collect()
}

/// The same, each convolution with what follows it in a `Sequential` of its own; with a norm it has no bias.
///
/// # Source
/// torchvision's `RetinaNetClassificationHead` and `RetinaNetRegressionHead`, names and start included.
pub(super) fn blocks(channels: usize, convs: usize, norm: HeadNorm, fresh: &Fresh) -> Vec<Vec<TowerLayer>> {
    let spec = ConvSpec::new(channels, channels, 3).start(Init::Normal(DEVIATION));
    let block = |_| match norm {
        HeadNorm::Group => vec![
            TowerLayer::Conv(spec.build(fresh)),
            TowerLayer::Norm(group_norm(channels, fresh)),
            TowerLayer::Relu(Relu::new()),
        ],
        HeadNorm::None => {
            vec![TowerLayer::Conv(spec.bias(Init::Constant(0.0)).build(fresh)), TowerLayer::Relu(Relu::new())]
        }
    };
    (0..convs).map(block).collect()
}

fn group_norm(channels: usize, fresh: &Fresh) -> GroupNorm {
    let norm = GroupNormConfig::new(groups(channels), channels).init(fresh.device());
    for (weight, value) in [(&norm.gamma, 1.0), (&norm.beta, 0.0)] {
        let weight = weight.as_ref().expect("a norm with weights");
        fresh.says(weight, Init::Constant(value), Fans { input: 0, output: 0 });
    }
    norm
}

/// A 3x3 convolution with a bias, starting as dense heads do: normal with deviation 0.01.
pub(super) fn head_conv(input: usize, output: usize, bias: Init, fresh: &Fresh) -> Conv2d {
    ConvSpec::new(input, output, 3).start(Init::Normal(DEVIATION)).bias(bias).build(fresh)
}

/// How many groups a norm of so many channels has: a divisor of them.
fn groups(channels: usize) -> usize {
    let most = (channels / CHANNELS_OF_A_GROUP).clamp(1, GROUPS);
    (1..=most).rev().find(|groups| channels.is_multiple_of(*groups)).unwrap_or(1)
}

/// What a tower makes of a level's features, `[n, channels, h, w]` both. Norms go through f32.
pub(super) fn through<'a>(layers: impl IntoIterator<Item = &'a TowerLayer>, features_nchw: Tensor<4>) -> Tensor<4> {
    let (mut x, mut is_done) = (features_nchw, false);
    for layer in layers {
        x = match layer {
            TowerLayer::Conv(layer) => conv(layer, x),
            TowerLayer::Norm(norm) => group_norm_relu(norm, x),
            // It was done with the norm before it.
            TowerLayer::Relu(_) if is_done => x,
            TowerLayer::Relu(_) => relu(x),
        };
        is_done = matches!(layer, TowerLayer::Norm(_));
    }
    x
}

/// What a tower has made of a level's features behind so many of its convolutions with their norms, before the activation.
pub(super) fn partway<'a>(
    layers: impl IntoIterator<Item = &'a TowerLayer>,
    convs: usize,
    features_nchw: Tensor<4>,
) -> Tensor<4> {
    let layers: Vec<&TowerLayer> = layers.into_iter().collect();
    let through = |layers: &[&TowerLayer]| through(layers.iter().copied(), features_nchw);
    match parted(&layers, convs).0 {
        [before @ .., TowerLayer::Norm(norm)] => norm.forward(through(before).cast(DType::F32)),
        before => through(before),
    }
}

/// What the rest of a tower makes of such features, their activation first.
pub(super) fn onward<'a>(
    layers: impl IntoIterator<Item = &'a TowerLayer>,
    convs: usize,
    partway_nchw: Tensor<4>,
) -> Tensor<4> {
    let layers: Vec<&TowerLayer> = layers.into_iter().collect();
    let partway_nchw = if convs == 0 { partway_nchw } else { relu(partway_nchw) };
    through(parted(&layers, convs).1.iter().copied(), partway_nchw)
}

/// The layers before and behind the activation of convolution number `convs`, counted from 1.
fn parted<'a, 'b>(layers: &'b [&'a TowerLayer], convs: usize) -> (&'b [&'a TowerLayer], &'b [&'a TowerLayer]) {
    if convs == 0 {
        return (&[], layers);
    }
    let is_relu = |(_, layer): &(usize, &&TowerLayer)| matches!(layer, TowerLayer::Relu(_));
    let (at, _) = layers.iter().enumerate().filter(is_relu).nth(convs - 1).expect("a tower of as many convolutions");
    (&layers[..at], &layers[at + 1..])
}

/// Adds the cost of a tower.
pub(super) fn count<'a>(layers: impl IntoIterator<Item = &'a TowerLayer>, cost: &mut Cost) {
    for layer in layers {
        if let TowerLayer::Conv(layer) = layer {
            cost.conv(layer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_divide_the_channels_and_have_eight_of_them_or_more() {
        let expected = [(256, 32), (512, 32), (128, 16), (64, 8), (32, 4), (24, 3), (20, 2), (16, 2), (7, 1), (1, 1)];
        for (channels, count) in expected {
            assert_eq!(groups(channels), count, "{channels} channels");
        }
    }
}
