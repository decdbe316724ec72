//! Water: a coast, a river or a lake, with banks, depth, ripples and foam.

use std::f32::consts::PI;

use crate::canvas::{Pose, length};
use crate::chance::Chance;
use crate::classes::WATER;
use crate::colour::{mixed, rgb, scaled, varied};
use crate::noise::{layered, noise, wave};
use crate::plan::{Shore, Soil};
use crate::town::Town;

/// Water lies this much lower than land, in units.
const DEPTH: f32 = 1.5;

pub(crate) fn lay(town: &mut Town) {
    let mut chance = town.chance("water");
    let Some(shore) = field(town, &mut chance) else { return };
    let wet = shore.iter().filter(|inside| **inside > 0.0).count();
    if wet * 100 < shore.len() {
        return;
    }
    town.shore = shore;
    bank(town, &mut chance);
    surface(town, &mut chance);
}

/// How far inside the water each pixel lies.
fn field(town: &Town, chance: &mut Chance) -> Option<Vec<f32>> {
    let canvas = &town.canvas;
    let extent = canvas.extent;
    let middle = extent / 2.0;
    if town.plan.shore == Shore::None {
        return None;
    }
    let cell = chance.between(60.0, 140.0) * canvas.zoom;
    let wobble = layered(chance, canvas.side, cell, 4, 0.45);
    let field: Vec<f32> = match town.plan.shore {
        Shore::None => return None,
        Shore::Coast => {
            let pose = Pose::new(middle, middle, chance.between(0.0, 2.0 * PI));
            let (offset, strength) = (chance.between(-0.2, 0.3) * extent, chance.between(15.0, 45.0));
            canvas.pixels().map(|pixel| pose.seen(pixel).0 - offset + strength * wobble[pixel.at]).collect()
        }
        Shore::River => {
            let pose = Pose::new(middle, middle, chance.between(0.0, PI));
            let offset = chance.between(-0.25, 0.25) * extent;
            let (bend, rate, start) = (chance.between(10.0, 40.0), chance.between(0.0013, 0.0032), chance.unit());
            let half = chance.between(24.0, 55.0);
            let across = |(along, across): (f32, f32)| across + offset + bend * wave(along * rate + start);
            canvas.pixels().map(|pixel| half - (across(pose.seen(pixel)) + 14.0 * wobble[pixel.at]).abs()).collect()
        }
        Shore::Lake => {
            let (x, y) = (chance.between(0.1, 0.9) * extent, chance.between(0.1, 0.9) * extent);
            let pose = Pose::new(x, y, chance.between(0.0, PI));
            let (flat, radius) = (chance.between(0.55, 1.0), chance.between(40.0, 110.0));
            let away = |(along, across): (f32, f32)| length(along, across / flat);
            canvas.pixels().map(|pixel| radius - away(pose.seen(pixel)) + 30.0 * wobble[pixel.at]).collect()
        }
    };
    Some(field)
}

/// Sand or mud along the shore.
fn bank(town: &mut Town, chance: &mut Chance) {
    let width = chance.between(2.0, 12.0);
    let soil = chance.pick(&[Soil::Sand, Soil::Dirt, Soil::Gravel]);
    let colour = varied(chance, town.plan.look.soil(soil), 0.15, 0.06);
    let hard = chance.happens(0.6);
    for at in 0..town.shore.len() {
        let inside = town.shore[at];
        if inside > 0.0 || inside < -width {
            continue;
        }
        let part = 1.0 + inside / width;
        let part = if hard && part > 0.35 { 0.9 } else { 0.6 * part };
        let ground = town.grained(at, colour, 0.1, 0.0);
        town.canvas.albedo[at] = mixed(town.canvas.albedo[at], ground, part);
    }
}

fn surface(town: &mut Town, chance: &mut Chance) {
    let (side, zoom) = (town.canvas.side, town.canvas.zoom);
    let tone = chance.pick(&town.plan.look.waters);
    let deep = varied(chance, tone, 0.2, 0.1);
    let sand = town.plan.look.soil(Soil::Sand);
    let shallow = std::array::from_fn(|channel| 1.5 * deep[channel] + 0.18 * sand[channel]);
    let slope = chance.between(10.0, 45.0);
    let waves = Pose::new(0.0, 0.0, chance.between(0.0, PI));
    let rate = chance.between(0.04, 0.11);
    let bends = noise(chance, side, 30.0 * zoom, 1.0);
    let [ripples, swell] = [(3.0, 3.0), (5.0, 2.0)].map(|(cell, stretch)| noise(chance, side, cell * zoom, stretch));
    let [strength, patches] = [70.0, 60.0].map(|cell| noise(chance, side, cell * zoom, 1.0));
    let height = chance.pick(&[0.02, 0.06, 0.14]);
    let glitter = chance.happens(0.25);
    let foam = chance.happens(0.5).then(|| (chance.between(1.0, 4.0), noise(chance, side, 12.0 * zoom, 1.0)));
    for pixel in town.canvas.pixels() {
        let (at, inside) = (pixel.at, town.shore[pixel.at]);
        if inside <= 0.0 {
            continue;
        }
        let crest = 0.6 * wave(waves.seen(pixel).0 * rate + 0.8 * bends[at]) + 0.8 * ripples[at] + 0.5 * swell[at];
        let light = 1.0 + height * (0.6 + 0.6 * strength[at].abs()) * crest + 0.10 * patches[at];
        let mut colour = scaled(mixed(shallow, deep, (inside / slope).clamp(0.0, 1.0)), light);
        if glitter && crest + 0.5 * town.grain.fine[at] > 1.55 {
            colour = colour.map(|channel| channel + 0.35);
        }
        if foam.as_ref().is_some_and(|(width, gaps)| inside < *width && gaps[at] > -0.1) {
            colour = colour.map(|channel| 0.5 * channel + 0.28);
        }
        town.paint(at, colour, WATER);
        town.canvas.height[at] = -DEPTH;
        town.canvas.slope[at] = [0.06 * crest, 0.04 * crest];
        town.canvas.taken[at] = true;
    }
}

/// A pool behind a house: water of another colour, with a rim.
pub(crate) fn pool(town: &mut Town, chance: &mut Chance, pose: Pose, half: [f32; 2]) {
    let colour = varied(chance, rgb(70, 170, 200), 0.15, 0.06);
    let ripples = noise(chance, town.canvas.side, 4.0 * town.canvas.zoom, 1.0);
    let mut pixels = Vec::new();
    for pixel in town.canvas.near(pose.x, pose.y, length(half[0], half[1]) + 3.0) {
        let (p, q) = pose.seen(pixel);
        let beyond = (p.abs() - half[0]).max(q.abs() - half[1]);
        if beyond < 0.0 {
            town.paint(pixel.at, scaled(colour, 1.0 + 0.1 * ripples[pixel.at]), WATER);
            town.canvas.height[pixel.at] = -1.0;
        } else if beyond < 2.0 {
            let class = town.canvas.class[pixel.at];
            town.paint(pixel.at, rgb(205, 200, 190), class);
        } else {
            continue;
        }
        pixels.push(pixel.at);
    }
    town.canvas.take(&pixels, 0);
}
