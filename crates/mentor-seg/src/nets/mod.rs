//! Segmentation nets: a backbone and a head, with torchvision's names where torchvision has them.

mod config;
mod deeplab;
mod dropout;
mod fcn;
mod psp;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod starts;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{DType, Tensor};
use mentor_nets::{Backbone, Cost, Grouped};
use mentor_types::{Key, SegOutput, Tap, Taps};

pub use config::{NetConfig, NetTable};
pub use deeplab::{Aspp, Branch, DeepLabHead, DeepLabPlusHead, ImagePooling};
pub use fcn::FcnHead;
pub use psp::PspHead;

/// Height and width of the map at each tap.
pub type TapSizes = BTreeMap<Tap, [usize; 2]>;

/// What makes class scores of a backbone's features.
pub trait Head: Module {
    /// Scores `[n, classes, h, w]`, and the features that go into the last convolution.
    fn forward(&self, taps: &Taps, key: Option<Key>) -> (Tensor<4>, Tensor<4>);

    /// The last convolution.
    fn last(&self) -> &Conv2d;

    /// Multiply-adds of the convolutions for one image whose features have these sizes.
    fn macs(&self, sizes: &TapSizes) -> u64;
}

/// A backbone with a head, and perhaps an auxiliary head on `c4`.
#[derive(Module, Debug)]
#[allow(missing_docs)]
pub struct Segmenter<H: Head> {
    pub backbone: Backbone,
    pub classifier: H,
    pub aux_classifier: Option<FcnHead>,
}

impl<H: Head> Segmenter<H> {
    fn new(backbone: Backbone, classifier: H, aux_classifier: Option<FcnHead>) -> Self {
        Self { backbone, classifier, aux_classifier }
    }

    fn forward(&self, images_nchw: Tensor<4>, key: Option<Key>) -> SegOutput {
        let [.., height, width] = images_nchw.dims();
        let mut taps = self.backbone.forward(images_nchw);
        let below = |name| key.map(|key| key.at(name, 0));
        let c4 = at(&taps, Tap::C4);
        // Off the graph nothing trains, so nobody asks for the auxiliary scores.
        let auxiliary = self.aux_classifier.as_ref().filter(|_| c4.is_autodiff());
        let auxiliary = auxiliary.map(|head| head.scores(c4, below("aux_classifier")).0.cast(DType::F32));
        let (logits, head) = self.classifier.forward(&taps, below("classifier"));
        taps.insert(Tap::Head, head);
        SegOutput { logits: logits.cast(DType::F32), auxiliary, taps, image_size: [height, width] }
    }

    fn macs(&self, size: [usize; 2]) -> u64 {
        let (mut cost, mut sizes) = (Cost::at(size), TapSizes::new());
        self.backbone.count(&mut cost, |tap, size| {
            sizes.insert(tap, size);
        });
        cost.macs + self.classifier.macs(&sizes)
    }

    fn stride(&self) -> usize {
        const SIDE: usize = 32;
        let mut coarsest = SIDE;
        self.backbone.count(&mut Cost::at([SIDE; 2]), |_, size| coarsest = coarsest.min(size[0]));
        SIDE / coarsest
    }
}

/// The features at a tap that every backbone has.
fn at(taps: &Taps, tap: Tap) -> Tensor<4> {
    taps.get(tap).unwrap_or_else(|| panic!("the backbone has no tap {tap}")).clone()
}

/// A segmentation net.
#[derive(Module, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum SegNet {
    Fcn(Segmenter<FcnHead>),
    Pspnet(Segmenter<PspHead>),
    Deeplabv3(Segmenter<DeepLabHead>),
    Deeplabv3plus(Segmenter<DeepLabPlusHead>),
}

impl Grouped for SegNet {}

/// The same expression over the net of any variant.
macro_rules! each {
    ($net:expr, $inner:ident => $value:expr) => {
        match $net {
            SegNet::Fcn($inner) => $value,
            SegNet::Pspnet($inner) => $value,
            SegNet::Deeplabv3($inner) => $value,
            SegNet::Deeplabv3plus($inner) => $value,
        }
    };
}

impl SegNet {
    /// Class scores and features of a batch of images.
    ///
    /// The net computes in the type of the images; norms, and the scores that it returns, are f32.
    ///
    /// `key` opens the stream of dropout; without one nothing is dropped. Whether batch norms use the
    /// batch's statistics is a matter of the net (`valid()`, frozen norms), not of the key.
    ///
    /// # Shapes
    /// Images are `[n, 3, h, w]`, normalised. Taps: `stem`, `c2` .. `c5`, and `head` (what goes into the
    /// last convolution, before dropout). The auxiliary scores are there where the net has the head and
    /// its weights are on the graph.
    #[must_use]
    pub fn forward(&self, images_nchw: Tensor<4>, key: Option<Key>) -> SegOutput {
        each!(self, net => net.forward(images_nchw, key))
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        each!(self, net => net.classifier.last().weight.lazy_shape()[0])
    }

    /// Multiply-adds of the convolutions for one image of `size` (height, width), without the
    /// auxiliary head.
    #[must_use]
    pub fn macs(&self, size: [usize; 2]) -> u64 {
        each!(self, net => net.macs(size))
    }

    /// Pixels of an image that one of the coarsest features stands for, along a side: images of a multiple of it lie on the
    /// features without a remainder.
    #[must_use]
    pub fn stride(&self) -> usize {
        each!(self, net => net.stride())
    }

    /// Channels at a tap; `None` for a tap that segmentation nets lack.
    #[must_use]
    pub fn tap_channels(&self, tap: Tap) -> Option<usize> {
        match tap {
            Tap::Logits => Some(self.classes()),
            Tap::Head => Some(each!(self, net => net.classifier.last().weight.lazy_shape()[1])),
            _ => each!(self, net => &net.backbone).channels(tap),
        }
    }
}
