//! A coordinate image through every view: each pseudo-label must land on its own pixel.
#![allow(clippy::unwrap_used)]

use super::resample::FILL;
use super::*;
use image::Rgb;
use mentor_types::{BoxKind, BoxLabels, Images, LabelBox, LabelMask, Pairs, Resize};

use crate::config::{Jitter, Photometric};

/// Red is the column, green the row, blue the image.
fn coordinates(width: u32, height: u32, image: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, image]))
}

/// The class of a pixel is where it lies, in a grid of 4 x 4 cells per image.
fn cells(width: usize, height: usize) -> LabelMask {
    let label = |place: usize| (place % width * 4 / width + place / width * 4 / height * 4) as u8;
    LabelMask::new(width, height, (0..width * height).map(label).collect())
}

fn still_colours() -> StrongConfig {
    StrongConfig { jitter_probability: 0.0, grey: 0.0, blur: 0.0, cutmix: Some(0.0), ..StrongConfig::default() }
}

fn views(strong: StrongConfig) -> ViewsConfig {
    ViewsConfig { strong: Some(strong), ..ViewsConfig::of_size([72, 96]) }
}

/// Checks every strong pixel that has an origin against the weak pixel there; returns how many there were.
fn check_pairs(pairs: &Pairs<LabelMask>, tolerance: u8) -> usize {
    let weak = pairs.weak.rgb.as_chunks::<3>().0;
    let strong = pairs.strong.rgb.as_chunks::<3>().0;
    let mut found = 0;
    for (place, origin) in pairs.link.iter().enumerate() {
        let Ok(origin) = usize::try_from(*origin) else { continue };
        let [x, y, image] = strong[place];
        let [weak_x, weak_y, weak_image] = weak[origin];
        assert_eq!(image, weak_image, "strong pixel {place} shows another image than its origin {origin}");
        let near = x.abs_diff(weak_x) <= tolerance && y.abs_diff(weak_y) <= tolerance;
        assert!(near, "strong pixel {place} shows ({x}, {y}), its origin {origin} ({weak_x}, {weak_y})");
        assert_ne!(pairs.targets[origin], IGNORE, "padding is no origin");
        found += 1;
    }
    found
}

fn batch(n: usize, size: [u32; 2], views: &ViewsConfig, seed: u64) -> Pairs<LabelMask> {
    let [height, width] = views.crop_px;
    let empty = Images { n, height, width, rgb: Vec::new() };
    let mut pairs = Pairs::<LabelMask> {
        weak: empty.clone(),
        strong: empty,
        link: Vec::new(),
        targets: Vec::new(),
        truth: Vec::new(),
    };
    for sample in 0..n {
        let image = coordinates(size[1], size[0], sample as u8 * 60);
        let mask = cells(size[1] as usize, size[0] as usize);
        let key = Key::new(seed).at("sample", sample as u64);
        let view = pair_view(&image, &mask, None, views, key);
        pairs.weak.rgb.extend(view.weak);
        pairs.strong.rgb.extend(view.strong);
        LabelMask::push_link(view.link, &mut pairs.link);
        view.labels.push(&mut pairs.targets);
        view.truth.push(&mut pairs.truth);
    }
    cutmix(&mut pairs, views.strong.as_ref().unwrap(), Key::new(seed).at("cutmix", 0));
    pairs
}

#[test]
fn a_view_with_the_weak_geometry_points_at_the_same_pixels() {
    let views = views(still_colours());
    for seed in 0..20 {
        let pairs = batch(1, [100, 130], &views, seed);
        assert!(check_pairs(&pairs, 0) > 0);
        for (place, origin) in pairs.link.iter().enumerate() {
            let padding = pairs.targets[place] == IGNORE;
            assert_eq!(*origin, if padding { -1 } else { place as i32 });
        }
    }
}

#[test]
fn every_pseudo_label_lands_on_its_own_pixel_whatever_the_geometry() {
    let own = [
        StrongConfig { flip: Some(1.0), ..still_colours() },
        StrongConfig { scale: Some([0.6, 1.6]), ..still_colours() },
        StrongConfig { shift: Some(0.4), ..still_colours() },
        StrongConfig { cutmix: Some(1.0), cutmix_area: [0.2, 0.5], ..still_colours() },
        StrongConfig {
            flip: Some(0.5),
            scale: Some([0.6, 1.6]),
            shift: Some(0.3),
            cutmix: Some(0.7),
            cutmix_area: [0.2, 0.5],
            ..still_colours()
        },
    ];
    for strong in own {
        // Larger than the crop, smaller than it (padded), and both.
        for size in [[200, 250], [40, 50], [60, 250]] {
            let mut found = 0;
            for seed in 0..8 {
                let views = views(strong.clone());
                // Half a weak pixel shows up to 1 source pixel at scale 0.5, and each colour is rounded and averaged.
                found += check_pairs(&batch(3, size, &views, seed), 2);
            }
            assert!(found > 10_000, "{found} origins with {strong:?} and {size:?}");
        }
    }
}

#[test]
fn at_full_size_the_weak_pixel_shows_the_spot_within_one_pixel() {
    let strong = StrongConfig {
        flip: Some(0.5),
        scale: Some([0.7, 1.5]),
        shift: Some(0.2),
        cutmix: Some(0.5),
        ..still_colours()
    };
    let views = ViewsConfig { scale: [1.0, 2.0], ..views(strong) };
    for seed in 0..20 {
        assert!(check_pairs(&batch(2, [120, 160], &views, seed), 1) > 1000);
    }
}

#[test]
fn a_flipped_strong_view_mirrors_the_weak_one_exactly() {
    let strong = StrongConfig { flip: Some(1.0), ..still_colours() };
    let views = ViewsConfig { scale: [1.0, 1.0], flip: 0.0, ..views(strong) };
    let pairs = batch(1, [72, 96], &views, 1);
    let expected: Vec<i32> = (0..72 * 96).map(|place| place / 96 * 96 + 95 - place % 96).collect();
    assert_eq!(pairs.link, expected);
    assert_eq!(pairs.weak.rgb, coordinates(96, 72, 0).into_raw());
}

#[test]
fn labels_go_with_their_pixels_and_padding_is_ignored() {
    let views = views(still_colours());
    for seed in 0..20 {
        let (image, mask) = (coordinates(90, 60, 7), cells(90, 60));
        let view = labelled_view(&image, &mask, &views, Key::new(seed));
        let mut classes = 0;
        for (pixel, label) in view.rgb.as_chunks::<3>().0.iter().zip(view.labels.labels()) {
            if *label == IGNORE {
                assert_eq!(*pixel, FILL);
                continue;
            }
            classes += 1;
            // The pixel's colour says where it lies; the label of that place, or of a neighbour across a border.
            let near = (-1..=1).any(|dx| {
                (-1..=1).any(|dy| {
                    let x = (i32::from(pixel[0]) + dx).clamp(0, 89) as usize;
                    let y = (i32::from(pixel[1]) + dy).clamp(0, 59) as usize;
                    mask.at(x, y) == *label
                })
            });
            assert!(near, "{pixel:?} is labelled {label}");
        }
        assert!(classes > 500);
    }
}

#[test]
fn an_unlabelled_image_shows_its_truth_to_statistics_only() {
    let image = coordinates(40, 40, 0);
    let mut mask = cells(40, 40);
    mask.labels_mut()[..800].fill(UNKNOWN);
    let views = views(still_colours());
    let hidden = pair_view(&image, &mask, None, &views, Key::new(2));
    assert!(hidden.labels.labels().iter().all(|label| [UNKNOWN, IGNORE].contains(label)));
    assert!(hidden.truth.labels().iter().any(|label| *label < 16) && !hidden.truth.labels().contains(&IGNORE));
    let partial = pair_view(&image, &mask, Some(&mask), &views, Key::new(2));
    assert!(partial.labels.labels().contains(&UNKNOWN) && partial.labels.labels().iter().any(|label| *label < 16));
    assert_eq!((hidden.weak, hidden.link), (partial.weak, partial.link));
}

#[test]
fn views_are_functions_of_their_key_and_colours_change_no_geometry() {
    let image = coordinates(100, 80, 30);
    let mask = cells(100, 80);
    let wild = StrongConfig { jitter_probability: 1.0, grey: 0.5, blur: 1.0, ..StrongConfig::default() };
    let wild = ViewsConfig {
        photometric: Some(Photometric { jitter: Jitter::default(), jitter_probability: 1.0 }),
        ..views(wild)
    };
    let draw = |views: &ViewsConfig, seed| pair_view(&image, &mask, Some(&mask), views, Key::new(seed));
    assert_eq!(draw(&wild, 1), draw(&wild, 1));
    assert_ne!(draw(&wild, 1).weak, draw(&wild, 2).weak);
    let still = draw(&views(still_colours()), 1);
    assert_eq!((draw(&wild, 1).link, draw(&wild, 1).labels), (still.link, still.labels));
    assert_ne!(draw(&wild, 1).weak, still.weak);
    assert_ne!(draw(&wild, 1).strong, still.strong);
    let tiny = pair_view(&coordinates(1, 1, 9), &cells(1, 1), None, &wild, Key::new(3));
    assert_eq!(tiny.weak.len(), 72 * 96 * 3);
}

/// A grey image with a white square of 20 pixels at a place, and its box.
fn white_square(size: [u32; 2], [left, top]: [u32; 2]) -> (RgbImage, BoxLabels) {
    let inside = |x: u32, y: u32| (left..left + 20).contains(&x) && (top..top + 20).contains(&y);
    let image = RgbImage::from_fn(size[1], size[0], |x, y| Rgb(if inside(x, y) { [255; 3] } else { [90; 3] }));
    let edges = [left, top, left + 20, top + 20].map(|edge| edge as f32);
    let label = LabelBox { edges, class: 0, kind: BoxKind::Object, area: 400.0 };
    (image, BoxLabels { boxes: vec![label], looked_for: None })
}

#[test]
fn boxes_stay_on_their_objects_from_a_tenth_to_twice_their_size() {
    let (image, labels) = white_square([130, 150], [70, 40]);
    let jittered = ViewsConfig { scale: [0.1, 2.0], ..ViewsConfig::of_size([72, 96]) };
    let (mut padded, mut shown) = (0, 0);
    for sample in 0..80 {
        let view = labelled_view(&image, &labels, &jittered, Key::new(2).at("sample", sample));
        let pixels = view.rgb.as_chunks::<3>().0;
        padded += usize::from(pixels.iter().filter(|pixel| **pixel == FILL).count() > 96 * 72 / 2);
        let white: Vec<[f32; 2]> = (0..pixels.len())
            .filter(|place| pixels[*place][0] > 200)
            .map(|place| [(place % 96) as f32 + 0.5, (place / 96) as f32 + 0.5])
            .collect();
        let Some(label) = view.labels.boxes.first() else {
            assert!(white.len() < 100, "{} white pixels have no box", white.len());
            continue;
        };
        let [x0, y0, x1, y1] = label.edges;
        let near = |[x, y]: &[f32; 2]| *x > x0 - 1.0 && *x < x1 + 1.0 && *y > y0 - 1.0 && *y < y1 + 1.0;
        assert!(white.iter().all(near), "white pixels lie outside of {:?}", label.edges);
        let area = (x1 - x0) * (y1 - y0);
        let border = 2.0 * (x1 - x0 + y1 - y0) + 4.0;
        assert!((white.len() as f32 - area).abs() <= border, "{} white pixels in {:?}", white.len(), label.edges);
        shown += 1;
    }
    assert!(padded >= 8 && shown >= 30, "{padded} padded, {shown} with a box");
}

#[test]
fn images_are_brought_to_their_size_before_all_else_and_boxes_go_along() {
    let resize = Some(Resize { short_px: 30, long_px: 120 });
    let views = ViewsConfig { resize, scale: [1.0, 1.0], flip: 0.0, ..ViewsConfig::of_size([60, 120]) };
    for (size, side) in [([40, 60], 15.0), ([80, 60], 10.0), ([40, 240], 10.0)] {
        let (image, labels) = white_square(size, [30, 10]);
        for sample in 0..10 {
            let view = labelled_view(&image, &labels, &views, Key::new(2).at("sample", sample));
            let [x0, y0, x1, y1] = view.labels.boxes[0].edges;
            assert!((x1 - x0 - side).abs() < 1e-3 && (y1 - y0 - side).abs() < 1e-3, "{size:?}: {:?}", view.labels);
            let white = view.rgb.as_chunks::<3>().0.iter().filter(|pixel| pixel[0] > 200).count() as f32;
            assert!((white - side * side).abs() <= 4.0 * side + 4.0, "{size:?}: {white} white pixels");
            // The whole image is seen, whatever lies beside it.
            let seen = view.rgb.as_chunks::<3>().0.iter().filter(|pixel| **pixel != FILL).count() as f32;
            let factor = side / 20.0;
            let whole = size.map(|side| side as f32 * factor).iter().product::<f32>();
            assert!((seen - whole).abs() <= 2.0 * (120.0 + 60.0), "{size:?}: {seen} of {whole}");
        }
    }
    // Half the size, and then what `scale` says of it.
    let (small, labels) = white_square([60, 60], [30, 10]);
    let views = ViewsConfig { scale: [0.5, 2.0], ..views };
    let view = labelled_view(&small, &labels, &views, Key::new(5));
    let bare = ViewsConfig { resize: None, scale: [0.25, 1.0], ..views };
    assert_eq!(view, labelled_view(&small, &labels, &bare, Key::new(5)));
}

#[test]
fn a_view_that_must_show_an_object_is_drawn_again_and_one_that_does_stays() {
    let (image, labels) = white_square([200, 200], [120, 60]);
    let free = ViewsConfig { scale: [1.0, 1.0], ..ViewsConfig::of_size([72, 96]) };
    let keeping = ViewsConfig { keep_box: Some(0.5), ..free.clone() };
    let (mut same, mut again) = (0, 0);
    for sample in 0..60 {
        let key = Key::new(8).at("sample", sample);
        let (before, after) =
            (labelled_view(&image, &labels, &free, key), labelled_view(&image, &labels, &keeping, key));
        let area = |view: &LabelledView<BoxLabels>| view.labels.boxes.first().map_or(0.0, |label| label.area);
        assert!(area(&after) >= 200.0, "{}", area(&after));
        if area(&before) >= 200.0 {
            assert_eq!(before, after);
            same += 1;
        } else {
            again += 1;
        }
    }
    assert!(same > 0 && again > 20, "{same} the same, {again} drawn again");
    // What is not there cannot be shown.
    let none = BoxLabels::default();
    let key = Key::new(8);
    assert_eq!(labelled_view(&image, &none, &free, key), labelled_view(&image, &none, &keeping, key));
}
