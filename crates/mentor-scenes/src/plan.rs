//! What there is in a scene, and in what light: chosen before anything is painted.

use std::f32::consts::PI;

use mentor_types::{Key, Season};

use crate::chance::Chance;
use crate::colour::{Colour, mixed, rgb, scaled, varied};

/// How densely it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Density {
    Rural,
    Suburb,
    Town,
}

/// What the water is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shore {
    None,
    Coast,
    River,
    Lake,
}

/// A kind of ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Soil {
    Lawn,
    Meadow,
    Dry,
    Field,
    Sand,
    Dirt,
    Gravel,
    Paved,
}

/// What roads are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Asphalt,
    Worn,
    Concrete,
    Track,
}

/// The form of a roof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roof {
    Gable,
    Hip,
    Flat,
    Saw,
}

/// Colours of a landscape.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// In the order of [`Soil`].
    soils: [Colour; 8],
    /// How common each kind of ground is.
    pub(crate) mix: Vec<(Soil, f32)>,
    /// In the order of [`ROOFS`].
    pub(crate) roofs: [f32; 10],
    pub(crate) trees: Vec<Colour>,
    pub(crate) waters: Vec<Colour>,
}

impl Look {
    pub(crate) fn soil(&self, soil: Soil) -> Colour {
        self.soils[soil as usize]
    }
}

/// The sun, the sky and what lies in the air.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Light {
    /// The sun's direction in the plane, radians.
    pub(crate) azimuth: f32,
    /// How high it stands, radians.
    pub(crate) elevation: f32,
    /// Its light on flat ground, and that of the sky; together 1.
    pub(crate) sun: Colour,
    pub(crate) sky: Colour,
    /// How dark clouds make it; 0 without.
    pub(crate) cloud: f32,
}

/// What takes the picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lens {
    /// Deviation of the blur in pixels of the picture.
    pub(crate) blur: f32,
    pub(crate) vignette: f32,
    pub(crate) gain: Colour,
    pub(crate) haze: f32,
    pub(crate) haze_colour: Colour,
    /// Noise that grows with the root of the light, and noise that is always there.
    pub(crate) shot: f32,
    pub(crate) read: f32,
    pub(crate) contrast: f32,
    pub(crate) saturation: f32,
    /// Of the JPEG file.
    pub(crate) quality: u8,
}

/// What there is in a scene.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) season: Season,
    /// Pixels of the planes for a unit of the world.
    pub(crate) zoom: f32,
    pub(crate) density: Density,
    pub(crate) look: Look,
    /// The direction of streets and houses, radians.
    pub(crate) axis: f32,
    pub(crate) shore: Shore,
    pub(crate) main_roads: usize,
    pub(crate) side_roads: usize,
    pub(crate) surface: Surface,
    pub(crate) houses: usize,
    pub(crate) light: Light,
    pub(crate) lens: Lens,
}

/// Colours of roofs: clay, brown, slate, dark slate, white, sand, green, blue, grey, moss.
pub(crate) const ROOFS: [[u8; 3]; 10] = [
    [168, 84, 62],
    [142, 96, 76],
    [112, 106, 104],
    [74, 76, 84],
    [200, 196, 190],
    [176, 160, 130],
    [92, 116, 96],
    [86, 110, 146],
    [150, 148, 144],
    [120, 128, 84],
];

impl Plan {
    pub(crate) fn choose(scene: Key, season: Season) -> Self {
        let chance = &mut Chance::new(scene.at("plan", 0));
        let zoom = 1.4 * libm::expf(chance.between(-0.15, 0.15));
        let density = chance.weighed(&[(Density::Rural, 0.28), (Density::Suburb, 0.40), (Density::Town, 0.32)]);
        let look = chance.weighed(&[(temperate as fn() -> Look, 0.58), (dry, 0.2), (autumn, 0.22)]);
        let axis = chance.between(0.0, PI);
        let shore =
            chance.weighed(&[(Shore::None, 0.38), (Shore::Coast, 0.24), (Shore::River, 0.24), (Shore::Lake, 0.14)]);
        let two_roads = !chance.happens(0.55) && density != Density::Rural;
        let (side_roads, houses, surfaces): (&[usize], &[usize], &[(Surface, f32)]) = match density {
            Density::Rural => {
                (&[0, 1], &[2, 3, 4, 5], &[(Surface::Asphalt, 2.0), (Surface::Worn, 2.0), (Surface::Track, 1.0)])
            }
            Density::Suburb => (&[1, 2, 2], &[6, 8, 10], &PAVED),
            Density::Town => (&[1, 2, 3], &[7, 9, 12], &PAVED),
        };
        let (side_roads, houses, surface) = (chance.pick(side_roads), chance.pick(houses), chance.weighed(surfaces));
        let mut look = if season == Season::Winter { winter() } else { look() };
        if density == Density::Town {
            look.mix.retain(|(soil, _)| *soil != Soil::Field);
            look.mix.extend([(Soil::Paved, 1.5), (Soil::Gravel, 0.5)]);
        }
        Self {
            season,
            zoom,
            density,
            look,
            axis,
            shore,
            main_roads: 1 + usize::from(two_roads),
            side_roads,
            surface,
            houses,
            light: light(&mut Chance::new(scene.at("light", 0)), season),
            lens: lens(&mut Chance::new(scene.at("lens", 0)), season),
        }
    }
}

/// Surfaces where it is built.
const PAVED: [(Surface, f32); 3] = [(Surface::Asphalt, 3.0), (Surface::Worn, 2.0), (Surface::Concrete, 1.0)];

fn light(chance: &mut Chance, season: Season) -> Light {
    let azimuth = chance.between(0.0, 2.0 * PI);
    let degrees = match season {
        Season::Summer => chance.between(36.0, 66.0),
        Season::Winter => chance.between(18.0, 32.0),
    };
    let low = (1.0 - degrees / 60.0).max(0.0);
    let mut sky = scaled([0.30, 0.33, 0.40], chance.between(0.75, 1.3));
    let mut sun = scaled([1.0, 1.0 - 0.10 * low, 1.0 - 0.26 * low], chance.between(0.6, 0.95));
    if chance.happens(0.08) {
        // An overcast day has hardly a shadow.
        (sun, sky) = (scaled(sun, 0.3), scaled(sky, 1.9));
    }
    let all = sun.iter().chain(&sky).sum::<f32>() / 3.0;
    let cloud = if chance.happens(0.06) { chance.between(0.3, 0.6) } else { 0.0 };
    let elevation = degrees * PI / 180.0;
    Light { azimuth, elevation, sun: scaled(sun, 1.0 / all), sky: scaled(sky, 1.0 / all), cloud }
}

fn lens(chance: &mut Chance, season: Season) -> Lens {
    let blur = if chance.happens(0.85) { chance.between(0.0, 0.7) } else { chance.between(0.7, 1.0) };
    let brightness = libm::expf(0.08 * chance.bell()) * if season == Season::Winter { 0.8 } else { 1.15 };
    let gain = [0; 3].map(|_| brightness * (1.0 + chance.between(-0.03, 0.03)));
    let (thin, thick) = (chance.between(0.02, 0.05), chance.between(0.05, 0.12));
    let air = if season == Season::Winter { rgb(170, 186, 214) } else { rgb(205, 214, 226) };
    Lens {
        blur,
        vignette: chance.between(0.0, 0.5),
        gain,
        haze: chance.weighed(&[(0.0, 6.0), (thin, 3.0), (thick, 1.0)]),
        haze_colour: varied(chance, air, 0.08, 0.05),
        shot: chance.between(0.004, 0.03),
        read: chance.between(0.001, 0.008),
        contrast: chance.between(0.94, 1.14),
        saturation: chance.between(0.85, 1.15),
        quality: chance.between(62.0, 95.0) as u8,
    }
}

fn colours(values: &[[u8; 3]]) -> Vec<Colour> {
    values.iter().map(|[red, green, blue]| rgb(*red, *green, *blue)).collect()
}

fn soils(values: [[u8; 3]; 8]) -> [Colour; 8] {
    values.map(|[red, green, blue]| rgb(red, green, blue))
}

fn temperate() -> Look {
    Look {
        soils: soils([
            [104, 128, 70],
            [128, 136, 84],
            [160, 150, 104],
            [126, 128, 76],
            [200, 184, 146],
            [142, 116, 88],
            [154, 150, 142],
            [160, 154, 146],
        ]),
        mix: vec![
            (Soil::Lawn, 4.0),
            (Soil::Meadow, 3.0),
            (Soil::Field, 0.6),
            (Soil::Dry, 0.8),
            (Soil::Dirt, 0.5),
            (Soil::Sand, 0.4),
        ],
        roofs: [11.0, 5.0, 2.0, 2.5, 2.0, 1.5, 0.6, 1.5, 0.8, 0.2],
        trees: colours(&[[62, 96, 48], [82, 108, 56], [50, 80, 50], [104, 116, 60]]),
        waters: colours(&[[50, 92, 116], [56, 96, 104], [42, 76, 106], [70, 94, 86]]),
    }
}

fn dry() -> Look {
    Look {
        soils: soils([
            [118, 126, 78],
            [156, 144, 98],
            [184, 164, 118],
            [160, 138, 92],
            [214, 192, 150],
            [170, 134, 98],
            [176, 164, 148],
            [184, 172, 154],
        ]),
        mix: vec![(Soil::Dry, 4.0), (Soil::Sand, 3.0), (Soil::Dirt, 1.5), (Soil::Meadow, 1.5), (Soil::Field, 0.6)],
        roofs: [9.0, 4.0, 1.0, 1.0, 4.0, 2.0, 0.4, 1.5, 1.0, 0.2],
        trees: colours(&[[90, 102, 62], [112, 112, 74], [70, 88, 56]]),
        waters: colours(&[[52, 110, 120], [76, 108, 100], [48, 88, 116]]),
    }
}

fn autumn() -> Look {
    Look {
        soils: soils([
            [116, 122, 66],
            [140, 128, 76],
            [160, 134, 86],
            [130, 104, 70],
            [190, 168, 130],
            [124, 98, 74],
            [146, 138, 128],
            [150, 142, 134],
        ]),
        mix: vec![(Soil::Lawn, 2.0), (Soil::Meadow, 4.0), (Soil::Field, 0.6), (Soil::Dirt, 0.5), (Soil::Dry, 1.0)],
        roofs: [10.0, 5.0, 2.0, 3.0, 2.0, 1.0, 0.6, 1.0, 0.8, 0.2],
        trees: colours(&[[176, 110, 50], [150, 72, 46], [190, 150, 64], [96, 100, 52], [120, 84, 56]]),
        waters: colours(&[[48, 78, 96], [66, 86, 82], [42, 66, 90]]),
    }
}

fn winter() -> Look {
    // Snow that has thawed in places: half of the way from bare ground to white.
    let bare = autumn().soils;
    let snow = soils([
        [226, 230, 236],
        [206, 208, 210],
        [186, 178, 164],
        [214, 214, 214],
        [200, 196, 188],
        [122, 106, 92],
        [170, 170, 172],
        [176, 176, 180],
    ]);
    Look {
        soils: std::array::from_fn(|soil| mixed(bare[soil], snow[soil], 0.75)),
        mix: vec![(Soil::Lawn, 4.0), (Soil::Meadow, 3.0), (Soil::Dry, 1.0), (Soil::Field, 1.0), (Soil::Dirt, 0.7)],
        roofs: [5.0, 3.0, 3.0, 3.0, 4.0, 2.0, 1.0, 1.0, 3.0, 0.5],
        trees: colours(&[[116, 104, 94], [96, 88, 82], [60, 78, 66]]),
        waters: colours(&[[52, 66, 82], [96, 110, 122], [40, 50, 62]]),
    }
}
