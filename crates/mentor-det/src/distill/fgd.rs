//! `[distill.fgd]`: the teacher's features, in boxes and outside, where the teacher attends.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use mentor_distill::{Column, Place, Reads, Shared, Stream, Term};
use mentor_ops::{softmax, sum_all};
use mentor_types::{AdapterKind, AdapterSpec, Found, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::regions::Regions;
use super::{check_levels, check_temperature, conv_adapter};
use crate::context::Context;
use crate::grid::level_of;
use crate::task::Det;

/// Pulls the student's features towards the teacher's, objects and background apart, where the teacher attends; and its
/// attention, and what it makes of the whole map.
///
/// `(foreground sum f_i S_i C_c d_ic^2 + background sum b_i S_i C_c d_ic^2 + attention (sum |S_i - S'_i| + sum |C_c - C'_c|) +
/// global sum (G(t) - G'(A(s)))_ic^2) / N` over the places `i` and channels `c` of `N` images, with `d = t - A(s)`. `S = P
/// softmax_i(mean_c |t| / T)` is where the teacher attends, `C = K softmax_c(mean_i |t| / T)` to what, for `P` places and `K`
/// channels; `S'` and `C'` are the student's. `f_i` is one over the number of places in the smallest box around the place, `b_i`
/// one over the number of places outside of all boxes; `G` and `G'` add to every place what learnable layers make of the whole map.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid. Where the student has another number of channels, an adapter, a
/// learnable 1x1 convolution without bias, brings it to the teacher's. A teacher's map of another size is resized bilinearly.
/// Six more adapters, three on each side, where `global` is not 0.
///
/// # Units and ranges
/// Squares of activations; not negative. `temperature` is above 0.
///
/// # Reduction
/// Sums over places and channels, mean over images. An image without a box is background. Crowds and difficult objects are
/// neither; a class that nobody looked for counts as background here, as features have no class.
///
/// # Gradient
/// Reaches the student's features and the adapters, those on the teacher's side, too, but never the teacher; the weights `S` and
/// `C` of squares are constants.
///
/// # Panics
/// If there are no labels, or a tap or an adapter is missing.
///
/// # Source
/// Yang et al. 2022, arXiv 2111.11837 (`unchecked`); the official code, yzd-v/FGD. Official defaults: as here for
/// `RetinaNet` and GFL; for FCOS temperature 0.8, `foreground` 1.6e-3, `background` and `attention` 8e-4, `global` 8e-6;
/// with two stages 5e-5, 2.5e-5, 5e-5, 5e-7.
///
/// # Differs
/// The layers of `G` (GcBlock there) have neither biases nor a learnable norm, and their last one starts as the others do, not at
/// 0. The official code knows no crowd. It divides edges by the ratio of image and map, we by the stride, which is the same
/// for images that the stride divides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fgd {
    /// Factor in the loss, on top of those of its parts. Default 1.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of the student's pyramid. Default: every level that both nets
    /// have.
    pub at: Vec<Place>,
    /// Softens where and to what the nets attend. Default 0.5.
    pub temperature: f64,
    /// Factor of what lies in boxes. Default 0.001.
    pub foreground: f64,
    /// Factor of what lies outside. Default 0.0005.
    pub background: f64,
    /// Factor of the attention itself. Default 0.0005.
    pub attention: f64,
    /// Factor of the whole map's part; 0 for the focal parts alone. Default 0.000005.
    pub global: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Fgd {
    fn default() -> Self {
        Self {
            weight: 1.0,
            at: Vec::new(),
            temperature: 0.5,
            foreground: 1e-3,
            background: 5e-4,
            attention: 5e-4,
            global: 5e-6,
            ramp_steps: 0,
        }
    }
}

/// The sides that have layers for the whole map.
const SIDES: [&str; 2] = ["student", "teacher"];

impl Term<Det> for Fgd {
    fn source(&self) -> &'static str {
        "Yang et al. 2022, arXiv 2111.11837"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { features: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &self.at }
    }

    fn is_on_levels(&self) -> bool {
        true
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        let mut specs = conv_adapter(column, channels, 1);
        let [_, width] = channels;
        let layers = [("mask", width, 1), ("reduce", width, width.div_ceil(2)), ("expand", width.div_ceil(2), width)];
        for side in SIDES.iter().filter(|_| self.global > 0.0) {
            specs.extend(layers.map(|(layer, student_channels, teacher_channels)| {
                let (name, kind) = (format!("{}.{side}.{layer}", column.name), AdapterKind::Conv { kernel: 1 });
                AdapterSpec { name, kind, student_channels, teacher_channels }
            }));
        }
        specs
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let place = column.place();
        let (student_nchw, teacher_nchw) = context.features(place, &column.name);
        let images = student_nchw.dims()[0] as f64;
        let attended = self.attention(&teacher_nchw);
        let focal = self.focal(context, place, student_nchw.clone() - teacher_nchw.clone(), &attended);
        let off = |(own, other): (Tensor<4>, Tensor<4>)| sum_all((own - other).abs());
        let [places, channels] = attended;
        let [own_places, own_channels] = self.attention(&student_nchw);
        let attention = off((own_places, places)) + off((own_channels, channels));
        let value = focal + attention.mul_scalar(self.attention);
        if self.global == 0.0 {
            return value.div_scalar(images);
        }
        let [student, teacher] = SIDES.map(|side| {
            let features_nchw = if side == "student" { student_nchw.clone() } else { teacher_nchw.clone() };
            with_whole(context, &format!("{}.{side}", column.name), features_nchw)
        });
        (value + sum_all((student - teacher).powi_scalar(2)).mul_scalar(self.global)).div_scalar(images)
    }

    fn place_weights(&self, context: &Context<'_>, column: &Column) -> Option<Tensor<4>> {
        let place = column.place();
        let [places_n1hw, _] = self.attention(&context.taught_features(place));
        Some(places_n1hw * self.regions(context, place))
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        check_temperature(self.temperature, found);
        let parts = [
            ("foreground", self.foreground),
            ("background", self.background),
            ("attention", self.attention),
            ("global", self.global),
        ];
        for (key, weight) in parts {
            check_weight(key, weight, found);
        }
    }
}

impl Fgd {
    /// Where and to what a net attends: `[n, 1, h, w]` and `[n, c, 1, 1]`, each of mean 1.
    fn attention(&self, features_nchw: &Tensor<4>) -> [Tensor<4>; 2] {
        let [n, channels, height, width] = features_nchw.dims();
        let places = height * width;
        let size_ncp: Tensor<3> = features_nchw.clone().abs().reshape([n, channels, places]);
        let soft = |x: Tensor<3>, dim: usize| softmax(x.div_scalar(self.temperature), dim);
        let of_places = soft(size_ncp.clone().mean_dim(1), 2).mul_scalar(places as f64);
        let of_channels = soft(size_ncp.mean_dim(2), 1).mul_scalar(channels as f64);
        [of_places.reshape([n, 1, height, width]), of_channels.reshape([n, channels, 1, 1])]
    }

    /// The squares in boxes and outside.
    fn focal(
        &self,
        context: &Context<'_>,
        place: &Place,
        difference_nchw: Tensor<4>,
        [places_n1hw, channels_nc11]: &[Tensor<4>; 2],
    ) -> Tensor<1> {
        let weight_n1hw = self.regions(context, place);
        let square_n1hw = (difference_nchw.powi_scalar(2) * channels_nc11.clone()).sum_dim(1);
        sum_all(square_n1hw * places_n1hw.clone() * weight_n1hw)
    }

    /// How much the places of a level count in boxes and outside, `[n, 1, h, w]`.
    fn regions(&self, context: &Context<'_>, place: &Place) -> Tensor<4> {
        let layout = &level_of(context.student, place.student).layout;
        let Regions { scaled, outside, .. } = Regions::of(layout, &context.labelled().targets);
        let [n, ..] = outside.dims();
        let whole: Tensor<4> = outside.clone().reshape([n, 1, 1, layout.size[0] * layout.size[1]]).sum_dim(3);
        let outside = outside / whole.clamp_min(1.0);
        scaled.mul_scalar(self.foreground) + outside.mul_scalar(self.background)
    }
}

/// The map with what the layers of a side make of the whole of it added to each place.
fn with_whole(context: &Context<'_>, side: &str, features_nchw: Tensor<4>) -> Tensor<4> {
    let [n, channels, height, width] = features_nchw.dims();
    let layer = |name: &str, x: Tensor<4>| context.adapted(&format!("{side}.{name}"), x);
    let mask_n1p: Tensor<3> = layer("mask", features_nchw.clone()).reshape([n, 1, height * width]);
    let each_ncp: Tensor<3> = features_nchw.clone().reshape([n, channels, height * width]);
    let whole_nc11: Tensor<4> = (each_ncp * softmax(mask_n1p, 2)).sum_dim(2).reshape([n, channels, 1, 1]);
    let inner = layer("reduce", whole_nc11);
    let centred = inner.clone() - inner.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    features_nchw + layer("expand", relu(centred / variance.add_scalar(1e-5).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_place_weights, check_term, of_features};
    use crate::testing::{labelled, map, output, seen, values};
    use burn::tensor::Device;
    use mentor_distill::columns;
    use mentor_nets::Adapter;
    use mentor_types::{BoxKind, BoxLabels, Tap};

    fn focal() -> Fgd {
        Fgd { global: 0.0, ..Fgd::default() }
    }

    fn object() -> BoxLabels {
        labelled(&[([2.0, 3.0, 13.0, 9.0], 0, BoxKind::Object)])
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("fgd", Part::Features, &focal());
        agrees("fgd_global", Part::Features, &Fgd { global: 0.01, ..Fgd::default() });
    }

    #[test]
    fn one_channel_of_two_places_by_hand() {
        // The teacher attends by exp(|t| / T), here 3 to 1 of 2; a box around the first cell, which takes two more beyond it.
        let teacher = map([1, 1, 1, 2], |i| [0.5 * 3f32.ln(), 0.0][i]);
        let student = teacher.clone() + map([1, 1, 1, 2], |i| [1.0, 2.0][i]);
        let term = Fgd { attention: 0.0, background: 0.0, foreground: 2.0, ..focal() };
        let labels = labelled(&[([-16.0, 0.0, 0.0, 0.0], 0, BoxKind::Object)]);
        // Columns -2 to 0 of one row.
        let found = values(of_features(("fgd", &term), &student, &teacher, &labels))[0];
        assert!((found - 2.0 / 3.0 * 1.5).abs() < 1e-5, "{found}");
        let term = Fgd { foreground: 0.0, background: 2.0, ..term };
        let found = values(of_features(("fgd", &term), &student, &teacher, &labels))[0];
        assert!((found - 2.0 * 0.5 * 4.0).abs() < 1e-5, "{found}");
        let attention = Fgd { background: 0.0, attention: 1.0, ..term };
        let flat = map([1, 1, 1, 2], |_| 7.0);
        let found = values(of_features(("fgd", &attention), &flat, &teacher, &labels))[0];
        assert!((found - 1.0).abs() < 1e-5, "{found}");
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, boxes| {
                let labels = if boxes { object() } else { labelled(&[]) };
                of_features(("fgd", &focal()), student, teacher, &labels)
            },
            dims: [2, 3, 4, 4],
            rate: 200.0,
            needs_boxes: false,
        });
    }

    #[test]
    fn the_whole_map_is_compared_through_layers_of_both_sides() {
        let term = Fgd { foreground: 0.0, background: 0.0, attention: 0.0, global: 1.0, ..Fgd::default() };
        let column = columns("fgd", &term, &[Tap::P3]).swap_remove(0);
        let specs = term.adapters(&column, [3, 4]);
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names[..2], ["fgd@p3", "fgd@p3.student.mask"]);
        assert_eq!(names[6], "fgd@p3.teacher.expand");
        assert_eq!(focal().adapters(&column, [3, 3]), []);
        let adapters: Vec<_> = specs.iter().map(|spec| Adapter::fresh(spec, 1, &Device::flex().autodiff())).collect();
        let side = |channels: usize| {
            let mut output = output(&[(8, [2, 2])], 2, 1, |_| 0.0);
            output.taps.insert(Tap::P3, map([2, channels, 2, 2], |i| (i % 5) as f32));
            output
        };
        let (student, teacher) = (side(3), side(4));
        let labels = seen(&student, &[labelled(&[]), object()]);
        let context = Context { teacher: Some(&teacher), adapters: &adapters, ..Context::of(&student, Some(&labels)) };
        let value = term.value(&context, &column);
        assert!(values(value.clone())[0] > 0.0);
        let gradients = burn::optim::GradientsParams::from_grads(value.backward(), &adapters);
        assert_eq!(gradients.len(), 7);
    }

    #[test]
    fn the_weights_of_places_are_those_of_the_value() {
        check_place_weights(("fgd", &Fgd { attention: 0.0, ..focal() }), &object());
    }
}
