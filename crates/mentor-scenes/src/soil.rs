//! Kinds of ground: lawns, meadows, fields, sand, and what grows or lies on them.

use std::f32::consts::PI;

use crate::canvas::{Canvas, Pixel, phase};
use crate::chance::Chance;
use crate::colour::{Colour, mixed, scaled, varied};
use crate::noise::{layered, noise, wave};
use crate::plan::{Plan, Soil};

/// Texture that all that lies outside shares.
#[derive(Debug)]
pub(crate) struct Grain {
    /// Patches of some 48 units.
    pub(crate) coarse: Vec<f32>,
    /// From pixel to pixel.
    pub(crate) fine: Vec<f32>,
    /// Stones and tufts.
    pub(crate) specks: Vec<f32>,
}

impl Grain {
    pub(crate) fn new(chance: &mut Chance, canvas: &Canvas) -> Self {
        let (side, zoom) = (canvas.side, canvas.zoom);
        let coarse = layered(chance, side, 48.0 * zoom, 4, 0.5);
        let mut fine = noise(chance, side, 3.0 * zoom, 1.0);
        fine.iter_mut().for_each(|value| *value = 0.6 * (1.2 * *value + chance.bell()));
        let specks = noise(chance, side, 4.0 * zoom, 1.0);
        let specks = specks.iter().map(|value| if *value > 0.55 { 0.8 } else { -0.2 }).collect();
        Self { coarse, fine, specks }
    }
}

/// A kind of ground with colour and texture of its own.
#[derive(Debug)]
pub(crate) struct Ground {
    colour: Colour,
    patches: Vec<f32>,
    pattern: Pattern,
    /// How strongly grain and specks show.
    fine: f32,
    specks: f32,
}

#[derive(Debug)]
enum Pattern {
    Plain,
    /// Grown over, greener or browner in patches; mown in stripes of a direction and a number a unit.
    Grown(Option<([f32; 2], f32)>),
    /// Rows of a direction and a number a unit, with soil between them.
    Rows([f32; 2], f32, Colour),
    /// Slabs of a direction and a size.
    Slabs([f32; 2], f32),
}

impl Ground {
    pub(crate) fn new(chance: &mut Chance, plan: &Plan, canvas: &Canvas, soil: Soil) -> Self {
        let direction = |angle: f32| [libm::cosf(angle), libm::sinf(angle)];
        let any = chance.between(0.0, PI);
        let (fine, specks, pattern) = match soil {
            Soil::Lawn => {
                let stripes = chance.between(0.04, 0.1);
                (0.10, 0.0, Pattern::Grown(chance.happens(0.4).then(|| (direction(any), stripes))))
            }
            Soil::Meadow | Soil::Dry => (0.22, 0.12, Pattern::Grown(None)),
            Soil::Field => {
                let between = varied(chance, plan.look.soil(Soil::Dirt), 0.2, 0.06);
                (0.0, 0.0, Pattern::Rows(direction(any), chance.between(0.08, 0.19), between))
            }
            Soil::Paved => (0.05, 0.0, Pattern::Slabs(direction(plan.axis), chance.between(5.0, 11.0))),
            Soil::Sand => (0.07, 0.08, Pattern::Plain),
            Soil::Dirt | Soil::Gravel => (0.16, 0.08, Pattern::Plain),
        };
        let cell = chance.between(10.0, 40.0) * canvas.zoom;
        Self {
            colour: varied(chance, plan.look.soil(soil), 0.18, 0.08),
            patches: noise(chance, canvas.side, cell, 1.0),
            pattern,
            fine,
            specks,
        }
    }

    /// Its colour at a pixel.
    pub(crate) fn at(&self, pixel: Pixel, grain: &Grain) -> Colour {
        let (at, coarse) = (pixel.at, grain.coarse[pixel.at]);
        let along = |[x, y]: [f32; 2]| pixel.x * x + pixel.y * y;
        let mut texture = 1.0 + 0.16 * coarse + 0.10 * self.patches[at];
        texture += self.fine * grain.fine[at] + self.specks * grain.specks[at];
        match &self.pattern {
            Pattern::Plain => scaled(self.colour, texture),
            Pattern::Grown(stripes) => {
                if let Some((direction, stripes)) = stripes {
                    texture += if wave(along(*direction) * stripes) > 0.0 { 0.05 } else { -0.05 };
                }
                let [red, green, blue] = self.colour;
                let patch = 0.25 * coarse;
                [red * (texture + 0.5 * patch), green * (texture + 0.1 * patch), blue * (texture + 0.1 * patch)]
            }
            Pattern::Rows(direction, rows, between) => {
                let row = wave((along(*direction) + 3.0 * coarse) * rows);
                let part = (0.5 + 0.5 * row + 0.2 * grain.fine[at]).clamp(0.0, 1.0);
                scaled(mixed(*between, self.colour, part), texture)
            }
            Pattern::Slabs([x, y], size) => {
                let (p, q) = (along([*x, *y]), along([-y, *x]));
                let joint = phase(p, *size) < 1.1 || phase(q, *size) < 1.1;
                scaled(self.colour, if joint { texture - 0.14 } else { texture })
            }
        }
    }
}
