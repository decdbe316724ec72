//! Label masks as pictures: overlays on photos, legends, panels, grids.
//!
//! The state of a pixel is told the same way everywhere: a class by its colour, an ignored pixel by
//! a grey photo, an unknown one by light stripes.

use image::{Rgb, RgbImage};
use mentor_types::{IGNORE, LabelMask, UNKNOWN};

use crate::text::{Font, blend};

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([28, 32, 38]);
const RULE: Rgb<u8> = Rgb([120, 126, 134]);
const WRONG: Rgb<u8> = Rgb([226, 38, 54]);
const IGNORED: Rgb<u8> = Rgb([128, 128, 128]);

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

/// The mask alone, every class pixel in exactly its colour; ignored pixels are grey, unknown ones
/// lightly striped.
///
/// # Panics
/// If a label is neither a class of `colours`, nor ignored, nor unknown.
#[must_use]
pub fn colour_mask(mask: &LabelMask, colours: &[[u8; 3]]) -> RgbImage {
    RgbImage::from_fn(mask.width() as u32, mask.height() as u32, |x, y| match mask.at(x as usize, y as usize) {
        IGNORE => IGNORED,
        UNKNOWN => striped(Rgb([235; 3]), x, y),
        label => colour(label, colours),
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

/// The labels that occur in any of the masks, in order: what [`with_legend`] should explain.
#[must_use]
pub fn shown_labels(masks: &[&LabelMask]) -> Vec<u8> {
    let mut shown = [false; 256];
    for label in masks.iter().flat_map(|mask| mask.labels()) {
        shown[usize::from(*label)] = true;
    }
    (0..=255).filter(|label| shown[usize::from(*label)]).collect()
}

/// The picture with a legend below: a swatch and a name for each of `shown`, which may hold
/// ignored and unknown too. A picture narrower than its widest entry gets a margin at its right.
///
/// # Panics
/// If a class in `shown` has no name or colour.
#[must_use]
pub fn with_legend(picture: &RgbImage, names: &[String], colours: &[[u8; 3]], shown: &[u8]) -> RgbImage {
    const LONGEST: u32 = 480;
    let font = Font::for_width(picture.width());
    let (swatch, gap) = (font.height(), font.height() / 2);
    let entries: Vec<(u8, String)> = shown
        .iter()
        .map(|label| match *label {
            IGNORE => (IGNORE, "ignored".to_owned()),
            UNKNOWN => (UNKNOWN, "unknown".to_owned()),
            class => (class, font.fit(&names[usize::from(class)], LONGEST)),
        })
        .collect();
    let entry_width = |name: &str| swatch + gap + font.width(name) + 2 * gap;
    let widest = entries.iter().map(|(_, name)| entry_width(name)).max().unwrap_or(0);
    let width = picture.width().max(widest + gap);

    let (mut x, mut y) = (gap, picture.height() + gap);
    let mut places = Vec::new();
    for (label, name) in &entries {
        if x > gap && x + entry_width(name) > width {
            (x, y) = (gap, y + font.height() + gap);
        }
        places.push((x, y, *label, name));
        x += entry_width(name);
    }
    let bottom = if entries.is_empty() { picture.height() } else { y + font.height() + gap };
    let mut canvas = RgbImage::from_pixel(width, bottom, PAPER);
    image::imageops::replace(&mut canvas, picture, 0, 0);
    for (x, y, label, name) in places {
        draw_swatch(&mut canvas, x, y, swatch, label, colours);
        font.draw(&mut canvas, x + swatch + gap, y, name, INK);
    }
    canvas
}

/// Pictures side by side, each under a bar with its title.
#[must_use]
pub fn panel(pictures: &[(&str, &RgbImage)]) -> RgbImage {
    const GAP: u32 = 6;
    let widest = pictures.iter().map(|(_, picture)| picture.width()).max().unwrap_or(0);
    let tallest = pictures.iter().map(|(_, picture)| picture.height()).max().unwrap_or(0);
    let font = Font::for_width(widest).bold();
    let bar = font.height() + 10;
    let width = pictures.iter().map(|(_, picture)| picture.width() + GAP).sum::<u32>().saturating_sub(GAP);
    let mut canvas = RgbImage::from_pixel(width.max(1), bar + tallest, PAPER);
    let mut x = 0;
    for (title, picture) in pictures {
        if picture.width() > 0 {
            let behind_title = RgbImage::from_pixel(picture.width(), bar, INK);
            image::imageops::replace(&mut canvas, &behind_title, i64::from(x), 0);
        }
        let title = font.fit(title, picture.width().saturating_sub(12));
        font.draw(&mut canvas, x + 8, 5, &title, PAPER);
        image::imageops::replace(&mut canvas, *picture, i64::from(x), i64::from(bar));
        x += picture.width() + GAP;
    }
    canvas
}

/// Pictures in rows of `columns`, in reading order; every row is as high as its tallest picture,
/// every column as wide as its widest.
///
/// # Panics
/// If `columns` is 0.
#[must_use]
pub fn grid(pictures: &[RgbImage], columns: usize) -> RgbImage {
    const GAP: u32 = 12;
    assert!(columns > 0, "a grid of {} pictures in 0 columns", pictures.len());
    let columns = columns.min(pictures.len().max(1));
    let most = |sizes: &mut dyn Iterator<Item = u32>| sizes.max().unwrap_or(0);
    let widths: Vec<u32> = (0..columns)
        .map(|column| most(&mut pictures.iter().skip(column).step_by(columns).map(RgbImage::width)))
        .collect();
    let heights: Vec<u32> = pictures.chunks(columns).map(|row| most(&mut row.iter().map(RgbImage::height))).collect();
    let length = |sizes: &[u32]| sizes.iter().map(|size| size + GAP).sum::<u32>().saturating_sub(GAP).max(1);
    let mut canvas = RgbImage::from_pixel(length(&widths), length(&heights), PAPER);
    let mut y = 0;
    for (row, height) in pictures.chunks(columns).zip(&heights) {
        let mut x = 0;
        for (picture, width) in row.iter().zip(&widths) {
            image::imageops::replace(&mut canvas, picture, i64::from(x), i64::from(y));
            x += width + GAP;
        }
        y += height + GAP;
    }
    canvas
}

fn draw_swatch(canvas: &mut RgbImage, x: u32, y: u32, side: u32, label: u8, colours: &[[u8; 3]]) {
    let mut swatch = colour_mask(&LabelMask::filled(side as usize, side as usize, label), colours);
    for (x, y, pixel) in swatch.enumerate_pixels_mut() {
        if [x, y].contains(&0) || [x, y].contains(&(side - 1)) {
            *pixel = RULE;
        }
    }
    image::imageops::replace(canvas, &swatch, i64::from(x), i64::from(y));
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

/// The pixel under light diagonal stripes; between them it is drawn towards a middle grey, so that
/// the stripes show on a bright photo as well as on a dark one.
fn striped(photo: Rgb<u8>, x: u32, y: u32) -> Rgb<u8> {
    if (x + y) % 8 < 2 { blend(photo, PAPER, 0.8) } else { blend(photo, Rgb([165; 3]), 0.45) }
}

#[cfg(test)]
mod tests {
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
    fn a_colour_mask_holds_the_exact_colours() {
        let picture = colour_mask(&mask(2, &[0, 1, IGNORE, UNKNOWN]), &COLOURS);
        assert_eq!(picture.get_pixel(0, 0).0, COLOURS[0]);
        assert_eq!(picture.get_pixel(1, 0).0, COLOURS[1]);
        assert_eq!(*picture.get_pixel(0, 1), IGNORED);
        assert_ne!(*picture.get_pixel(1, 1), IGNORED);
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
    fn a_legend_keeps_the_picture_and_shows_every_colour() {
        let names = ["a class with a name that is wider than the picture".to_owned(), "b".to_owned()];
        let picture = with_legend(&photo(60, 40), &names, &COLOURS, &[0, 1, UNKNOWN, IGNORE]);
        assert!(picture.width() > 60 && picture.height() > 40);
        assert_eq!(*image::imageops::crop_imm(&picture, 0, 0, 60, 40).to_image(), *photo(60, 40));
        for colour in COLOURS {
            assert!(picture.pixels().any(|pixel| pixel.0 == colour), "no swatch of {colour:?}");
        }
        assert_eq!(with_legend(&photo(60, 40), &names, &COLOURS, &[]), photo(60, 40));
    }

    #[test]
    fn a_legend_breaks_into_lines_instead_of_growing() {
        let names: Vec<String> = (0..40).map(|class| format!("class {class}")).collect();
        let colours = vec![[1, 2, 3]; 40];
        let shown: Vec<u8> = (0..40).collect();
        let picture = with_legend(&photo(300, 10), &names, &colours, &shown);
        assert_eq!(picture.width(), 300);
        assert!(picture.height() > 10 + 13 * 16);
    }

    #[test]
    fn a_panel_puts_pictures_beside_each_other_below_their_titles() {
        let (left, right) = (photo(50, 20), RgbImage::from_pixel(30, 10, Rgb([1, 2, 3])));
        let picture = panel(&[("image", &left), ("a title that does not fit", &right)]);
        let bar = picture.height() - 20;
        assert_eq!(picture.width(), 50 + 6 + 30);
        assert_eq!(*picture.get_pixel(0, bar), PHOTO);
        assert_eq!(*picture.get_pixel(56, bar), Rgb([1, 2, 3]));
        assert_eq!(*picture.get_pixel(0, 0), INK);
        assert_eq!(panel(&[]).width(), 1);
    }

    #[test]
    fn a_grid_fills_rows_in_reading_order() {
        let one = |value: u8| RgbImage::from_pixel(10, 5, Rgb([value; 3]));
        let picture = grid(&[one(1), one(2), one(3)], 2);
        assert_eq!((picture.width(), picture.height()), (10 + 12 + 10, 5 + 12 + 5));
        assert_eq!(picture.get_pixel(22, 0).0, [2; 3]);
        assert_eq!(picture.get_pixel(0, 17).0, [3; 3]);
        assert_eq!(*picture.get_pixel(22, 17), PAPER);
        assert_eq!(grid(&[], 3).width(), 1);
    }

    #[test]
    fn shown_labels_are_those_of_all_masks() {
        assert_eq!(shown_labels(&[&mask(2, &[3, IGNORE]), &mask(2, &[3, 0])]), [0, 3, IGNORE]);
    }
}
