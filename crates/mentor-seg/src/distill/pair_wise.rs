//! `[distill.pair_wise]`: how alike the regions of a feature map are to each other.

use burn::tensor::Tensor;
use mentor_distill::{Column, Place, Shared, Stream, Term, affinity_distance};
use mentor_types::{AdapterKind, AdapterSpec, Found, Tap};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::task::Seg;

/// Pulls the similarities between regions of the student's features towards those of the teacher's.
///
/// `sum_ij (a^T_ij - a^S_ij)^2 / m^2`, averaged over images, where `a_ij` is the cosine of the features
/// at the nodes `i` and `j`, and the `m` nodes of a map come from max-pooling it with kernel and
/// stride `int(pool * side)`, remainder included.
///
/// # Shapes
/// Features `[n, c, h, w]` of both at a tap; the numbers of channels may differ. A teacher's map of
/// another size is resized bilinearly to the student's.
///
/// # Units and ranges
/// `pool` is a fraction of the map's side in (0, 1]: 0.5 gives 2x2 nodes where the sides are even and 3x3
/// where they are odd. The value lies between 0 and 4.
///
/// # Reduction
/// Mean over all pairs of nodes of all images. An ignored pixel (labels resized to the map by nearest
/// neighbour) is left out of its node, a node of ignored pixels out of every pair; without any pair
/// the value is a finite zero with a zero gradient.
///
/// # Gradient
/// Reaches the student's features (and its adapter) only; through the norms too, unless
/// `detach_norm`.
///
/// # Panics
/// If a tap or an adapter is missing.
///
/// # Source
/// Liu et al. 2019, arXiv 1903.04197, equations 2 and 3. Official defaults: weight 1, pool 0.5, the last
/// feature map before the head, no adapter.
///
/// # Differs
/// The official code detaches the norms, which has another gradient: `detach_norm = true` does the
/// same. It knows no ignored pixel. An adapter is our addition: the affinities need none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PairWise {
    /// Factor in the loss. Default 1.
    pub weight: f64,
    /// Where features are compared, one log column each. Default `c5` of both.
    pub at: Vec<Place>,
    /// Side of a pooled region as a fraction of the map's, in (0, 1]. Default 0.5.
    pub pool: f64,
    /// Whether a learnable 1x1 convolution goes between the student's features and the comparison.
    /// Default false.
    pub adapter: bool,
    /// Whether the norms of the features count as constants in the gradient. Default false.
    pub detach_norm: bool,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for PairWise {
    fn default() -> Self {
        Self {
            weight: 1.0,
            at: vec![Place::at(Tap::C5)],
            pool: 0.5,
            adapter: false,
            detach_norm: false,
            on: vec![Stream::Labelled],
            ramp_steps: 0,
        }
    }
}

impl Term<Seg> for PairWise {
    fn source(&self) -> &'static str {
        "Liu et al. 2019, arXiv 1903.04197, eq. 2 and 3"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn adapters(&self, column: &Column, [student_channels, teacher_channels]: [usize; 2]) -> Vec<AdapterSpec> {
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = || AdapterSpec { name: column.name.clone(), kind, student_channels, teacher_channels };
        self.adapter.then(spec).into_iter().collect()
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let (student_nchw, teacher_nchw) = context.features(column.place());
        let [_, _, height, width] = student_nchw.dims();
        let student_nchw = if self.adapter { context.adapted(&column.name, student_nchw) } else { student_nchw };
        let counted_n1hw = context.counted([height, width]);
        affinity_distance(student_nchw, teacher_nchw, counted_n1hw, self.pool, self.detach_norm)
    }

    fn check(&self, found: &mut Found) {
        if self.at.is_empty() {
            found.push(("at".to_owned(), "must name at least one place".to_owned()));
        }
        if !(self.pool > 0.0 && self.pool <= 1.0) {
            found.push(("pool".to_owned(), format!("must lie in (0, 1], found {}", self.pool)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{Case, check_term, column, map, output, target, values, with_context};
    use burn::tensor::Device;
    use mentor_nets::Adapter;

    fn value(term: &PairWise, student: &Tensor<4>, teacher: &Tensor<4>, labels: Option<&[i64]>) -> Tensor<1> {
        let [n, _, height, width] = student.dims();
        let target = labels.map(|labels| target([n, 2 * height, 2 * width], labels));
        let logits = map([n, 2, 1, 1], |_| 0.0);
        let student = output(logits.clone(), Some(student.clone()));
        let teacher = output(logits, Some(teacher.clone()));
        with_context(&student, &teacher, target.as_ref(), |context| term.value(&context, &column("pair_wise", term)))
    }

    /// A map with a level of its own in every patch of 2x3 pixels, so that nodes point in different
    /// directions after pooling.
    fn patches(dims: [usize; 4], factor: usize) -> Tensor<4> {
        let [_, _, height, width] = dims;
        map(dims, |i| {
            let (channel, y, x) = (i / (height * width), i / width % height, i % width);
            let level = ((channel * 5 + y / 2 * 7 + x / 3 * 3) * factor % 13) as f32 - 8.0;
            level + ((i * factor) % 101) as f32 / 100.0
        })
    }

    #[test]
    fn two_nodes_by_hand() {
        // Cosine 0.96 for the student's two pixels and 0 for the teacher's, on 2 of 4 pairs.
        let student = map([1, 2, 1, 2], |i| [3.0, 4.0, 4.0, 3.0][i]);
        let teacher = map([1, 2, 1, 2], |i| [1.0, 0.0, 0.0, 1.0][i]);
        let found = values(value(&PairWise::default(), &student, &teacher, None))[0];
        assert!((found - 0.96 * 0.96 / 2.0).abs() < 1e-6);
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        for pool in [0.5, 0.25] {
            let term = PairWise { pool, ..PairWise::default() };
            check_term(&Case {
                value: &|student, teacher, labels| value(&term, student, teacher, labels),
                student: patches([2, 3, 8, 12], 37),
                teacher: patches([2, 5, 8, 12], 61),
                zero_at_equality: true,
                rate: 50.0,
            });
        }
    }

    #[test]
    fn a_detached_norm_changes_the_gradient_and_not_the_value() {
        let teacher = map([1, 4, 4, 4], |i| ((i * 61) % 89) as f32 / 20.0 - 2.2);
        let [attached, detached] = [false, true].map(|detach_norm| {
            let student = Tensor::from_inner(map([1, 3, 4, 4], |i| ((i * 37) % 53) as f32 / 20.0 - 1.2)).require_grad();
            let loss = value(&PairWise { detach_norm, ..PairWise::default() }, &student, &teacher, None);
            (values(loss.clone()), values(student.grad(&loss.backward()).unwrap()))
        });
        assert_eq!(attached.0, detached.0);
        assert_ne!(attached.1, detached.1);
    }

    #[test]
    fn an_adapter_is_asked_for_and_applied_at_its_column() {
        let place = Place { student: Tap::C4, teacher: Tap::C5, weight: 1.0 };
        let term = PairWise { adapter: true, at: vec![Place::at(Tap::C5), place], ..PairWise::default() };
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = |name: &str, student_channels, teacher_channels| AdapterSpec {
            name: name.to_owned(),
            kind,
            student_channels,
            teacher_channels,
        };
        let columns = Column::of("pair_wise", &term.shared());
        assert_eq!(term.adapters(&columns[0], [16, 64]), [spec("pair_wise@c5", 16, 64)]);
        assert_eq!(term.adapters(&columns[1], [8, 64]), [spec("pair_wise@c4-c5", 8, 64)]);
        assert!(PairWise::default().adapters(&columns[0], [1, 1]).is_empty());

        let adapter = [Adapter::fresh(&spec("pair_wise@c5", 2, 3), 0, &Device::flex())];
        let [student, teacher] = [37, 61].map(|factor| map([1, 2, 4, 4], |i| ((i * factor) % 23) as f32 - 11.0));
        let adapted = value(&PairWise::default(), &adapter[0].forward(student.clone()), &teacher, None);
        let [student, teacher] = [student, teacher].map(|c5| output(map([1, 2, 1, 1], |_| 0.0), Some(c5)));
        let found = with_context(&student, &teacher, None, |context| {
            term.value(&context.with(|context| context.adapters = &adapter), &columns[0])
        });
        assert_eq!(values(found), values(adapted));
    }

    #[test]
    #[should_panic(expected = "the student has no tap `c3`")]
    fn a_missing_tap_is_named() {
        let term = PairWise { at: vec![Place::at(Tap::C3)], ..PairWise::default() };
        let x = map([1, 1, 2, 2], |i| i as f32);
        let _ = value(&term, &x, &x, None);
    }
}
