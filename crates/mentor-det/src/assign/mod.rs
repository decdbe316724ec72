//! Which places of a detector answer for which boxes.
//!
//! On the device, in fixed shapes and without reading anything back.

mod atss;
mod fcos;
mod max_iou;
mod simota;

use burn::tensor::{Bool, Int, Tensor};
use mentor_types::{DetOutput, Found, IGNORE, below};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grid::Grid;
use crate::upload::DetTargets;
use crate::ways::Ways;

pub use atss::AtssAssign;
pub use fcos::FcosAssign;
pub use max_iou::MaxIouAssign;
pub use simota::SimotaAssign;

/// `[supervised] assign`: which places answer for which objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssignConfig {
    /// The anchors that overlap with an object more than most of those near its middle do.
    Atss(AtssAssign),
    /// The points near the middle of an object, on the level of its size.
    Fcos(FcosAssign),
    /// The anchors that overlap with an object by at least so much.
    MaxIou(MaxIouAssign),
    /// The places at which the student is nearest to the object already.
    Simota(SimotaAssign),
}

impl AssignConfig {
    /// What the places of a net for `classes` classes are to say; `output` is what it says.
    #[must_use]
    pub fn assign(&self, grid: &Grid, targets: &DetTargets, output: &DetOutput, classes: usize) -> Assignment {
        match self {
            Self::Atss(config) => config.assign(grid, targets, classes),
            Self::Fcos(config) => config.assign(grid, targets, classes),
            Self::MaxIou(config) => config.assign(grid, targets, classes),
            Self::Simota(config) => config.assign(grid, targets, output, classes),
        }
    }

    /// Reports values out of range.
    pub fn check(&self, found: &mut Found) {
        match self {
            Self::Atss(config) => below("atss", found, |found| config.check(found)),
            Self::Fcos(config) => below("fcos", found, |found| config.check(found)),
            Self::MaxIou(config) => below("max_iou", found, |found| config.check(found)),
            Self::Simota(config) => below("simota", found, |found| config.check(found)),
        }
    }
}

/// What each place is to say; `p` places of `n` images, `k` classes. Nothing here carries a gradient.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// `[n, 1, p]`: 1 where the place answers for an object.
    pub positive_n1p: Tensor<3>,
    /// `[1]`: how many places do, at least 1.
    pub positives: Tensor<1>,
    /// `[n, k, p]`: 1 at the class of the object.
    pub classes_nkp: Tensor<3>,
    /// `[n, k, p]`: 1 where a class score is trained. 0 where the class was not looked for in the image, and inside a crowd or
    /// a difficult object of the class (of any class, for a crowd of any); but 1 at the class of an object that the place
    /// answers for, and such a place is not inside of anything else. 0 for all classes where an assignment leaves a place out.
    pub counted_nkp: Tensor<3>,
    /// `[n, 4, p]`: the ways to the edges of the object in pixels, negative where the point lies beyond one; 0 at other places.
    pub distances_n4p: Tensor<3>,
    /// `[n, 1, p]`: `sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))`; 0 where the point lies outside, and at other places.
    pub centerness_n1p: Tensor<3>,
}

impl Assignment {
    /// Of `classes` classes, where `box_n1p` says which box a place may answer for, and `positive_n1p` (1 or 0) whether it does.
    fn of(ways: &Ways, targets: &DetTargets, classes: usize, box_n1p: Tensor<3, Int>, positive_n1p: Tensor<3>) -> Self {
        let [n, _, places] = positive_n1p.dims();
        let own = |of_boxes_nmp: &Tensor<3>| of_boxes_nmp.clone().gather(1, box_n1p.clone()) * positive_n1p.clone();
        let distances_n4p = Tensor::cat(ways.edges_nmp.iter().map(own).collect(), 1);
        let one_hot_nmk = targets.one_hot(classes);
        let class_of_each = box_n1p.clone().swap_dims(1, 2).expand([n, places, classes]);
        let classes_nkp = one_hot_nmk.gather(1, class_of_each).swap_dims(1, 2) * positive_n1p.clone();

        let inside_nmp = ways.inside().float() * targets.ignored_nm.clone().unsqueeze_dim(2);
        let touched_nkp = touched_classes(targets, classes).swap_dims(1, 2).matmul(inside_nmp);
        let ignored_nkp = touched_nkp.greater_scalar(0.5).float() * (positive_n1p.clone().neg().add_scalar(1.0));
        let looked_for_nk1 = targets.looked_for.clone().narrow(1, 0, classes).unsqueeze_dim::<3>(2);
        let counted_nkp = (looked_for_nk1 * ignored_nkp.neg().add_scalar(1.0)).max_pair(classes_nkp.clone());

        let positives = positive_n1p.clone().sum_dim(2).sum_dim(0).reshape([1]).clamp_min(1.0);
        let centerness_n1p = centerness(&distances_n4p);
        Self { positive_n1p, positives, classes_nkp, counted_nkp, distances_n4p, centerness_n1p }
    }
}

/// Whether a value is the least along the last dimension; of equal ones the first.
fn least(values_nmp: &Tensor<3>) -> Tensor<3, Bool> {
    let [n, m, places] = values_nmp.dims();
    let at_nm1 = values_nmp.clone().argmin(2);
    let options = (&at_nm1.device(), at_nm1.dtype());
    let all = Tensor::<1, Int>::arange(0..places as i64, options).reshape([1, 1, places]).expand([n, m, places]);
    at_nm1.expand([n, m, places]).equal(all)
}

/// `[n, m, k]`: 1 at the class of a box, and at all for a box of any class.
fn touched_classes(targets: &DetTargets, classes: usize) -> Tensor<3> {
    let any_nm1 = targets.classes_nm.clone().equal_elem(i32::from(IGNORE)).float().unsqueeze_dim::<3>(2);
    targets.one_hot(classes) + any_nm1
}

fn centerness(distances_n4p: &Tensor<3>) -> Tensor<3> {
    let edge = |edge: usize| distances_n4p.clone().narrow(1, edge, 1);
    let share =
        |a: Tensor<3>, b: Tensor<3>| a.clone().min_pair(b.clone()).clamp_min(0.0) / a.max_pair(b).clamp_min(1e-6);
    (share(edge(0), edge(2)) * share(edge(1), edge(3))).sqrt()
}
