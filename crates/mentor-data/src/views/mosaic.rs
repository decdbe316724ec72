//! Mosaics: four images in one view.

use mentor_types::{CutBox, Key};
use rand::RngExt;

use super::{LabelledView, between, labelled_view};
use crate::cache::Decoded;
use crate::config::ViewsConfig;
use crate::labels::ReadLabels;

/// Where the four meet, as a share of the view's sides.
const MIDDLE: [f64; 2] = [0.25, 0.75];

/// Which images beside its own a sample's view is made of, as places in a stream of a length; `None` where it is of its own
/// alone.
pub(crate) fn mosaic_partners(views: &ViewsConfig, len: usize, key: Key) -> Option<[usize; 3]> {
    let mut rng = key.at("mosaic", 0).rng();
    let is_mosaic = rng.random::<f64>() < views.mosaic?;
    let most = u32::try_from(len).unwrap_or(u32::MAX).max(1);
    is_mosaic.then(|| std::array::from_fn(|_| rng.random_range(0..most) as usize))
}

/// A view made of those of four images, each in a rectangle of its own and half as large as it would be alone.
pub(crate) fn mosaic_view<L: ReadLabels>(images: [&Decoded<L>; 4], views: &ViewsConfig, key: Key) -> LabelledView<L> {
    let [height, width] = views.crop_px;
    let mut rng = key.at("mosaic_middle", 0).rng();
    let quarters = quarters([height, width], [between(MIDDLE, rng.random()), between(MIDDLE, rng.random())]);
    let (mut rgb, mut parts) = (vec![0; height * width * 3], Vec::new());
    for (index, (cut, decoded)) in quarters.into_iter().zip(images).enumerate() {
        let crop_px = [cut.height, cut.width];
        let smaller = ViewsConfig { crop_px, scale: views.scale.map(|factor| factor / 2.0), ..views.clone() };
        let view = labelled_view(&decoded.image, &decoded.labels, &smaller, key.at("mosaic_part", index as u64));
        for (row, line) in view.rgb.chunks_exact(cut.width * 3).enumerate() {
            let start = ((cut.y + row) * width + cut.x) * 3;
            rgb[start..start + line.len()].copy_from_slice(line);
        }
        parts.push((cut, view.labels));
    }
    LabelledView { rgb, labels: L::join(parts, [height, width]) }
}

/// The four rectangles around a point of a view, none of them empty where the view has two rows and columns.
fn quarters([height, width]: [usize; 2], [down, right]: [f64; 2]) -> [CutBox; 4] {
    let at = |side: usize, share: f64| ((side as f64 * share).round() as usize).clamp(1, side.max(2) - 1);
    let (y, x) = (at(height, down), at(width, right));
    let cut = |x, y, width, height| CutBox { x, y, width, height };
    [cut(0, 0, x, y), cut(x, 0, width - x, y), cut(0, y, x, height - y), cut(x, y, width - x, height - y)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use image::{Rgb, RgbImage};
    use mentor_types::{BoxKind, BoxLabels, LabelBox, LabelMask};

    fn views() -> ViewsConfig {
        ViewsConfig { mosaic: Some(1.0), scale: [0.8, 1.6], ..ViewsConfig::of_size([60, 80]) }
    }

    /// Which of the channels each image's square is bright in.
    const COLOURS: [[bool; 3]; 4] =
        [[true, false, false], [false, true, false], [false, false, true], [true, true, false]];

    /// An image of 90x70 with a square of its own colour on black.
    fn square(index: usize) -> RgbImage {
        let inside = |x, y| (30..62).contains(&x) && (20..52).contains(&y);
        let colour = COLOURS[index].map(|bright| if bright { 255 } else { 0 });
        RgbImage::from_fn(90, 70, |x, y| Rgb(if inside(x, y) { colour } else { [0; 3] }))
    }

    fn boxes(index: u8) -> BoxLabels {
        let label = LabelBox { edges: [30.0, 20.0, 62.0, 52.0], class: index, kind: BoxKind::Object, area: 1024.0 };
        BoxLabels { boxes: vec![label], looked_for: (index == 3).then(|| vec![0, 3]) }
    }

    #[test]
    fn boxes_go_with_their_images_and_stay_in_their_rectangles() {
        let decoded: Vec<_> = (0..4_u8)
            .map(|index| Decoded { image: square(index.into()), labels: boxes(index), pseudo: None })
            .collect();
        let images = [&decoded[0], &decoded[1], &decoded[2], &decoded[3]];
        let mut seen = [0; 4];
        for sample in 0..40 {
            let key = Key::new(3).at("sample", sample);
            let view = mosaic_view(images, &views(), key);
            assert_eq!(view, mosaic_view(images, &views(), key));
            assert_eq!(view.labels.looked_for, Some(vec![0, 3]));
            let pixels = view.rgb.as_chunks::<3>().0;
            for label in &view.labels.boxes {
                let [x0, y0, x1, y1] = label.edges;
                let colour = COLOURS[usize::from(label.class)];
                let places = (0..pixels.len()).filter(|place| pixels[*place].map(|byte| byte > 64) == colour);
                let centres = places.map(|place| [(place % 80) as f32 + 0.5, (place / 80) as f32 + 0.5]);
                let centres: Vec<[f32; 2]> = centres.collect();
                let near = |[x, y]: &[f32; 2]| *x > x0 - 1.0 && *x < x1 + 1.0 && *y > y0 - 1.0 && *y < y1 + 1.0;
                assert!(centres.iter().all(near), "{colour:?} lies outside of {:?}", label.edges);
                let (area, border) = ((x1 - x0) * (y1 - y0), 2.0 * (x1 - x0 + y1 - y0) + 4.0);
                assert!((centres.len() as f32 - area).abs() <= border, "{} pixels in {:?}", centres.len(), label.edges);
                seen[usize::from(label.class)] += 1;
            }
        }
        assert!(seen.iter().all(|boxes| *boxes >= 10), "{seen:?}");
    }

    #[test]
    fn masks_go_with_their_images() {
        let decoded: Vec<_> = (0..4_u8)
            .map(|index| Decoded {
                image: RgbImage::from_pixel(200, 200, Rgb([50 * index; 3])),
                labels: LabelMask::filled(200, 200, index),
                pseudo: None,
            })
            .collect();
        let view = mosaic_view([&decoded[0], &decoded[1], &decoded[2], &decoded[3]], &views(), Key::new(1));
        assert!(view.rgb.chunks(3).zip(view.labels.labels()).all(|(pixel, label)| pixel[0] == 50 * label));
        assert_eq!((view.labels.at(0, 0), view.labels.at(79, 0)), (0, 1));
        assert_eq!((view.labels.at(0, 59), view.labels.at(79, 59)), (2, 3));
    }

    #[test]
    fn partners_are_drawn_with_the_probability_and_never_without_the_key() {
        let partners = |mosaic, sample| {
            let views = ViewsConfig { mosaic, ..views() };
            mosaic_partners(&views, 9, Key::new(5).at("sample", sample))
        };
        assert!((0..50).all(|sample| partners(None, sample).is_none() && partners(Some(0.0), sample).is_none()));
        let all: Vec<_> = (0..200).filter_map(|sample| partners(Some(0.5), sample)).collect();
        assert!((70..130).contains(&all.len()), "{}", all.len());
        assert!((0..9).all(|place| all.iter().flatten().any(|other| *other == place)));
        assert!(all.iter().flatten().all(|place| *place < 9));
    }

    #[test]
    fn the_smallest_view_has_four_parts() {
        assert!(quarters([2, 3], [0.25, 0.75]).iter().all(|cut| cut.width > 0 && cut.height > 0));
        let area: usize = quarters([61, 79], [0.3, 0.6]).iter().map(|cut| cut.width * cut.height).sum();
        assert_eq!(area, 61 * 79);
    }
}
