//! Labels as people with little time give them.

use mentor_types::{LabelMask, UNKNOWN};

use crate::classes::{BOAT, BUILDING, CAR, GROUND, ROAD, TREE, WATER};

/// Which classes were labelled in scene `index`, at `index % 3`, but for those where all were: three data sets put
/// together, of which each knows the ground.
pub(crate) const SOME: [&[u8]; 3] = [&[GROUND, ROAD, WATER], &[GROUND, BUILDING, TREE], &[GROUND, CAR, BOAT]];

/// Whether all classes were labelled in a scene of the split whose others have only [`SOME`].
pub(crate) fn all_classes(index: u64) -> bool {
    index.is_multiple_of(8)
}

/// Whether a class was labelled in a scene of that split.
pub(crate) fn is_labelled(class: u8, index: u64) -> bool {
    all_classes(index) || SOME[index as usize % 3].contains(&class)
}

/// A mask as it is where the classes that nobody labelled are taken for ground.
pub(crate) fn rest_as_ground(mask: &LabelMask, index: u64) -> LabelMask {
    let labels = mask.labels().iter().map(|class| if is_labelled(*class, index) { *class } else { GROUND });
    LabelMask::new(mask.width(), mask.height(), labels.collect())
}

/// Areas of fewer pixels get no scribble.
const LEAST_AREA: usize = 24;
/// A scribble keeps so far away from the border of its area, in pixels, where the area is wide enough.
const DEEP: u32 = 3;

/// A mask of which only scribbles are known: one in each area of a class, two or three pixels wide, along its length.
pub(crate) fn scribbles(mask: &LabelMask) -> LabelMask {
    let grid = Grid { width: mask.width(), height: mask.height() };
    let classes = mask.labels();
    let mut known = vec![UNKNOWN; classes.len()];
    let mut done = vec![false; classes.len()];
    for start in 0..classes.len() {
        if done[start] {
            continue;
        }
        let area = grid.reach(start, &|at| classes[at] == classes[start]);
        area.iter().for_each(|at| done[*at] = true);
        if area.len() < LEAST_AREA {
            continue;
        }
        let depth = grid.depth(&area, classes);
        let deepest = area.iter().copied().max_by_key(|at| (depth[*at], std::cmp::Reverse(*at))).unwrap_or(start);
        let deep = depth[deepest].min(DEEP);
        let inside = |at: usize| classes[at] == classes[start] && depth[at] >= deep;
        // From the pixel that is farthest from some other to the one farthest from that: about the longest way there is.
        let one_end = grid.reach(deepest, &inside).last().copied().unwrap_or(deepest);
        let path = grid.longest(one_end, &inside);
        let longest = grid.width.max(grid.height) / 2;
        let skip = path.len().saturating_sub(longest) / 2;
        for at in path.iter().skip(skip).take(longest) {
            grid.around(*at).filter(|at| classes[*at] == classes[start]).for_each(|at| known[at] = classes[at]);
        }
    }
    LabelMask::new(grid.width, grid.height, known)
}

/// Pixels by their place in a row after row.
struct Grid {
    width: usize,
    height: usize,
}

impl Grid {
    /// The pixels left, right, above and below.
    fn beside(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let (x, y, width) = (at % self.width, at / self.width, self.width);
        let left = (x > 0).then(|| at - 1);
        let right = (x + 1 < width).then_some(at + 1);
        let above = (y > 0).then(|| at - width);
        let below = (y + 1 < self.height).then_some(at + width);
        [left, right, above, below].into_iter().flatten()
    }

    /// A pixel and those to the right of it and below.
    fn around(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let right = (at % self.width + 1 < self.width).then_some(at + 1);
        let below = (at / self.width + 1 < self.height).then_some(at + self.width);
        [Some(at), right, below].into_iter().flatten()
    }

    /// All pixels of a kind that hang together with one, the nearest first.
    fn reach(&self, start: usize, is: &dyn Fn(usize) -> bool) -> Vec<usize> {
        self.tree(start, is).0
    }

    /// The same, with the pixel that each was reached from.
    fn tree(&self, start: usize, is: &dyn Fn(usize) -> bool) -> (Vec<usize>, Vec<usize>) {
        let mut from = vec![usize::MAX; self.width * self.height];
        from[start] = start;
        let mut reached = vec![start];
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            next += 1;
            for beside in self.beside(at).filter(|at| is(*at)) {
                if from[beside] == usize::MAX {
                    from[beside] = at;
                    reached.push(beside);
                }
            }
        }
        (reached, from)
    }

    /// The way from a pixel to the farthest of its kind.
    fn longest(&self, start: usize, is: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let (reached, from) = self.tree(start, is);
        let mut path: Vec<usize> = reached.last().copied().into_iter().collect();
        while let Some(at) = path.last().copied().filter(|at| *at != start) {
            path.push(from[at]);
        }
        path
    }

    /// How many steps each pixel of an area is away from another class, for those of the area.
    fn depth(&self, area: &[usize], classes: &[u8]) -> Vec<u32> {
        let mut depth = vec![0; self.width * self.height];
        let class = classes[area[0]];
        let mut layer: Vec<usize> =
            area.iter().copied().filter(|at| self.beside(*at).any(|at| classes[at] != class)).collect();
        if layer.is_empty() {
            // The whole picture is one area: all of it is deep inside.
            area.iter().for_each(|at| depth[*at] = u32::MAX);
            return depth;
        }
        layer.iter().for_each(|at| depth[*at] = 1);
        while !layer.is_empty() {
            let mut next = Vec::new();
            for at in layer {
                for beside in self.beside(at).filter(|at| classes[*at] == class) {
                    if depth[beside] == 0 {
                        depth[beside] = depth[at] + 1;
                        next.push(beside);
                    }
                }
            }
            layer = next;
        }
        depth
    }
}

#[cfg(test)]
mod tests {
    use mentor_types::Season;

    use super::*;
    use crate::scene::draw;

    #[test]
    fn scribbles_are_right_where_they_are_known_and_touch_every_large_area() {
        let mut share = 0.0;
        for index in 0..8 {
            let mask = draw(2, index, 96, Season::Summer).mask;
            let marked = scribbles(&mask);
            let pairs = || marked.labels().iter().zip(mask.labels());
            assert!(pairs().all(|(known, class)| *known == UNKNOWN || known == class));
            let known = pairs().filter(|(known, _)| **known != UNKNOWN).count();
            share += known as f64 / pairs().count() as f64 / 8.0;
            for class in 0..7 {
                let of = |labels: &[u8]| labels.iter().filter(|label| **label == class).count();
                assert!(of(mask.labels()) < 400 || of(marked.labels()) > 0, "scene {index}: class {class}");
            }
        }
        assert!((0.02..0.15).contains(&share), "{share}");
    }

    #[test]
    fn a_scribble_in_a_long_area_runs_along_it() {
        // A bar of 40 x 9 pixels in a picture of 64 x 16.
        let labels = (0..64 * 16).map(|at| u8::from((10..50).contains(&(at % 64)) && (3..12).contains(&(at / 64))));
        let marked = scribbles(&LabelMask::new(64, 16, labels.collect()));
        let columns = (0..64).filter(|x| (0..16).any(|y| marked.labels()[y * 64 + x] == 1)).count();
        let pixels = marked.labels().iter().filter(|label| **label == 1).count();
        assert!(columns >= 30 && pixels < 110, "{columns} columns, {pixels} pixels");
    }

    #[test]
    fn classes_that_nobody_labelled_are_taken_for_ground_but_in_every_eighth_scene() {
        let mask = LabelMask::new(7, 1, vec![0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(rest_as_ground(&mask, 8).labels(), mask.labels());
        assert_eq!(rest_as_ground(&mask, 9).labels(), [0, 1, 0, 0, 4, 0, 0]);
        assert_eq!(rest_as_ground(&mask, 10).labels(), [0, 0, 2, 3, 0, 0, 0]);
        assert_eq!(rest_as_ground(&mask, 11).labels(), [0, 0, 0, 0, 0, 5, 6]);
    }
}
