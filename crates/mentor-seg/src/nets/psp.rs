//! The head of `PSPNet`.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use mentor_nets::{ConvNorm, ConvSpec, Cost, Fresh, conv, score_conv};
use mentor_ops::{adaptive_avg_pool2d, resize_bilinear};
use mentor_types::{Key, Tap, Taps};

use super::dropout::dropout;
use super::{Head, TapSizes, at};

/// The sides of the pooled maps.
const BINS: [usize; 4] = [1, 2, 3, 6];

/// Pyramid pooling: means over 1, 2x2, 3x3 and 6x6 regions, each through a 1x1 convolution and back to
/// full size, beside the features themselves; then a 3x3 convolution and scores.
///
/// # Source
/// arXiv 1612.01105, section 3.2 (`unchecked`: bins, quarter-width branches, aligned corners and the
/// channel-wise dropout of 0.1 are as in the authors' later PyTorch code, from memory). That code says nothing
/// of how the head's layers start, so they start as `PyTorch`'s do.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct PspHead {
    pub stages: Vec<ConvNorm>,
    pub bottleneck: ConvNorm,
    pub score: Conv2d,
    dropout: f64,
}

impl PspHead {
    pub(super) fn new(input: usize, channels: usize, classes: usize, dropout: f64, fresh: &Fresh) -> Self {
        let branch = (input / BINS.len()).max(1);
        let stage = |_| ConvNorm::new(ConvSpec::new(input, branch, 1), fresh);
        Self {
            stages: BINS.iter().map(stage).collect(),
            bottleneck: ConvNorm::new(ConvSpec::new(input + branch * BINS.len(), channels, 3), fresh),
            score: score_conv(channels, classes, fresh),
            dropout,
        }
    }
}

impl Head for PspHead {
    fn forward(&self, taps: &Taps, key: Option<Key>) -> (Tensor<4>, Tensor<4>) {
        let c5 = at(taps, Tap::C5);
        let [_, _, height, width] = c5.dims();
        let mut maps = vec![c5.clone()];
        for (bins, stage) in BINS.into_iter().zip(&self.stages) {
            let pooled = stage.relu(adaptive_avg_pool2d(c5.clone(), [bins; 2]));
            maps.push(resize_bilinear(pooled, [height, width], true));
        }
        let head = self.bottleneck.relu(Tensor::cat(maps, 1));
        (conv(&self.score, dropout(head.clone(), self.dropout, key)), head)
    }

    fn last(&self) -> &Conv2d {
        &self.score
    }

    fn macs(&self, sizes: &TapSizes) -> u64 {
        let mut cost = Cost::at(sizes[&Tap::C5]);
        self.bottleneck.count(&mut cost);
        cost.conv(&self.score);
        let branches = BINS.into_iter().zip(&self.stages).map(|(bins, stage)| {
            let mut branch = Cost::at([bins; 2]);
            stage.count(&mut branch);
            branch.macs
        });
        cost.macs + branches.sum::<u64>()
    }
}
