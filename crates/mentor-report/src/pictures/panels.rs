//! Pictures of any kind put together: legends, panels, grids.

use image::{Rgb, RgbImage};
use imageproc::drawing::{draw_filled_rect_mut, draw_hollow_rect_mut};
use imageproc::rect::Rect;

use super::text::{Font, blend};
use crate::input::{LegendEntry, Swatch};

pub(super) const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
pub(super) const INK: Rgb<u8> = Rgb([28, 32, 38]);
const RULE: Rgb<u8> = Rgb([120, 126, 134]);
const IGNORED: Rgb<u8> = Rgb([128, 128, 128]);

/// The picture with a legend below: a swatch and a name for each entry. A picture narrower than its widest entry gets a
/// margin at its right.
#[must_use]
pub fn with_legend(picture: &RgbImage, entries: &[LegendEntry]) -> RgbImage {
    const LONGEST: u32 = 480;
    let font = Font::for_width(picture.width());
    let (swatch, gap) = (font.height(), font.height() / 2);
    let entries: Vec<(Swatch, String)> =
        entries.iter().map(|entry| (entry.swatch, font.fit(&entry.name, LONGEST))).collect();
    let entry_width = |name: &str| swatch + gap + font.width(name) + 2 * gap;
    let widest = entries.iter().map(|(_, name)| entry_width(name)).max().unwrap_or(0);
    let width = picture.width().max(widest + gap);

    let (mut x, mut y) = (gap, picture.height() + gap);
    let mut places = Vec::new();
    for (colour, name) in &entries {
        if x > gap && x + entry_width(name) > width {
            (x, y) = (gap, y + font.height() + gap);
        }
        places.push((x, y, *colour, name));
        x += entry_width(name);
    }
    let bottom = if entries.is_empty() { picture.height() } else { y + font.height() + gap };
    let mut canvas = RgbImage::from_pixel(width, bottom, PAPER);
    image::imageops::replace(&mut canvas, picture, 0, 0);
    for (x, y, colour, name) in places {
        draw_swatch(&mut canvas, x, y, swatch, colour);
        font.draw(&mut canvas, x + swatch + gap, y, name, INK);
    }
    canvas
}

/// Pictures side by side, each under a bar with its title; small ones enlarged alike, by a whole factor.
#[must_use]
pub fn panel(pictures: &[(&str, &RgbImage)]) -> RgbImage {
    const GAP: u32 = 6;
    const SMALL: u32 = 160;
    let widest = pictures.iter().map(|(_, picture)| picture.width()).max().unwrap_or(0).max(1);
    let larger: Vec<(&str, RgbImage)> =
        pictures.iter().map(|(title, picture)| (*title, enlarged(picture, SMALL.div_ceil(widest)))).collect();
    let pictures: Vec<(&str, &RgbImage)> = larger.iter().map(|(title, picture)| (*title, picture)).collect();
    let widest = pictures.iter().map(|(_, picture)| picture.width()).max().unwrap_or(0);
    let tallest = pictures.iter().map(|(_, picture)| picture.height()).max().unwrap_or(0);
    let font = Font::for_width(widest).bold();
    let bar = font.height() + 10;
    let width = pictures.iter().map(|(_, picture)| picture.width() + GAP).sum::<u32>().saturating_sub(GAP);
    let mut canvas = RgbImage::from_pixel(width.max(1), bar + tallest, PAPER);
    let mut x = 0;
    for (title, picture) in &pictures {
        if picture.width() > 0 {
            draw_filled_rect_mut(&mut canvas, Rect::at(x as i32, 0).of_size(picture.width(), bar), INK);
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

fn draw_swatch(canvas: &mut RgbImage, x: u32, y: u32, side: u32, swatch: Swatch) {
    let square = RgbImage::from_fn(side, side, |x, y| match swatch {
        Swatch::Colour(colour) => Rgb(colour),
        Swatch::Ignored => IGNORED,
        Swatch::Unknown => striped(Rgb([235; 3]), x, y),
    });
    image::imageops::replace(canvas, &square, i64::from(x), i64::from(y));
    draw_hollow_rect_mut(canvas, Rect::at(x as i32, y as i32).of_size(side, side), RULE);
}

/// Each pixel as a square of `factor` by `factor`.
pub(super) fn enlarged(picture: &RgbImage, factor: u32) -> RgbImage {
    let (width, height) = (picture.width() * factor, picture.height() * factor);
    RgbImage::from_fn(width, height, |x, y| *picture.get_pixel(x / factor, y / factor))
}

/// The picture, scaled down to at most `width` pixels across.
#[must_use]
pub fn shrink(picture: &RgbImage, width: u32) -> RgbImage {
    if picture.width() <= width {
        return picture.clone();
    }
    let height = scaled(picture.height(), picture.width(), width);
    image::imageops::resize(picture, width, height, image::imageops::FilterType::CatmullRom)
}

pub(super) fn scaled(height: u32, width: u32, new_width: u32) -> u32 {
    let height = (u64::from(height) * u64::from(new_width) + u64::from(width) / 2) / u64::from(width);
    u32::try_from(height).expect("a smaller height").max(1)
}

/// The pixel under light diagonal stripes; between them it is drawn towards a middle grey, so that
/// the stripes show on a bright photo as well as on a dark one.
pub(super) fn striped(photo: Rgb<u8>, x: u32, y: u32) -> Rgb<u8> {
    if (x + y) % 8 < 2 { blend(photo, PAPER, 0.8) } else { blend(photo, Rgb([165; 3]), 0.45) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: Rgb<u8> = Rgb([100, 150, 50]);

    fn photo(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, PHOTO)
    }

    fn entry(name: &str, swatch: Swatch) -> LegendEntry {
        LegendEntry { name: name.to_owned(), swatch }
    }

    #[test]
    fn a_legend_keeps_the_picture_and_shows_every_colour() {
        let colours = [[200, 0, 0], [0, 0, 200]];
        let entries = [
            entry("a class with a name that is wider than the picture", Swatch::Colour(colours[0])),
            entry("b", Swatch::Colour(colours[1])),
            entry("unknown", Swatch::Unknown),
            entry("ignored", Swatch::Ignored),
        ];
        let picture = with_legend(&photo(60, 40), &entries);
        assert!(picture.width() > 60 && picture.height() > 40);
        assert_eq!(*image::imageops::crop_imm(&picture, 0, 0, 60, 40).to_image(), *photo(60, 40));
        for colour in colours.into_iter().chain([IGNORED.0]) {
            assert!(picture.pixels().any(|pixel| pixel.0 == colour), "no swatch of {colour:?}");
        }
        assert_eq!(with_legend(&photo(60, 40), &[]), photo(60, 40));
    }

    #[test]
    fn a_legend_breaks_into_lines_instead_of_growing() {
        let entries: Vec<LegendEntry> =
            (0..40).map(|class| entry(&format!("class {class}"), Swatch::Colour([1, 2, 3]))).collect();
        let picture = with_legend(&photo(300, 10), &entries);
        assert_eq!(picture.width(), 300);
        assert!(picture.height() > 10 + 13 * 16);
    }

    #[test]
    fn a_panel_puts_pictures_beside_each_other_below_their_titles() {
        let (left, right) = (photo(50, 20), RgbImage::from_pixel(30, 10, Rgb([1, 2, 3])));
        let picture = panel(&[("image", &left), ("a title that does not fit", &right)]);
        // Both are enlarged four times, since none is 160 wide.
        let bar = picture.height() - 4 * 20;
        assert_eq!(picture.width(), 4 * 50 + 6 + 4 * 30);
        assert_eq!(*picture.get_pixel(0, bar), PHOTO);
        assert_eq!(*picture.get_pixel(206, bar), Rgb([1, 2, 3]));
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
}
