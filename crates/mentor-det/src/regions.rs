//! What a detector with two stages learns from labels: which anchors and which regions, and what these are to say.

use burn::tensor::{Tensor, TensorData};
use mentor_types::{DetOutput, Found, Key, MAX_CLASSES, Regions, check_probability};
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deltas::{decoded, encoded};
use crate::largest::{among_largest, largest};
use crate::pairs::{areas, common_areas, overlaps};
use crate::proposals::{Proposals, rows_of};
use crate::upload::DetTargets;

/// What a region's shifts, and the logarithms of the ratios of sides, are multiplied by.
const WEIGHTS: [f64; 2] = [10.0, 5.0];

/// `[supervised] regions`: which anchors and which regions a detector with two stages learns from.
///
/// # Source
/// Ren et al. 2015, arXiv 1506.01497, section 3.1, and Girshick 2015, arXiv 1504.08083, section 2.3; torchvision's `FasterRCNN`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegionSampling {
    /// Anchors of each image that the first stage learns from, drawn at random. Default 256.
    pub anchors: usize,
    /// The part of them that answer for objects, at most, in [0, 1]. Default 0.5.
    pub positive_anchors: f64,
    /// Regions of each image that the second stage learns from, drawn at random from the proposals and the labelled boxes.
    /// Default 512.
    pub regions: usize,
    /// The part of them that hold objects, at most, in [0, 1]. Default 0.25.
    pub positive_regions: f64,
    /// From which overlap with an object on a region holds it: intersection over union, in [0, 1]. Default 0.5.
    pub iou: f64,
}

impl Default for RegionSampling {
    fn default() -> Self {
        Self { anchors: 256, positive_anchors: 0.5, regions: 512, positive_regions: 0.25, iou: 0.5 }
    }
}

impl RegionSampling {
    /// Reports values out of range.
    pub fn check(&self, found: &mut Found) {
        for (key, value) in [("anchors", self.anchors), ("regions", self.regions)] {
            if !(1..=4096).contains(&value) {
                found.push((key.to_owned(), format!("found {value}, expected 1 to 4096")));
            }
        }
        for (key, value) in [
            ("positive_anchors", self.positive_anchors),
            ("positive_regions", self.positive_regions),
            ("iou", self.iou),
        ] {
            check_probability(key, value, found);
        }
    }

    /// 1 at the anchors that are learnt from, `[n, p]`.
    pub(crate) fn anchors_of(&self, positive_np: &Tensor<2>, negative_np: &Tensor<2>, key: Key) -> Tensor<2> {
        let order_np = order(positive_np.dims(), key.at("anchors", 0), positive_np);
        drawn(positive_np, negative_np, &order_np, self.anchors, self.positive_anchors)
    }
}

/// What the regions of an output are to say; nothing here carries a gradient.
#[derive(Clone, Debug)]
pub struct RegionTargets {
    /// `[n, r]`: 1 where a region is learnt from.
    pub drawn_nr: Tensor<2>,
    /// `[n, r]`: 1 where it holds an object, too.
    pub positive_nr: Tensor<2>,
    /// `[n, r, k]`: 1 at the class of the object.
    pub classes_nrk: Tensor<3>,
    /// `[n, r, 1 + k]`: 1 at what the region may say: the class of its object; background and every class that was not looked
    /// for, where it holds none.
    pub allowed_nrk: Tensor<3>,
    /// `[n, r, 4]`: how the object's box differs from the region, as [`Regions`] has it; 0 where there is no object.
    pub deltas_nr4: Tensor<3>,
}

/// How regions meet the labels: 1 where they hold an object and where they hold none, `[n, r]`, and which box of the label each
/// overlaps with most, `[n, r]`. In a crowd or a difficult object, which half of the region lies in, neither.
struct Matched {
    positive_nr: Tensor<2>,
    negative_nr: Tensor<2>,
    box_nr: Tensor<2, burn::tensor::Int>,
}

impl Matched {
    fn of(regions: &Proposals, targets: &DetTargets, iou: f64) -> Self {
        let Proposals { edges_nr4, real_nr } = regions;
        let masked =
            |overlap_nmr: Tensor<3>, of_boxes_nm: &Tensor<2>| overlap_nmr * of_boxes_nm.clone().unsqueeze_dim::<3>(2);
        let overlap_nmr = masked(overlaps(&targets.edges_nm4, edges_nr4), &targets.objects_nm);
        let (most_n1r, box_n1r) = overlap_nmr.max_dim_with_indices(1);
        let is_high = most_n1r.clone().greater_equal_scalar(iou).bool_and(most_n1r.greater_scalar(0.0));
        let positive_nr = is_high.float().squeeze_dim::<2>(1) * real_nr.clone();
        let common_nmr = masked(common_areas(&targets.edges_nm4, edges_nr4), &targets.ignored_nm);
        let half_n1r = areas(edges_nr4).swap_dims(1, 2).div_scalar(2.0);
        let inside_n1r = common_nmr.max_dim(1);
        let is_ignored = inside_n1r.clone().greater_equal(half_n1r).bool_and(inside_n1r.greater_scalar(0.0));
        let is_counted_nr = is_ignored.bool_not().float().squeeze_dim::<2>(1) * real_nr.clone();
        let negative_nr = is_counted_nr * positive_nr.clone().neg().add_scalar(1.0);
        Self { positive_nr, negative_nr, box_nr: box_n1r.squeeze_dim(1) }
    }
}

/// Regions to learn from, of proposals and labelled objects, and what they are to say in `classes` classes.
///
/// # Differs
/// torchvision knows neither crowds nor difficult objects nor classes that nobody looked for.
pub(crate) fn drawn_regions(
    proposals: Proposals,
    targets: &DetTargets,
    classes: usize,
    sampling: &RegionSampling,
    key: Key,
) -> (Proposals, RegionTargets) {
    let all = Proposals {
        edges_nr4: Tensor::cat(vec![proposals.edges_nr4, targets.edges_nm4.clone()], 1),
        real_nr: Tensor::cat(vec![proposals.real_nr, targets.objects_nm.clone()], 1),
    };
    let Matched { positive_nr, negative_nr, .. } = Matched::of(&all, targets, sampling.iou);
    let [_, count] = positive_nr.dims();
    let order_nr = order(positive_nr.dims(), key.at("regions", 0), &positive_nr);
    let drawn_nr = drawn(&positive_nr, &negative_nr, &order_nr, sampling.regions, sampling.positive_regions);
    // What was drawn comes before all else, which fills up the room.
    let first_nr = order_nr + drawn_nr.clone().mul_scalar(count as f64);
    let chosen = largest(&first_nr, sampling.regions.min(count));
    let regions =
        Proposals { edges_nr4: rows_of(&all.edges_nr4, &chosen), real_nr: all.real_nr.gather(1, chosen.clone()) };
    let targets = RegionTargets::of(&regions, drawn_nr.gather(1, chosen), targets, classes, sampling.iou);
    (regions, targets)
}

impl RegionTargets {
    /// Of regions of which some are learnt from.
    pub(crate) fn of(regions: &Proposals, drawn_nr: Tensor<2>, targets: &DetTargets, classes: usize, iou: f64) -> Self {
        let Matched { positive_nr, box_nr, .. } = Matched::of(regions, targets, iou);
        let positive_nr = positive_nr * drawn_nr.clone();
        let [n, r] = positive_nr.dims();
        let positive_nr1: Tensor<3> = positive_nr.clone().unsqueeze_dim(2);
        let class_of_each = box_nr.clone().unsqueeze_dim::<3>(2).expand([n, r, classes]);
        let classes_nrk = targets.one_hot(classes).gather(1, class_of_each) * positive_nr1.clone();
        let unsought_n1k = targets.looked_for.clone().narrow(1, 0, classes).neg().add_scalar(1.0).unsqueeze_dim::<3>(1);
        let nothing_nr1 = positive_nr1.clone().neg().add_scalar(1.0);
        let allowed_nrk = Tensor::cat(
            vec![nothing_nr1.clone(), classes_nrk.clone() + nothing_nr1 * unsought_n1k.expand([n, r, classes])],
            2,
        );
        let own_nr4 = rows_of(&targets.edges_nm4, &box_nr);
        let deltas_nr4 = differences(&regions.edges_nr4, &own_nr4) * positive_nr1;
        Self { drawn_nr, positive_nr, classes_nrk, allowed_nrk, deltas_nr4 }
    }
}

/// The numbers from 1 to `p` in an order of its own for each image, `[n, p]`.
fn order([n, places]: [usize; 2], key: Key, like: &Tensor<2>) -> Tensor<2> {
    let of_image = |image: usize| {
        let mut numbers: Vec<f32> = (1..=places).map(|number| number as f32).collect();
        numbers.shuffle(&mut key.at("image", image as u64).rng());
        numbers
    };
    let numbers: Vec<f32> = (0..n).flat_map(of_image).collect();
    Tensor::from_data(TensorData::new(numbers, [n, places]), &like.device())
}

/// 1 at `count` of each row, of which the part `share` is positive at most and the others are negative, by an order.
///
/// # Source
/// torchvision's `BalancedPositiveNegativeSampler`.
fn drawn(
    positive_np: &Tensor<2>,
    negative_np: &Tensor<2>,
    order_np: &Tensor<2>,
    count: usize,
    share: f64,
) -> Tensor<2> {
    let most = positive_np.clone().sum_dim(1).clamp_max((count as f64 * share).floor());
    let chosen_np = among_largest(&(order_np.clone() * positive_np.clone()), &most);
    let rest = most.neg().add_scalar(count as f64);
    chosen_np + among_largest(&(order_np.clone() * negative_np.clone()), &rest)
}

/// Left, top, right, bottom of boxes `[n, r, 4]` as their middles, each `[n, 1, r]`, and sides.
fn middles_and_sides(edges_nr4: &Tensor<3>) -> ([Tensor<3>; 2], [Tensor<3>; 2]) {
    let edge = |index: usize| edges_nr4.clone().narrow(2, index, 1).swap_dims(1, 2);
    let middle = |axis: usize| (edge(axis) + edge(axis + 2)).div_scalar(2.0);
    let side = |axis: usize| edge(axis + 2) - edge(axis);
    ([middle(0), middle(1)], [side(0), side(1)])
}

/// How boxes differ from regions, `[n, r, 4]` all, as [`Regions`] has it.
fn differences(regions_nr4: &Tensor<3>, own_nr4: &Tensor<3>) -> Tensor<3> {
    let ([x, y], sides) = middles_and_sides(regions_nr4);
    let edge = |index: usize| own_nr4.clone().narrow(2, index, 1).swap_dims(1, 2);
    let distances_n4r = Tensor::cat(vec![x.clone() - edge(0), y.clone() - edge(1), edge(2) - x, edge(3) - y], 1);
    // What fills up the room may have no side.
    let deltas_n4r = encoded(&distances_n4r, &sides.map(|side| side.clamp_min(1e-3)));
    let [shifts, logs] = [0, 2].map(|first| deltas_n4r.clone().narrow(1, first, 2));
    Tensor::cat(vec![shifts.mul_scalar(WEIGHTS[0]), logs.mul_scalar(WEIGHTS[1])], 1).swap_dims(1, 2)
}

/// The box of each class of each region, inside of the image: left, top, right, bottom in pixels, `[n, 4, r * k]`, region by
/// region.
pub(crate) fn boxes(regions: &Regions, [height, width]: [usize; 2]) -> Tensor<3> {
    let [n, r, k, _] = regions.deltas.dims();
    let (middles, sides) = middles_and_sides(&regions.edges_nr4);
    let of_classes = |of_regions: Tensor<3>| -> Tensor<3> {
        of_regions.unsqueeze_dim::<4>(3).expand([n, 1, r, k]).reshape([n, 1, r * k])
    };
    let ([x, y], sides) = (middles.map(of_classes), sides.map(of_classes));
    let deltas_n4p: Tensor<3> = regions.deltas.clone().reshape([n, r * k, 4]).swap_dims(1, 2);
    let [shifts, logs] = [0, 2].map(|first| deltas_n4p.clone().narrow(1, first, 2));
    let deltas_n4p = Tensor::cat(vec![shifts.div_scalar(WEIGHTS[0]), logs.div_scalar(WEIGHTS[1])], 1);
    let ways = decoded(&deltas_n4p, &sides);
    let way = |edge: usize| ways.clone().narrow(1, edge, 1);
    let (across, down) = (width as f64, height as f64);
    let edges = [
        (x.clone() - way(0)).clamp(0.0, across),
        (y.clone() - way(1)).clamp(0.0, down),
        (x + way(2)).clamp(0.0, across),
        (y + way(3)).clamp(0.0, down),
    ];
    Tensor::cat(edges.to_vec(), 1)
}

/// The same labels for a first stage, whose only class is any object: it was looked for where all `classes` were.
pub(crate) fn as_objects(targets: &DetTargets, classes: usize) -> DetTargets {
    let all_n1 = targets.looked_for.clone().narrow(1, 0, classes).min_dim(1);
    let [n, _] = all_n1.dims();
    DetTargets {
        classes_nm: targets.classes_nm.zeros_like(),
        looked_for: all_n1.expand([n, MAX_CLASSES]),
        ..targets.clone()
    }
}

/// An output with what is to be learnt from the regions of a net's second stage.
pub(crate) fn with_regions(
    net: &crate::nets::TwoStages,
    output: &DetOutput,
    targets: &DetTargets,
    sampling: &RegionSampling,
    key: Key,
) -> (DetOutput, RegionTargets) {
    let (regions, targets) = drawn_regions(net.proposals(output), targets, net.classes(), sampling, key);
    let regions = net.regions(output, regions);
    (DetOutput { regions: Some(regions), ..output.clone() }, targets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{close, labelled, values};
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, IGNORE};

    fn proposals(edges: &[[f32; 4]]) -> Proposals {
        let r = edges.len();
        let device = Device::flex();
        Proposals {
            edges_nr4: Tensor::from_data(TensorData::new(edges.concat(), [1, r, 4]), &device),
            real_nr: Tensor::ones([1, r], &device),
        }
    }

    /// A region on an object, one beside everything, one in half of which something is.
    const EDGES: [[f32; 4]; 3] = [[0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 40.0], [50.0, 0.0, 60.0, 10.0]];

    fn targets(labels: &BoxLabels) -> DetTargets {
        DetTargets::upload(std::slice::from_ref(labels), &Device::flex())
    }

    fn drawn_of(labels: &BoxLabels, sampling: &RegionSampling, key: u64) -> (Proposals, RegionTargets) {
        drawn_regions(proposals(&EDGES), &targets(labels), 3, sampling, Key::new(key))
    }

    /// What was drawn, by edges.
    fn by_edges(drawn: &(Proposals, RegionTargets), of_regions: &Tensor<3>) -> Vec<([f32; 4], Vec<f32>)> {
        let edges = values(drawn.0.edges_nr4.clone());
        let (rows, is) = (values(of_regions.clone()), values(drawn.1.drawn_nr.clone()));
        let width = rows.len() / is.len();
        let mut found: Vec<([f32; 4], Vec<f32>)> = edges
            .as_chunks()
            .0
            .iter()
            .copied()
            .zip(rows.chunks(width).map(<[f32]>::to_vec))
            .zip(is)
            .filter(|(_, is)| *is == 1.0)
            .map(|(row, _)| row)
            .collect();
        found.sort_by(|a, b| a.partial_cmp(b).unwrap());
        found
    }

    #[test]
    fn regions_on_objects_beside_them_and_in_crowds_by_hand() {
        let object = ([1.0, 0.0, 11.0, 10.0], 1, BoxKind::Object);
        for (kind, class) in [(BoxKind::Crowd, IGNORE), (BoxKind::Difficult, 2)] {
            let labels = labelled(&[object, ([45.0, 0.0, 55.0, 20.0], class, kind)]);
            let found = drawn_of(&labels, &RegionSampling::default(), 1);
            let allowed = by_edges(&found, &found.1.allowed_nrk);
            let of_object = vec![0.0, 0.0, 1.0, 0.0];
            let expected = [
                (EDGES[0], of_object.clone()),
                ([1.0, 0.0, 11.0, 10.0], of_object),
                (EDGES[1], vec![1.0, 0.0, 0.0, 0.0]),
            ];
            assert_eq!(allowed, expected, "{kind:?}");
            let deltas = by_edges(&found, &found.1.deltas_nr4);
            // A tenth of a side to the right; the labelled box is the object.
            close(&deltas[0].1, &[1.0, 0.0, 0.0, 0.0], 1e-5);
            assert_eq!((deltas[1].1.clone(), deltas[2].1.clone()), (vec![0.0; 4], vec![0.0; 4]));
        }
    }

    #[test]
    fn where_classes_were_not_looked_for_a_region_without_an_object_may_hold_them() {
        let labels =
            BoxLabels { looked_for: Some(vec![1]), ..labelled(&[([1.0, 0.0, 11.0, 10.0], 1, BoxKind::Object)]) };
        let found = drawn_of(&labels, &RegionSampling::default(), 1);
        let allowed = by_edges(&found, &found.1.allowed_nrk);
        assert_eq!(allowed[0].1, [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(allowed[2].1, [1.0, 1.0, 0.0, 1.0]);
        let objects = as_objects(&targets(&labels), 3);
        assert_eq!(values(objects.looked_for).iter().sum::<f32>(), 0.0);
        let objects = as_objects(&targets(&labelled(&[([0.0; 4], 2, BoxKind::Object)])), 3);
        assert!(values(objects.looked_for).iter().all(|known| *known == 1.0));
        assert!(values(objects.classes_nm.float()).iter().all(|class| *class == 0.0));
    }

    #[test]
    fn what_is_drawn_is_a_function_of_the_key_and_bounded() {
        let many: Vec<[f32; 4]> = (0..60).map(|i| [i as f32, 0.0, i as f32 + 10.0, 10.0]).collect();
        let labels =
            labelled(&[([0.0, 0.0, 10.0, 10.0], 0, BoxKind::Object), ([9.0, 0.0, 19.0, 10.0], 0, BoxKind::Object)]);
        let sampling = RegionSampling { regions: 20, positive_regions: 0.25, ..RegionSampling::default() };
        let draw = |key| {
            let found = drawn_regions(proposals(&many), &targets(&labels), 1, &sampling, Key::new(key));
            assert_eq!(values(found.1.positive_nr.clone()).iter().sum::<f32>(), 5.0);
            assert_eq!(values(found.1.drawn_nr.clone()), vec![1.0; 20]);
            values(found.0.edges_nr4)
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        // Without an object all are negative.
        let found = drawn_regions(proposals(&many), &targets(&labelled(&[])), 1, &sampling, Key::new(1));
        let sums = [found.1.positive_nr, found.1.drawn_nr].map(|mask| values(mask).iter().sum::<f32>());
        assert_eq!(sums, [0.0, 20.0]);
    }

    #[test]
    fn boxes_of_classes_undo_the_differences() {
        let regions = proposals(&EDGES);
        let own = proposals(&[[2.0, 1.0, 9.0, 12.0], [28.0, 31.0, 47.0, 39.0], [51.0, 0.0, 60.0, 9.0]]).edges_nr4;
        let deltas = differences(&regions.edges_nr4, &own);
        let regions = Regions {
            class_logits: Tensor::zeros([1, 3, 3], &Device::flex()),
            deltas: Tensor::cat(
                vec![deltas.clone().unsqueeze_dim::<4>(2), deltas.zeros_like().unsqueeze_dim::<4>(2)],
                2,
            ),
            edges_nr4: regions.edges_nr4,
            real_nr: regions.real_nr,
        };
        let found: Tensor<4> = boxes(&regions, [100, 100]).reshape([1, 4, 3, 2]);
        let of_class = |class: usize| values(found.clone().narrow(3, class, 1).swap_dims(1, 2));
        close(&of_class(0), &values(own), 1e-5);
        close(&of_class(1), &EDGES.concat(), 1e-5);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let mut found = Found::new();
        RegionSampling { anchors: 0, positive_regions: 2.0, ..RegionSampling::default() }.check(&mut found);
        assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["anchors", "positive_regions"]);
    }
}
