//! Whole training steps, and the prediction of one image.

use anyhow::Result;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Int, Tensor};
use mentor_distill::{Column, Term};
use mentor_nets::{BackboneKind, Frozen, Student, fill_weights, pytorch_name};
use mentor_seg::distill::{PairWise, PixelWise};
use mentor_seg::nets::{NetConfig, NetTable, SegNet};
use mentor_seg::supervised::{SupervisedConfig, supervised};
use mentor_seg::{Context, EvalConfig, Seg, most_probable, predict, upload};
use mentor_train::{Optimizer, OptimizerConfig, SgdConfig};
use mentor_types::{Key, LossTerms, SegOutput};
use mentor_weights::{NamedTensors, named_weights};
use serde_json::{Value, json};

use crate::work::{Built, Case, Sizes, Tolerance, Work, labels, on_host, tensor, uneven};

pub const CLASSES: usize = 11;

/// Steps whose losses are compared.
pub const CHECKED: usize = 3;

/// Learning rate, momentum and decay of both sides.
pub const SGD: SgdConfig =
    SgdConfig { lr: 0.01, momentum: 0.9, weight_decay: 1e-4, nesterov: false, head_lr_factor: 1.0 };

/// The optimizer of every step.
pub fn optimizer() -> Optimizer {
    Optimizer::new(OptimizerConfig::Sgd(SGD))
}

/// A PSPNet, named as the peer names it.
#[derive(Clone, Copy)]
pub struct Net {
    /// What the head stands on.
    pub backbone: BackboneKind,
    /// Channels of its first stage.
    pub width: usize,
}

impl Net {
    fn init(self, seed: u64, device: &Device) -> SegNet {
        let mut table = NetTable::new(self.backbone);
        (table.width, table.output_stride) = (Some(self.width), Some(8));
        NetConfig::Pspnet(table).init(CLASSES, seed, device)
    }

    /// A net that runs in evaluation mode. Fresh running statistics normalise nothing, so the last norm of each block
    /// is made small: scores of a deep net would grow beyond all bounds otherwise.
    pub fn init_for_evaluation(self, seed: u64, device: &Device) -> SegNet {
        let last = if self.backbone == BackboneKind::Resnet18 { ".bn2.weight" } else { ".bn3.weight" };
        let small = |name: &str, shape: &[usize]| {
            (name.contains(".layer") && name.ends_with(last)).then(|| vec![0.2; shape.iter().product()])
        };
        fill_weights(self.init(seed, device), small)
    }

    /// What the peer is told.
    pub fn spec(self) -> Value {
        json!({ "backbone": self.name(), "width": self.width, "classes": CLASSES })
    }

    /// As in the names of rows.
    pub fn name(self) -> &'static str {
        match self.backbone {
            BackboneKind::Resnet18 => "resnet18",
            BackboneKind::Resnet101 => "resnet101",
            BackboneKind::MobilenetV2 => "mobilenet_v2",
            _ => unreachable!("no other backbone is measured"),
        }
    }
}

/// All weights of a net by PyTorch name, below a prefix.
pub fn prefixed<M: Module>(prefix: &str, net: &M) -> NamedTensors {
    let weights = named_weights(net).into_iter();
    weights.map(|(path, values)| (format!("{prefix}{}", pytorch_name(&path)), values)).collect()
}

/// The rows of training steps.
pub fn training(sizes: &Sizes) -> Vec<Case> {
    let resnet = |width| Net { backbone: BackboneKind::Resnet18, width };
    let teacher = Net { backbone: BackboneKind::Resnet101, width: if sizes.quick { 16 } else { 64 } };
    let mobile = Net { backbone: BackboneKind::MobilenetV2, width: 32 };
    let widths: &[usize] = if sizes.quick { &[16] } else { &[16, 32, 64] };
    let mut cases: Vec<Case> = widths.iter().map(|width| step(sizes, resnet(*width), None)).collect();
    cases.push(step(sizes, resnet(16), Some(teacher)));
    cases.push(step(sizes, mobile, None));
    cases
}

fn step(sizes: &Sizes, student: Net, teacher: Option<Net>) -> Case {
    let taught = teacher.map_or_else(String::new, |net| format!("-taught-by-{}-{}", net.name(), net.width));
    let (batch, [height, width], precision) = (sizes.batch, sizes.image, sizes.precision);
    let build = move |device: &Device| -> Result<Built> {
        let net = student.init(1, &device.clone().autodiff());
        let mut tensors = prefixed("student.", &net);
        let teacher = teacher.map(|teacher| Frozen::of(&teacher.init_for_evaluation(2, device)));
        if let Some(teacher) = &teacher {
            tensors.extend(prefixed("teacher.", teacher.net()));
        }
        let images = uneven("images", [batch, 3, height, width]);
        tensors.insert("images".to_owned(), (vec![batch, 3, height, width], images.clone()));
        let shape = [batch, height, width];
        let target = labels("target", shape.iter().product(), CLASSES);
        let target_values = target.iter().map(|label| f32::from(*label)).collect();
        tensors.insert("target".to_owned(), (shape.to_vec(), target_values));
        let work = Step {
            model: Some(Student { net, adapters: vec![Vec::new()] }),
            optimizer: optimizer(),
            teacher,
            images: tensor(images, [batch, 3, height, width], device).cast(precision),
            target: upload::labels(target, shape, device),
            first_logits: None,
        };
        Ok(Built { tensors, work: Box::new(work) })
    };
    Case {
        name: format!("step/{}-pspnet-{}{taught}-{batch}x{height}x{width}", student.name(), student.width),
        spec: json!({
            "kind": "step",
            "student": student.spec(),
            "teacher": teacher.map(Net::spec),
            "steps": CHECKED,
            "lr": SGD.lr,
            "momentum": SGD.momentum,
            "weight_decay": SGD.weight_decay,
            "pixel_wise": PixelWise::default().weight,
            "pair_wise": PairWise::default().weight,
        }),
        tolerance: tolerance(sizes),
        images: Some(batch),
        fresh: true,
        build: Box::new(build),
    }
}

/// How far results may lie apart. The pyramid's norm over one value per image is ill-conditioned, and its gradients go
/// into the later losses: those of PyTorch in 32 and in 64 bits differ by 1e-3 to 4e-3, at two images by up to 2e-2.
fn tolerance(sizes: &Sizes) -> Tolerance {
    Tolerance::Steps { logits: 1e-3, losses: if sizes.quick { 5e-2 } else { 1e-2 } }
}

/// A training step on one fixed batch, as `SegMethod` and the loop do it.
struct Step {
    model: Option<Student<SegNet>>,
    optimizer: Optimizer,
    teacher: Option<Frozen<SegNet>>,
    images: Tensor<4>,
    target: Tensor<3, Int>,
    first_logits: Option<Tensor<4>>,
}

impl Step {
    fn step(&mut self) -> Tensor<1> {
        let model = self.model.take().expect("present between steps");
        let output = model.net.forward(self.images.clone(), None);
        self.first_logits.get_or_insert_with(|| output.logits.clone().inner());
        let mut terms = LossTerms::default();
        let context = Context::of(&output, Key::new(0)).with(|context| context.target_nhw = Some(&self.target));
        supervised(&SupervisedConfig::default(), &context, 0, &mut terms);
        if let Some(teacher) = &self.teacher {
            let taught = teacher.net().forward(self.images.clone(), None);
            self.distil(&output, &taught, &mut terms);
        }
        let total = terms.total().expect("there is a loss");
        let loss = total.clone().inner();
        let grads = GradientsParams::from_grads(total.backward(), &model);
        self.model = Some(self.optimizer.step(model, grads, 1.0, &Student::<SegNet>::group));
        loss
    }

    fn distil(&self, student: &SegOutput, teacher: &SegOutput, terms: &mut LossTerms) {
        let context = Context::of(student, Key::new(0)).with(|context| {
            context.teacher = Some(teacher);
            context.target_nhw = Some(&self.target);
        });
        let (pixel, pair) = (PixelWise::default(), PairWise::default());
        for (name, term) in [("pixel_wise", &pixel as &dyn Term<Seg>), ("pair_wise", &pair)] {
            for column in Column::of(name, &term.shared()) {
                terms.push(column.name.clone(), column.weight, term.value(&context, &column));
            }
        }
    }
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

/// The rows of prediction.
pub fn inference(sizes: &Sizes) -> Vec<Case> {
    let images: &[[usize; 2]] = if sizes.quick { &[[96, 128]] } else { &[[192, 256], [512, 1024]] };
    let net = Net { backbone: BackboneKind::Resnet18, width: if sizes.quick { 16 } else { 64 } };
    images.iter().map(|size| prediction(net, *size, sizes.precision)).collect()
}

fn prediction(net: Net, [height, width]: [usize; 2], precision: DType) -> Case {
    let build = move |device: &Device| -> Result<Built> {
        let net = Frozen::of(&net.init_for_evaluation(1, device));
        let mut tensors = prefixed("net.", net.net());
        let image = uneven("image", [1, 3, height, width]);
        tensors.insert("image".to_owned(), (vec![1, 3, height, width], image.clone()));
        let image = tensor(image, [1, 3, height, width], device).cast(precision);
        Ok(Built { tensors, work: Box::new(Prediction { net, image }) })
    };
    Case {
        name: format!("infer/{}-pspnet-{}-{height}x{width}", net.name(), net.width),
        spec: json!({ "kind": "infer", "net": net.spec() }),
        tolerance: Tolerance::Largest(1e-3),
        images: Some(1),
        fresh: false,
        build: Box::new(build),
    }
}

/// The most probable class of every pixel, on the host.
struct Prediction {
    net: Frozen<SegNet>,
    image: Tensor<4>,
}

impl Work for Prediction {
    fn check(&mut self) -> NamedTensors {
        let probabilities = predict(self.net.net(), self.image.clone(), &EvalConfig::default());
        [("probabilities".to_owned(), on_host(probabilities))].into()
    }

    fn run(&mut self) {
        let probabilities = predict(self.net.net(), self.image.clone(), &EvalConfig::default());
        drop(most_probable(probabilities).into_data());
    }
}
