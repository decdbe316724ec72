//! Boxes through views.

use mentor_types::{BoxKind, BoxLabels, CutBox, Edges, Geometry, LabelBox};

/// What a view must show of a box at least, in pixels each way.
const SMALLEST_SIDE: f64 = 1.0;

/// Labels seen through a geometry, `size` = height and width: every box cut off at the edges of the view. An object of which
/// the view shows a smaller share of the box than `visible` becomes difficult, and what it does not show is gone.
pub(super) fn seen(labels: &BoxLabels, view_to_source: Geometry, size: [usize; 2], visible: f64) -> BoxLabels {
    let to_view = view_to_source.inverse();
    let boxes = labels.boxes.iter().filter_map(|label| seen_box(label, &to_view, size, visible)).collect();
    BoxLabels { boxes, looked_for: labels.looked_for.clone() }
}

/// Whether the view shows a share of the box of some object at least, or there is no object.
pub(super) fn shows(labels: &BoxLabels, view_to_source: Geometry, size: [usize; 2], share: f64) -> bool {
    let to_view = view_to_source.inverse();
    let mut objects = labels.boxes.iter().filter(|label| label.kind == BoxKind::Object).peekable();
    let is_shown =
        |label: &LabelBox| seen_box(label, &to_view, size, share).is_some_and(|seen| seen.kind == BoxKind::Object);
    objects.peek().is_none() || objects.any(is_shown)
}

/// The boxes of some views, each in its rectangle of a view of all. A class was looked for there if it was in each of them.
pub(super) fn join(parts: Vec<(CutBox, BoxLabels)>) -> BoxLabels {
    let mut whole = BoxLabels::default();
    for (cut, part) in parts {
        let (x, y) = (cut.x as f32, cut.y as f32);
        whole.boxes.extend(part.boxes.into_iter().map(|label| {
            let [x0, y0, x1, y1] = label.edges;
            LabelBox { edges: [x0 + x, y0 + y, x1 + x, y1 + y], ..label }
        }));
        whole.looked_for = match (whole.looked_for, part.looked_for) {
            (Some(all), Some(part)) => {
                Some(all.into_iter().filter(|class| part.binary_search(class).is_ok()).collect())
            }
            (all, part) => all.or(part),
        };
    }
    whole
}

fn seen_box(label: &LabelBox, to_view: &Geometry, [height, width]: [usize; 2], visible: f64) -> Option<LabelBox> {
    let [x0, y0, x1, y1] = label.edges.map(f64::from);
    let ([ax, ay], [bx, by]) = (to_view.apply([x0, y0]), to_view.apply([x1, y1]));
    let whole = [ax.min(bx), ay.min(by), ax.max(bx), ay.max(by)];
    let limits = [width as f64, height as f64, width as f64, height as f64];
    let cut: [f64; 4] = std::array::from_fn(|side| whole[side].clamp(0.0, limits[side]));
    let sides = |edges: [f64; 4]| [edges[2] - edges[0], edges[3] - edges[1]];
    let area = |edges: [f64; 4]| sides(edges).iter().product::<f64>();
    if sides(cut).iter().any(|side| *side < SMALLEST_SIDE) {
        return None;
    }
    let share = area(cut) / area(whole);
    let is_cut_off = label.kind == BoxKind::Object && share < visible;
    let scale = to_view.scale.map(f64::abs).iter().product::<f64>();
    Some(LabelBox {
        edges: cut.map(|edge| edge as f32) as Edges,
        class: label.class,
        kind: if is_cut_off { BoxKind::Difficult } else { label.kind },
        area: (f64::from(label.area) * scale * share) as f32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(edges: Edges, kind: BoxKind) -> BoxLabels {
        let area = (edges[2] - edges[0]) * (edges[3] - edges[1]);
        BoxLabels { boxes: vec![LabelBox { edges, class: 2, kind, area }], looked_for: Some(vec![2]) }
    }

    #[test]
    fn boxes_are_scaled_moved_mirrored_and_cut_off() {
        let whole = labels([4.0, 6.0, 8.0, 10.0], BoxKind::Object);
        // A view of 20 columns that shows the image mirrored, twice as large.
        let mirror = Geometry { scale: [-0.5, 0.5], shift: [10.0, 0.0] };
        let found = seen(&whole, mirror, [20, 20], 0.25);
        assert_eq!(found.boxes[0].edges, [4.0, 12.0, 12.0, 20.0]);
        assert_eq!((found.boxes[0].area, found.boxes[0].kind), (64.0, BoxKind::Object));
        assert_eq!(found.looked_for, Some(vec![2]));
        // Moved by 6 columns: half of it is left.
        let moved = Geometry { scale: [1.0, 1.0], shift: [6.0, 0.0] };
        let half = seen(&whole, moved, [20, 20], 0.25).boxes[0];
        assert_eq!((half.edges, half.area, half.kind), ([0.0, 6.0, 2.0, 10.0], 8.0, BoxKind::Object));
        // A quarter is still an object, less is difficult, and less than a pixel is nothing.
        let kind = |x: f64| {
            let geometry = Geometry { scale: [0.25, 0.25], shift: [x, 0.0] };
            seen(&whole, geometry, [60, 60], 0.25).boxes.first().map(|label| label.kind)
        };
        assert_eq!([kind(7.0), kind(7.1), kind(7.9)], [Some(BoxKind::Object), Some(BoxKind::Difficult), None]);
    }

    #[test]
    fn a_crowd_stays_a_crowd_however_little_is_seen_of_it() {
        let crowd = labels([0.0, 0.0, 10.0, 10.0], BoxKind::Crowd);
        let corner = Geometry { scale: [1.0, 1.0], shift: [8.0, 8.0] };
        let found = seen(&crowd, corner, [10, 10], 0.25).boxes[0];
        assert_eq!((found.edges, found.kind), ([0.0, 0.0, 2.0, 2.0], BoxKind::Crowd));
    }

    #[test]
    fn a_view_shows_an_object_if_enough_of_its_box_is_in_it() {
        let object = labels([0.0, 0.0, 10.0, 10.0], BoxKind::Object);
        let moved = |x: f64| Geometry { scale: [1.0, 1.0], shift: [x, 0.0] };
        let shown = |x: f64, share: f64| shows(&object, moved(x), [20, 20], share);
        assert_eq!([shown(0.0, 1.0), shown(5.0, 0.5), shown(5.1, 0.5), shown(30.0, 0.0)], [true, true, false, false]);
        // A crowd need not be shown, and where there is no object nothing need be.
        assert!(shows(&labels([0.0, 0.0, 10.0, 10.0], BoxKind::Crowd), moved(30.0), [20, 20], 0.5));
    }

    #[test]
    fn an_image_smaller_than_its_view_keeps_its_boxes_whole_wherever_it_lies_in_the_padding() {
        let object = labels([100.0, 50.0, 300.0, 250.0], BoxKind::Object);
        // Shown at a tenth of its size, 30 columns and 20 rows from the corner of the view.
        let small = Geometry { scale: [10.0, 10.0], shift: [-300.0, -200.0] };
        let found = seen(&object, small, [128, 128], 0.25).boxes[0];
        assert_eq!((found.edges, found.kind, found.area), ([40.0, 25.0, 60.0, 45.0], BoxKind::Object, 400.0));
    }
}
