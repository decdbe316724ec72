//! Values and gradients against `tests/golden/distill.py`.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use mentor_ops::mean_all;
use mentor_weights::{NamedTensors, from_safetensors};

use crate::affinity::pool_by_fraction;
use crate::{affinity_distance, kl_divergence, soft_cross_entropy};

fn golden() -> NamedTensors {
    from_safetensors(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/distill.safetensors")))
        .unwrap()
}

fn map(golden: &NamedTensors, name: &str) -> Tensor<4> {
    let (shape, values) = golden[name].clone();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Compares `loss` and its gradient with `<name>.value` and `<gradient>`, 1e-5 of the largest.
fn agrees(golden: &NamedTensors, name: &str, gradient: &str, student: &Tensor<4>, loss: Tensor<1>) {
    let found = student.grad(&loss.backward()).unwrap().into_data().try_into_vec_as::<f32>().unwrap();
    let pairs = [
        (vec![loss.into_scalar::<f32>()], &golden[&format!("{name}.value")].1),
        (found, &golden[&format!("{name}.{gradient}")].1),
    ];
    for (found, expected) in pairs {
        let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let off = found.iter().zip(expected).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(found.len() == expected.len() && largest > 0.0 && off <= 1e-5 * largest, "{name}: {off} of {largest}");
    }
}

#[test]
fn soft_labels_agree_with_pytorch() {
    let golden = golden();
    let teacher = map(&golden, "pixel.teacher");
    for temperature in [1.0, 2.0, 4.0] {
        for (form, formula) in [("kl", kl_divergence::<4> as fn(_, _, _, _) -> _), ("ce", soft_cross_entropy::<4>)] {
            let student = Tensor::from_inner(map(&golden, "pixel.student")).require_grad();
            let each: Tensor<4> = formula(student.clone(), teacher.clone(), 1, temperature);
            let loss = mean_all(each).mul_scalar(temperature * temperature);
            agrees(&golden, &format!("pixel.{form}.t{temperature}"), "grad", &student, loss);
        }
    }
}

#[test]
fn affinities_agree_with_pytorch() {
    let golden = golden();
    for (size, nodes) in [("even", [2, 2]), ("odd", [3, 3])] {
        let teacher = map(&golden, &format!("pair.{size}.teacher"));
        assert_eq!(pool_by_fraction(teacher.clone(), 0.5).dims()[2..], nodes);
        for percent in [50, 25] {
            for (detach_norm, gradient) in [(false, "grad"), (true, "grad_detached")] {
                let student = Tensor::from_inner(map(&golden, &format!("pair.{size}.student"))).require_grad();
                let fraction = f64::from(percent) / 100.0;
                let loss = affinity_distance(student.clone(), teacher.clone(), None, fraction, detach_norm);
                agrees(&golden, &format!("pair.{size}.p{percent}"), gradient, &student, loss);
            }
        }
    }
}
