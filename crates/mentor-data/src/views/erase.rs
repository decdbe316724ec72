//! Random erasing: a box of a view overwritten with noise.

use image::RgbImage;
use mentor_types::KeyRng;
use rand::RngExt;

use super::between;
use super::cutmix::place;

/// Range of the box's share of the view's area, and of its height over its width.
const AREA: [f64; 2] = [0.02, 0.2];
const RATIO: [f64; 2] = [0.3, 3.3];

/// Overwrites a box anywhere in the view with bytes that are drawn for each pixel and channel.
pub(super) fn erase(mut view: RgbImage, rng: &mut KeyRng) -> RgbImage {
    let (area, ratio) = (between(AREA, rng.random()), between(RATIO, rng.random()));
    let (height, width) = (view.height() as usize, view.width() as usize);
    let cut = place([height, width], area, ratio, [rng.random(), rng.random()]);
    for y in cut.y..cut.y + cut.height {
        for x in cut.x..cut.x + cut.width {
            view.get_pixel_mut(x as u32, y as u32).0 = std::array::from_fn(|_| rng.random());
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use mentor_types::Key;

    #[test]
    fn one_box_of_a_share_of_the_view_is_noise() {
        for sample in 0..30 {
            let mut rng = Key::new(7).at("sample", sample).rng();
            let erased = erase(RgbImage::new(80, 60), &mut rng);
            let changed: Vec<_> = erased.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 != [0; 3]).collect();
            let share = changed.len() as f64 / 4800.0;
            assert!((0.015..0.21).contains(&share), "{share}");
            let span = |of: fn(&(u32, u32, &image::Rgb<u8>)) -> u32| {
                let least = changed.iter().map(of).min().unwrap_or_default();
                changed.iter().map(of).max().unwrap_or_default() - least + 1
            };
            // All of the box, but for bytes that are zero by chance.
            let whole = f64::from(span(|pixel| pixel.0) * span(|pixel| pixel.1));
            assert!(changed.len() as f64 > 0.99 * whole, "{} of {whole}", changed.len());
        }
    }
}
