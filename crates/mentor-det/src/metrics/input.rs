//! What is compared: the truth about an image, and what a detector found in it, both in f64.

use mentor_types::{BoxKind, BoxLabels, Detection, Edges, IGNORE};

/// Left edge, top edge, width and height of a box in pixels. Scores compute with these and not with edges, since files of
/// COCO hold them and `left + width - left` is not `width` to the last bit.
pub type Extent = [f64; 4];

/// A labelled box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TruthBox {
    /// Where it lies.
    pub extent: Extent,
    /// Its class; `None` for a crowd of any class.
    pub class: Option<usize>,
    /// What stands in it.
    pub kind: BoxKind,
    /// The area by which its size is judged, in square pixels.
    pub area: f64,
}

/// The truth about an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageTruth {
    /// Its boxes, in the order of their file.
    pub boxes: Vec<TruthBox>,
    /// The classes that were looked for in the whole image, sorted; `None` where all were. Of another class its boxes count,
    /// to be found or missed, but what is found elsewhere is no mistake: nobody knows. (So LVIS does with images in which a
    /// class is not labelled exhaustively.)
    pub looked_for: Option<Vec<usize>>,
}

impl ImageTruth {
    /// Whether a class was looked for in the whole image.
    #[must_use]
    pub fn is_known(&self, class: usize) -> bool {
        self.looked_for.as_ref().is_none_or(|classes| classes.binary_search(&class).is_ok())
    }
}

impl From<&BoxLabels> for ImageTruth {
    fn from(labels: &BoxLabels) -> Self {
        let truth = |label: &mentor_types::LabelBox| TruthBox {
            extent: extent(label.edges),
            class: (label.class != IGNORE).then_some(usize::from(label.class)),
            kind: label.kind,
            area: f64::from(label.area),
        };
        let looked_for = labels.looked_for.as_ref();
        Self {
            boxes: labels.boxes.iter().map(truth).collect(),
            looked_for: looked_for.map(|classes| classes.iter().map(|class| usize::from(*class)).collect()),
        }
    }
}

/// A box that a detector found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundBox {
    /// Where it lies.
    pub extent: Extent,
    /// Its class.
    pub class: usize,
    /// How sure the detector is: only the order counts.
    pub score: f64,
}

impl From<&Detection> for FoundBox {
    fn from(found: &Detection) -> Self {
        let (class, score) = (usize::from(found.class), f64::from(found.score));
        Self { extent: extent(found.edges), class, score }
    }
}

/// The extent of a box with these edges.
fn extent(edges: Edges) -> Extent {
    let [left, top, right, bottom] = edges.map(f64::from);
    [left, top, right - left, bottom - top]
}

/// The boxes of one class in one image, each with its place in the order of its image.
pub(super) struct Pair<'a> {
    pub class: usize,
    /// Boxes of the class, and crowds of any class.
    pub truth: Vec<(usize, &'a TruthBox)>,
    /// The surest first; among equally sure ones the first.
    pub found: Vec<(usize, &'a FoundBox)>,
    /// Whether the class was looked for in the whole image.
    pub is_known: bool,
}

/// Every class of which an image has boxes or found ones, in order; without those of which nothing is known.
///
/// # Panics
/// Where a class is not below `classes`.
pub(super) fn pairs<'a>(truth: &'a ImageTruth, found: &'a [FoundBox], classes: usize) -> Vec<Pair<'a>> {
    let mut found: Vec<(usize, &FoundBox)> = found.iter().enumerate().collect();
    found.sort_by(|(_, a), (_, b)| a.class.cmp(&b.class).then(surest_first(a.score, b.score)));
    let mut truths: Vec<(usize, &TruthBox)> = truth.boxes.iter().enumerate().collect();
    truths.sort_by_key(|(_, label)| label.class);
    let of_any = truths.partition_point(|(_, label)| label.class.is_none());
    let (of_any, mut truths) = truths.split_at(of_any);
    let mut found = found.as_slice();
    let mut pairs = Vec::new();
    loop {
        let next = [found.first().map(|(_, found)| found.class), truths.first().and_then(|(_, label)| label.class)];
        let Some(class) = next.into_iter().flatten().min() else { return pairs };
        assert!(class < classes, "class {class} of {classes}");
        let (of_class, rest) = found.split_at(found.partition_point(|(_, found)| found.class == class));
        let (labelled, others) = truths.split_at(truths.partition_point(|(_, label)| label.class == Some(class)));
        (found, truths) = (rest, others);
        let is_known = truth.is_known(class);
        if is_known || !labelled.is_empty() {
            pairs.push(Pair { class, truth: [labelled, of_any].concat(), found: of_class.to_vec(), is_known });
        }
    }
}

/// The order of two scores: the larger first, and what is no number last.
pub(super) fn surest_first(a: f64, b: f64) -> std::cmp::Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The area that two boxes share; `None` where they share nothing.
fn shared([x, y, w, h]: Extent, [left, top, width, height]: Extent) -> Option<f64> {
    let shared_w = (x + w).min(left + width) - x.max(left);
    let shared_h = (y + h).min(top + height) - y.max(top);
    (shared_w > 0.0 && shared_h > 0.0).then_some(shared_w * shared_h)
}

/// The area of a box in square pixels.
pub(super) fn area(extent: Extent) -> f64 {
    extent[2] * extent[3]
}

/// How well a box that was found covers a labelled one: intersection over union; over the found box's own area where a
/// crowd is labelled, as pycocotools does.
pub(super) fn overlap(found: Extent, truth: &TruthBox) -> f64 {
    let Some(shared) = shared(found, truth.extent) else { return 0.0 };
    match truth.kind {
        BoxKind::Crowd => shared / area(found),
        BoxKind::Object | BoxKind::Difficult => shared / (area(found) + area(truth.extent) - shared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mentor_types::LabelBox;

    #[test]
    fn labels_become_truth_with_their_classes_and_what_was_looked_for() {
        let label = |class| LabelBox { edges: [1.0, 2.0, 4.0, 8.0], class, kind: BoxKind::Crowd, area: 5.0 };
        let labels = BoxLabels { boxes: vec![label(3), label(IGNORE)], looked_for: Some(vec![0, 3]) };
        let truth = ImageTruth::from(&labels);
        assert_eq!(truth.boxes[0].extent, [1.0, 2.0, 3.0, 6.0]);
        assert_eq!([truth.boxes[0].class, truth.boxes[1].class], [Some(3), None]);
        assert_eq!([0, 1, 3].map(|class| truth.is_known(class)), [true, false, true]);
        let found = FoundBox::from(&Detection { edges: [1.0, 2.0, 4.0, 8.0], class: 7, score: 0.5 });
        assert_eq!(found, FoundBox { extent: [1.0, 2.0, 3.0, 6.0], class: 7, score: 0.5 });
    }

    #[test]
    fn pairs_hold_each_class_once_and_leave_out_what_nobody_knows() {
        let boxed = |class: Option<usize>| TruthBox { extent: [0.0; 4], class, kind: BoxKind::Crowd, area: 1.0 };
        let found = |class, score| FoundBox { extent: [0.0; 4], class, score };
        let truth = ImageTruth { boxes: vec![boxed(Some(2)), boxed(None)], looked_for: Some(vec![0]) };
        let all = [found(2, 0.5), found(1, 1.0), found(0, f64::NAN), found(2, 0.7), found(0, 0.1), found(2, 0.7)];
        let pairs = pairs(&truth, &all, 3);
        let found: Vec<(usize, Vec<usize>)> =
            pairs.iter().map(|pair| (pair.class, pair.found.iter().map(|(at, _)| *at).collect())).collect();
        assert_eq!(found, [(0, vec![4, 2]), (2, vec![3, 5, 0])]);
        assert_eq!(
            pairs.iter().map(|pair| (pair.truth.len(), pair.is_known)).collect::<Vec<_>>(),
            [(1, true), (2, false)]
        );
    }

    #[test]
    fn overlaps_by_hand() {
        let truth = |kind| TruthBox { extent: [0.0, 0.0, 10.0, 10.0], class: Some(0), kind, area: 100.0 };
        let found = [5.0, 0.0, 10.0, 10.0];
        assert_eq!(overlap(found, &truth(BoxKind::Object)), 50.0 / 150.0);
        assert_eq!(overlap(found, &truth(BoxKind::Difficult)), 50.0 / 150.0);
        assert_eq!(overlap(found, &truth(BoxKind::Crowd)), 0.5);
        assert_eq!(overlap([10.0, 0.0, 5.0, 5.0], &truth(BoxKind::Object)), 0.0);
        // A box of no size shares nothing, whatever lies there.
        assert_eq!(overlap([5.0, 5.0, 0.0, 0.0], &truth(BoxKind::Crowd)), 0.0);
    }
}
