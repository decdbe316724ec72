//! Colour changes, with torchvision's meaning of the factors.

use image::RgbImage;
use mentor_types::KeyRng;
use rand::RngExt;

use crate::config::Jitter;
use crate::views::between;

/// Brightness, contrast, saturation and hue, each by a random amount, in random order.
pub(crate) fn jitter(mut image: RgbImage, amounts: &Jitter, rng: &mut KeyRng) -> RgbImage {
    let mut factor = |amount: f64| between([(1.0 - amount).max(0.0), 1.0 + amount], rng.random()) as f32;
    let factors = [factor(amounts.brightness), factor(amounts.contrast), factor(amounts.saturation)];
    let turn = between([-amounts.hue, amounts.hue], rng.random()) as f32;
    let mut order = [0, 1, 2, 3];
    for last in (1..order.len()).rev() {
        order.swap(last, rng.random_range(0..=last as u32) as usize);
    }
    for change in order {
        match change {
            0 => brightness(&mut image, factors[0]),
            1 => contrast(&mut image, factors[1]),
            2 => saturation(&mut image, factors[2]),
            _ => hue(&mut image, turn),
        }
    }
    image
}

/// The image without colour, still in three channels.
pub(crate) fn grey(mut image: RgbImage) -> RgbImage {
    each(&mut image, |pixel| [luma(pixel).round(); 3]);
    image
}

/// A Gaussian blur with a standard deviation in pixels.
pub(crate) fn blur(image: &RgbImage, sigma: f64) -> RgbImage {
    imageproc::filter::gaussian_blur_f32(image, sigma as f32)
}

/// Pixels whose channels are taken apart at a time, so that the compiler computes several at once.
const LANES: usize = 64;

/// The first [`LANES`] pixels, or as many as there are, by channel.
fn by_channel(pixels: &[[u8; 3]]) -> [[f32; LANES]; 3] {
    let mut channels = [[0.0; LANES]; 3];
    for (place, pixel) in pixels.iter().take(LANES).enumerate() {
        for (channel, value) in channels.iter_mut().zip(pixel) {
            channel[place] = f32::from(*value);
        }
    }
    channels
}

/// A change of each pixel; fast where it has no branches.
fn each(image: &mut RgbImage, change: impl Fn([f32; 3]) -> [f32; 3]) {
    for pixels in image.as_chunks_mut::<3>().0.chunks_mut(LANES) {
        let [mut reds, mut greens, mut blues] = by_channel(pixels);
        for ((red, green), blue) in reds.iter_mut().zip(&mut greens).zip(&mut blues) {
            [*red, *green, *blue] = change([*red, *green, *blue]);
        }
        for (((pixel, red), green), blue) in pixels.iter_mut().zip(reds).zip(greens).zip(blues) {
            *pixel = [red, green, blue].map(to_byte);
        }
    }
}

/// A change of each value by itself, through a table of all bytes.
fn each_value(image: &mut RgbImage, change: impl Fn(f32) -> f32) {
    let table: [u8; 256] = std::array::from_fn(|byte| to_byte(change(byte as f32)));
    image.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

fn to_byte(value: f32) -> u8 {
    // A float cast clamps to the range of a byte.
    (value + 0.5) as u8
}

/// The weights of ITU-R BT.601.
fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// The sum of the greys of at most [`LANES`] pixels, each a whole number.
fn sum_of_luma(pixels: &[[u8; 3]]) -> u64 {
    let [red, green, blue] = by_channel(pixels);
    let grey = |place: usize| u32::from(to_byte(luma([red[place], green[place], blue[place]])));
    (0..LANES).map(grey).sum::<u32>().into()
}

fn mix(value: f32, towards: f32, factor: f32) -> f32 {
    towards + factor * (value - towards)
}

/// 0 is black, 1 the image.
fn brightness(image: &mut RgbImage, factor: f32) {
    each_value(image, |value| value * factor);
}

/// 0 is the mean grey of the whole image, 1 the image.
fn contrast(image: &mut RgbImage, factor: f32) {
    // Summed in whole numbers, so that no order of summing matters.
    let sum: u64 = image.as_chunks::<3>().0.chunks(LANES).map(sum_of_luma).sum();
    let count = u64::from(image.width()) * u64::from(image.height());
    let mean = (sum as f64 / count.max(1) as f64).round() as f32;
    each_value(image, |value| mix(value, mean, factor));
}

/// 0 is grey, 1 the image.
fn saturation(image: &mut RgbImage, factor: f32) {
    each(image, |pixel| {
        let grey = luma(pixel);
        pixel.map(|value| mix(value, grey, factor))
    });
}

/// Turns the colour circle by `turn`, 1 being once around, from -1 to 1.
fn hue(image: &mut RgbImage, turn: f32) {
    each(image, |pixel| {
        let (hue, saturation, value) = to_hsv(pixel);
        from_hsv(wrapped(hue + turn, 1.0), saturation, value)
    });
}

/// The value between 0 and `length` on a circle, where it lies at most one turn outside: without the slow remainder.
fn wrapped(value: f32, length: f32) -> f32 {
    let value = if value < 0.0 { value + length } else { value };
    if value >= length { value - length } else { value }
}

/// Hue and saturation in [0, 1], value in [0, 255]. Every choice is between two numbers that are there
/// anyway, so that pixels need no branches.
fn to_hsv([red, green, blue]: [f32; 3]) -> (f32, f32, f32) {
    let (most, least) = (larger(larger(red, green), blue), -larger(larger(-red, -green), -blue));
    let spread = most - least;
    let (difference, sixths) = if most == green { (blue - red, 2.0) } else { (red - green, 4.0) };
    let (difference, sixths) = if most == red { (green - blue, 0.0) } else { (difference, sixths) };
    let hue = (sixths + difference / if spread > 0.0 { spread } else { 1.0 }) / 6.0;
    (wrapped(hue, 1.0), spread / if most > 0.0 { most } else { 1.0 }, most)
}

fn from_hsv(hue: f32, saturation: f32, value: f32) -> [f32; 3] {
    // Each channel falls from `value` by an amount that depends on its distance on the circle.
    [5.0, 3.0, 1.0].map(|offset| {
        let place = wrapped(offset + hue * 6.0, 6.0);
        let distance = -larger(-place, place - 4.0);
        value - value * saturation * -larger(-larger(distance, 0.0), -1.0)
    })
}

/// The larger of two numbers: one instruction, where `f32::max` also looks after NaN.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use mentor_types::Key;

    fn one(pixel: [u8; 3], change: impl Fn(&mut RgbImage)) -> [u8; 3] {
        let mut image = RgbImage::from_pixel(1, 1, Rgb(pixel));
        change(&mut image);
        image.get_pixel(0, 0).0
    }

    #[test]
    fn factor_one_and_turn_zero_change_nothing() {
        for pixel in [[0, 0, 0], [255, 255, 255], [10, 200, 90], [255, 0, 1], [7, 7, 8], [200, 10, 255]] {
            assert_eq!(one(pixel, |image| brightness(image, 1.0)), pixel);
            assert_eq!(one(pixel, |image| contrast(image, 1.0)), pixel);
            assert_eq!(one(pixel, |image| saturation(image, 1.0)), pixel);
            assert_eq!(one(pixel, |image| hue(image, 0.0)), pixel);
            assert_eq!(one(pixel, |image| hue(image, 1.0)), pixel);
        }
    }

    #[test]
    fn factor_zero_is_black_mean_and_grey() {
        let pixel = [10, 200, 90];
        assert_eq!(one(pixel, |image| brightness(image, 0.0)), [0; 3]);
        assert_eq!(one(pixel, |image| contrast(image, 0.0)), [131; 3]);
        assert_eq!(one(pixel, |image| saturation(image, 0.0)), [131; 3]);
        assert_eq!(grey(RgbImage::from_pixel(1, 1, Rgb(pixel))).get_pixel(0, 0).0, [131; 3]);
        assert_eq!(one(pixel, |image| brightness(image, 2.0)), [20, 255, 180]);
    }

    #[test]
    fn a_third_of_the_circle_turns_red_into_green_into_blue() {
        let third = |image: &mut RgbImage| hue(image, 1.0 / 3.0);
        assert_eq!(one([200, 20, 20], third), [20, 200, 20]);
        assert_eq!(one([20, 200, 20], third), [20, 20, 200]);
        assert_eq!(one([20, 20, 200], third), [200, 20, 20]);
        assert_eq!(one([50, 50, 50], third), [50, 50, 50]);
    }

    #[test]
    fn a_blur_keeps_flat_colour_and_softens_an_edge() {
        let flat = RgbImage::from_pixel(9, 9, Rgb([40, 50, 60]));
        assert_eq!(blur(&flat, 0.1), flat);
        let edge = RgbImage::from_fn(20, 9, |x, _| Rgb([if x < 10 { 0 } else { 200 }; 3]));
        let soft = blur(&edge, 2.0);
        assert!(soft.get_pixel(8, 4)[0] > 10 && soft.get_pixel(11, 4)[0] < 190);
    }

    #[test]
    fn jitter_is_a_function_of_its_key() {
        let image = RgbImage::from_fn(6, 6, |x, y| Rgb([x as u8 * 40, y as u8 * 40, 90]));
        let draw = |seed| jitter(image.clone(), &Jitter::default(), &mut Key::new(seed).rng());
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let none = Jitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
        assert_eq!(jitter(image.clone(), &none, &mut Key::new(1).rng()), image);
    }
}
