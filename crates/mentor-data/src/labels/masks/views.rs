//! Masks through views.

use mentor_types::{Geometry, LabelMask};

/// Labels seen through a geometry, `size` = height and width: the label under each centre, `outside` beyond the mask.
pub(super) fn resample(mask: &LabelMask, geometry: Geometry, size: [usize; 2], outside: u8) -> Vec<u8> {
    let columns = geometry.nearest(0, size[1], mask.width());
    let mut view = Vec::with_capacity(size[0] * size[1]);
    for row in geometry.nearest(1, size[0], mask.height()) {
        match row.map(|y| &mask.labels()[y * mask.width()..(y + 1) * mask.width()]) {
            Some(line) => view.extend(columns.iter().map(|column| column.map_or(outside, |x| line[x]))),
            None => view.extend(std::iter::repeat_n(outside, size[1])),
        }
    }
    view
}

/// The weak pixel of every strong pixel, by the nearest centre; -1 outside the weak view and where either is padding.
pub(super) fn origin(
    strong_to_weak: Geometry,
    weak_to_source: Geometry,
    crop_px: [usize; 2],
    size: [usize; 2],
) -> Vec<i32> {
    let [height, width] = crop_px;
    let strong_to_source = strong_to_weak.then(&weak_to_source);
    let table = |axis: usize, len: usize, source: usize| -> Vec<Option<usize>> {
        let strong_inside = strong_to_source.nearest(axis, len, source);
        let weak_inside = weak_to_source.nearest(axis, len, source);
        let weak = strong_to_weak.nearest(axis, len, len).into_iter().zip(strong_inside);
        // At the image's edge the strong centre may lie on the image and the nearest weak centre just beside it.
        weak.map(|(weak, inside)| weak.filter(|weak| inside.is_some() && weak_inside[*weak].is_some())).collect()
    };
    let (columns, rows) = (table(0, width, size[1]), table(1, height, size[0]));
    let mut origin = Vec::with_capacity(height * width);
    for row in &rows {
        for column in &columns {
            let index = row.zip(*column).and_then(|(y, x)| i32::try_from(y * width + x).ok());
            origin.push(index.unwrap_or(-1));
        }
    }
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_never_mixed() {
        let mask = LabelMask::new(3, 1, vec![0, 7, 2]);
        assert_eq!(resample(&mask, Geometry::scaling(0.5), [3, 7], 255)[..7], [0, 0, 7, 7, 2, 2, 255]);
        assert_eq!(resample(&mask, Geometry::scaling(0.5), [3, 7], 255)[14..], [255; 7]);
    }
}
