//! Colours in linear light.

use std::sync::LazyLock;

use crate::chance::Chance;

/// Red, green and blue in linear light, 1 for white paper.
pub(crate) type Colour = [f32; 3];

/// How much colours vary from scene to scene, in parts of what each thing asks for.
const SPREAD: f32 = 0.5;

const GAMMA: f32 = 2.2;

/// The linear light of 8-bit values.
static LIGHT: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|byte| libm::powf(byte as f32 / 255.0, GAMMA)));

/// Steps of the table from light to values.
const STEPS: usize = 4096;

/// What a screen is told of light in `[0, 1]`, at even steps of the light's root.
static SHOWN: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let root = |step: usize| step as f32 / STEPS as f32;
    (0..=STEPS + 1).map(|step| libm::powf(root(step) * root(step), 1.0 / GAMMA)).collect()
});

/// A colour as a screen is told it.
pub(crate) fn rgb(red: u8, green: u8, blue: u8) -> Colour {
    [red, green, blue].map(|byte| LIGHT[usize::from(byte)])
}

/// What a screen is told of light, both in `[0, 1]`.
pub(crate) fn shown(light: f32) -> f32 {
    let at = light.clamp(0.0, 1.0).sqrt() * STEPS as f32;
    let step = at as usize;
    SHOWN[step] + (SHOWN[step + 1] - SHOWN[step]) * (at - step as f32)
}

pub(crate) fn scaled(colour: Colour, factor: f32) -> Colour {
    colour.map(|channel| channel * factor)
}

/// `colour` with a part of `other` in it.
pub(crate) fn mixed(colour: Colour, other: Colour, part: f32) -> Colour {
    std::array::from_fn(|channel| colour[channel] * (1.0 - part) + other[channel] * part)
}

/// A colour like this one: brightness varies by `value`, the channels apart by `hue`.
pub(crate) fn varied(chance: &mut Chance, colour: Colour, value: f32, hue: f32) -> Colour {
    let (value, hue) = (value * SPREAD, hue * SPREAD);
    let factor = 1.0 + chance.between(-value, value);
    colour.map(|channel| (channel * factor * (1.0 + chance.between(-hue, hue))).clamp(0.004, 0.95))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_to_light_and_back() {
        for byte in 0..=255u8 {
            let back = 255.0 * shown(rgb(byte, 0, 0)[0]);
            assert!((back - f32::from(byte)).abs() < 0.1, "{byte}: {back}");
        }
    }
}
