//! Boxes through views.

use mentor_types::{BoxKind, BoxLabels, Edges, Geometry, LabelBox};

/// What a view must show of a box at least, in pixels each way.
const SMALLEST_SIDE: f64 = 1.0;

/// Labels seen through a geometry, `size` = height and width: every box cut off at the edges of the view. An object of which
/// the view shows a smaller share of the box than `visible` becomes difficult, and what it does not show is gone.
pub(super) fn seen(labels: &BoxLabels, view_to_source: Geometry, size: [usize; 2], visible: f64) -> BoxLabels {
    let to_view = view_to_source.inverse();
    let boxes = labels.boxes.iter().filter_map(|label| seen_box(label, &to_view, size, visible)).collect();
    BoxLabels { boxes, looked_for: labels.looked_for.clone() }
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
}
