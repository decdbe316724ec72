//! What a detector finds in whole images, and evaluation over a list of them.

use burn::tensor::{Device, Tensor};
use mentor_nets::images::{DeviceImages, resampled};
use mentor_types::{BoxLabels, DetOutput, Detection, Edges, Geometry, Images};

use crate::decode::{EvalConfig, detections};
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

/// What a net finds in one image, the surest first, in pixels of that image, whatever size it is brought to.
///
/// # Differs
/// torchvision's transform interpolates where it shrinks an image; here all pixels count, as in the views of training. Proposals
/// of two stages may begin in the padding; what is found ends with the image.
///
/// # Panics
/// If the config was not checked.
#[must_use]
pub fn found_in(net: &DetNet, image: Images, config: &EvalConfig, device: &Device) -> Vec<Detection> {
    let given = [image.height, image.width];
    let (size, _) = config.sizes(given);
    let view_1chw = view_of(DeviceImages::upload(image, device).normalised(), config);
    // Boxes end where the image does, not where its padding does.
    let output = DetOutput { image_size: size, ..net.forward(view_1chw) };
    let mut found = detections(&output, config).into_iter().next().unwrap_or_default();
    for one in &mut found {
        one.edges = in_image(one.edges, given, size);
    }
    found
}

/// Normalised images `[n, 3, h, w]` as a net sees them: brought to their size, and padded.
fn view_of(images_nchw: Tensor<4>, config: &EvalConfig) -> Tensor<4> {
    let [.., height, width] = images_nchw.dims();
    let ([new_height, new_width], padded) = config.sizes([height, width]);
    if padded == [height, width] {
        return images_nchw;
    }
    let scale = [width as f64 / new_width as f64, height as f64 / new_height as f64];
    resampled(images_nchw, Geometry { scale, shift: [0.0; 2] }, padded)
}

/// The edges of a box in an image that was brought to a `size` from the `given` one, in pixels of the latter.
fn in_image(edges: Edges, given: [usize; 2], size: [usize; 2]) -> Edges {
    let scale = [1, 0].map(|axis| given[axis] as f64 / size[axis] as f64);
    std::array::from_fn(|edge| (f64::from(edges[edge]) * scale[edge % 2]) as f32)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decode::predict;
    use crate::nets::rule::{assert_close, golden, tensor};
    use crate::nets::{NetConfig, NetTable};
    use mentor_nets::{BackboneKind, Level};
    use mentor_types::{Key, Resize};
    use rand::RngExt;

    fn net() -> DetNet {
        let table = NetTable::new(BackboneKind::Resnet18);
        let table = NetTable { width: Some(4), levels: vec![Level::P3, Level::P4], head_convs: 1, ..table };
        NetConfig::Gfl(table).init(3, 1, &Device::flex())
    }

    fn image(height: usize, width: usize) -> Images {
        let mut rng = Key::new(4).rng();
        Images { n: 1, height, width, rgb: (0..height * width * 3).map(|_| rng.random()).collect() }
    }

    /// Everything is found: a fresh net's boxes are alike, and none is dropped for that.
    const ALL: EvalConfig = EvalConfig {
        resize: None,
        multiple_px: None,
        score_threshold: 0.0,
        nms_iou: 1.0,
        soft_nms: None,
        candidates: 1000,
        detections: 100,
    };

    fn config(short_px: usize, long_px: usize) -> EvalConfig {
        EvalConfig { resize: Some(Resize { short_px, long_px }), ..ALL }
    }

    #[test]
    fn images_and_boxes_are_those_of_torchvision() {
        let golden = golden("resize.safetensors");
        for (given, short_px, long_px) in [([24, 36], 64, 120), ([20, 50], 64, 100), ([45, 30], 80, 133)] {
            let name = |what: &str| format!("{}x{}_{short_px}_{long_px}/{what}", given[0], given[1]);
            let config = config(short_px, long_px);
            let images = tensor("input", [1, 3, given[0], given[1]], &Device::flex());
            assert_close(&golden, &name("image"), view_of(images, &config), 1e-5);
            let (size, _) = config.sizes(given);
            assert_eq!(golden[&name("size")].1, size.map(|side| side as f32));
            let found = in_image([10.0, 20.0, 70.0, 60.0], given, size);
            for (found, expected) in found.iter().zip(&golden[&name("box")].1) {
                assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn what_is_found_in_an_image_twice_as_large_is_said_in_its_own_pixels() {
        let (net, device) = (net(), Device::flex());
        let images = DeviceImages::upload(image(32, 64), &device).normalised();
        let twice = resampled(images, Geometry::scaling(0.5), [64, 128]);
        let expected = predict(&net, twice, &config(64, 128)).remove(0);
        let found = found_in(&net, image(32, 64), &config(64, 128), &device);
        assert!(found.len() == expected.len() && found.len() > 20, "{} of {}", found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!((found.class, found.score), (expected.class, expected.score));
            assert_eq!(found.edges, expected.edges.map(|edge| edge / 2.0));
        }
    }

    #[test]
    fn boxes_end_with_the_image_and_padding_finds_none() {
        let (net, device) = (net(), Device::flex());
        // 30x50 becomes 60x100 in a view of 64x128; the last places lie beside the image.
        for (size, padded) in [([30, 50], [64, 128]), ([50, 30], [128, 64])] {
            let config = config(60, 128);
            assert_eq!(config.sizes(size).1, padded);
            let found = found_in(&net, image(size[0], size[1]), &config, &device);
            let [height, width] = size.map(|side| side as f32);
            let is_inside = |[x0, y0, x1, y1]: [f32; 4]| {
                x0 >= 0.0 && y0 >= 0.0 && x1 <= width + 1e-4 && y1 <= height + 1e-4 && x1 > x0 && y1 > y0
            };
            assert!(found.len() > 20 && found.iter().all(|one| is_inside(one.edges)), "{found:?}");
            assert!(
                found.iter().any(|one| one.edges[2] > width - 1.0)
                    && found.iter().any(|one| one.edges[3] > height - 1.0)
            );
        }
        // Without a size to be brought to and without padding the image is as it was.
        let images = DeviceImages::upload(image(30, 50), &device).normalised();
        assert_eq!(found_in(&net, image(30, 50), &ALL, &device), predict(&net, images, &ALL).remove(0));
    }
}
