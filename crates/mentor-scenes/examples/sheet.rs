//! Draws a sheet of scenes: pictures above, masks with boxes below. Prints how long a scene takes and what share of the
//! pixels each class has.
//!
//! `cargo run --release -p mentor-scenes --example sheet -- OUT.png [SEED] [FIRST] [winter]`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use image::{Rgb, RgbImage, imageops};
use mentor_scenes::{CLASSES, COLOURS, draw};
use mentor_types::Season;

const SIZE: usize = 160;

/// Scenes that are timed and counted; the first eight are drawn.
const COUNTED: u64 = 200;

fn main() {
    let mut words = std::env::args().skip(1);
    let out = words.next().unwrap();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let (seed, first) = (number(), number());
    let season = if std::env::args().any(|word| word == "winter") { Season::Winter } else { Season::Summer };
    let start = Instant::now();
    let all: Vec<_> = (first..first + COUNTED).map(|index| draw(seed, index, SIZE, season)).collect();
    println!("{:.1} ms a scene", start.elapsed().as_secs_f64() * 1e3 / COUNTED as f64);
    let (mut counts, mut boxes) = ([0usize; 7], [0usize; 7]);
    for scene in &all {
        scene.mask.labels().iter().for_each(|label| counts[usize::from(*label)] += 1);
        scene.objects.iter().for_each(|object| boxes[usize::from(object.class)] += 1);
    }
    for ((class, count), boxes) in CLASSES.iter().zip(counts).zip(boxes) {
        let share = 100.0 * count as f64 / (COUNTED as usize * SIZE * SIZE) as f64;
        println!("{class:<10} {share:5.1} % of the pixels, {:5.1} boxes a scene", boxes as f64 / COUNTED as f64);
    }
    let scenes = &all[..8];
    let side = 2 * SIZE as u32;
    let mut sheet = RgbImage::new(4 * side, 4 * side);
    for (place, scene) in scenes.iter().enumerate() {
        let (x, y) = (i64::from(side) * (place as i64 % 4), 2 * i64::from(side) * (place as i64 / 4));
        let photo = RgbImage::from_raw(SIZE as u32, SIZE as u32, scene.image.rgb.clone()).unwrap();
        let photo = imageops::resize(&photo, side, side, imageops::FilterType::CatmullRom);
        imageops::replace(&mut sheet, &photo, x, y);
        let mask = RgbImage::from_fn(side, side, |x, y| {
            Rgb(COLOURS[usize::from(scene.mask.labels()[y as usize / 2 * SIZE + x as usize / 2])])
        });
        imageops::replace(&mut sheet, &mask, x, y + i64::from(side));
        for object in &scene.objects {
            let [left, top, right, bottom] = object.extent.map(|pixel| (2.0 * pixel) as u32);
            let colour = Rgb(if object.truncated { [90, 0, 90] } else { [0, 0, 0] });
            for across in left..right {
                sheet.put_pixel(x as u32 + across, y as u32 + side + top, colour);
                sheet.put_pixel(x as u32 + across, y as u32 + side + bottom - 1, colour);
            }
            for down in top..bottom {
                sheet.put_pixel(x as u32 + left, y as u32 + side + down, colour);
                sheet.put_pixel(x as u32 + right - 1, y as u32 + side + down, colour);
            }
        }
    }
    sheet.save(out).unwrap();
}
