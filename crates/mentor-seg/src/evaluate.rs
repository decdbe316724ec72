//! Prediction for whole images, and evaluation over a list of them.

use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_nets::images;
use mentor_ops::{resize_bilinear, softmax};
use mentor_types::{Images, LabelMask};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metrics::{Confusion, ConfusionMatrix};
use crate::nets::SegNet;
use crate::upload;

/// `[eval]`: how an image is predicted. Without the table: the whole image at once, as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Predicts windows and averages where they overlap; the whole image at once where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding: Option<Sliding>,
    /// Averages with the prediction of the mirrored image. Default false.
    #[serde(default)]
    pub flip: bool,
    /// Averages the predictions of the image at these sizes. Default `[1.0]`.
    #[serde(default = "one_scale")]
    pub scales: Vec<f64>,
}

/// `[eval.sliding]`: windows over the image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sliding {
    /// Height and width of a window, in pixels.
    pub window_px: [usize; 2],
    /// Steps between windows, in pixels; the last window is pushed back inside the image. Default:
    /// two thirds of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride_px: Option<[usize; 2]>,
}

fn one_scale() -> Vec<f64> {
    vec![1.0]
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { sliding: None, flip: false, scales: one_scale() }
    }
}

impl EvalConfig {
    /// Reports values out of range as (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        if self.scales.is_empty() || self.scales.iter().any(|scale| !(0.1..=10.0).contains(scale)) {
            problems.push(("scales".to_owned(), format!("must be some from 0.1 to 10, found {:?}", self.scales)));
        }
        if let Some(sliding) = &self.sliding {
            let stride = sliding.stride_px.unwrap_or(sliding.window_px);
            for (key, value) in [("sliding.window_px", sliding.window_px), ("sliding.stride_px", stride)] {
                if value.contains(&0) {
                    problems.push((key.to_owned(), format!("must be at least 1 each, found {value:?}")));
                }
            }
            if (0..2).any(|axis| stride[axis] > sliding.window_px[axis]) {
                problems.push((
                    "sliding.stride_px".to_owned(),
                    format!("must be at most the window {:?}, found {stride:?}", sliding.window_px),
                ));
            }
        }
    }
}

/// Class probabilities of one image at its own size.
///
/// # Shapes
/// `image_1chw` is `[1, 3, h, w]`, normalised, on the plain device; returns `[1, classes, h, w]`.
///
/// # Panics
/// If the config was not checked.
#[must_use]
pub fn predict(net: &SegNet, image_1chw: Tensor<4>, config: &EvalConfig) -> Tensor<4> {
    let [_, _, height, width] = image_1chw.dims();
    let mut sum: Option<Tensor<4>> = None;
    for scale in &config.scales {
        let side = |pixels: usize| ((pixels as f64 * scale).round() as usize).max(1);
        let scaled = resize_bilinear(image_1chw.clone(), [side(height), side(width)], false);
        for flipped in [false, true].into_iter().take(1 + usize::from(config.flip)) {
            let turn = |x: Tensor<4>| if flipped { x.flip([3]) } else { x };
            let seen = turn(scaled.clone());
            let probabilities = match &config.sliding {
                None => probabilities(net, seen),
                Some(sliding) => slide(net, &seen, sliding),
            };
            let probabilities = resize_bilinear(turn(probabilities), [height, width], false);
            sum = Some(match sum {
                None => probabilities,
                Some(sum) => sum + probabilities,
            });
        }
    }
    let views = config.scales.len() * (1 + usize::from(config.flip));
    sum.expect("checked: there is a scale").div_scalar(views as f64)
}

/// Probabilities of the pixels of an image or of a window, whose edge is repeated to the right and below up to a multiple of
/// the net's stride: without that the last features would stand for fewer pixels than the others, and all would be
/// stretched over the image.
fn probabilities(net: &SegNet, image_1chw: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = image_1chw.dims();
    let [below, right] = [height, width].map(|side| side.next_multiple_of(net.stride()) - side);
    let whole =
        if [below, right] == [0; 2] { image_1chw } else { image_1chw.pad([(0, below), (0, right)], PadMode::Edge) };
    let output = net.forward(whole, None);
    let scores = resize_bilinear(output.logits, output.image_size, false);
    softmax(scores.narrow(2, 0, height).narrow(3, 0, width), 1)
}

/// Where windows of `window` begin so that they cover `length`.
fn window_starts(length: usize, window: usize, stride: usize) -> Vec<usize> {
    let last = length.saturating_sub(window);
    let mut starts: Vec<usize> = (0..=last).step_by(stride).collect();
    if starts.last() != Some(&last) {
        starts.push(last);
    }
    starts
}

fn slide(net: &SegNet, image_1chw: &Tensor<4>, sliding: &Sliding) -> Tensor<4> {
    let [_, _, height, width] = image_1chw.dims();
    let window = sliding.window_px;
    let stride = sliding.stride_px.unwrap_or(window.map(|side| (side * 2).div_ceil(3)));
    let mut sum: Option<Tensor<4>> = None;
    let mut seen = vec![0.0f32; height * width];
    for top in window_starts(height, window[0], stride[0]) {
        for left in window_starts(width, window[1], stride[1]) {
            let (bottom, right) = ((top + window[0]).min(height), (left + window[1]).min(width));
            let part = probabilities(net, image_1chw.clone().slice([0..1, 0..3, top..bottom, left..right]));
            let classes = part.dims()[1];
            let whole = sum.unwrap_or_else(|| Tensor::zeros([1, classes, height, width], &part.device()));
            let place = [0..1, 0..classes, top..bottom, left..right];
            let before = whole.clone().slice(place.clone());
            sum = Some(whole.slice_assign(place, before + part));
            for y in top..bottom {
                seen[y * width + left..y * width + right].iter_mut().for_each(|count| *count += 1.0);
            }
        }
    }
    let sum = sum.expect("every image has a window");
    let seen = Tensor::<4>::from_data(TensorData::new(seen, [1, 1, height, width]), &sum.device());
    sum / seen
}

/// The most probable class of every pixel: `[1, c, h, w]` to `[1, h, w]`.
#[must_use]
pub fn most_probable(probabilities_1chw: Tensor<4>) -> Tensor<3, Int> {
    let [n, _, height, width] = probabilities_1chw.dims();
    probabilities_1chw.argmax(1).reshape([n, height, width])
}

/// The predicted label mask of one image, on the host.
///
/// # Panics
/// If `image` holds more than one image.
#[must_use]
pub fn predict_mask(net: &SegNet, image: Images, config: &EvalConfig, device: &Device) -> LabelMask {
    assert_eq!(image.n, 1, "one image at a time");
    let (width, height) = (image.width, image.height);
    let labels = most_probable(predict(net, images::normalised(image, device), config));
    let labels = labels.into_data().convert::<u8>().try_into_vec::<u8>().expect("converted to u8 above");
    LabelMask::new(width, height, labels)
}

/// One image to be evaluated.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The image.
    pub image: Images,
    /// Its truth.
    pub truth: LabelMask,
    /// The classes that were labelled in it; all where `None`.
    pub classes_labelled: Option<Vec<u8>>,
}

/// Predicts every image and compares it with its truth. The counts stay on the device until the end.
///
/// # Errors
/// The first error of `images`.
pub fn evaluate<E>(
    net: &SegNet,
    images: impl IntoIterator<Item = Result<Judged, E>>,
    config: &EvalConfig,
    device: &Device,
) -> Result<ConfusionMatrix, E> {
    let mut confusion = Confusion::new(net.classes(), device);
    for judged in images {
        let Judged { image, truth, classes_labelled } = judged?;
        let shape = [1, truth.height(), truth.width()];
        let prediction = most_probable(predict(net, images::normalised(image, device), config));
        let truth = upload::labels(truth.into_labels(), shape, device);
        confusion.update(prediction, truth, classes_labelled.as_deref());
    }
    Ok(confusion.read())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nets::{NetConfig, NetTable};
    use mentor_nets::BackboneKind;

    fn net() -> SegNet {
        let mut table = NetTable::new(BackboneKind::Resnet18);
        (table.width, table.output_stride) = (Some(4), Some(16));
        NetConfig::Fcn(table).init(3, 1, &Device::flex())
    }

    fn image(height: usize, width: usize) -> Tensor<4> {
        let bytes = (0..height * width * 3).map(|i| (i * 37 % 251) as u8).collect();
        images::normalised(Images { n: 1, height, width, rgb: bytes }, &Device::flex())
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec::<f32>().unwrap()
    }

    #[test]
    fn windows_cover_the_image_and_stay_inside() {
        assert_eq!(window_starts(10, 4, 3), [0, 3, 6]);
        assert_eq!(window_starts(11, 4, 3), [0, 3, 6, 7]);
        assert_eq!(window_starts(3, 4, 3), [0]);
    }

    #[test]
    fn a_window_as_large_as_the_image_is_the_whole_image() {
        let (net, image) = (net(), image(33, 40));
        let sliding = Sliding { window_px: [64, 64], stride_px: None };
        let slid = predict(&net, image.clone(), &EvalConfig { sliding: Some(sliding), ..EvalConfig::default() });
        assert_eq!(values(slid), values(predict(&net, image, &EvalConfig::default())));
    }

    #[test]
    fn probabilities_sum_to_one_over_windows_flips_and_scales() {
        let config = EvalConfig {
            sliding: Some(Sliding { window_px: [32, 32], stride_px: Some([16, 24]) }),
            flip: true,
            scales: vec![0.75, 1.0],
        };
        let probabilities = values(predict(&net(), image(41, 50), &config));
        for pixel in 0..41 * 50 {
            let sum: f32 = (0..3).map(|class| probabilities[class * 41 * 50 + pixel]).sum();
            assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        }
    }

    #[test]
    fn a_mirrored_image_with_flips_gives_the_mirrored_prediction() {
        let (net, image) = (net(), image(32, 48));
        let config = EvalConfig { flip: true, ..EvalConfig::default() };
        let straight = values(predict(&net, image.clone(), &config));
        let mirrored = values(predict(&net, image.flip([3]), &config).flip([3]));
        for (a, b) in straight.iter().zip(&mirrored) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn an_image_that_is_no_multiple_of_the_stride_is_predicted_as_a_part_of_one_that_is() {
        let (net, image) = (net(), image(41, 50));
        assert_eq!(net.stride(), 16);
        let rows: Vec<_> = (0..48).map(|y| image.clone().narrow(2, y.min(40), 1)).collect();
        let tall = Tensor::cat(rows, 2);
        let columns: Vec<_> = (0..64).map(|x| tall.clone().narrow(3, x.min(49), 1)).collect();
        let whole = predict(&net, Tensor::cat(columns, 3), &EvalConfig::default());
        let part = predict(&net, image, &EvalConfig::default());
        for (a, b) in values(part).iter().zip(values(whole.narrow(2, 0, 41).narrow(3, 0, 50))) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn an_image_of_one_pixel_is_predicted() {
        let mask = predict_mask(
            &net(),
            Images { n: 1, height: 1, width: 1, rgb: vec![9, 9, 9] },
            &EvalConfig::default(),
            &Device::flex(),
        );
        assert_eq!((mask.width(), mask.height()), (1, 1));
    }
}
