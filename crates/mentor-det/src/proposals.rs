//! The boxes that the first stage of a detector proposes to the second, on the device and in fixed shapes.

use burn::tensor::{DType, Int, Tensor};
use mentor_types::{DetLevel, DetOutput};

use crate::grid::Grid;
use crate::largest::largest;
use crate::pairs::overlaps;

/// Shorter boxes are none, in pixels.
const SHORTEST: f64 = 1e-3;

/// Scores are bounded so: beyond it all are as sure.
const SUREST: f64 = 30.0;

/// How often it is asked which boxes overlap with a surer one that is kept: exact unless each of as many boxes is suppressed
/// by the next.
const ROUNDS: usize = 16;

/// Which boxes are proposed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProposalLimits {
    /// How many of the surest places of each level are looked at.
    pub candidates: usize,
    /// Of two boxes of a level that overlap by more than this the surer one is kept.
    pub nms_iou: f64,
    /// How many are proposed at most in an image.
    pub proposals: usize,
}

/// Boxes of images, off the graph.
#[derive(Clone, Debug)]
pub struct Proposals {
    /// `[n, r, 4]`: left, top, right, bottom in pixels, inside of the image.
    pub edges_nr4: Tensor<3>,
    /// `[n, r]`: 1 where there is a box, 0 where an image has fewer.
    pub real_nr: Tensor<2>,
}

/// Boxes of a level, each with a score.
struct Candidates {
    edges_nr4: Tensor<3>,
    scores_nr: Tensor<2>,
    real_nr: Tensor<2>,
}

impl Proposals {
    /// Of each level the surest places, whose boxes end at the edges of the image; of those that overlap on a level the surest
    /// one; of all the surest, in no order.
    ///
    /// # Source
    /// torchvision's `RegionProposalNetwork.filter_proposals`.
    ///
    /// # Differs
    /// In no order. Boxes are suppressed in rounds, all at once, as in Cluster-NMS (Zheng et al. 2020, arXiv 2005.03572): each
    /// that overlaps with a surer one that the round before kept. Scores beyond 30 count as 30.
    #[must_use]
    pub fn of(output: &DetOutput, limits: &ProposalLimits) -> Self {
        let of_level = |level: &DetLevel| {
            let candidates = Candidates::of(level, limits.candidates, output.image_size);
            candidates.suppressed(limits.nms_iou)
        };
        let levels: Vec<Candidates> = output.levels.iter().map(of_level).collect();
        let edges_nr4 = Tensor::cat(levels.iter().map(|level| level.edges_nr4.clone()).collect(), 1);
        let scores_nr = Tensor::cat(levels.iter().map(|level| level.scores_nr.clone()).collect(), 1);
        let real_nr = Tensor::cat(levels.into_iter().map(|level| level.real_nr).collect(), 1);
        let [_, all] = scores_nr.dims();
        if all <= limits.proposals {
            return Self { edges_nr4, real_nr };
        }
        // Below all others.
        let scores_nr = scores_nr.mask_fill(real_nr.clone().lower_scalar(0.5), -SUREST - 1.0);
        let chosen = largest(&scores_nr, limits.proposals);
        Self { edges_nr4: rows_of(&edges_nr4, &chosen), real_nr: real_nr.gather(1, chosen) }
    }
}

impl Candidates {
    fn of(level: &DetLevel, most: usize, image_size: [usize; 2]) -> Self {
        let plain = |part: &Tensor<3>| part.clone().inner().cast(DType::F32);
        let scores_np: Tensor<2> = plain(&level.class_logits).squeeze_dim::<2>(1).clamp(-SUREST, SUREST);
        let grid = Grid::of_levels(vec![level.layout.clone()], &scores_np.device());
        let edges = grid.edges_within(&plain(&level.distances), image_size);
        let edges_np4 = Tensor::cat(edges.to_vec(), 1).swap_dims(1, 2);
        let (edges_nr4, scores_nr) = if level.layout.places() > most {
            let chosen = largest(&scores_np, most);
            (rows_of(&edges_np4, &chosen), scores_np.gather(1, chosen))
        } else {
            (edges_np4, scores_np)
        };
        let side = |low: usize| edges_nr4.clone().narrow(2, low + 2, 1) - edges_nr4.clone().narrow(2, low, 1);
        let real_nr = side(0).min_pair(side(1)).greater_equal_scalar(SHORTEST).float().squeeze_dim(2);
        Self { scores_nr, real_nr, edges_nr4 }
    }

    /// Without those that overlap with a surer one; of equally sure ones the first counts as the surer.
    fn suppressed(self, nms_iou: f64) -> Self {
        let [n, r] = self.scores_nr.dims();
        let scores_nr1: Tensor<3> = self.scores_nr.clone().unsqueeze_dim(2);
        let (ours, theirs) = (scores_nr1.clone().expand([n, r, r]), scores_nr1.swap_dims(1, 2).expand([n, r, r]));
        let numbers_1r1 = Tensor::<1, Int>::arange(0..r as i64, &self.scores_nr.device()).float().reshape([1, r, 1]);
        let is_first = numbers_1r1.clone().expand([1, r, r]).lower(numbers_1r1.swap_dims(1, 2).expand([1, r, r]));
        let is_surer =
            ours.clone().greater(theirs.clone()).bool_or(ours.equal(theirs).bool_and(is_first.expand([n, r, r])));
        let over_nrr = overlaps(&self.edges_nr4, &self.edges_nr4).greater_scalar(nms_iou).bool_and(is_surer).float();
        // Rows are those that suppress.
        let over_nrr = over_nrr * self.real_nr.clone().unsqueeze_dim::<3>(2);
        let mut kept_n1r: Tensor<3> = Tensor::ones([n, 1, r], &over_nrr.device());
        for _ in 0..ROUNDS {
            kept_n1r = kept_n1r.matmul(over_nrr.clone()).lower_scalar(0.5).float();
        }
        Self { real_nr: self.real_nr * kept_n1r.squeeze_dim::<2>(1), ..self }
    }
}

/// Some of the boxes of each image.
pub(crate) fn rows_of(edges_np4: &Tensor<3>, chosen_nr: &Tensor<2, Int>) -> Tensor<3> {
    let [n, r] = chosen_nr.dims();
    edges_np4.clone().gather(1, chosen_nr.clone().unsqueeze_dim::<3>(2).expand([n, r, 4]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::suppress;
    use crate::testing::{map, output, values};
    use mentor_types::Detection;

    /// Boxes with their scores, by score.
    fn real(proposals: &Proposals, image: usize) -> Vec<[f32; 4]> {
        let edges = values(proposals.edges_nr4.clone().narrow(0, image, 1));
        let real = values(proposals.real_nr.clone().narrow(0, image, 1));
        let mut found: Vec<[f32; 4]> = edges.as_chunks().0.to_vec();
        let mut real = real.into_iter();
        found.retain(|_| real.next() == Some(1.0));
        found.sort_by(|a, b| a.partial_cmp(b).unwrap());
        found
    }

    fn noisy() -> DetOutput {
        let mut output = output(&[(8, [6, 7]), (16, [3, 4])], 2, 1, |i| ((i * 7919 + 13) % 101) as f32 / 20.0 - 2.5);
        output.image_size = [44, 53];
        for level in &mut output.levels {
            let [n, _, p] = level.class_logits.dims();
            level.class_logits = map([n, 1, 1, p], |i| ((i * 5417 + 7) % 997) as f32 / 100.0 - 5.0).flatten(2, 3);
            // Wide enough to overlap.
            level.distances = level.distances.clone().add_scalar(level.layout.stride as f64);
        }
        output
    }

    #[test]
    fn proposals_are_those_of_greedy_suppression_level_by_level() {
        let output = noisy();
        for (candidates, nms_iou, proposals) in [(1000, 0.5, 1000), (20, 0.3, 1000), (15, 0.7, 12), (30, 1.0, 7)] {
            let found = Proposals::of(&output, &ProposalLimits { candidates, nms_iou, proposals });
            assert!(found.real_nr.dims()[1] <= proposals);
            for image in 0..2 {
                let mut kept: Vec<Detection> = Vec::new();
                for level in &output.levels {
                    let [_, _, p] = level.class_logits.dims();
                    let scores = values(level.class_logits.clone().narrow(0, image, 1));
                    let ways = values(level.distances.clone().narrow(0, image, 1));
                    let grid = Grid::of_levels(vec![level.layout.clone()], &burn::tensor::Device::flex());
                    let [x, y] = grid.points.map(values);
                    let mut all: Vec<Detection> = (0..p)
                        .map(|at| {
                            let way = |edge: usize| ways[edge * p + at];
                            let edges = [x[at] - way(0), y[at] - way(1), x[at] + way(2), y[at] + way(3)];
                            let limits = [53.0, 44.0, 53.0, 44.0];
                            let edges = [0, 1, 2, 3].map(|edge: usize| edges[edge].clamp(0.0, limits[edge]));
                            Detection { edges, class: 0, score: scores[at] }
                        })
                        .collect();
                    all.sort_by(|a, b| b.score.total_cmp(&a.score));
                    all.truncate(candidates);
                    kept.extend(suppress(&all, nms_iou, usize::MAX).into_iter().map(|at| all[at]));
                }
                kept.sort_by(|a, b| b.score.total_cmp(&a.score));
                kept.truncate(proposals);
                let mut expected: Vec<[f32; 4]> = kept.iter().map(|one| one.edges).collect();
                expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
                assert_eq!(real(&found, image), expected, "{candidates} {nms_iou} {proposals}");
                assert!(expected.len() > 5);
            }
        }
    }

    #[test]
    fn boxes_without_an_extent_are_not_proposed() {
        let mut output = output(&[(8, [1, 3])], 1, 1, |i| i as f32);
        // The second lies beyond the edge of the image, the third has no height.
        output.image_size = [8, 10];
        output.levels[0].distances =
            map([1, 4, 1, 3], |i| [3.0, -1.5, 9.0, 3.0, 1.0, 0.0, 3.0, 9.0, 9.0, 3.0, 1.0, 0.0][i]).flatten(2, 3);
        let limits = ProposalLimits { candidates: 10, nms_iou: 0.7, proposals: 10 };
        let found = Proposals::of(&output, &limits);
        assert_eq!(values(found.real_nr), [1.0, 0.0, 0.0]);
    }
}
