//! Trees: alone, in woods, along roads, and as hedges.

use std::f32::consts::PI;

use mentor_types::Season;

use crate::canvas::length;
use crate::chance::Chance;
use crate::classes::{BUILDING, GROUND, TREE};
use crate::colour::{Colour, mixed, rgb, scaled, varied};
use crate::noise::{layered, noise, wave};
use crate::plan::Density;
use crate::town::Town;
use crate::way::Piece;

/// The leaves of a scene: fields that all crowns share.
struct Leaves {
    large: Vec<f32>,
    small: Vec<f32>,
    /// How fast `large` rises along x and y, per unit.
    slope: Vec<[f32; 2]>,
    snow: Option<Vec<f32>>,
}

/// A tree that is to stand somewhere.
struct Tree {
    x: f32,
    y: f32,
    radius: f32,
    colour: Colour,
    is_conifer: bool,
}

/// Where a tree may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    Open,
    Avenue,
}

pub(crate) fn lay(town: &mut Town) {
    let chance = &mut town.chance("trees");
    let leaves = leaves(town, chance);
    let tones: [Colour; 3] = std::array::from_fn(|_| {
        let tone = chance.pick(&town.plan.look.trees);
        varied(chance, tone, 0.25, 0.12)
    });
    let conifers = if chance.happens(0.25) { 0.85 } else { 0.08 };
    hedges(town, chance, &leaves, &tones);
    let size = chance.between(8.0, 13.0);
    for (x, y, stand) in stands(town, chance) {
        let radius = (size * libm::expf(0.28 * chance.bell())).clamp(4.5, 20.0);
        let tone = chance.pick(&tones);
        let (tone, is_conifer) = (varied(chance, tone, 0.15, 0.06), chance.happens(conifers));
        if !town.canvas.is_inside(x, y) {
            continue;
        }
        let at = town.canvas.at(x, y);
        let is_free = town.canvas.class[at] == GROUND || town.canvas.class[at] == TREE;
        let is_beside = stand == Stand::Avenue || town.beside_road[at] >= 4.0;
        if is_free && is_beside && town.shore[at] < -5.0 {
            let colour = scaled(tone, if is_conifer { 0.75 } else { 1.0 });
            crown(town, chance, &leaves, &Tree { x, y, radius, colour, is_conifer }, None);
        }
    }
}

fn leaves(town: &Town, chance: &mut Chance) -> Leaves {
    let (side, zoom) = (town.canvas.side, town.canvas.zoom);
    let mut large = noise(chance, side, 7.0 * zoom, 1.0);
    let middle = noise(chance, side, 3.5 * zoom, 1.0);
    large.iter_mut().zip(middle).for_each(|(large, middle)| *large = 0.7 * (*large + 0.7 * middle));
    let small = noise(chance, side, 2.2 * zoom, 1.0);
    let rise = |at: usize, step: usize| {
        let (before, after) = (at.saturating_sub(step), (at + step).min(large.len() - 1));
        0.8 * (large[after] - large[before]) * zoom
    };
    let slope = (0..large.len()).map(|at| [rise(at, 1), rise(at, side)]).collect();
    let is_winter = town.plan.season == Season::Winter;
    let snow = is_winter.then(|| noise(&mut town.chance("snow on trees"), side, 9.0 * zoom, 1.0));
    Leaves { large, small, slope, snow }
}

/// A row of small trees on one or both long sides of a yard, one object a side.
fn hedges(town: &mut Town, chance: &mut Chance, leaves: &Leaves, tones: &[Colour; 3]) {
    for (pose, [along, across]) in town.hedges.clone() {
        let colour = chance.pick(tones);
        let both: &[f32] = &[-1.0, 1.0];
        let sides = chance.pick(&[both, &both[..1], &both[1..]]);
        for side in sides {
            let mut object = None;
            for step in 0..(along / 3.0) as usize {
                let place = pose.moved(6.0 * step as f32 - along, side * across, 0.0);
                let radius = chance.between(3.5, 5.0);
                let at = town.canvas.at(place.x, place.y);
                let is_free = town.canvas.is_inside(place.x, place.y)
                    && !town.canvas.taken[at]
                    && [GROUND, TREE].contains(&town.canvas.class[at]);
                if is_free {
                    let tree = Tree { x: place.x, y: place.y, radius, colour, is_conifer: false };
                    object = crown(town, chance, leaves, &tree, object).or(object);
                }
            }
        }
    }
}

/// Where trees could stand, in the order in which they are planted.
fn stands(town: &Town, chance: &mut Chance) -> Vec<(f32, f32, Stand)> {
    let extent = town.canvas.extent;
    // The usual scene is some 230 units wide.
    let wider = (extent * extent / (230.0 * 230.0)).max(1.0);
    let (alone, woods, avenue): (f32, [f32; 4], f32) = match town.plan.density {
        Density::Rural => (14.0, [3.0, 3.0, 2.0, 2.0], 0.1),
        Density::Suburb => (22.0, [0.0, 2.0, 3.0, 4.0], 0.2),
        Density::Town => (16.0, [0.0, 0.0, 2.0, 6.0], 0.3),
    };
    let mut stands = Vec::new();
    for _ in 0..(wider * alone * chance.between(0.3, 1.0)) as usize {
        stands.push((chance.unit() * extent, chance.unit() * extent, Stand::Open));
    }
    let cell = chance.between(60.0, 120.0) * town.canvas.zoom;
    let forest = layered(chance, town.canvas.side, cell, 2, 0.5);
    let least = chance.weighed(&[(0.1, woods[0]), (0.25, woods[1]), (0.5, woods[2]), (2.0, woods[3])]);
    for _ in 0..(240.0 * wider) as usize {
        let (x, y) = (chance.unit() * extent, chance.unit() * extent);
        if forest[town.canvas.at(x, y)] > least {
            stands.push((x, y, Stand::Open));
        }
    }
    for road in &town.roads {
        if !chance.happens(avenue) {
            continue;
        }
        let between = chance.between(26.0, 48.0);
        for ends in road.corners.windows(2) {
            let piece = Piece { from: ends[0], to: ends[1] };
            for step in 0..=(piece.length() / between) as usize {
                for side in [-1.0, 1.0] {
                    let off = side * (road.half + chance.between(5.0, 9.0));
                    let place = piece.pose(step as f32 * between / piece.length()).moved(0.0, off, 0.0);
                    stands.push((place.x, place.y, Stand::Avenue));
                }
            }
        }
    }
    stands
}

/// A crown, as a part of `object` or one of its own; where two meet, the taller is seen. The object, if any of it is.
fn crown(town: &mut Town, chance: &mut Chance, leaves: &Leaves, tree: &Tree, object: Option<u32>) -> Option<u32> {
    let Tree { x, y, radius, colour, is_conifer } = *tree;
    let (lobes, depth) = if is_conifer { (7 + chance.below(5), 0.16) } else { (4 + chance.below(5), 0.10) };
    let start = chance.unit();
    let is_bare = town.plan.season == Season::Winter && !is_conifer;
    let steepness = if is_conifer { 1.17 } else { 0.81 };
    let mut number = object;
    for pixel in town.canvas.near(x, y, 1.3 * radius) {
        let at = pixel.at;
        let (dx, dy) = (pixel.x - x, pixel.y - y);
        let away = length(dx, dy);
        if away > 1.4 * radius {
            continue;
        }
        // In turns, as waves are.
        let angle = libm::atan2f(dy, dx) / (2.0 * PI);
        let leaf = leaves.large[at];
        let lobe = depth * wave(lobes as f32 * angle + start) + 0.06 * wave((2 * lobes + 1) as f32 * angle);
        let edge = radius * (1.0 + lobe + 0.18 * leaf);
        let part = away / edge;
        if part >= 1.0 {
            continue;
        }
        let dome = if is_conifer { 1.9 * (1.0 - part) } else { (1.0 - part * part).sqrt() + 0.4 };
        let height = 3.0 + radius * (dome + 0.22 * leaf);
        let below = [TREE, BUILDING].contains(&town.canvas.class[at]);
        if below && height <= town.canvas.height[at] {
            continue;
        }
        let number = *number.get_or_insert_with(|| town.canvas.object(TREE, PI * radius * radius));
        // A bare crown is a tree up to its outline, though one sees through it.
        town.canvas.class[at] = TREE;
        town.canvas.instance[at] = number;
        let branches = wave(lobes as f32 * angle + 0.64 * leaf).abs() < 0.35 || leaves.small[at] > 0.15;
        if is_bare && !branches && part > 0.25 {
            town.canvas.slope[at] = [0.0; 2];
            continue;
        }
        let light = 0.8 * (1.0 + 0.26 * leaf + 0.16 * leaves.small[at] - 0.25 * (part - 0.7).max(0.0));
        let snow = leaves.snow.as_ref().is_some_and(|snow| snow[at] > 0.25);
        let albedo = scaled(colour, light);
        town.canvas.albedo[at] = if snow { mixed(albedo, rgb(228, 232, 238), 0.4) } else { albedo };
        town.canvas.height[at] = height;
        let [along_x, along_y] = leaves.slope[at];
        town.canvas.slope[at] = [along_x - steepness * dx / edge, along_y - steepness * dy / edge];
    }
    number
}
