//! Text in pictures: Noto Sans Mono (SIL Open Font License), compiled in as grey-scale bitmaps.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// How text is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Font {
    size: RasterHeight,
    weight: FontWeight,
}

impl Font {
    /// The font for a picture of a width in pixels: readable when the whole picture is on a screen.
    pub(crate) fn for_width(width: u32) -> Self {
        let size = match width {
            0..=900 => RasterHeight::Size16,
            901..=1800 => RasterHeight::Size24,
            _ => RasterHeight::Size32,
        };
        Self { size, weight: FontWeight::Regular }
    }

    pub(crate) fn bold(self) -> Self {
        Self { weight: FontWeight::Bold, ..self }
    }

    /// Height of a line in pixels.
    pub(crate) fn height(self) -> u32 {
        self.size.val() as u32
    }

    /// Width of a text in pixels.
    pub(crate) fn width(self, text: &str) -> u32 {
        (text.chars().count() * get_raster_width(self.weight, self.size)) as u32
    }

    /// The text, cut so that it fits a width in pixels.
    pub(crate) fn fit(self, text: &str, width: u32) -> String {
        let letters = width as usize / get_raster_width(self.weight, self.size);
        if text.chars().count() <= letters {
            return text.to_owned();
        }
        let kept: String = text.chars().take(letters.saturating_sub(2)).collect();
        format!("{kept}..")
    }

    /// Draws a line of text with its upper left corner at `x`, `y`; what falls outside is cut, a
    /// letter that the font lacks becomes a question mark.
    pub(crate) fn draw(self, picture: &mut RgbImage, x: u32, y: u32, text: &str, ink: Rgb<u8>) {
        for (place, letter) in text.chars().enumerate() {
            let raster = get_raster(letter, self.weight, self.size)
                .or_else(|| get_raster('?', self.weight, self.size))
                .expect("the font has a question mark");
            let left = x + (place * raster.width()) as u32;
            for (row, line) in raster.rows().enumerate() {
                for (column, cover) in line.iter().enumerate() {
                    if let Some(pixel) = picture.get_pixel_mut_checked(left + column as u32, y + row as u32) {
                        *pixel = blend(*pixel, ink, f32::from(*cover) / 255.0);
                    }
                }
            }
        }
    }
}

/// `share` of `over` on top of `under`.
pub(crate) fn blend(under: Rgb<u8>, over: Rgb<u8>, share: f32) -> Rgb<u8> {
    let mix = |channel: usize| {
        let (under, over) = (f32::from(under.0[channel]), f32::from(over.0[channel]));
        (under + (over - under) * share).round().clamp(0.0, 255.0) as u8
    };
    Rgb([mix(0), mix(1), mix(2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Rgb<u8> = Rgb([255; 3]);
    const BLACK: Rgb<u8> = Rgb([0; 3]);

    #[test]
    fn text_leaves_ink_within_its_box_only() {
        let font = Font::for_width(100);
        let mut picture = RgbImage::from_pixel(100, 40, WHITE);
        font.draw(&mut picture, 10, 8, "wé", BLACK);
        let inked: Vec<(u32, u32)> =
            picture.enumerate_pixels().filter(|(_, _, pixel)| **pixel != WHITE).map(|(x, y, _)| (x, y)).collect();
        assert!(!inked.is_empty());
        let right = 10 + font.width("wé");
        assert!(inked.iter().all(|(x, y)| (10..right).contains(x) && (8..8 + font.height()).contains(y)));
    }

    #[test]
    fn an_unknown_letter_and_the_edge_of_the_picture_are_no_trouble() {
        let mut picture = RgbImage::from_pixel(10, 10, WHITE);
        Font::for_width(10).draw(&mut picture, 5, 5, "\u{1f600}道路", BLACK);
        assert!(picture.pixels().any(|pixel| *pixel != WHITE));
    }

    #[test]
    fn a_long_text_is_cut_to_its_width() {
        let font = Font::for_width(2000).bold();
        let cut = font.fit("a rather long name of a class", 150);
        assert!(cut.ends_with("..") && font.width(&cut) <= 150, "{cut}");
        assert_eq!(font.fit("road", 150), "road");
    }
}
