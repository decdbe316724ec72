//! Numbers on photos.

use image::{Rgb, RgbImage};

use super::boxes::without_boxes;
use super::panels::INK;
use super::text::blend;

/// The colours of the smallest and of the largest number that is not 0.
const LOW: Rgb<u8> = Rgb([120, 30, 140]);
const HIGH: Rgb<u8> = Rgb([255, 220, 60]);
/// How much of a photo is covered where the number is 0, and where it is not.
const DARK: f32 = 0.55;
const COVERED: f32 = 0.7;

/// The photo, as large as it is drawn with boxes, under squares of `stride` pixels that are the brighter the larger their number
/// is, compared with the largest; dark where it is 0. Numbers stand row by row, in `size` rows and columns.
///
/// # Panics
/// If there are not as many numbers as squares.
#[must_use]
pub fn heat(photo: &RgbImage, numbers: &[f32], size: [usize; 2], stride: usize) -> RgbImage {
    assert_eq!(numbers.len(), size[0] * size[1], "numbers of {size:?} squares");
    let mut picture = without_boxes(photo);
    let side = stride.max(1) * (picture.width() / photo.width().max(1)).max(1) as usize;
    let largest = numbers.iter().fold(0.0f32, |largest, number| largest.max(*number));
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let [row, column] = [y as usize / side, x as usize / side];
        let inside = row < size[0] && column < size[1];
        let number = if inside { numbers[row * size[1] + column] } else { 0.0 };
        *pixel = if number > 0.0 {
            blend(*pixel, blend(LOW, HIGH, number / largest), COVERED)
        } else {
            blend(*pixel, INK, DARK)
        };
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_a_number_the_brighter_its_square_and_0_is_dark() {
        let photo = RgbImage::from_pixel(320, 16, Rgb([100, 100, 100]));
        let mut numbers = vec![0.0; 40];
        (numbers[1], numbers[2]) = (0.1, 0.4);
        let picture = heat(&photo, &numbers, [2, 20], 16);
        let light = |x: u32| picture.get_pixel(x, 3).0.iter().map(|channel| u32::from(*channel)).sum::<u32>();
        assert!(light(15) < 200 && light(15) < light(16) && light(31) < light(32) && light(47) > light(48));
        assert_eq!(*picture.get_pixel(40, 8), blend(photo.get_pixel(0, 0).to_owned(), HIGH, COVERED));
        let narrow = heat(&RgbImage::new(100, 20), &[1.0, 0.0], [1, 2], 64);
        assert_eq!((narrow.width(), narrow.height()), (400, 80));
        assert!(narrow.get_pixel(255, 0).0[0] > narrow.get_pixel(256, 0).0[0]);
    }

    #[test]
    fn nothing_is_bright_where_all_is_0() {
        let picture = heat(&RgbImage::from_pixel(320, 8, Rgb([200, 200, 200])), &[0.0; 40], [1, 40], 8);
        assert!(picture.pixels().all(|pixel| pixel.0[0] < 120));
    }
}
