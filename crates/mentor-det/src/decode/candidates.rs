//! The best boxes of each level of one image.

use mentor_types::{Detection, Edges, LevelLayout};

/// What a detector says of one level of one image, on the host; a plane is the values of all places.
pub(super) struct Level<'a> {
    pub(super) layout: &'a LevelLayout,
    /// A plane for each class.
    pub(super) class_logits: &'a [f32],
    /// A plane for each of left, top, right and bottom.
    pub(super) distances: [&'a [f32]; 4],
    /// A plane.
    pub(super) centerness: Option<&'a [f32]>,
}

/// A score at a place, of a class.
struct Candidate {
    score: f32,
    place: usize,
    class: usize,
}

impl Level<'_> {
    /// The best `most` that score more than `threshold`, the best first; of equal scores the first place, and there the first
    /// class. Boxes end at the edges of the image; those that have no area then are left out.
    pub(super) fn best(&self, threshold: f64, most: usize, image_size: [usize; 2]) -> Vec<Detection> {
        let mut candidates = self.above(threshold as f32);
        let classes = self.class_logits.len() / self.places().max(1);
        let rank = |candidate: &Candidate| candidate.place * classes + candidate.class;
        let order = |a: &Candidate, b: &Candidate| b.score.total_cmp(&a.score).then(rank(a).cmp(&rank(b)));
        if candidates.len() > most {
            candidates.select_nth_unstable_by(most, order);
            candidates.truncate(most);
        }
        candidates.sort_unstable_by(order);
        let boxes = candidates.into_iter().filter_map(|Candidate { score, place, class }| {
            let edges = self.edges(place, image_size);
            let is_solid = edges[2] > edges[0] && edges[3] > edges[1];
            is_solid.then_some(Detection { edges, class: class as u8, score })
        });
        boxes.collect()
    }

    fn places(&self) -> usize {
        self.distances[0].len()
    }

    /// Whatever scores more than `threshold`. A score that is not a number does not.
    fn above(&self, threshold: f32) -> Vec<Candidate> {
        let places = self.places();
        let centrality = self.centerness.map(|plane| plane.iter().copied().map(sigmoid).collect::<Vec<_>>());
        let score = |logit: f32, place: usize| match &centrality {
            Some(centrality) => (sigmoid(logit) * centrality[place]).sqrt(),
            None => sigmoid(logit),
        };
        // A comparison of scores before the sigmoid leaves few for which it is computed.
        let least: Vec<f32> = match &centrality {
            Some(centrality) => {
                centrality.iter().map(|central| lowest_logit(threshold * threshold / central)).collect()
            }
            None => vec![lowest_logit(threshold); places],
        };
        let mut found = Vec::new();
        for (class, logits) in self.class_logits.chunks_exact(places.max(1)).enumerate() {
            for (place, (logit, least)) in logits.iter().zip(&least).enumerate() {
                if logit > least {
                    let score = score(*logit, place);
                    if score > threshold {
                        found.push(Candidate { score, place, class });
                    }
                }
            }
        }
        found
    }

    fn edges(&self, place: usize, [height, width]: [usize; 2]) -> Edges {
        let LevelLayout { stride, size: [_, columns], point, anchors } = self.layout;
        let index = place / anchors.len();
        let [x, y] = [index % columns, index / columns].map(|index| (index as f32 + point) * *stride as f32);
        let [left, top, right, bottom] = self.distances.map(|plane| plane[place]);
        let inside = |edge: f32, end: usize| edge.clamp(0.0, end as f32);
        [inside(x - left, width), inside(y - top, height), inside(x + right, width), inside(y + bottom, height)]
    }
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// A logit that every one whose sigmoid is more than `probability` exceeds, with room for the rounding of sigmoids.
fn lowest_logit(probability: f32) -> f32 {
    let probability = probability * (1.0 - 1e-5);
    if probability < 1.0 { (probability / (1.0 - probability)).ln() } else { f32::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mentor_types::Key;
    use rand::RngExt;

    #[test]
    fn the_early_comparison_of_logits_loses_no_score_above_the_threshold() {
        const PLACES: usize = 400;
        let mut rng = Key::new(5).at("logits", 0).rng();
        let mut noise = |count: usize, reach: f32| -> Vec<f32> {
            (0..count).map(|_| reach * (2.0 * rng.random::<f32>() - 1.0)).collect()
        };
        let (class_logits, centerness, plane) = (noise(3 * PLACES, 9.0), noise(PLACES, 6.0), noise(PLACES, 1.0));
        let layout = LevelLayout { stride: 8, size: [20, 20], point: 0.5, anchors: vec![[64.0; 2]] };
        for centerness in [None, Some(&centerness[..])] {
            let distances = [&plane[..]; 4];
            let level = Level { layout: &layout, class_logits: &class_logits, distances, centerness };
            let score = |at: usize| match centerness {
                Some(plane) => (sigmoid(class_logits[at]) * sigmoid(plane[at % PLACES])).sqrt(),
                None => sigmoid(class_logits[at]),
            };
            for threshold in [0.0, 0.01, 0.05, 0.3, 0.7, 0.99, score(7), score(7).next_down()] {
                let expected: Vec<usize> = (0..3 * PLACES).filter(|at| score(*at) > threshold).collect();
                let found = level.above(threshold);
                let found: Vec<usize> = found.iter().map(|one| one.class * PLACES + one.place).collect();
                assert!(!expected.is_empty());
                assert_eq!(found, expected, "above {threshold}");
            }
        }
    }
}
