//! Sports courts, which look like roofs and are ground, and parking lots, which are roads.

use std::f32::consts::PI;

use crate::canvas::{Pose, length, phase};
use crate::classes::{GROUND, ROAD, WATER};
use crate::colour::{mixed, rgb, scaled, varied};
use crate::plan::{Density, Surface};
use crate::roads::{beside, surface};
use crate::town::Town;

/// A court with lines.
pub(crate) fn court(town: &mut Town) {
    let chance = &mut town.chance("court");
    if !chance.happens(0.3) {
        return;
    }
    let along = chance.between(22.0, 34.0);
    let half = [along, along * chance.between(0.48, 0.62)];
    let colours = [rgb(70, 120, 90), rgb(160, 84, 62), rgb(70, 104, 150), rgb(120, 140, 80), rgb(170, 150, 110)];
    let inner = chance.pick(&colours[..4]);
    let (inner, outer) = (varied(chance, inner, 0.12, 0.06), chance.pick(&colours));
    let outer = varied(chance, outer, 0.12, 0.06);
    for _ in 0..8 {
        let [x, y] = [0; 2].map(|_| chance.between(0.1, 0.9) * town.canvas.extent);
        let pose = Pose::new(x, y, town.plan.axis + chance.pick(&[0.0, 0.5 * PI]));
        if town.canvas.share_taken(pose, half, 4.0) != Some(0.0) {
            continue;
        }
        let mut pixels = Vec::new();
        for pixel in town.canvas.near(x, y, length(half[0], half[1])) {
            let (p, q) = pose.seen(pixel);
            let inside = (half[0] - p.abs(), half[1] - q.abs());
            if inside.0 <= 0.0 || inside.1 <= 0.0 {
                continue;
            }
            let is_inner = inside.0 > 6.0 && inside.1 > 5.0;
            let lines = [(inside.0 - 8.0).abs(), (inside.1 - 7.0).abs(), p.abs(), (length(p, q) - 0.3 * half[1]).abs()];
            let colour = match is_inner {
                true if lines.iter().any(|line| *line < 0.8) => scaled(rgb(225, 225, 220), 0.9),
                true => town.grained(pixel.at, inner, 0.04, 0.0),
                false => town.grained(pixel.at, outer, 0.04, 0.0),
            };
            town.paint(pixel.at, colour, GROUND);
            pixels.push(pixel.at);
        }
        town.canvas.take(&pixels, 0);
        return;
    }
}

/// A parking lot beside a road, with stalls on both sides.
pub(crate) fn parking(town: &mut Town) {
    let chance = &mut town.chance("parking");
    let common = match town.plan.density {
        Density::Rural => 0.1,
        Density::Suburb => 0.3,
        Density::Town => 0.5,
    };
    if !chance.happens(common) {
        return;
    }
    for _ in 0..25 {
        let off = chance.between(24.0, 34.0);
        let half = [chance.between(30.0, 60.0), chance.between(20.0, 26.0)];
        let Some(pose) = beside(town, chance, off) else { continue };
        if town.canvas.share_taken(pose, half, 0.0).is_none_or(|taken| taken > 0.12) {
            continue;
        }
        let colour = surface(town, chance);
        let pitch = chance.between(12.0, 14.0);
        let mut pixels = Vec::new();
        for pixel in town.canvas.near(pose.x, pose.y, length(half[0], half[1])) {
            let (p, q) = pose.seen(pixel);
            if p.abs() >= half[0] || q.abs() >= half[1] || [WATER, ROAD].contains(&town.canvas.class[pixel.at]) {
                continue;
            }
            let albedo = town.grained(pixel.at, colour, 0.06, 0.1);
            let is_line = q.abs() > half[1] - 21.0 && q.abs() > 3.0 && phase(p, pitch) < 1.2;
            let painted = is_line && town.plan.surface != Surface::Track;
            town.paint(pixel.at, if painted { mixed(albedo, [0.75; 3], 0.6) } else { albedo }, ROAD);
            pixels.push(pixel.at);
        }
        town.canvas.take(&pixels, 0);
        let full = chance.between(0.25, 0.8);
        let stalls = (half[0] / pitch) as i32;
        for number in -stalls..stalls {
            for sign in [-1.0, 1.0] {
                if chance.happens(full) {
                    let turn = 0.5 * PI * chance.sign();
                    let stall = pose.moved((number as f32 + 0.5) * pitch, sign * (half[1] - 11.0), turn);
                    town.stalls.push([stall.x, stall.y, stall.angle]);
                }
            }
        }
        return;
    }
}
