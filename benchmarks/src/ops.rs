//! Single operations, forward alone and with their gradients, and the updates of weights.
//!
//! Forward alone runs off the graph, where batch norms take their running statistics; with gradients it is the
//! training mode.

use std::rc::Rc;

use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, MaxPoolOptions};
use burn::tensor::{Device, Int, Tensor};
use mentor_distill::{Column, Term};
use mentor_ops::{
    adaptive_avg_pool2d, batch_norm, batch_norm_relu, conv_transpose2d, conv2d, max_pool2d, resize_bilinear,
};
use mentor_seg::distill::{PairWise, PixelWise};
use mentor_seg::supervised::{SupervisedConfig, supervised};
use mentor_seg::upload;
use mentor_seg::{Context, Seg};
use mentor_types::{Key, LossTerms, SegOutput, Tap, Taps};
use mentor_weights::NamedTensors;
use serde_json::{Value, json};

use crate::work::{Built, Case, Sizes, Tolerance, Work, labels, noise, on_host, tensor, uneven};

/// What an operation works on.
struct Operands {
    maps: Vec<Tensor<4>>,
    norm: Option<BatchNorm>,
    target: Option<Tensor<3, Int>>,
}

type Formula = Rc<dyn Fn(&Operands) -> Tensor<4>>;

/// An operation and what it needs; the peer knows it by `function`.
#[derive(Clone)]
struct Operation {
    name: String,
    function: &'static str,
    options: Value,
    /// Name, shape, and whether a gradient is asked for.
    maps: Vec<(&'static str, [usize; 4], bool)>,
    /// Channels of a batch norm.
    norm: Option<usize>,
    /// Classes and shape of labels.
    target: Option<(usize, [usize; 3])>,
    formula: Formula,
}

/// All rows of this group but the updates of weights.
pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let mut operations = convolutions(sizes);
    operations.extend(norms(sizes));
    operations.extend(resamplings(sizes));
    operations.extend(losses(sizes));
    operations.into_iter().flat_map(|operation| [false, true].map(|backward| case(&operation, backward))).collect()
}

fn case(operation: &Operation, backward: bool) -> Case {
    let grads: Vec<&str> = operation.maps.iter().filter(|(_, _, grad)| *grad).map(|(name, ..)| *name).collect();
    let spec = json!({
        "kind": "operation",
        "function": operation.function,
        "options": operation.options,
        "grads": grads,
        "norm": operation.norm.is_some(),
        "backward": backward,
    });
    let name = format!("op/{}/{}", operation.name, if backward { "forward+backward" } else { "forward" });
    let operation = operation.clone();
    let build = move |device: &Device| Ok(build(&operation, backward, device));
    Case { name, spec, tolerance: Tolerance::Largest(1e-4), images: None, fresh: false, build: Box::new(build) }
}

fn build(operation: &Operation, backward: bool, device: &Device) -> Built {
    let on = if backward { device.clone().autodiff() } else { device.clone() };
    let mut tensors = NamedTensors::new();
    let mut operands = Operands { maps: Vec::new(), norm: None, target: None };
    for (name, shape, grad) in &operation.maps {
        let values = uneven(name, *shape);
        tensors.insert((*name).to_owned(), (shape.to_vec(), values.clone()));
        let map = tensor(values, *shape, &on);
        operands.maps.push(if *grad && backward { map.require_grad() } else { map });
    }
    if let Some(channels) = operation.norm {
        let mut layer = BatchNormConfig::new(channels).init(&on);
        for (name, parameter) in [("gamma", &mut layer.gamma), ("beta", &mut layer.beta)] {
            let values = noise(name, channels);
            tensors.insert(name.to_owned(), (vec![channels], values.clone()));
            *parameter = burn::module::Param::from_tensor(tensor(values, [channels], &on));
        }
        operands.norm = Some(layer);
    }
    if let Some((classes, shape)) = operation.target {
        let values = labels("target", shape.iter().product(), classes);
        tensors.insert("target".to_owned(), (shape.to_vec(), values.iter().map(|label| f32::from(*label)).collect()));
        operands.target = Some(upload::labels(values, shape, device));
    }
    let dims = (operation.formula)(&operands).dims();
    let weights = noise("weights of the outputs", dims.iter().product());
    tensors.insert("output_weights".to_owned(), (dims.to_vec(), weights.clone()));
    let weights = tensor(weights, dims, &on);
    Built { tensors, work: Box::new(Running { operation: operation.clone(), operands, weights, backward }) }
}

struct Running {
    operation: Operation,
    operands: Operands,
    weights: Tensor<4>,
    backward: bool,
}

impl Work for Running {
    fn check(&mut self) -> NamedTensors {
        let y = (self.operation.formula)(&self.operands);
        let mut results: NamedTensors = [("y".to_owned(), on_host(y.clone()))].into();
        if !self.backward {
            return results;
        }
        // Were all outputs weighted alike, many a wrong gradient would look right.
        let grads = (y * self.weights.clone()).sum().backward();
        for ((name, _, grad), map) in self.operation.maps.iter().zip(&self.operands.maps) {
            if *grad {
                results.insert(format!("{name}.grad"), on_host(map.grad(&grads).expect("it was asked for")));
            }
        }
        if let Some(layer) = &self.operands.norm {
            for (name, parameter) in [("gamma", &layer.gamma), ("beta", &layer.beta)] {
                let grad = parameter.val().grad(&grads).expect("a norm in training");
                results.insert(format!("{name}.grad"), on_host(grad));
            }
        }
        results
    }

    fn run(&mut self) {
        let y = (self.operation.formula)(&self.operands);
        if self.backward {
            drop(y.backward());
        }
    }
}

fn operation(name: String, function: &'static str, formula: impl Fn(&Operands) -> Tensor<4> + 'static) -> Operation {
    Operation {
        name,
        function,
        options: json!({}),
        maps: Vec::new(),
        norm: None,
        target: None,
        formula: Rc::new(formula),
    }
}

/// A square convolution without bias, at a map some times smaller than the image.
struct Conv {
    kernel: usize,
    input: usize,
    output: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
    reduction: usize,
}

impl Conv {
    fn new(kernel: usize, input: usize, output: usize, reduction: usize) -> Self {
        Self { kernel, input, output, stride: 1, dilation: 1, groups: 1, reduction }
    }

    fn operation(self, sizes: &Sizes) -> Operation {
        let Self { kernel, input, output, stride, dilation, groups, reduction } = self;
        let [height, width] = sizes.map(reduction);
        let mut name = format!("conv{kernel}x{kernel}");
        for (what, value) in [("stride", stride), ("dilation", dilation), ("groups", groups)] {
            if value != 1 {
                name.push_str(&format!("-{what}{value}"));
            }
        }
        let padding = dilation * (kernel - 1) / 2;
        let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], groups);
        let formula = move |operands: &Operands| {
            conv2d(operands.maps[0].clone(), operands.maps[1].clone(), None, options.clone())
        };
        Operation {
            options: json!({ "stride": stride, "padding": padding, "dilation": dilation, "groups": groups }),
            maps: vec![
                // Nobody asks for the gradient of an image.
                ("x", [sizes.batch, input, height, width], input != 3),
                ("weight", [output, input / groups, kernel, kernel], true),
            ],
            ..operation(format!("{name}-{input}-{output}-{height}x{width}"), "conv2d", formula)
        }
    }
}

fn convolutions(sizes: &Sizes) -> Vec<Operation> {
    let all = [
        Conv::new(3, 64, 64, 2),
        Conv::new(1, 256, 64, 4),
        Conv::new(1, 64, 256, 4),
        Conv::new(3, 3, 64, 2),
        Conv { stride: 2, ..Conv::new(7, 3, 64, 1) },
        Conv { stride: 2, ..Conv::new(3, 64, 128, 2) },
        Conv { dilation: 2, ..Conv::new(3, 256, 256, 8) },
        Conv { dilation: 4, ..Conv::new(3, 512, 512, 8) },
        Conv::new(3, 256, 256, 8),
        Conv::new(3, 512, 512, 16),
        Conv::new(3, 16, 16, 2),
        Conv { groups: 64, ..Conv::new(3, 64, 64, 2) },
        Conv { groups: 64, stride: 2, ..Conv::new(3, 64, 64, 2) },
        Conv { groups: 4, ..Conv::new(3, 64, 64, 4) },
    ];
    let transposed = [transposed(sizes, [2, 0], [256, 256], 8), transposed(sizes, [4, 1], [256, 256], 16)];
    all.into_iter().map(|conv| conv.operation(sizes)).chain(transposed).collect()
}

/// A transposed convolution of stride two that doubles a map, as in the mask head of Mask R-CNN (kernel of two) and in
/// heads that predict heatmaps (of four).
fn transposed(
    sizes: &Sizes,
    [kernel, padding]: [usize; 2],
    [input, output]: [usize; 2],
    reduction: usize,
) -> Operation {
    let [height, width] = sizes.map(reduction);
    let name = format!("conv_transpose{kernel}x{kernel}-stride2-{input}-{output}-{height}x{width}");
    let options = ConvTransposeOptions::new([2; 2], [padding; 2], [0; 2], [1; 2], 1);
    let formula = move |operands: &Operands| {
        conv_transpose2d(operands.maps[0].clone(), operands.maps[1].clone(), None, options.clone())
    };
    Operation {
        options: json!({ "stride": 2, "padding": padding }),
        maps: vec![("x", [sizes.batch, input, height, width], true), ("weight", [input, output, kernel, kernel], true)],
        ..operation(name, "conv_transpose2d", formula)
    }
}

fn norms(sizes: &Sizes) -> Vec<Operation> {
    let [height, width] = sizes.map(2);
    let shape = [sizes.batch, 64, height, width];
    fn layer(operands: &Operands) -> &BatchNorm {
        operands.norm.as_ref().expect("a norm has a layer")
    }
    let plain = operation(format!("batch_norm-64-{height}x{width}"), "batch_norm", |operands| {
        batch_norm(layer(operands), operands.maps[0].clone())
    });
    let relu = operation(format!("batch_norm_relu-64-{height}x{width}"), "batch_norm_relu", |operands| {
        batch_norm_relu(layer(operands), operands.maps[0].clone(), None)
    });
    let name = format!("batch_norm_relu_residual-64-{height}x{width}");
    let residual = operation(name, "batch_norm_relu_residual", |operands| {
        batch_norm_relu(layer(operands), operands.maps[0].clone(), Some(operands.maps[1].clone()))
    });
    let x = ("x", shape, true);
    vec![
        Operation { maps: vec![x], norm: Some(64), ..plain },
        Operation { maps: vec![x], norm: Some(64), ..relu },
        Operation { maps: vec![x, ("residual", shape, true)], norm: Some(64), ..residual },
    ]
}

fn resamplings(sizes: &Sizes) -> Vec<Operation> {
    let ([height, width], [eighth_height, eighth_width], image) = (sizes.map(2), sizes.map(8), sizes.image);
    let max = operation(format!("max_pool3x3-stride2-64-{height}x{width}"), "max_pool2d", |operands| {
        let options = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
        max_pool2d(operands.maps[0].clone(), options)
    });
    let name = format!("adaptive_avg_pool1236-512-{eighth_height}x{eighth_width}");
    let average = operation(name, "adaptive_avg_pool2d", |operands| {
        let pooled = [1, 2, 3, 6].map(|bins| {
            let y = adaptive_avg_pool2d(operands.maps[0].clone(), [bins; 2]);
            let [n, channels, ..] = y.dims();
            y.reshape([n, channels, bins * bins, 1])
        });
        Tensor::cat(pooled.to_vec(), 2)
    });
    let name = format!("bilinear_x8-21-{eighth_height}x{eighth_width}");
    let bilinear = operation(name, "bilinear", move |operands| resize_bilinear(operands.maps[0].clone(), image, false));
    vec![
        Operation { maps: vec![("x", [sizes.batch, 64, height, width], true)], ..max },
        Operation { maps: vec![("x", [sizes.batch, 512, eighth_height, eighth_width], true)], ..average },
        Operation {
            maps: vec![("x", [sizes.batch, 21, eighth_height, eighth_width], true)],
            options: json!({ "size": image }),
            ..bilinear
        },
    ]
}

fn losses(sizes: &Sizes) -> Vec<Operation> {
    let ([height, width], [eighth_height, eighth_width]) = (sizes.image, sizes.map(8));
    let target = Some((21, [sizes.batch, height, width]));
    let cross_entropy = operation(format!("cross_entropy-21-{height}x{width}"), "cross_entropy", |operands| {
        let (mut terms, target) = (LossTerms::default(), operands.target.as_ref().expect("a loss has labels"));
        let output = output(operands.maps[0].clone(), None);
        let context = Context::of(&output, Key::new(0)).with(|context| context.target_nhw = Some(target));
        supervised(&SupervisedConfig::default(), &context, 0, &mut terms);
        terms.total().expect("one term").reshape([1, 1, 1, 1])
    });
    let pixel_wise = operation(format!("pixel_wise-21-{eighth_height}x{eighth_width}"), "pixel_wise", |operands| {
        let student = output(operands.maps[0].clone(), None);
        let teacher = output(operands.maps[1].clone(), None);
        term(&PixelWise::default(), &student, &teacher, operands)
    });
    let pair_wise = operation(format!("pair_wise-512-{eighth_height}x{eighth_width}"), "pair_wise", |operands| {
        let logits = operands.maps[0].clone();
        let student = output(logits.clone(), Some(operands.maps[0].clone()));
        let teacher = output(logits, Some(operands.maps[1].clone()));
        term(&PairWise::default(), &student, &teacher, operands)
    });
    let pair = |student: usize, teacher: usize| {
        let shape = |channels| [sizes.batch, channels, eighth_height, eighth_width];
        vec![("student", shape(student), true), ("teacher", shape(teacher), false)]
    };
    let logits = vec![("logits", [sizes.batch, 21, height, width], true)];
    vec![
        Operation { maps: logits, target, ..cross_entropy },
        Operation { maps: pair(21, 21), target, ..pixel_wise },
        Operation { maps: pair(512, 2048), target, ..pair_wise },
    ]
}

/// What a net would have returned: `logits`, and `features` at `c5`.
fn output(logits: Tensor<4>, features: Option<Tensor<4>>) -> SegOutput {
    let [.., height, width] = logits.dims();
    let mut taps = Taps::default();
    if let Some(features) = features {
        taps.insert(Tap::C5, features);
    }
    SegOutput { logits, auxiliary: None, taps, image_size: [height, width] }
}

fn term(term: &dyn Term<Seg>, student: &SegOutput, teacher: &SegOutput, operands: &Operands) -> Tensor<4> {
    let context = Context::of(student, Key::new(0)).with(|context| {
        context.teacher = Some(teacher);
        context.target_nhw = operands.target.as_ref();
    });
    let column = Column::of("term", &term.shared()).swap_remove(0);
    term.value(&context, &column).reshape([1, 1, 1, 1])
}
