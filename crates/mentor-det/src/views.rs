//! The views of unlabelled images: what a labeller finds in the weak ones, carried to the strong ones.

use std::cell::{OnceCell, RefCell};

use burn::tensor::{Int, Tensor};
use mentor_types::DetOutput;
use mentor_unlabeled::Teaching;

use crate::upload::{DetTargets, PairLabels};

/// What a view must show of a box at least, in pixels each way.
const SMALLEST_SIDE: f64 = 1.0;

/// The views of unlabelled images; what a labeller says of the weak ones is computed when a term first asks.
pub struct Views<'a> {
    labels: &'a PairLabels,
    labeller: &'a dyn Fn(Teaching) -> DetOutput,
    visible_share: f64,
    /// By [`Teaching`].
    weak: [OnceCell<DetOutput>; 2],
    /// By the name of the term.
    pseudo: RefCell<Vec<(&'static str, DetTargets)>>,
}

impl std::fmt::Debug for Views<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("labels", &self.labels).finish_non_exhaustive()
    }
}

impl<'a> Views<'a> {
    /// The views that `labels` belong to; `labeller` says what there is in the weak ones, and the strong one must show
    /// `visible_share` of a box, that it counts as an object, as a view of a labelled image must.
    #[must_use]
    pub fn new(labels: &'a PairLabels, labeller: &'a dyn Fn(Teaching) -> DetOutput, visible_share: f64) -> Self {
        Self { labels, labeller, visible_share, weak: Default::default(), pseudo: RefCell::default() }
    }

    /// What a labeller says of the weak views.
    #[must_use]
    pub fn weak(&self, teaching: Teaching) -> &DetOutput {
        self.weak[teaching as usize].get_or_init(|| (self.labeller)(teaching))
    }

    /// The pseudo-labels of a term, which are made once: its loss and its statistics ask for them.
    #[must_use]
    pub(crate) fn pseudo_labels(&self, term: &'static str, make: impl FnOnce() -> DetTargets) -> DetTargets {
        let made = self.pseudo.borrow().iter().find(|(name, _)| *name == term).map(|(_, labels)| labels.clone());
        made.unwrap_or_else(|| {
            let labels = make();
            self.pseudo.borrow_mut().push((term, labels.clone()));
            labels
        })
    }

    /// What labels of the weak views are on the strong ones of `size` (height, width): moved with the geometry, and cut off at
    /// the edges. An object of which too small a share is seen is ignored, one of less than a pixel is gone.
    #[must_use]
    pub fn carried(&self, weak: &DetTargets, [height, width]: [usize; 2]) -> DetTargets {
        let PairLabels { scale_n2, shift_n2, .. } = self.labels;
        let corner = |first: usize| {
            let corner_nm2 = weak.edges_nm4.clone().narrow(2, first, 2);
            (corner_nm2 - shift_n2.clone().unsqueeze_dim::<3>(1)) / scale_n2.clone().unsqueeze_dim::<3>(1)
        };
        let (one, other) = (corner(0), corner(2));
        let whole_nm4 = Tensor::cat(vec![one.clone().min_pair(other.clone()), one.max_pair(other)], 2);
        let along = |edge: usize, limit: usize| whole_nm4.clone().narrow(2, edge, 1).clamp(0.0, limit as f64);
        let edges_nm4 = Tensor::cat(vec![along(0, width), along(1, height), along(2, width), along(3, height)], 2);
        let side = |edges_nm4: &Tensor<3>, axis: usize| {
            let side_nm1 = edges_nm4.clone().narrow(2, axis + 2, 1) - edges_nm4.clone().narrow(2, axis, 1);
            side_nm1.squeeze_dim::<2>(2)
        };
        let area = |edges_nm4: &Tensor<3>| side(edges_nm4, 0) * side(edges_nm4, 1);
        let is_seen = side(&edges_nm4, 0).min_pair(side(&edges_nm4, 1)).greater_equal_scalar(SMALLEST_SIDE).float();
        let share_nm = area(&edges_nm4) / area(&whole_nm4).clamp_min(1e-6);
        let is_whole = share_nm.greater_equal_scalar(self.visible_share).float();
        let cut_off = weak.objects_nm.clone() * is_whole.clone().neg().add_scalar(1.0);
        DetTargets {
            edges_nm4,
            classes_nm: weak.classes_nm.clone(),
            objects_nm: weak.objects_nm.clone() * is_whole * is_seen.clone(),
            ignored_nm: (weak.ignored_nm.clone() + cut_off) * is_seen,
            looked_for: weak.looked_for.clone(),
        }
    }

    /// The labels of the weak views together with what was `found` there of classes that nobody looked for: with these, every
    /// class was looked for.
    #[must_use]
    pub fn completed(&self, found: DetTargets) -> DetTargets {
        let given = &self.labels.targets;
        let dtype = given.classes_nm.dtype();
        let classes_nm: Tensor<2, Int> = found.classes_nm.clone().cast(dtype);
        let known_nm = given.looked_for.clone().gather(1, found.classes_nm);
        let free_nm = known_nm.neg().add_scalar(1.0);
        let both = |given: &Tensor<2>, found: Tensor<2>| Tensor::cat(vec![given.clone(), found * free_nm.clone()], 1);
        DetTargets {
            edges_nm4: Tensor::cat(vec![given.edges_nm4.clone(), found.edges_nm4], 1),
            classes_nm: Tensor::cat(vec![given.classes_nm.clone(), classes_nm], 1),
            objects_nm: both(&given.objects_nm, found.objects_nm),
            ignored_nm: both(&given.ignored_nm, found.ignored_nm),
            looked_for: found.looked_for,
        }
    }

    /// The labels that came with the weak views.
    #[must_use]
    pub fn given(&self) -> &DetTargets {
        &self.labels.targets
    }

    /// The truth of the weak views where the data set has it, for statistics alone.
    #[must_use]
    pub fn truth(&self) -> &DetTargets {
        &self.labels.truth
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{labelled, values};
    use burn::tensor::Device;
    use mentor_types::{BoxKind, BoxLabels, Edges, Geometry};

    fn pair_labels(link: &[Geometry], targets: &[BoxLabels]) -> PairLabels {
        let device = Device::flex();
        PairLabels::upload(link, targets, &vec![BoxLabels::unknown(); targets.len()], &device)
    }

    fn nobody(_: Teaching) -> DetOutput {
        panic!("no labeller is asked")
    }

    fn rows(targets: &DetTargets, image: usize, boxes: usize) -> Vec<(Edges, f32, f32)> {
        let of = |mask: &Tensor<2>| values(mask.clone().narrow(0, image, 1).narrow(1, 0, boxes));
        let edges = values(targets.edges_nm4.clone().narrow(0, image, 1).narrow(1, 0, boxes));
        let (objects, ignored) = (of(&targets.objects_nm), of(&targets.ignored_nm));
        (0..boxes).map(|i| (edges[4 * i..4 * i + 4].try_into().unwrap(), objects[i], ignored[i])).collect()
    }

    #[test]
    fn boxes_are_scaled_moved_mirrored_and_cut_off() {
        let object = |edges| (edges, 1, BoxKind::Object);
        let weak = [
            labelled(&[object([4.0, 6.0, 8.0, 10.0]), ([4.0, 6.0, 8.0, 10.0], 0, BoxKind::Crowd)]),
            labelled(&[
                object([2.0, 0.0, 6.0, 4.0]),
                object([4.0, 0.0, 6.5, 4.0]),
                object([-2.0, 0.0, 6.4, 4.0]),
                object([-8.0, 0.0, 5.0, 4.0]),
            ]),
        ];
        // A strong view of 20 columns that shows the weak one mirrored, twice as large; and one moved by 5 columns.
        let link =
            [Geometry { scale: [-0.5, 0.5], shift: [10.0, 0.0] }, Geometry { scale: [1.0, 1.0], shift: [5.0, 0.0] }];
        let labels = pair_labels(&link, &weak);
        let views = Views::new(&labels, &nobody, 0.25);
        let strong = views.carried(&labels.targets, [20, 20]);
        let mirrored = [4.0, 12.0, 12.0, 20.0];
        assert_eq!(
            rows(&strong, 0, 3),
            [(mirrored, 1.0, 0.0), (mirrored, 0.0, 1.0), ([20.0, 0.0, 20.0, 0.0], 0.0, 0.0)]
        );
        let moved = rows(&strong, 1, 4);
        // A quarter is left, then more, then a sixth, then none.
        assert_eq!(moved[0], ([0.0, 0.0, 1.0, 4.0], 1.0, 0.0));
        assert_eq!(moved[1], ([0.0, 0.0, 1.5, 4.0], 1.0, 0.0));
        assert_eq!((moved[2].1, moved[2].2), (0.0, 1.0));
        assert_eq!((moved[3].1, moved[3].2), (0.0, 0.0));
        // Where a view must show more of them.
        let strict = rows(&Views::new(&labels, &nobody, 0.5).carried(&labels.targets, [20, 20]), 1, 2);
        assert_eq!([(strict[0].1, strict[0].2), (strict[1].1, strict[1].2)], [(0.0, 1.0), (1.0, 0.0)]);
    }

    #[test]
    fn what_somebody_looked_for_takes_no_box_that_was_found() {
        let one = labelled(&[([0.0, 0.0, 4.0, 4.0], 1, BoxKind::Object)]);
        let partly = BoxLabels { looked_for: Some(vec![1]), ..one };
        let labels = pair_labels(&[Geometry::IDENTITY; 2], &[partly, BoxLabels::unknown()]);
        let views = Views::new(&labels, &nobody, 0.25);
        let boxes = [[1.0f32, 1.0, 3.0, 3.0], [5.0, 5.0, 7.0, 7.0]];
        let device = Device::flex();
        let ones = || Tensor::ones([2, 2], &device);
        let found = DetTargets {
            edges_nm4: Tensor::from_data([boxes, boxes], &device),
            classes_nm: Tensor::from_data([[1, 2], [1, 2]], &device),
            objects_nm: ones(),
            ignored_nm: Tensor::zeros([2, 2], &device),
            looked_for: Tensor::ones([2, mentor_types::MAX_CLASSES], &device),
        };
        let all = views.completed(found);
        assert_eq!(all.edges_nm4.dims(), [2, 18, 4]);
        let objects = |image: usize| values(all.objects_nm.clone().narrow(0, image, 1));
        let expected = |given: f32, found: [f32; 2]| [vec![given], vec![0.0; 15], found.to_vec()].concat();
        assert_eq!(objects(0), expected(1.0, [0.0, 1.0]));
        assert_eq!(objects(1), expected(0.0, [1.0, 1.0]));
        assert_eq!(values(all.classes_nm.narrow(0, 0, 1).narrow(1, 16, 2).float()), [1.0, 2.0]);
        assert_eq!(values(all.looked_for.narrow(1, 0, 3)), [1.0; 6]);
    }
}
