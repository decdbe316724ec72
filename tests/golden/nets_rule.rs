//! The rule of `nets.py` on this side: weights, statistics and inputs computed from a name and an
//! index by integer arithmetic, so that no file has to hold them; and comparison with its outputs.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use mentor_nets::fill_weights;

/// Values in row order for the tensor of this name and shape: `(slope * u + offset) * scale` with `u`
/// in [0, 1).
pub fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let fan_in: usize = shape.iter().skip(1).product();
    let (slope, offset, scale) = if name.ends_with("running_var") {
        (1.0, 0.5, 1.0)
    } else if name.ends_with("weight") && shape.len() == 1 {
        (0.5, 0.25, 1.0)
    } else if name.ends_with("weight") {
        (2.0, -1.0, (6.0 / fan_in as f64).sqrt())
    } else if name.ends_with("input") {
        (2.0, -1.0, 2.0)
    } else if name.starts_with("gradient") {
        (2.0, -1.0, 1.0)
    } else {
        (2.0, -1.0, 0.2)
    };
    let seed = name.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let mut values = vec![0.0; shape.iter().product()];
    // Plain operators on u64 and no iterators: this runs unoptimised over tens of millions of weights.
    let (slice, low_bits) = (values.as_mut_slice(), 0xFFFF_FFFFu64);
    let (mut index, mut counter) = (0, u64::from(seed));
    while index < slice.len() {
        let mut x = counter ^ (counter >> 16);
        x = (x * 0x85EB_CA6B) & low_bits;
        x ^= x >> 13;
        x = (x * 0xC2B2_AE35) & low_bits;
        x ^= x >> 16;
        slice[index] = ((slope * (x as f64 / 4_294_967_296.0) + offset) * scale) as f32;
        counter = (counter + 0x9E37_79B9) & low_bits;
        index += 1;
    }
    values
}

/// A net with every weight and statistic by the rule.
pub fn filled<M: Module>(net: M) -> M {
    fill_weights(net, |name, shape| Some(values(name, shape)))
}

/// A tensor by the rule.
pub fn tensor(name: &str, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values(name, &shape), shape), device)
}

/// A golden file: tensors by name as (shape, values).
pub type Golden = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads `tests/golden/{file}`.
pub fn golden(file: &str) -> Golden {
    let path = format!("{}/../../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    mentor_weights::from_safetensors(&std::fs::read(path).unwrap()).unwrap()
}

/// Asserts that `found` is the golden tensor `name` to `tolerance` relative to its largest value.
pub fn assert_close(golden: &Golden, name: &str, found: Tensor<4>, tolerance: f32) {
    let (shape, expected) = &golden[name];
    let [n, channels, height, width] = found.dims();
    assert_eq!([n, height, width], [shape[0], shape[2], shape[3]], "shape of {name}");
    // The file holds every so-many-th channel, starting with the first.
    let step = if channels == shape[1] { 1 } else { (channels / 8).max(1) };
    let found = found.into_data().try_into_vec_as::<f32>().unwrap();
    let plane = height * width;
    let scale = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    assert!(scale > 1e-3 && scale.is_finite(), "{name} has scale {scale}");
    let mut worst = 0.0f32;
    for image in 0..n {
        for channel in 0..shape[1] {
            let at = (image * channels + channel * step) * plane;
            let expected = &expected[(image * shape[1] + channel) * plane..][..plane];
            for (found, expected) in found[at..at + plane].iter().zip(expected) {
                worst = worst.max((found - expected).abs());
                assert!(found.is_finite(), "{name} holds {found}");
            }
        }
    }
    assert!(worst <= tolerance * scale, "{name}: differs by {worst} at scale {scale}, allowed {tolerance} of it");
}

/// Compares a forward pass `{name: output}` and the gradient of its weighted sum to the images with
/// the golden case of that name.
pub fn assert_case(
    golden: &Golden,
    case: &str,
    shape: [usize; 4],
    forward: impl Fn(Tensor<4>) -> Vec<(String, Tensor<4>)>,
) {
    let device = Device::flex().autodiff();
    let images = tensor("input", shape, &device).require_grad();
    let outputs = forward(images.clone());
    let mut total: Option<Tensor<1>> = None;
    for (name, output) in &outputs {
        let weights = tensor(&format!("gradient.{name}"), output.dims(), &device);
        let term = mentor_ops::sum_all(output.clone() * weights);
        total = Some(match total {
            None => term,
            Some(sum) => sum + term,
        });
    }
    let gradients = total.unwrap().backward();
    for (name, output) in outputs {
        assert_close(golden, &format!("{case}/{name}"), output, 1e-4);
    }
    assert_close(golden, &format!("{case}/input_gradient"), images.grad(&gradients).unwrap(), 1e-4);
}
