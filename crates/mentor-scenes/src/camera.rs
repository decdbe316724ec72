//! The camera: half the size, blur, haze, exposure, noise, tone.

use crate::chance::Chance;
use crate::colour::{Colour, shown};
use crate::plan::Lens;

/// A picture of `2 * size` pixels of light along a side, as `size * size` pixels of red, green and blue.
pub(crate) fn take(light: &[Colour], size: usize, lens: &Lens, chance: &mut Chance) -> Vec<u8> {
    let mut picture = halved(light, size);
    if lens.blur > 0.2 {
        picture = blurred(&picture, size, lens.blur);
    }
    let middle = |pixel: usize| pixel as f32 / size as f32 - 0.5;
    let mut bytes = Vec::with_capacity(3 * size * size);
    for (at, light) in picture.iter().enumerate() {
        let (x, y) = (middle(at % size), middle(at / size));
        let edge = 1.0 - lens.vignette * (x * x + y * y);
        let tones: Colour = std::array::from_fn(|channel| {
            let clear = light[channel] * edge * lens.gain[channel];
            let seen = clear * (1.0 - lens.haze) + lens.haze * lens.haze_colour[channel];
            let noise = (seen.clamp(0.0, 1.0) * lens.shot * lens.shot + lens.read * lens.read).sqrt();
            let value = shown(seen + noise * chance.bell());
            (0.5 + (value - 0.5) * lens.contrast).clamp(0.0, 1.0)
        });
        let grey = (tones[0] + tones[1] + tones[2]) / 3.0;
        bytes.extend(tones.map(|tone| ((grey + (tone - grey) * lens.saturation).clamp(0.0, 1.0) * 255.0 + 0.5) as u8));
    }
    bytes
}

/// The mean of each two by two pixels.
fn halved(light: &[Colour], size: usize) -> Vec<Colour> {
    let mean = |at: usize| {
        let first = 4 * size * (at / size) + 2 * (at % size);
        let four = [first, first + 1, first + 2 * size, first + 2 * size + 1];
        std::array::from_fn(|channel| four.iter().map(|at| light[*at][channel]).sum::<f32>() / 4.0)
    };
    (0..size * size).map(mean).collect()
}

/// How far a blur reaches, in pixels.
const REACH: usize = 3;

/// Blurred by a bell of this deviation, along rows and then along columns; beyond the border the picture goes on as there.
fn blurred(picture: &[Colour], size: usize, deviation: f32) -> Vec<Colour> {
    let bell = |away: f32| libm::expf(-0.5 * away * away / (deviation * deviation));
    let weights: [f32; 2 * REACH + 1] = std::array::from_fn(|at| bell(at as f32 - REACH as f32));
    let sum: f32 = weights.iter().sum();
    let weights = weights.map(|weight| weight / sum);
    let mut rows = Vec::with_capacity(picture.len());
    for row in picture.chunks_exact(size) {
        let ends = [row[0], row[size - 1]].map(|end| [end; REACH]);
        let padded = [&ends[0], row, &ends[1]].concat();
        rows.extend((0..size).map(|at| weighted(&weights, |offset| padded[at + offset])));
    }
    let row = |at: usize| &rows[at.saturating_sub(REACH).min(size - 1) * size..][..size];
    let mut columns = Vec::with_capacity(picture.len());
    for at in 0..size {
        let near: [&[Colour]; 2 * REACH + 1] = std::array::from_fn(|offset| row(at + offset));
        columns.extend((0..size).map(|column| weighted(&weights, |offset| near[offset][column])));
    }
    columns
}

/// A weighted sum of colours.
fn weighted(weights: &[f32; 2 * REACH + 1], colour: impl Fn(usize) -> Colour) -> Colour {
    let mut sum = [0.0; 3];
    for (offset, weight) in weights.iter().enumerate() {
        let colour = colour(offset);
        (0..3).for_each(|channel| sum[channel] += weight * colour[channel]);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blur_keeps_the_light_and_spreads_it() {
        let mut picture = vec![[0.0; 3]; 15 * 15];
        picture[7 * 15 + 7] = [1.0, 0.5, 0.0];
        let blurred = blurred(&picture, 15, 0.8);
        let sum = |channel: usize| blurred.iter().map(|pixel| pixel[channel]).sum::<f32>();
        assert!((sum(0) - 1.0).abs() < 1e-4 && (sum(1) - 0.5).abs() < 1e-4 && sum(2) == 0.0);
        assert!(blurred[7 * 15 + 7][0] < 0.4 && blurred[7 * 15 + 8][0] > 0.05);
        assert_eq!(blurred[7 * 15 + 8], blurred[8 * 15 + 7]);
    }
}
