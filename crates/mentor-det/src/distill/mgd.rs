//! `[distill.mgd]`: the teacher's features, made from a part of the student's.

use burn::tensor::activation::relu;
use burn::tensor::{Tensor, TensorData};
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term};
use mentor_ops::sum_all;
use mentor_types::{AdapterKind, AdapterSpec, Found, check_probability};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::context::Context;
use crate::task::Det;

/// Makes the teacher's features from the student's at a random part of the places, and pulls them towards the teacher's.
///
/// `sum (G(m A(s)) - t)^2 / N` over channels and places of `N` images, where `m` is 0 at a place with probability `masked` and
/// else 1, `G` is a 3x3 convolution, `ReLU`, and another one, and `A` an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 1x1 convolution without bias, brings it to the teacher's. The convolutions of `G` are two more adapters. A teacher's
/// map of another size is resized bilinearly.
///
/// # Units and ranges
/// Squares of activations; not negative, and not 0 where both sides agree. `masked` lies in [0, 1].
///
/// # Reduction
/// Sum over channels and places, mean over images. It needs no label. What is masked is a function of seed, step, image in the
/// batch and level.
///
/// # Gradient
/// Reaches the student's features and the adapters.
///
/// # Panics
/// If a tap or an adapter is missing.
///
/// # Source
/// Yang et al. 2022, arXiv 2205.01529 (MGD; `unchecked`); the official code, yzd-v/MGD. Official defaults for one-stage detectors
/// as here; with two stages weight 5e-7 and `masked` 0.45.
///
/// # Differs
/// The convolutions of `G` have no biases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mgd {
    /// Factor in the loss. Default 0.00002.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// How probable it is that a place is masked. Default 0.65.
    pub masked: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Mgd {
    fn default() -> Self {
        Self { weight: 2e-5, at: Vec::new(), masked: 0.65, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for Mgd {
    fn source(&self) -> &'static str {
        "Yang et al. 2022, arXiv 2205.01529"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { features: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn is_on_levels(&self) -> bool {
        true
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        let [_, width] = channels;
        let (kind, student_channels, teacher_channels) = (AdapterKind::Conv { kernel: 3 }, width, width);
        let generates = ["first", "last"].map(|layer| {
            let name = format!("{}.{layer}", column.name);
            AdapterSpec { name, kind, student_channels, teacher_channels }
        });
        conv_adapter(column, channels, 1).into_iter().chain(generates).collect()
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let (student_nchw, teacher_nchw) = context.features(column.place(), &column.name);
        let [n, _, height, width] = student_nchw.dims();
        let kept_n1hw = self.kept(context, &column.name, [n, height, width]);
        let layer = |name: &str, x: Tensor<4>| context.adapted(&format!("{}.{name}", column.name), x);
        let made_nchw = layer("last", relu(layer("first", student_nchw * kept_n1hw)));
        sum_all((made_nchw - teacher_nchw).powi_scalar(2)).div_scalar(n as f64)
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        check_probability("masked", self.masked, found);
    }
}

impl Mgd {
    /// 0 where a place is masked, 1 elsewhere, `[n, 1, h, w]`.
    fn kept(&self, context: &Context<'_>, column: &str, [n, height, width]: [usize; 3]) -> Tensor<4> {
        let of_image = |image: usize| {
            let mut rng = context.key.at(column, 0).at("image", image as u64).rng();
            (0..height * width).map(move |_| f32::from(u8::from(rng.random::<f64>() >= self.masked)))
        };
        let values: Vec<f32> = (0..n).flat_map(of_image).collect();
        Tensor::from_data(
            TensorData::new(values, [n, 1, height, width]),
            &context.taught().levels[0].class_logits.device(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Part, agrees};
    use crate::testing::{map, output, values};
    use burn::tensor::Device;
    use mentor_distill::columns;
    use mentor_nets::Adapter;
    use mentor_types::{DetOutput, Key, Tap};
    use mentor_weights::{NamedTensors, load_named};

    fn column(term: &Mgd) -> Column {
        columns("mgd", term, &[Tap::P3]).swap_remove(0)
    }

    /// Layers that double, of one channel.
    fn doubling(term: &Mgd) -> Vec<Adapter> {
        let middle: Vec<f32> = (0..9).map(|i| if i == 4 { 2.0 } else { 0.0 }).collect();
        let weights = NamedTensors::from([("conv.weight".to_owned(), (vec![1, 1, 3, 3], middle))]);
        let fresh = |spec: &AdapterSpec| Adapter::fresh(spec, 0, &Device::flex().autodiff());
        let specs = term.adapters(&column(term), [1, 1]);
        specs.iter().map(|spec| load_named(fresh(spec), weights.clone()).unwrap()).collect()
    }

    fn side(features: Tensor<4>) -> DetOutput {
        let [n, _, height, width] = features.dims();
        let mut output = output(&[(8, [height, width])], n, 1, |_| 0.0);
        output.taps.insert(Tap::P3, features);
        output
    }

    /// The value of features and a teacher of zeros, with the key of a step.
    fn value(term: &Mgd, student: &Tensor<4>, adapters: &[Adapter], step: u64) -> Tensor<1> {
        let (student, teacher) = (side(student.clone()), side(map(student.dims(), |_| 0.0)));
        let context = Context { teacher: Some(&teacher), adapters, key: Key::new(step), ..Context::of(&student, None) };
        term.value(&context, &column(term))
    }

    #[test]
    fn it_agrees_with_pytorch_where_nothing_is_masked() {
        agrees("mgd", Part::Features, &Mgd { masked: 0.0, ..Mgd::default() });
    }

    #[test]
    fn nothing_and_everything_masked_by_hand() {
        // Squares of 4, of -4 through the ReLU, of 8; of two images.
        let student = map([2, 1, 1, 2], |i| [1.0, -1.0, 2.0, 0.0][i]);
        for (masked, expected) in [(0.0, (16.0 + 64.0) / 2.0), (1.0, 0.0)] {
            let term = Mgd { masked, ..Mgd::default() };
            assert_eq!(values(value(&term, &student, &doubling(&term), 0)), [expected]);
        }
    }

    #[test]
    fn about_as_much_is_masked_as_is_asked_for_and_a_step_decides_what() {
        let student = map([4, 1, 16, 16], |_| 0.25);
        let term = Mgd::default();
        let of_step = |step| values(value(&term, &student, &doubling(&term), step))[0] / 256.0;
        let kept = of_step(0);
        assert!((kept - 0.35).abs() < 0.03, "{kept}");
        assert!(of_step(0) == kept && of_step(1) != kept);
    }

    #[test]
    fn only_the_student_and_the_layers_get_gradients_and_masked_places_none() {
        let term = Mgd { masked: 0.5, ..Mgd::default() };
        let adapters = doubling(&term);
        let student = Tensor::from_inner(map([1, 1, 4, 4], |i| i as f32 + 1.0)).require_grad();
        let gradients = value(&term, &student, &adapters, 3).backward();
        let slopes = values(student.grad(&gradients).unwrap());
        let zeros = slopes.iter().filter(|slope| **slope == 0.0).count();
        assert!((1..16).contains(&zeros), "{slopes:?}");
        assert_eq!(burn::optim::GradientsParams::from_grads(gradients, &adapters).len(), 2);
        let columns = term.adapters(&column(&term), [16, 64]);
        let names: Vec<_> = columns.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["mgd@p3", "mgd@p3.first", "mgd@p3.last"]);
    }

    #[test]
    fn it_halves_on_a_fixed_batch_with_its_layers_as_they_are() {
        let term = Mgd { masked: 0.25, ..Mgd::default() };
        let adapters = doubling(&term);
        let mut student = map([1, 1, 4, 4], |i| i as f32 / 4.0);
        let mut course = Vec::new();
        for _ in 0..50 {
            let leaf = Tensor::from_inner(student.clone()).require_grad();
            let loss = value(&term, &leaf, &adapters, 0);
            student = student - leaf.grad(&loss.backward()).unwrap().mul_scalar(0.01);
            course.push(values(loss)[0]);
        }
        assert!(course[49] < 0.5 * course[0], "{course:?}");
    }
}
