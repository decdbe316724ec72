//! Forward and backward times of this crate's operations against burn's own on the CPU.
//!
//! `cargo run --release -p mentor-ops --example ops_bench [filter]`

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, activation, module};
use mentor_types::Key;
use rand::RngExt;

const ROUNDS: usize = 9;

fn map<const D: usize>(shape: [usize; D], name: &str) -> Tensor<D> {
    let mut rng = Key::new(0).at(name, 0).rng();
    let values = (0..shape.iter().product()).map(|_| rng.random::<f32>() - 0.5).collect();
    Tensor::from_data(TensorData::new::<f32, _>(values, shape), &Device::flex().autodiff()).require_grad()
}

/// The median time of forward and backward by both ways, taken in turns.
fn compare(name: &str, inputs: &[Tensor<4>], ours: impl Fn() -> Tensor<4>, burns: impl Fn() -> Tensor<4>) {
    if std::env::args().nth(1).is_some_and(|filter| !name.contains(&filter)) {
        return;
    }
    let time = |forward: &dyn Fn() -> Tensor<4>| {
        let start = Instant::now();
        let y = forward();
        let forward_time = start.elapsed();
        let start = Instant::now();
        let grads = y.sum().backward();
        for input in inputs {
            black_box(input.grad(&grads));
        }
        [forward_time, start.elapsed()]
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (way, forward) in [&ours as &dyn Fn() -> Tensor<4>, &burns].into_iter().enumerate() {
            for (part, time) in time(forward).into_iter().enumerate() {
                if round > 0 {
                    times[2 * way + part].push(time.as_secs_f64() * 1e3);
                }
            }
        }
    }
    let [ours_forward, ours_backward, burn_forward, burn_backward] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!(
        "{name:32} ours {ours_forward:7.1} + {ours_backward:7.1} ms   burn {burn_forward:7.1} + {burn_backward:7.1} ms   ratio {:.2}",
        (burn_forward + burn_backward) / (ours_forward + ours_backward)
    );
}

fn convolution(name: &str, x: [usize; 4], weight: [usize; 4], options: ConvOptions<2>) {
    let (x, weight) = (map(x, "x"), map(weight, "weight"));
    compare(
        name,
        &[x.clone(), weight.clone()],
        || mentor_ops::conv2d(x.clone(), weight.clone(), None, options.clone()),
        || module::conv2d(x.clone(), weight.clone(), None, options.clone()),
    );
}

fn norm(name: &str, x: [usize; 4], with_residual: bool) {
    let layer: BatchNorm = BatchNormConfig::new(x[1]).init(&Device::flex().autodiff());
    let (x, residual) = (map(x, "x"), with_residual.then(|| map(x, "residual")));
    compare(
        name,
        std::slice::from_ref(&x),
        || mentor_ops::batch_norm_relu(&layer, x.clone(), residual.clone()),
        || {
            let y = layer.forward(x.clone());
            activation::relu(match &residual {
                Some(residual) => y + residual.clone(),
                None => y,
            })
        },
    );
}

fn max_pool(name: &str, x: [usize; 4]) {
    let x = map(x, "x");
    let options = || MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
    compare(
        name,
        std::slice::from_ref(&x),
        || mentor_ops::max_pool2d(x.clone(), options()),
        || module::max_pool2d(x.clone(), options()),
    );
}

fn resize(name: &str, x: [usize; 4]) {
    let (size, x) = ([8 * x[2], 8 * x[3]], map(x, "x"));
    compare(
        name,
        std::slice::from_ref(&x),
        || mentor_ops::resize_bilinear(x.clone(), size, false),
        || module::interpolate(x.clone(), InterpolateOptions::new(InterpolateMode::Bilinear).with_output_size(size)),
    );
}

fn main() {
    mentor_ops::tune_allocator();
    mentor_ops::start_threads(None).expect("the first call");
    let square =
        |stride: usize, padding: usize, groups: usize| ConvOptions::new([stride; 2], [padding; 2], [1, 1], groups);
    convolution("conv 64->64 3x3 96x128", [4, 64, 96, 128], [64, 64, 3, 3], square(1, 1, 1));
    convolution("conv 256->64 1x1 96x128", [4, 256, 96, 128], [64, 256, 1, 1], square(1, 0, 1));
    convolution("conv 64->256 1x1 96x128", [4, 64, 96, 128], [256, 64, 1, 1], square(1, 0, 1));
    convolution("conv 64->128 3x3 stride 2 96x128", [4, 64, 96, 128], [128, 64, 3, 3], square(2, 1, 1));
    convolution("conv 3->64 3x3 96x128", [4, 3, 96, 128], [64, 3, 3, 3], square(1, 1, 1));
    convolution("conv 3->64 7x7 stride 2 192x256", [4, 3, 192, 256], [64, 3, 7, 7], square(2, 3, 1));
    convolution("conv 16->16 3x3 96x128", [4, 16, 96, 128], [16, 16, 3, 3], square(1, 1, 1));
    convolution("conv 256->256 3x3 24x32", [4, 256, 24, 32], [256, 256, 3, 3], square(1, 1, 1));
    convolution("conv 512->512 3x3 12x16", [4, 512, 12, 16], [512, 512, 3, 3], square(1, 1, 1));
    convolution("depthwise 64 3x3 96x128", [4, 64, 96, 128], [64, 1, 3, 3], square(1, 1, 64));
    convolution("depthwise 64 3x3 stride 2 96x128", [4, 64, 96, 128], [64, 1, 3, 3], square(2, 1, 64));
    norm("norm, relu 64 96x128", [4, 64, 96, 128], false);
    norm("norm, residual, relu 64 96x128", [4, 64, 96, 128], true);
    max_pool("max pool 3x3 stride 2 64 96x128", [4, 64, 96, 128]);
    resize("resize x8 [4, 5, 24, 32]", [4, 5, 24, 32]);
    resize("resize x8 [4, 21, 48, 64]", [4, 21, 48, 64]);
}
