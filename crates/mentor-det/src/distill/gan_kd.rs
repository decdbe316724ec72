//! `[distill.gan_kd]`: features that a rival takes for the teacher's.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Shared, Start, Stream, Term};
use mentor_train::RivalConfig;
use mentor_types::{AdapterSpec, Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_levels, conv_adapter};
use crate::companions::{Companion, LevelRival};
use crate::context::Context;
use crate::grid::stride_of;
use crate::task::Det;

/// Makes the student's features such that a [`LevelRival`] takes them for the teacher's.
///
/// `-mean_ni log sigmoid(D(A(s_n))_i)` over the places `i` of the images `n`, while the rival minimises `mean_ni (-log sigmoid(D(t_n)_i)
/// - log sigmoid(-D(A(s_n))_i)) / 2`, averaged over the levels, after each step; `A` is an adapter where the widths differ.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a level of the pyramid; the rival, which is one for all levels, scores each place. Where
/// the student has another number of channels, an adapter, a learnable 1x1 convolution without bias, brings it to the
/// teacher's. A teacher's map of another size is resized bilinearly.
///
/// # Units and ranges
/// Nats; positive, and `ln 2` where the rival cannot tell.
///
/// # Reduction
/// Mean over all places of the level in the batch. It needs no label.
///
/// # Gradient
/// Reaches the student's features (and its adapter) through the rival, and no weight of the rival.
///
/// # Panics
/// If the context has no rival, or a tap or an adapter is missing.
///
/// # Source
/// Hong & Yu 2019, arXiv 1906.08467 (`unchecked`; no official code was read). Weight and optimizer are those of `holistic` in
/// segmentation.
///
/// # Differs
/// The paper is about SSD, whose scales have a discriminator each; the levels of a pyramid are of one width, and share one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GanKd {
    /// Factor in the loss. Default 0.1.
    pub weight: f64,
    /// Where features are compared, one log column each: levels of both pyramids. Default: every level that both nets have.
    pub at: Vec<Place>,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
    /// The rival and its training.
    pub rival: RivalConfig,
}

impl Default for GanKd {
    fn default() -> Self {
        let rival = RivalConfig::default();
        Self { weight: 0.1, at: Vec::new(), on: vec![Stream::Labelled], ramp_steps: 0, rival }
    }
}

impl Term<Det> for GanKd {
    fn source(&self) -> &'static str {
        "Hong & Yu 2019, arXiv 1906.08467"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn is_on_levels(&self) -> bool {
        true
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        conv_adapter(column, channels, 1)
    }

    fn companion(&self, start: &Start<'_>) -> Option<Companion> {
        let Start { teacher_channels, seed, device, .. } = *start;
        let rival = LevelRival::new("gan_kd", &self.at, &self.rival, teacher_channels, seed, device);
        Some(Companion::Rival(Box::new(rival)))
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let companion = context.companions.and_then(|companions| companions.get(column.term));
        let Companion::Rival(rival) = companion.expect("gan_kd is evaluated with its rival");
        let (student_nchw, _) = context.features(column.place(), &column.name);
        rival.frozen().through(student_nchw, |net, features| net.surprise(features, true))
    }

    fn check(&self, found: &mut Found) {
        check_levels(&self.at, found);
        for (index, place) in self.at.iter().enumerate().filter(|(_, place)| stride_of(place.teacher).is_none()) {
            let message = format!("must be a level of the pyramid, p2 to p7, found {}", place.teacher);
            found.push((format!("at[{index}].teacher"), message));
        }
        self.rival.check("rival", found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::companions::rival::tests::{fresh, trained};
    use crate::distill::checks::{Case, check_slopes, it_halves_on_a_fixed_batch};
    use crate::testing::{map, output, values};
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Device;
    use mentor_distill::{Companions, columns};
    use mentor_types::Tap;

    /// The companions of the term, with this rival.
    fn with(rival: LevelRival) -> Companions<Det> {
        let start = Start { classes: 2, teacher_channels: 3, seed: 0, device: &Device::flex() };
        let mut companions = Companions::fresh([("gan_kd", &GanKd::default() as &dyn Term<Det>)], &start);
        if let Some(Companion::Rival(own)) = companions.get_mut("gan_kd") {
            **own = rival;
        }
        companions
    }

    fn rival(companions: &Companions<Det>) -> &LevelRival {
        let Some(Companion::Rival(rival)) = companions.get("gan_kd") else { panic!("there is a rival") };
        rival
    }

    fn value(companions: &Companions<Det>, student: &Tensor<4>, teacher: &Tensor<4>) -> Tensor<1> {
        let side = |features: &Tensor<4>| {
            let [n, _, height, width] = features.dims();
            let mut output = output(&[(8, [height, width])], n, 2, |_| 0.0);
            output.taps.insert(Tap::P3, features.clone());
            output
        };
        let (student, teacher) = (side(student), side(teacher));
        let term = GanKd::default();
        let column = columns::<Det>("gan_kd", &term, &[Tap::P3]).swap_remove(0);
        let context = Context { teacher: Some(&teacher), companions: Some(companions), ..Context::of(&student, None) };
        term.value(&context, &column)
    }

    fn features() -> Tensor<4> {
        map([2, 3, 4, 6], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0)
    }

    /// Zero weights, and a score of 0.75 at every place.
    struct Constant;

    impl burn::module::ModuleMapper for Constant {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|old| if old.dims() == [1; D] { old.full_like(0.75) } else { old.zeros_like() })
        }
    }

    #[test]
    fn a_score_by_hand() {
        let net = rival(&with(fresh(&RivalConfig { channels: 4, ..RivalConfig::default() }, 1)))
            .frozen()
            .net()
            .valid()
            .map(&mut Constant);
        let found = [true, false].map(|is_teachers| values(net.surprise(features(), is_teachers))[0]);
        let expected = [(1.0 + (-0.75f32).exp()).ln(), (1.0 + 0.75f32.exp()).ln()];
        assert!((0..2).all(|side| (found[side] - expected[side]).abs() < 1e-6), "{found:?}, not {expected:?}");
    }

    #[test]
    fn it_passes_the_checks_of_a_term_that_is_not_0_where_both_sides_agree() {
        let companions = with(trained(40));
        let case = Case {
            value: &|student, teacher, _| value(&companions, student, teacher),
            dims: [2, 3, 4, 6],
            rate: 20.0,
            needs_boxes: false,
        };
        check_slopes(&case);
        it_halves_on_a_fixed_batch(&case);
    }

    struct Tracked(Vec<bool>);

    impl ModuleVisitor for Tracked {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().is_tracked() || param.val().is_require_grad());
        }
    }

    #[test]
    fn the_gradient_reaches_the_student_and_no_weight_of_the_rival() {
        let companions = with(trained(2));
        let before = rival(&companions).save();
        let student = Tensor::from_inner(features()).require_grad();
        let gradients = value(&companions, &student, &features()).backward();
        assert!(values(student.grad(&gradients).unwrap()).iter().any(|slope| *slope != 0.0));
        let mut tracked = Tracked(Vec::new());
        rival(&companions).frozen().net().visit(&mut tracked);
        assert_eq!(tracked.0, vec![false; 8]);
        assert!(rival(&companions).save() == before);
    }

    #[test]
    fn what_the_rival_learns_from_is_what_the_term_sees() {
        let companions = with(fresh(&RivalConfig { channels: 4, ..RivalConfig::default() }, 1));
        let (student, teacher) = (features(), map([2, 3, 4, 6], |i| (i % 7) as f32));
        let mut output = [&student, &teacher].map(|features| {
            let mut output = output(&[(8, [4, 6])], 2, 2, |_| 0.0);
            output.taps.insert(Tap::P3, features.clone());
            output
        });
        output[0].taps.insert(Tap::P4, features());
        let context = Context { teacher: Some(&output[1]), ..Context::of(&output[0], None) };
        // The teacher has no p4.
        let [seen] = <[_; 1]>::try_from(rival(&companions).example(&context).0).unwrap();
        assert_eq!(seen.map(values), [student, teacher].map(values));
    }
}
