//! Label masks as pictures.
//!
//! The state of a pixel is told the same way everywhere: a class by its colour, an ignored pixel by
//! a grey photo, an unknown one by light stripes.

use image::{Rgb, RgbImage};
use mentor_types::{IGNORE, LabelMask, UNKNOWN};

use super::panels::{INK, scaled, striped};
use super::text::blend;
use crate::input::{LegendEntry, Swatch};

const WRONG: Rgb<u8> = Rgb([226, 38, 54]);

/// The photo with the mask's colours over it.
///
/// A class pixel is `opacity` (0 to 1) of its colour over the photo, darker where the class ends;
/// an ignored pixel is the photo in grey; an unknown pixel is the photo under light stripes.
///
/// # Panics
/// If photo and mask differ in size, or a label is neither a class of `colours`, nor ignored, nor
/// unknown.
#[must_use]
pub fn overlay(image: &RgbImage, mask: &LabelMask, colours: &[[u8; 3]], opacity: f32) -> RgbImage {
    assert_same_size(image, mask);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let photo = *image.get_pixel(x, y);
        match mask.at(x as usize, y as usize) {
            IGNORE => grey(photo),
            UNKNOWN => striped(photo, x, y),
            label if ends(mask, x as usize, y as usize) => {
                blend(photo, blend(colour(label, colours), INK, 0.45), opacity.max(0.7))
            }
            label => blend(photo, colour(label, colours), opacity),
        }
    })
}

/// Where a prediction is wrong: red on a grey photo. Pixels whose truth is ignored or unknown are
/// dimmed, for they count neither way.
///
/// # Panics
/// If the three differ in size.
#[must_use]
pub fn mistakes(image: &RgbImage, truth: &LabelMask, prediction: &LabelMask) -> RgbImage {
    assert_same_size(image, truth);
    assert_same_size(image, prediction);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let photo = grey(*image.get_pixel(x, y));
        let (truth, prediction) = (truth.at(x as usize, y as usize), prediction.at(x as usize, y as usize));
        match truth {
            IGNORE | UNKNOWN => blend(photo, INK, 0.6),
            _ if truth == prediction => photo,
            _ => blend(photo, WRONG, 0.8),
        }
    })
}

/// The labels that occur in any of the masks, in order: what a legend should explain.
#[must_use]
pub fn shown_labels(masks: &[&LabelMask]) -> Vec<u8> {
    let mut shown = [false; 256];
    for label in masks.iter().flat_map(|mask| mask.labels()) {
        shown[usize::from(*label)] = true;
    }
    (0..=255).filter(|label| shown[usize::from(*label)]).collect()
}

/// What the labels of `shown` look like: classes, ignored and unknown. A label without a name is left out.
#[must_use]
pub fn legend(names: &[String], colours: &[[u8; 3]], shown: &[u8]) -> Vec<LegendEntry> {
    let entry = |label: &u8| {
        let (name, swatch) = match *label {
            IGNORE => ("ignored", Swatch::Ignored),
            UNKNOWN => ("unknown", Swatch::Unknown),
            class => {
                let class = usize::from(class);
                (names.get(class)?.as_str(), Swatch::Colour(*colours.get(class)?))
            }
        };
        Some(LegendEntry { name: name.to_owned(), swatch })
    };
    shown.iter().filter_map(entry).collect()
}

/// The mask in the size that [`shrink`](super::shrink) gives a photo of its size: the nearest label.
#[must_use]
pub fn shrink_mask(mask: &LabelMask, width: u32) -> LabelMask {
    let width = width as usize;
    if mask.width() <= width {
        return mask.clone();
    }
    let height = scaled(mask.height() as u32, mask.width() as u32, width as u32) as usize;
    let nearest = |place: usize, new: usize, old: usize| (2 * place + 1) * old / (2 * new);
    let mut labels = Vec::with_capacity(width * height);
    for y in 0..height {
        for x in 0..width {
            labels.push(mask.at(nearest(x, width, mask.width()), nearest(y, height, mask.height())));
        }
    }
    LabelMask::new(width, height, labels)
}

fn assert_same_size(image: &RgbImage, mask: &LabelMask) {
    let (photo, labels) = ((image.width() as usize, image.height() as usize), (mask.width(), mask.height()));
    assert_eq!(photo, labels, "a photo and a mask of different sizes (width, height)");
}

fn colour(label: u8, colours: &[[u8; 3]]) -> Rgb<u8> {
    let found = colours.get(usize::from(label));
    Rgb(*found.unwrap_or_else(|| panic!("label {label} of a mask with {} colours", colours.len())))
}

/// Whether the class ends here: a neighbour has a higher label, so that the line between two
/// classes is one pixel thin.
fn ends(mask: &LabelMask, x: usize, y: usize) -> bool {
    let here = mask.at(x, y);
    (x > 0 && mask.at(x - 1, y) > here)
        || (y > 0 && mask.at(x, y - 1) > here)
        || (x + 1 < mask.width() && mask.at(x + 1, y) > here)
        || (y + 1 < mask.height() && mask.at(x, y + 1) > here)
}

/// The pixel in grey, paler than it was.
fn grey(photo: Rgb<u8>) -> Rgb<u8> {
    let [r, g, b] = photo.0.map(f32::from);
    let luma = 0.299 * r + 0.587 * g + 0.114 * b;
    Rgb([(0.75 * luma + 45.0).round() as u8; 3])
}

#[cfg(test)]
mod tests {
    use super::super::panels::{PAPER, shrink};
    use super::*;

    const COLOURS: [[u8; 3]; 2] = [[200, 0, 0], [0, 0, 200]];
    const PHOTO: Rgb<u8> = Rgb([100, 150, 50]);

    fn photo(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, PHOTO)
    }

    fn mask(width: usize, labels: &[u8]) -> LabelMask {
        LabelMask::new(width, labels.len() / width, labels.to_vec())
    }

    #[test]
    fn a_class_pixel_mixes_photo_and_colour() {
        let picture = overlay(&photo(3, 1), &mask(3, &[0, 0, 0]), &COLOURS, 0.5);
        assert!(picture.pixels().all(|pixel| *pixel == Rgb([150, 75, 25])));
        let clear = overlay(&photo(3, 1), &mask(3, &[0, 0, 0]), &COLOURS, 0.0);
        assert_eq!(clear, photo(3, 1));
    }

    #[test]
    fn an_ignored_pixel_is_grey_and_an_unknown_one_is_striped() {
        let picture = overlay(&photo(9, 1), &mask(9, &[IGNORE; 9]), &COLOURS, 0.5);
        assert!(picture.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]));
        let picture = overlay(&photo(9, 1), &mask(9, &[UNKNOWN; 9]), &COLOURS, 0.5);
        let (stripe, between) = (*picture.get_pixel(0, 0), *picture.get_pixel(4, 0));
        assert_eq!(*picture.get_pixel(8, 0), stripe);
        assert!((0..3).all(|channel| stripe.0[channel] > between.0[channel] + 40), "{stripe:?} on {between:?}");
        let white = overlay(&RgbImage::from_pixel(9, 1, PAPER), &mask(9, &[UNKNOWN; 9]), &COLOURS, 0.5);
        assert!(white.get_pixel(0, 0).0[0] > white.get_pixel(4, 0).0[0] + 30, "stripes show on white, too");
    }

    #[test]
    fn the_line_between_two_classes_is_one_darker_pixel() {
        let picture = overlay(&photo(4, 1), &mask(4, &[0, 0, 1, 1]), &COLOURS, 0.5);
        let plain = [*picture.get_pixel(0, 0), *picture.get_pixel(3, 0)];
        assert_eq!(*picture.get_pixel(2, 0), plain[1]);
        let line = picture.get_pixel(1, 0);
        let light = |pixel: &Rgb<u8>| pixel.0.iter().map(|channel| u32::from(*channel)).sum::<u32>();
        assert!(light(line) < light(&plain[0]), "{line:?} is not darker than {:?}", plain[0]);
    }

    #[test]
    fn only_a_wrong_pixel_with_a_known_truth_is_red() {
        let picture = mistakes(&photo(4, 1), &mask(4, &[0, 0, IGNORE, UNKNOWN]), &mask(4, &[0, 1, 1, 1]));
        let red: Vec<bool> = picture.pixels().map(|pixel| pixel.0[0] > pixel.0[1] + 50).collect();
        assert_eq!(red, [false, true, false, false]);
    }

    #[test]
    #[should_panic(expected = "different sizes")]
    fn photo_and_mask_must_have_one_size() {
        let _ = overlay(&photo(2, 2), &mask(4, &[0, 0, 0, 0]), &COLOURS, 0.5);
    }

    #[test]
    fn shown_labels_are_those_of_all_masks() {
        assert_eq!(shown_labels(&[&mask(2, &[3, IGNORE]), &mask(2, &[3, 0])]), [0, 3, IGNORE]);
    }

    #[test]
    fn a_legend_names_classes_ignored_and_unknown() {
        let names = ["a", "b"].map(str::to_owned);
        let found = legend(&names, &COLOURS, &[1, UNKNOWN, IGNORE]);
        let expected = [("b", Swatch::Colour(COLOURS[1])), ("unknown", Swatch::Unknown), ("ignored", Swatch::Ignored)];
        assert_eq!(found, expected.map(|(name, swatch)| LegendEntry { name: name.to_owned(), swatch }));
    }

    #[test]
    fn photo_and_mask_shrink_to_one_size() {
        for (width, height) in [(1000, 333), (481, 1), (480, 20), (7, 9)] {
            let photo = shrink(&RgbImage::new(width, height), 480);
            let mask = shrink_mask(&LabelMask::filled(width as usize, height as usize, 3), 480);
            assert_eq!((photo.width() as usize, photo.height() as usize), (mask.width(), mask.height()));
            assert!(photo.width() <= 480);
        }
    }

    #[test]
    fn a_shrunk_mask_takes_the_label_in_the_middle() {
        let mask = LabelMask::new(6, 1, vec![0, 1, 2, 3, 4, 5]);
        assert_eq!(shrink_mask(&mask, 2).labels(), [1, 4]);
    }
}
