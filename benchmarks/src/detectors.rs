//! Training steps of detectors against torchvision's nets of the same names, with the same weights.
//!
//! Both sides compute what torchvision's `RetinaNet` and `FCOS` compute: assignment, losses and gradients; images come in as a
//! batch, normalised. What differs: torchvision's `RetinaNet` divides the loss of each image by the places of that image, ours
//! by those of the batch, which is the same here, since every image has the same boxes.

use anyhow::Result;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mentor_det::assign::AssignConfig;
use mentor_det::nets::{DetNet, HeadNorm, NetConfig, NetTable, Points};
use mentor_det::supervised::{SupervisedConfig, supervised};
use mentor_det::upload::DetTargets;
use mentor_det::{Context, Labelled};
use mentor_nets::{BackboneKind, Student};
use mentor_train::Optimizer;
use mentor_types::{BoxKind, BoxLabels, DetOutput, Edges, LabelBox, LossTerms};
use mentor_weights::NamedTensors;
use serde_json::json;

use crate::steps::{CHECKED, SGD, optimizer, prefixed};
use crate::work::{Built, Case, Sizes, Tolerance, Work, noise, on_host, tensor, uneven};

const CLASSES: usize = 20;

/// Channels of the pyramid and the head, as published.
const CHANNELS: usize = 256;

/// Objects in each image.
const BOXES: usize = 8;

/// The rows of training steps.
pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let width = if sizes.quick { 16 } else { 64 };
    let published = NetTable::new(BackboneKind::Resnet18);
    // Of fewer channels the norms of torchvision's FCOS have other groups.
    let head_channels = Some(CHANNELS);
    let table = NetTable { width: Some(width), head_channels, points: Points::Corner, ..published };
    // torchvision's `RetinaNet` has no norms in its head unless one gives it some.
    let bare = NetTable { head_norm: HeadNorm::None, ..table.clone() };
    [NetConfig::Retinanet(bare), NetConfig::Fcos(table)].map(|net| step(sizes, net, width)).into()
}

fn step(sizes: &Sizes, config: NetConfig, width: usize) -> Case {
    let (batch, side, precision) = (sizes.batch, sizes.image[1], sizes.precision);
    let name = config.name();
    let build = move |device: &Device| -> Result<Built> {
        let net = config.init(CLASSES, 1, &device.clone().autodiff());
        let mut tensors = prefixed("net.", &net);
        let shape = [batch, 3, side, side];
        let images = uneven("images", shape);
        tensors.insert("images".to_owned(), (shape.to_vec(), images.clone()));
        let boxes = boxes(side as f32);
        let edges = boxes.iter().flat_map(|label| label.edges).collect();
        tensors.insert("edges".to_owned(), (vec![BOXES, 4], edges));
        let classes = boxes.iter().map(|label| f32::from(label.class)).collect();
        tensors.insert("classes".to_owned(), (vec![BOXES], classes));
        let work = Step {
            assign: net.assign(),
            supervised: SupervisedConfig::default().of_net(&net),
            model: Some(Student { net, adapters: Vec::new() }),
            optimizer: optimizer(),
            images: tensor(images, shape, device).cast(precision),
            targets: DetTargets::upload(&vec![BoxLabels { boxes, looked_for: None }; batch], device),
            first_logits: None,
        };
        Ok(Built { tensors, work: Box::new(work) })
    };
    Case {
        name: format!("detector/{name}-resnet18-{width}-{batch}x{side}x{side}"),
        spec: json!({
            "kind": "detector",
            "net": name,
            "width": width,
            "channels": CHANNELS,
            "classes": CLASSES,
            "steps": CHECKED,
            "lr": SGD.lr,
            "momentum": SGD.momentum,
            "weight_decay": SGD.weight_decay,
        }),
        tolerance: Tolerance::Steps { logits: 1e-3, losses: 1e-2 },
        images: Some(batch),
        fresh: true,
        build: Box::new(build),
    }
}

/// Objects of a tenth to a half of an image's side, anywhere in it.
fn boxes(side: f32) -> Vec<LabelBox> {
    let shares: Vec<f32> = noise("boxes", 4 * BOXES).into_iter().map(|value| (value + 1.0) / 2.0).collect();
    let of = |index: usize, shares: &[f32]| {
        let extent = [shares[2], shares[3]].map(|share| side * (0.1 + 0.4 * share));
        let [left, top] = [0, 1].map(|axis| (side - extent[axis]) * shares[axis]);
        let edges: Edges = [left, top, left + extent[0], top + extent[1]];
        let class = (index * 7 % CLASSES) as u8;
        LabelBox { edges, class, kind: BoxKind::Object, area: extent[0] * extent[1] }
    };
    shares.chunks_exact(4).enumerate().map(|(index, shares)| of(index, shares)).collect()
}

/// A training step on one fixed batch, as `DetMethod` and the loop do it.
struct Step {
    model: Option<Student<DetNet>>,
    optimizer: Optimizer,
    supervised: SupervisedConfig,
    assign: AssignConfig,
    images: Tensor<4>,
    targets: DetTargets,
    first_logits: Option<Tensor<3>>,
}

impl Step {
    fn step(&mut self) -> Tensor<1> {
        let model = self.model.take().expect("present between steps");
        let output = model.net.forward(self.images.clone());
        self.first_logits.get_or_insert_with(|| class_logits(&output));
        let labelled = Labelled::of(&self.targets, &output, &self.assign);
        let mut terms = LossTerms::default();
        supervised(&self.supervised, &Context::of(&output, Some(&labelled)), 0, &mut terms);
        let total = terms.total().expect("there is a loss");
        let loss = total.clone().inner();
        let grads = GradientsParams::from_grads(total.backward(), &model);
        self.model = Some(self.optimizer.step(model, grads, 1.0, &Student::<DetNet>::group));
        loss
    }
}

/// The class scores of all levels, `[n, k, p]`, off the graph.
fn class_logits(output: &DetOutput) -> Tensor<3> {
    Tensor::cat(output.levels.iter().map(|level| level.class_logits.clone().inner()).collect(), 2)
}

impl Work for Step {
    fn check(&mut self) -> NamedTensors {
        let losses: Vec<f32> = (0..CHECKED).map(|_| self.step().into_scalar::<f32>()).collect();
        let logits = self.first_logits.clone().expect("set by the first step");
        [("losses".to_owned(), (vec![CHECKED], losses)), ("logits".to_owned(), on_host(logits))].into()
    }

    fn run(&mut self) {
        self.step();
    }

    fn in_a_row(&self) -> bool {
        true
    }
}
