//! `[distill.ld]`: where the teacher thinks that the edges of a box may lie.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use mentor_distill::{Column, Reads, Shared, Stream, Term, kl_divergence, weighted_mean};
use mentor_types::{BoxCoding, DetLevel, Found, check_probability, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_temperature;
use super::places::{both, shared};
use crate::context::{Context, Labelled};
use crate::grid::Grid;
use crate::task::Det;
use crate::ways::Ways;

/// Pulls the student's distributions over where the edges of a box lie towards the teacher's, at the places that answer for
/// objects and at the places around these whose anchors still lie well.
///
/// `T^2 (mean_i D_i by s_i + valuable mean_j D_j by v_j)`, where `D` is the divergence `KL(softmax(t / T) || softmax(s / T))` of
/// the distribution of an edge, averaged over the four; over the places `i` that answer for objects, by the student's highest
/// class probability `s_i`; and over other places `j` of valuable regions, whose anchor has a `DIoU` with an object from `reach
/// threshold` to `threshold`, by its `IoU` `v_j` with that object. `DIoU` is the overlap less the squared distance of the
/// middles over the squared diagonal of the box that encloses both.
///
/// # Shapes
/// Logits of distributions `[n, 4, bins, p]` and class scores `[n, k, p]` of the levels at which student and teacher have the
/// same places.
///
/// # Units and ranges
/// Logits in; nats times `T^2` out; not negative. `temperature` is above 0, `threshold` and `reach` lie in [0, 1].
///
/// # Reduction
/// Two means over places of the batch, each a zero with a zero gradient where no place has a weight. Crowds and difficult
/// objects have no region.
///
/// # Gradient
/// Reaches the student's distributions only; the weights are constants.
///
/// # Panics
/// If there are no labels, student and teacher share no level, or one of them has no distributions or other bins.
///
/// # Source
/// Zheng et al. 2022, arXiv 2102.12252 (LD; `unchecked`); the official code, HikariTJU/LD. Official defaults: temperature 10,
/// weight 0.25 on both parts, reach 0.25.
///
/// # Differs
/// The official code averages over bins, which is a part in 17 of the divergence for its 17 bins; it sums over places, and its
/// valuable part is divided by 4 again. Its threshold is that of ATSS, another for each object; ours is the same for all. It
/// counts a place that answers for an object in both parts, where the `DIoU` says so. Its part on class scores is `class_kd` here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ld {
    /// Factor in the loss. Default 0.25.
    pub weight: f64,
    /// Softens the distributions of both sides; above 0. Default 10.
    pub temperature: f64,
    /// Factor of the valuable regions; 0 for the places that answer for objects alone. Default 1.
    pub valuable: f64,
    /// The `DIoU` from which on an anchor lies too well to be in a valuable region, in [0, 1]. Default 0.5.
    pub threshold: f64,
    /// The part of the threshold from which on it is in one, in [0, 1]. Default 0.25.
    pub reach: f64,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for Ld {
    fn default() -> Self {
        Self { weight: 0.25, temperature: 10.0, valuable: 1.0, threshold: 0.5, reach: 0.25, ramp_steps: 0 }
    }
}

impl Term<Det> for Ld {
    fn source(&self) -> &'static str {
        "Zheng et al. 2022, arXiv 2102.12252"
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads { edges: true, labels: true, ..Reads::default() })
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &[Stream::Labelled], at: &[] }
    }

    fn value(&self, context: &Context<'_>, _column: &Column) -> Tensor<1> {
        let Labelled { assignment, .. } = context.labelled();
        let [student, teacher] = both(context, distribution);
        let divergence_n1p = kl_divergence(student, teacher, 2, self.temperature).mean_dim(1).squeeze_dim::<3>(2);
        let [scores_nkp, _] = both(context, |level| &level.class_logits);
        let positive_n1p = shared(context, &assignment.positive_n1p);
        let sure_n1p = sigmoid(scores_nkp.inner()).max_dim(1) * positive_n1p.clone();
        let main = weighted_mean(divergence_n1p.clone(), sure_n1p);
        let others_n1p = positive_n1p.neg().add_scalar(1.0);
        let valuable_n1p = shared(context, &self.valuable_region(context.labelled())) * others_n1p;
        let around = weighted_mean(divergence_n1p, valuable_n1p).mul_scalar(self.valuable);
        (main + around).mul_scalar(self.temperature * self.temperature)
    }

    fn check(&self, found: &mut Found) {
        check_temperature(self.temperature, found);
        check_weight("valuable", self.valuable, found);
        check_probability("threshold", self.threshold, found);
        check_probability("reach", self.reach, found);
    }
}

impl Ld {
    /// How much each place counts in the valuable regions of the objects, `[n, 1, p]`.
    fn valuable_region(&self, labelled: &Labelled) -> Tensor<3> {
        let Labelled { grid, targets, .. } = labelled;
        let ways = Ways::of(grid, targets);
        let iou_nmp = ways.overlap_with_anchors(grid);
        let diou_nmp = iou_nmp.clone() - off_anchors(&ways, grid);
        let far = diou_nmp.clone().greater_equal_scalar(self.reach * self.threshold);
        let region_nmp = far.bool_and(diou_nmp.lower_scalar(self.threshold)).float();
        let objects_nm1 = targets.objects_nm.clone().unsqueeze_dim::<3>(2);
        (iou_nmp * region_nmp * objects_nm1).max_dim(1)
    }
}

/// How a level says where the edges lie.
fn distribution(level: &DetLevel) -> &Tensor<4> {
    match &level.coding {
        BoxCoding::Distribution(logits) => logits,
        BoxCoding::Distances | BoxCoding::Deltas(_) => panic!("a net whose edges have no distributions"),
    }
}

/// The squared distance of the middles of boxes and anchors, over the squared diagonal of what encloses both, `[n, m, p]`.
fn off_anchors(ways: &Ways, grid: &Grid) -> Tensor<3> {
    let [left, top, right, bottom] = ways.edges_nmp.clone();
    let [across, down] = grid.anchors.clone().map(|side| side.expand(left.shape()).div_scalar(2.0));
    let reach = |a: &Tensor<3>, b: &Tensor<3>, half: Tensor<3>| {
        (a.clone().max_pair(half.clone()) + b.clone().max_pair(half)).powi_scalar(2)
    };
    let diagonal_nmp = reach(&left, &right, across) + reach(&top, &bottom, down);
    let apart_nmp = (left - right).powi_scalar(2) + (top - bottom).powi_scalar(2);
    apart_nmp.div_scalar(4.0) / diagonal_nmp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::checks::{Case, Part, agrees, check_term, of_part};
    use crate::testing::{labelled, map, output, seen, values};
    use mentor_types::{BoxKind, BoxLabels};

    fn value(term: &Ld, student: &Tensor<4>, teacher: &Tensor<4>, labels: &BoxLabels) -> Tensor<1> {
        of_part(("ld", term), Part::Distribution, student, teacher, labels)
    }

    /// The box that only the place about (4, 4) answers for; all anchors are larger by far.
    fn object() -> BoxLabels {
        labelled(&[([0.0, 0.0, 8.0, 8.0], 0, BoxKind::Object)])
    }

    #[test]
    fn it_agrees_with_pytorch() {
        agrees("ld", Part::Distribution, &Ld::default());
    }

    #[test]
    fn one_edge_of_one_place_by_hand() {
        // Of four edges of two bins one differs, by (3/4, 1/4) against (1/2, 1/2) at temperature 2.
        let teacher = map([1, 8, 1, 1], |i| if i == 0 { 2.0 * 3f32.ln() } else { 0.0 });
        let term = Ld { temperature: 2.0, ..Ld::default() };
        let found = values(value(&term, &map([1, 8, 1, 1], |_| 0.0), &teacher, &object()))[0];
        assert!((found - (0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln())).abs() < 1e-6, "{found}");
    }

    #[test]
    fn valuable_regions_by_hand() {
        // An object like an anchor about (12, 4), whose neighbours are 8 pixels away.
        let output = output(&[(8, [1, 3])], 1, 1, |_| 0.0);
        let labels = seen(&output, &[labelled(&[([-20.0, -28.0, 44.0, 36.0], 0, BoxKind::Object)])]);
        let iou = 56.0 / 72.0;
        let diou = iou - 64.0 / (72.0f32.powi(2) + 64.0f32.powi(2));
        let of = |threshold: f32, reach: f64| {
            let term = Ld { threshold: f64::from(threshold), reach, ..Ld::default() };
            values(term.valuable_region(&labels))
        };
        let found = of(diou + 0.01, 0.5);
        assert!((found[0] - iou).abs() < 1e-5 && found[1] == 0.0 && (found[2] - iou).abs() < 1e-5, "{found:?}");
        assert_eq!(of(diou - 0.01, 0.5), [0.0; 3]);
        assert_eq!(of(diou + 0.01, 1.0), [0.0; 3]);
    }

    #[test]
    fn it_passes_the_checks_of_every_term() {
        check_term(&Case {
            value: &|student, teacher, boxes| {
                value(&Ld::default(), student, teacher, &if boxes { object() } else { labelled(&[]) })
            },
            dims: [2, 12, 4, 4],
            rate: 20.0,
            needs_boxes: true,
        });
    }

    #[test]
    #[should_panic(expected = "no distributions")]
    fn nets_without_distributions_are_refused() {
        let logits = map([1, 2, 1, 1], |_| 0.0);
        let _ = of_part(("ld", &Ld::default()), Part::ClassLogits, &logits, &logits, &object());
    }
}
