//! `[distill.cwd]`: where in the map each channel is active.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Shared, Stream, Term, channel_divergence};
use mentor_types::{AdapterKind, AdapterSpec, Found, Tap};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::task::Seg;

/// Pulls each channel of the student's map, as a distribution over the positions, towards the teacher's.
///
/// `T^2 / C * sum_c sum_i phi(t_c)_i log(phi(t_c)_i / phi(s_c)_i)`, averaged over images, where `phi` is the
/// softmax of `x / T` over the positions `i` that count.
///
/// # Shapes
/// Class scores or features `[n, c, h, w]` of both at a place. Where the student has another number of
/// channels, an adapter, a learnable 1x1 convolution without bias, brings it to the teacher's. A teacher's
/// map of another size is resized bilinearly to the student's.
///
/// # Units and ranges
/// Activations in, nats times `T^2` out; not negative.
///
/// # Reduction
/// Mean over the channels of the images in which any pixel counts. An ignored pixel (labels resized to the
/// map by nearest neighbour) is left out of both distributions; an unknown one counts. With no pixel that
/// counts the value is a finite zero with a zero gradient.
///
/// # Gradient
/// Reaches the student's map (and its adapter) only.
///
/// # Panics
/// If a tap or an adapter is missing.
///
/// # Source
/// Shu et al. 2021, arXiv 2011.13256 (`unchecked`); the official code, irfanICMLL/TorchDistiller. Official
/// defaults: weight 3 and temperature 4 on the class scores. Weight 50 on the features beside them is that of
/// CIRKD's training script (winycg/CIRKD, at the same temperature); the official runs on features have 35 or 40.
///
/// # Differs
/// The official code compares class scores or features, not both; its features are those that go into the
/// last convolution, after dropout, where ours are taken before. Its adapter has a batch norm and an
/// activation behind the convolution and is there in any case; ours is CIRKD's, but CIRKD divides by the
/// channels before it, not by those compared. Neither knows an ignored pixel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cwd {
    /// Factor in the loss, on top of those of the places. Default 1.
    pub weight: f64,
    /// Where maps are compared, one log column each. Default `logits` of both with weight 3, and `head` of both
    /// with weight 50.
    pub at: Vec<Place>,
    /// Softens the distributions of both sides; above 0. Default 4.
    pub temperature: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Cwd {
    fn default() -> Self {
        let at = |tap, weight| Place { weight, ..Place::at(tap) };
        Self {
            weight: 1.0,
            at: vec![at(Tap::Logits, 3.0), at(Tap::Head, 50.0)],
            temperature: 4.0,
            on: vec![Stream::Labelled],
            ramp_steps: 0,
        }
    }
}

impl Term<Seg> for Cwd {
    fn source(&self) -> &'static str {
        "Shu et al. 2021, arXiv 2011.13256"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn adapters(&self, column: &Column, [student_channels, teacher_channels]: [usize; 2]) -> Vec<AdapterSpec> {
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = || AdapterSpec { name: column.name.clone(), kind, student_channels, teacher_channels };
        (student_channels != teacher_channels).then(spec).into_iter().collect()
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let (student_nchw, teacher_nchw) = context.features(column.place());
        let [_, channels, height, width] = student_nchw.dims();
        let same_width = channels == teacher_nchw.dims()[1];
        let student_nchw = if same_width { student_nchw } else { context.adapted(&column.name, student_nchw) };
        channel_divergence(student_nchw, teacher_nchw, context.counted([height, width]), self.temperature)
    }

    fn check(&self, found: &mut Found) {
        if self.at.is_empty() {
            found.push(("at".to_owned(), "must name at least one place".to_owned()));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            found.push(("temperature".to_owned(), format!("must be above 0, found {}", self.temperature)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, agrees, check_term, column, golden, map, output, target, values, with_context};
    use burn::tensor::Device;
    use mentor_nets::Adapter;
    use mentor_weights::{NamedTensors, load_named};

    fn at(tap: Tap) -> Cwd {
        Cwd { at: vec![Place::at(tap)], ..Cwd::default() }
    }

    /// The value of the first column, whose maps are `student` and `teacher`.
    fn adapted_value(
        term: &Cwd,
        adapters: &[Adapter],
        [student, teacher]: [&Tensor<4>; 2],
        labels: Option<&[i64]>,
    ) -> Tensor<1> {
        let [n, _, height, width] = student.dims();
        let target = labels.map(|labels| target([n, 2 * height, 2 * width], labels));
        let side = |map_nchw: &Tensor<4>| match term.at[0].student {
            Tap::Logits => output(map_nchw.clone(), None),
            _ => output(map([n, 2, 1, 1], |_| 0.0), Some(map_nchw.clone())),
        };
        with_context(&side(student), &side(teacher), target.as_ref(), |context| {
            term.value(&context.with(|context| context.adapters = adapters), &column("cwd", term))
        })
    }

    fn value(term: &Cwd, student: &Tensor<4>, teacher: &Tensor<4>, labels: Option<&[i64]>) -> Tensor<1> {
        adapted_value(term, &[], [student, teacher], labels)
    }

    fn read(golden: &NamedTensors, name: &str) -> Tensor<4> {
        let (shape, values) = golden[name].clone();
        map(shape.try_into().unwrap(), |i| values[i])
    }

    #[test]
    fn two_channels_by_hand() {
        // At temperature 4 one channel agrees, the other has the teacher at (3/4, 1/4), the student at (1/2, 1/2).
        let student = map([1, 2, 1, 2], |_| 0.0);
        let teacher = map([1, 2, 1, 2], |i| if i == 2 { 4.0 * 3.0f32.ln() } else { 0.0 });
        let divergence = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
        for tap in [Tap::Logits, Tap::C5] {
            let found = values(value(&at(tap), &student, &teacher, None))[0];
            assert!((found - 16.0 * divergence / 2.0).abs() < 1e-5, "{found} at {tap}");
        }
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        for tap in [Tap::Logits, Tap::C5] {
            for temperature in [1.0, 4.0] {
                let term = Cwd { temperature, ..at(tap) };
                check_term(&Case {
                    value: &|student, teacher, labels| value(&term, student, teacher, labels),
                    student: map([2, 3, 4, 6], |i| ((i * 37) % 11) as f32 / 3.0 - 1.5),
                    teacher: map([2, 3, 4, 6], |i| ((i * 61) % 13) as f32 / 2.0 - 3.0),
                    zero_at_equality: true,
                    rate: 20.0,
                });
            }
        }
    }

    #[test]
    fn it_agrees_with_pytorch_with_ignored_and_unknown_pixels() {
        let golden = golden();
        let labels: Vec<i64> = golden["channel.target"].1.iter().map(|label| *label as i64).collect();
        for (name, temperature, labels) in
            [("channel.t1", 1.0, None), ("channel.t4", 4.0, None), ("channel.masked", 4.0, Some(&labels[..]))]
        {
            let student = Tensor::from_inner(read(&golden, "channel.student")).require_grad();
            let term = Cwd { temperature, ..at(Tap::Logits) };
            let loss = value(&term, &student, &read(&golden, "channel.teacher"), labels);
            agrees(&golden, name, &student, loss);
        }
    }

    #[test]
    fn it_agrees_with_pytorch_through_an_adapter() {
        let golden = golden();
        let (term, student) = (at(Tap::C5), Tensor::from_inner(read(&golden, "channel.narrow")).require_grad());
        let specs = term.adapters(&column("cwd", &term), [2, 5]);
        let adapter = Adapter::fresh(&specs[0], 0, &Device::flex());
        let weight = NamedTensors::from([("conv.weight".to_owned(), golden["channel.adapter"].clone())]);
        let adapters = [load_named(adapter, weight).unwrap()];
        let loss = adapted_value(&term, &adapters, [&student, &read(&golden, "channel.teacher")], None);
        agrees(&golden, "channel.adapted", &student, loss);
    }

    #[test]
    fn an_adapter_is_asked_for_where_the_channels_differ() {
        let term = Cwd::default();
        let columns = Column::of("cwd", &term.shared());
        let found: Vec<_> = columns.iter().map(|column| (column.name.as_str(), column.weight)).collect();
        assert_eq!(found, [("cwd@logits", 3.0), ("cwd@head", 50.0)]);
        assert_eq!(term.adapters(&columns[0], [5, 5]), []);
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = AdapterSpec { name: "cwd@head".to_owned(), kind, student_channels: 16, teacher_channels: 64 };
        assert_eq!(term.adapters(&columns[1], [16, 64]), [spec]);
    }

    #[test]
    #[should_panic(expected = "the model has no adapter `cwd@c5`")]
    fn a_missing_adapter_is_named() {
        let _ = value(&at(Tap::C5), &map([1, 2, 2, 2], |i| i as f32), &map([1, 3, 2, 2], |i| i as f32), None);
    }

    #[test]
    fn a_place_and_a_temperature_above_zero_are_needed() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut found = Vec::new();
            Cwd { at: Vec::new(), temperature, ..Cwd::default() }.check(&mut found);
            let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(keys, ["at", "temperature"], "{found:?}");
        }
    }
}
