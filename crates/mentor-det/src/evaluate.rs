//! What a detector finds in whole images, and evaluation over a list of them.

use burn::tensor::Device;
use mentor_nets::images::DeviceImages;
use mentor_types::{BoxLabels, Detection, Images};

use crate::decode::{EvalConfig, predict};
use crate::metrics::{CocoScores, DetMetrics, FoundBox, ImageTruth};
use crate::nets::DetNet;

/// An image with what is true of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The image, `n` = 1.
    pub image: Images,
    /// Its labels.
    pub truth: BoxLabels,
}

/// What a net finds in one image, the surest first.
///
/// # Panics
/// If the config was not checked.
#[must_use]
pub fn found_in(net: &DetNet, image: Images, config: &EvalConfig, device: &Device) -> Vec<Detection> {
    let images_1chw = DeviceImages::upload(image, device).normalised();
    predict(net, images_1chw, config).into_iter().next().unwrap_or_default()
}

/// How a net does on some images; `None` where there is no box to find in any of them.
///
/// # Errors
/// The first of `images`.
pub fn evaluate<E>(
    net: &DetNet,
    images: impl Iterator<Item = Result<Judged, E>>,
    config: &EvalConfig,
    device: &Device,
) -> Result<Option<DetMetrics>, E> {
    let mut scores = CocoScores::new(net.classes(), config.detections.max(CocoScores::LIMIT));
    for image in images {
        let Judged { image, truth } = image?;
        let found: Vec<FoundBox> = found_in(net, image, config, device).iter().map(FoundBox::from).collect();
        scores.push(&ImageTruth::from(&truth), &found);
    }
    Ok(Some(scores.scores()).filter(|scores| scores.boxes > 0))
}
