//! Evaluation: bytes of images and labels on the host to counts of (truth, prediction), image by image.
//!
//! What differs between the sides: ours counts the pixels near boundaries, too.

use std::convert::Infallible;

use anyhow::Result;
use burn::tensor::Device;
use mentor_nets::{BackboneKind, Frozen};
use mentor_seg::metrics::ConfusionMatrix;
use mentor_seg::nets::SegNet;
use mentor_seg::{EvalConfig, Judged, evaluate};
use mentor_types::{Images, LabelMask};
use mentor_weights::NamedTensors;
use serde_json::json;

use crate::steps::{CLASSES, Net, prefixed};
use crate::work::{Built, Case, Sizes, Tolerance, Work, labels, uneven};

/// The row of evaluation.
pub fn case(sizes: &Sizes) -> Case {
    let count = if sizes.quick { 4 } else { 100 };
    let net = Net { backbone: BackboneKind::Resnet18, width: if sizes.quick { 16 } else { 32 } };
    let [height, width] = sizes.image;
    let build = move |device: &Device| -> Result<Built> {
        let net = Frozen::of(&net.init_for_evaluation(1, device));
        let mut tensors = prefixed("net.", net.net());
        let shape = [count, height, width, 3];
        let bytes = uneven("photos", shape).into_iter().map(|value| ((value + 2.0) * 63.0) as u8);
        let (rgb, truth): (Vec<u8>, _) = (bytes.collect(), labels("truth", count * height * width, CLASSES));
        let floats = |bytes: &[u8]| bytes.iter().map(|byte| f32::from(*byte)).collect();
        tensors.insert("photos".to_owned(), (shape.to_vec(), floats(&rgb)));
        tensors.insert("truth".to_owned(), (shape[..3].to_vec(), floats(&truth)));
        let pixels = height * width;
        let image = |rgb: &[u8], labels: &[u8]| Judged {
            image: Images { n: 1, height, width, rgb: rgb.to_vec() },
            truth: LabelMask::new(width, height, labels.to_vec()),
            classes_labelled: None,
        };
        let images = rgb.chunks_exact(3 * pixels).zip(truth.chunks_exact(pixels)).map(|(rgb, truth)| image(rgb, truth));
        Ok(Built { tensors, work: Box::new(Evaluation { net, images: images.collect(), device: device.clone() }) })
    };
    Case {
        name: format!("eval/{}-pspnet-{}-{count}x{height}x{width}", net.name(), net.width),
        spec: json!({ "kind": "eval", "net": net.spec() }),
        // Where two classes are as probable, rounding decides.
        tolerance: Tolerance::Mean(1e-4),
        images: Some(count),
        fresh: false,
        build: Box::new(build),
    }
}

struct Evaluation {
    net: Frozen<SegNet>,
    images: Vec<Judged>,
    device: Device,
}

impl Evaluation {
    fn evaluate(&self) -> ConfusionMatrix {
        let images = self.images.iter().cloned().map(Ok::<_, Infallible>);
        let Ok(matrix) = evaluate(self.net.net(), images, &EvalConfig::default(), &self.device);
        matrix
    }
}

impl Work for Evaluation {
    fn check(&mut self) -> NamedTensors {
        let matrix = self.evaluate();
        let counts = (0..CLASSES).flat_map(|truth| (0..CLASSES).map(move |prediction| [truth, prediction]));
        let counts = counts.map(|[truth, prediction]| matrix.count(truth, prediction) as f32).collect();
        [("counts".to_owned(), (vec![CLASSES, CLASSES], counts))].into()
    }

    fn run(&mut self) {
        self.evaluate();
    }
}
