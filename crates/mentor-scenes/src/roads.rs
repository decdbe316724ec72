//! Roads: where they go, pavements, bridges, wear, repairs and markings.

use std::f32::consts::PI;

use crate::canvas::phase;
use crate::chance::Chance;
use crate::classes::{ROAD, WATER};
use crate::colour::{Colour, mixed, rgb, scaled, varied};
use crate::noise::{noise, wave};
use crate::plan::{Density, Soil, Surface};
use crate::town::Town;
use crate::way::{Corners, Field, Road, through, wandering};

/// How high a bridge is, and its parapets, in units.
pub(crate) const BRIDGE: f32 = 5.0;
const PARAPET: f32 = 7.0;

pub(crate) fn lay(town: &mut Town) {
    plan(town);
    let chance = &mut town.chance("roads");
    let colour = surface(town, chance);
    if town.plan.surface != Surface::Track && chance.happens(0.55) {
        let width = chance.between(3.0, 6.0);
        pavements(town, chance, width);
    }
    lanes(town, chance, colour);
    if town.plan.surface != Surface::Track {
        repairs(town, chance);
        if chance.happens(0.85) {
            markings(town, chance);
        }
    }
    for at in 0..town.beside_road.len() {
        town.canvas.taken[at] |= town.beside_road[at] < 2.0;
    }
}

/// Where roads go: main ones through the middle, side roads that branch off.
fn plan(town: &mut Town) {
    let chance = &mut town.chance("where roads go");
    let canvas = &town.canvas;
    let mut ways: Vec<(Corners, f32, bool)> = Vec::new();
    for number in 0..town.plan.main_roads {
        let place = [0; 2].map(|_| chance.between(0.2, 0.8) * canvas.extent);
        let angle = town.plan.axis + 0.5 * PI * number as f32 + chance.between(-0.2, 0.2);
        let corners = through(chance, canvas, place, angle, 0.35);
        ways.push((corners, chance.between(11.0, 18.0), true));
    }
    for _ in 0..town.plan.side_roads {
        let from = chance.below(ways.len());
        let at = chance.below(ways[from].0.len() - 1);
        let piece = crate::way::Piece { from: ways[from].0[at], to: ways[from].0[at + 1] };
        let start = piece.pose(chance.between(0.1, 0.9));
        let angle = start.angle + chance.sign() * 0.5 * PI + chance.between(-0.25, 0.25);
        let mut corners = vec![[start.x, start.y]];
        corners.extend(wandering(chance, canvas, [start.x, start.y], angle, [40.0, 80.0], 0.3));
        // Some end before they leave the scene.
        if chance.happens(0.25) {
            corners.truncate(2 + chance.below(3));
        }
        ways.push((corners, chance.between(7.0, 11.0), false));
    }
    for (corners, half, is_main) in ways {
        let field = Field::of(&town.canvas, &corners);
        for (beside, away) in town.beside_road.iter_mut().zip(&field.away) {
            *beside = beside.min(away - half);
        }
        town.roads.push(Road { corners, half, is_main, field });
    }
}

/// The colour of the scene's roads, or of a lot of the same surface.
pub(crate) fn surface(town: &Town, chance: &mut Chance) -> Colour {
    let colour = match town.plan.surface {
        Surface::Asphalt => rgb(86, 86, 90),
        Surface::Worn => rgb(128, 126, 122),
        Surface::Concrete => rgb(172, 166, 156),
        Surface::Track => scaled(town.plan.look.soil(Soil::Dirt), 1.25),
    };
    varied(chance, colour, 0.25, 0.05)
}

/// Pavements are ground.
fn pavements(town: &mut Town, chance: &mut Chance, width: f32) {
    let colour = varied(chance, rgb(178, 172, 162), 0.15, 0.04);
    for road in 0..town.roads.len() {
        for at in 0..town.beside_road.len() {
            let Road { half, field, .. } = &town.roads[road];
            if field.away[at] >= half + width || town.canvas.class[at] == WATER {
                continue;
            }
            let joint = if phase(field.along[at], 7.0) < 1.0 { 0.12 } else { 0.0 };
            town.canvas.albedo[at] = scaled(colour, 1.0 + 0.05 * town.grain.fine[at] - joint);
            town.canvas.slope[at] = [0.0; 2];
        }
    }
}

fn lanes(town: &mut Town, chance: &mut Chance, colour: Colour) {
    let (side, zoom) = (town.canvas.side, town.canvas.zoom);
    let edge = chance.between(0.75, 1.15);
    let ragged = noise(chance, side, 9.0 * zoom, 1.0);
    let is_track = town.plan.surface == Surface::Track;
    let water: Vec<bool> = town.canvas.class.iter().map(|class| *class == WATER).collect();
    for road in 0..town.roads.len() {
        let is_main = town.roads[road].is_main;
        let tone = scaled(colour, if is_main { 1.0 } else { chance.between(0.9, 1.15) });
        let wear = 0.07 * chance.pick(&[-1.0, 0.0, 1.0]);
        let stone = scaled(rgb(190, 186, 178), chance.between(0.7, 1.1));
        for at in 0..water.len() {
            let Road { half, field, .. } = &town.roads[road];
            let (half, away, across) = (*half, field.away[at], field.side[at].abs());
            if away > half + 4.0 {
                continue;
            }
            let rough = if is_track { 2.2 * town.grain.coarse[at] + 1.2 * ragged[at] } else { 0.25 * ragged[at] };
            if away + rough < half {
                // Wheels run in the middle of each lane.
                let from_wheels = ((across - 0.5 * half).abs() / (0.25 * half)).min(1.0);
                let worn = 1.0 + wear * wave(0.25 + 0.5 * from_wheels);
                let rim = if away > half - 2.0 { edge } else { 1.0 };
                let albedo = scaled(town.grained(at, tone, 0.06, 0.10), worn * rim);
                town.paint(at, albedo, ROAD);
                town.canvas.slope[at] = [0.02 * town.grain.fine[at], 0.0];
                town.canvas.height[at] = if water[at] { BRIDGE } else { town.canvas.height[at].max(0.0) };
            }
            // Parapets stand on what leads over water.
            if water[at] && (half - 1.0..half + 3.0).contains(&away) {
                town.paint(at, stone, ROAD);
                town.canvas.height[at] = PARAPET;
            }
        }
    }
}

/// Patches of other asphalt, and cracks.
fn repairs(town: &mut Town, chance: &mut Chance) {
    for _ in 0..chance.pick(&[0, 1, 2, 4]) {
        let road = &town.roads[chance.below(town.roads.len())];
        let (along, side) = (chance.between(0.0, road.field.length), chance.between(-12.0, 8.0));
        let (long, wide) = (chance.between(8.0, 40.0), chance.between(5.0, 14.0));
        let factor = chance.pick(&[0.65, 0.8, 1.2]);
        for at in 0..town.canvas.class.len() {
            let inside = (along..along + long).contains(&road.field.along[at])
                && (side..side + wide).contains(&road.field.side[at])
                && road.field.away[at] < road.half;
            if inside && town.canvas.class[at] == ROAD {
                town.canvas.albedo[at] = scaled(town.canvas.albedo[at], factor);
            }
        }
    }
    if chance.happens(0.4) {
        let cracks = noise(chance, town.canvas.side, 22.0 * town.canvas.zoom, 1.0);
        for (at, crack) in cracks.into_iter().enumerate() {
            if crack.abs() < 0.018 && town.canvas.class[at] == ROAD {
                town.canvas.albedo[at] = scaled(town.canvas.albedo[at], 0.6);
            }
        }
    }
}

/// Dashes, edge lines and zebras; none inside a crossing.
fn markings(town: &mut Town, chance: &mut Chance) {
    let white = scaled(rgb(235, 232, 220), chance.between(0.55, 1.0));
    let yellow = varied(chance, rgb(230, 190, 70), 0.1, 0.06);
    let middle = if chance.happens(0.25) { yellow } else { white };
    let (period, share) = (chance.between(16.0, 30.0), chance.between(0.4, 1.05));
    let edges = chance.happens(0.4);
    let gone = noise(chance, town.canvas.side, 6.0 * town.canvas.zoom, 1.0);
    for (number, road) in town.roads.iter().enumerate() {
        if !road.is_main && town.plan.density != Density::Town && chance.happens(0.5) {
            continue;
        }
        let zebra = (road.is_main && chance.happens(0.4)).then(|| chance.between(0.2, 0.8) * road.field.length);
        for (at, gone) in gone.iter().enumerate() {
            let (away, across, along) = (road.field.away[at], road.field.side[at], road.field.along[at]);
            let others = || town.roads.iter().enumerate().filter(|(other, _)| *other != number);
            if away >= road.half
                || town.canvas.class[at] != ROAD
                || others().any(|(_, other)| other.field.away[at] < other.half + 1.0)
            {
                continue;
            }
            let albedo = &mut town.canvas.albedo[at];
            if across.abs() < 0.9 && phase(along, period) < period * share && *gone > -0.75 {
                *albedo = mixed(*albedo, middle, 0.75);
            } else if edges && (away - (road.half - 2.2)).abs() < 0.7 {
                *albedo = mixed(*albedo, white, 0.6);
            }
            if let Some(from) = zebra
                && (from..from + 9.0).contains(&along)
                && away < road.half - 1.5
                && phase(across, 5.0) < 2.6
            {
                *albedo = white;
            }
        }
    }
}

/// A place beside a road, so far from its edge, that looks away from it; none where it lies beyond the scene.
pub(crate) fn beside(town: &Town, chance: &mut Chance, off: f32) -> Option<crate::canvas::Pose> {
    let road = &town.roads[chance.below(town.roads.len())];
    let piece = road.piece(chance);
    let (part, sign) = (chance.unit(), chance.sign());
    let pose = piece.pose(part).moved(0.0, sign * (road.half + off), if sign < 0.0 { PI } else { 0.0 });
    let around = -20.0..town.canvas.extent + 20.0;
    (around.contains(&pose.x) && around.contains(&pose.y)).then_some(pose)
}

/// A footpath: ground that looks like a track.
pub(crate) fn footpath(town: &mut Town) {
    let chance = &mut town.chance("footpath");
    if !chance.happens(0.45) {
        return;
    }
    let place = [0; 2].map(|_| chance.between(0.1, 0.9) * town.canvas.extent);
    let angle = chance.between(0.0, PI);
    let corners = through(chance, &town.canvas, place, angle, 0.6);
    let field = Field::of(&town.canvas, &corners);
    let soil = chance.pick(&[Soil::Sand, Soil::Dirt, Soil::Gravel]);
    let colour = varied(chance, town.plan.look.soil(soil), 0.15, 0.06);
    let half = chance.between(2.0, 3.4);
    let ragged = noise(chance, town.canvas.side, 10.0 * town.canvas.zoom, 1.0);
    for (at, ragged) in ragged.into_iter().enumerate() {
        if field.away[at] + ragged < half && town.canvas.class[at] == crate::classes::GROUND {
            town.canvas.albedo[at] = town.grained(at, colour, 0.1, 0.0);
        }
    }
}
