//! Buildings: houses along roads, their roofs, what stands on these, and the yards around.

use std::f32::consts::PI;

use mentor_types::Season;

use crate::canvas::{Pixel, Pose, length, phase};
use crate::chance::Chance;
use crate::classes::{BUILDING, GROUND};
use crate::colour::{Colour, mixed, rgb, scaled, varied};
use crate::noise::{noise, wave};
use crate::plan::{Density, ROOFS, Roof, Soil};
use crate::roads::beside;
use crate::town::Town;
use crate::water;

/// A storey, in units.
const STOREY: f32 = 5.25;

/// Numbers of the buildings of a kind of place.
struct Habits {
    tries: usize,
    big: f32,
    roofs: [(Roof, f32); 4],
    yards: f32,
}

fn habits(density: Density) -> Habits {
    let roofs = |gable, hip, flat, saw| [(Roof::Gable, gable), (Roof::Hip, hip), (Roof::Flat, flat), (Roof::Saw, saw)];
    match density {
        Density::Rural => Habits { tries: 50, big: 0.3, roofs: roofs(5.0, 2.0, 1.0, 1.0), yards: 0.5 },
        Density::Suburb => Habits { tries: 160, big: 0.2, roofs: roofs(5.0, 5.0, 1.5, 0.2), yards: 0.75 },
        Density::Town => Habits { tries: 240, big: 0.6, roofs: roofs(2.0, 2.0, 5.0, 1.0), yards: 0.35 },
    }
}

/// A house that is to be built.
struct House {
    pose: Pose,
    half: [f32; 2],
    roof: Roof,
    colour: Colour,
    storeys: f32,
    has_wing: bool,
}

/// What there is for all houses of a scene.
struct Textures {
    tiles: Vec<f32>,
    stains: Vec<f32>,
    snow: Option<(Vec<f32>, f32)>,
    yards: Vec<bool>,
}

pub(crate) fn lay(town: &mut Town) {
    let chance = &mut town.chance("buildings");
    let habits = habits(town.plan.density);
    let (side, zoom) = (town.canvas.side, town.canvas.zoom);
    let pixels = side * side;
    let mut textures = Textures {
        tiles: noise(chance, side, 5.0 * zoom, 1.0),
        stains: noise(chance, side, 25.0 * zoom, 1.0),
        snow: (town.plan.season == Season::Winter).then(|| snow(town)),
        yards: vec![false; pixels],
    };
    // Wider scenes have more houses; the usual one is 320 pixels wide.
    let wider = (pixels as f32 / (320.0 * 320.0)).max(1.0);
    let wanted = (town.plan.houses as f32 * wider) as usize;
    let mut built = 0;
    for _ in 0..(habits.tries as f32 * wider) as usize {
        if built == wanted {
            break;
        }
        let Some(house) = site(town, chance, &habits) else { continue };
        if chance.happens(habits.yards) {
            yard(town, chance, &house, &mut textures);
        }
        if build(town, chance, &house, &textures) {
            built += 1;
            if chance.happens(0.18 * habits.yards) {
                pool_behind(town, chance, &house);
            }
        }
    }
}

/// Where a house could stand, and which.
fn site(town: &Town, chance: &mut Chance, habits: &Habits) -> Option<House> {
    let roof = chance.weighed(&habits.roofs);
    let is_big = chance.happens(habits.big) || roof == Roof::Saw;
    let along = if is_big { chance.between(24.0, 42.0) } else { chance.between(15.0, 25.0) };
    let mut across = along * chance.between(0.5, 0.95);
    if [Roof::Gable, Roof::Hip].contains(&roof) {
        across = across.min(26.0);
    }
    let half = [along, across];
    let pose = if chance.happens(0.75) {
        let off = across + chance.between(4.0, 22.0);
        let pose = beside(town, chance, off)?;
        if chance.happens(0.15) { pose.moved(0.0, 0.0, 0.5 * PI) } else { pose }
    } else {
        let [x, y] = [0; 2].map(|_| chance.between(-0.02, 1.02) * town.canvas.extent);
        Pose::new(x, y, town.plan.axis + chance.pick(&[0.0, 0.5 * PI]) + chance.between(-0.1, 0.1))
    };
    if town.canvas.share_taken(pose, half, 6.0)? > 0.03 {
        return None;
    }
    let tones: Vec<([u8; 3], f32)> = ROOFS.into_iter().zip(town.plan.look.roofs).collect();
    let [red, green, blue] = chance.weighed(&tones);
    let colour = varied(chance, rgb(red, green, blue), 0.22, 0.10);
    let storeys = match is_big {
        false => chance.pick(&[1.0, 2.0, 3.0]),
        true => chance.weighed(&[(1.0, 3.0), (2.0, 3.0), (3.0, 2.0), (5.0, 1.0)]),
    };
    let has_wing = chance.happens(0.3) && roof != Roof::Saw;
    Some(House { pose, half, roof, colour, storeys, has_wing })
}

/// What a pixel of a roof is.
#[derive(Clone, Copy)]
struct Spot {
    pixel: Pixel,
    height: f32,
    slope: [f32; 2],
    /// Across the rows of tiles, and along the house.
    across: f32,
    along: f32,
    /// How far from the edge of the roof.
    edge: f32,
}

/// A rectangle of the house under a roof of its own.
fn part(pose: Pose, half: [f32; 2], roof: Roof, eaves: f32, pitch: f32, pixel: Pixel) -> Option<Spot> {
    let (p, q) = pose.seen(pixel);
    let (du, dv) = (half[0] - p.abs(), half[1] - q.abs());
    if du <= 0.0 || dv <= 0.0 {
        return None;
    }
    let falls_along = roof == Roof::Hip && du < dv;
    let (rise, fall) = match roof {
        Roof::Gable => (pitch * dv, [0.0, -q.signum() * pitch]),
        Roof::Hip if falls_along => (pitch * du, [-p.signum() * pitch, 0.0]),
        Roof::Hip => (pitch * dv, [0.0, -q.signum() * pitch]),
        Roof::Saw => (0.5 * pitch * phase(q + half[1], (0.5 * half[1]).max(12.0)), [0.0, 0.5 * pitch]),
        Roof::Flat => (0.0, [0.0; 2]),
    };
    Some(Spot {
        pixel,
        height: eaves + rise,
        slope: pose.turned(fall[0], fall[1]),
        across: if falls_along { p } else { q },
        along: p,
        edge: du.min(dv),
    })
}

/// The pixels of a house, the higher part where two meet.
fn spots(town: &Town, chance: &mut Chance, house: &House) -> Vec<Spot> {
    let House { pose, half: [along, across], .. } = *house;
    let eaves = STOREY * house.storeys;
    let pitch = chance.between(0.35, 0.8);
    let mut parts = vec![(pose, [along, across])];
    let mut reach = length(along, across);
    if house.has_wing {
        let (long, wide) = (chance.between(0.5, 0.8) * across, chance.between(0.3, 0.45) * along);
        let out = 0.4 * across + long;
        let wing = pose.moved(chance.between(-1.0, 1.0) * (along - wide), -out, 0.5 * PI);
        parts.push((wing, [long + 0.3 * across, wide]));
        reach += 2.0 * long + across;
    }
    let spot = |pixel: Pixel| {
        let each = parts.iter().filter_map(|(pose, half)| part(*pose, *half, house.roof, eaves, pitch, pixel));
        each.reduce(|a, b| Spot { edge: a.edge.max(b.edge), ..if b.height > a.height { b } else { a } })
    };
    town.canvas.near(pose.x, pose.y, reach + 2.0).filter_map(spot).collect()
}

/// Builds a house, unless something is in its way.
fn build(town: &mut Town, chance: &mut Chance, house: &House, textures: &Textures) -> bool {
    let mut spots = spots(town, chance, house);
    let in_the_way = spots.iter().filter(|spot| town.canvas.taken[spot.pixel.at]).count();
    if spots.is_empty() || in_the_way * 500 > spots.len() {
        return false;
    }
    let [along, across] = house.half;
    let zoomed = town.canvas.zoom * town.canvas.zoom;
    let area = if house.has_wing { spots.len() as f32 / zoomed } else { 4.0 * along * across };
    let object = town.canvas.object(BUILDING, area.max(4.0 * along * across));
    let mut colours = covering(town, chance, house, &mut spots, textures);
    on_the_roof(chance, house, &mut spots, &mut colours);
    // Drawn in every season, so that what comes after is the same.
    let offset = chance.between(-0.4, 0.6);
    if let Some((snow, cover)) = &textures.snow {
        for (spot, colour) in spots.iter().zip(&mut colours) {
            if snow[spot.pixel.at] + offset > 0.9 - cover {
                *colour = mixed(*colour, rgb(228, 232, 238), 0.7);
            }
        }
    }
    let pixels: Vec<usize> = spots.iter().map(|spot| spot.pixel.at).collect();
    for (spot, colour) in spots.iter().zip(colours) {
        let at = spot.pixel.at;
        let rough = 0.03 * town.grain.fine[at];
        town.paint(at, colour, BUILDING);
        town.canvas.height[at] = spot.height;
        town.canvas.slope[at] = spot.slope.map(|slope| slope + rough);
        town.canvas.instance[at] = object;
    }
    town.canvas.take(&pixels, 4);
    true
}

/// Tiles, sheets or gravel: the colour of each pixel of a roof. A parapet raises its own.
fn covering(town: &Town, chance: &mut Chance, house: &House, spots: &mut [Spot], textures: &Textures) -> Vec<Colour> {
    let is_steep = [Roof::Gable, Roof::Hip].contains(&house.roof);
    let rows = if is_steep { chance.between(2.4, 4.2) } else { chance.between(3.0, 7.0) };
    let (joint, tile) = (chance.between(0.03, 0.16), chance.between(0.0, 0.08));
    let has_sheets = house.roof == Roof::Saw || chance.happens(0.35);
    let patches = 0.08 * chance.pick(&[0.0, 1.0, -1.0]);
    let (ridge, rim) = (chance.pick(&[0.8, 1.25]), chance.pick(&[0.7, 1.0, 1.3]));
    let parapet = (!is_steep && chance.happens(0.8)).then(|| chance.between(1.6, 3.2));
    let stone = if chance.happens(0.6) { scaled(house.colour, chance.pick(&[0.7, 1.25])) } else { rgb(190, 186, 180) };
    let top = spots.iter().map(|spot| spot.height).fold(0.0, f32::max);
    let each = spots.iter_mut().map(|spot| {
        let at = spot.pixel.at;
        let mut texture = 1.0 + 0.10 * town.grain.coarse[at] + 0.05 * town.grain.fine[at];
        if is_steep {
            let row = spot.across / rows;
            texture -= if phase(spot.across, rows) < 1.0 { joint } else { 0.0 };
            texture += tile * wave(0.33 * spot.along + 0.32 * row.floor());
            texture += if textures.tiles[at] > 0.35 { patches } else { 0.0 };
            texture *= if top - spot.height < 0.8 { ridge } else { 1.0 };
            texture *= if spot.edge < 1.4 { rim } else { 1.0 };
            return scaled(house.colour, texture);
        }
        texture -= if has_sheets && phase(spot.along, rows) < 1.2 { joint } else { 0.0 };
        if parapet.is_some_and(|width| spot.edge < width) {
            spot.height += 2.5;
            return stone;
        }
        scaled(house.colour, texture * (1.0 - 0.3 * (textures.stains[at] - 0.2).clamp(0.0, 1.0)))
    });
    each.collect()
}

/// Chimneys, skylights, patches and solar panels.
fn on_the_roof(chance: &mut Chance, house: &House, spots: &mut [Spot], colours: &mut [Colour]) {
    let [along, across] = house.half;
    let is_flat = house.roof == Roof::Flat;
    let things = match house.roof {
        Roof::Saw => 0,
        Roof::Flat => 1 + chance.below(5),
        Roof::Gable | Roof::Hip => chance.below(4),
    };
    for _ in 0..things {
        let (widest, deepest, least) = if is_flat { (6.0, 5.0, 2.0) } else { (3.2, 2.6, 1.3) };
        let half = [chance.between(least, widest), chance.between(least, deepest)];
        let place = |chance: &mut Chance, room: f32| chance.between(-1.0, 1.0) * room.max(0.0);
        let (x, y) = (place(chance, along - half[0] - 4.0), place(chance, across - half[1] - 4.0));
        let what = chance.below(3);
        let rise = chance.between(3.0, 7.0);
        let colour = match what {
            0 => chance.pick(&[rgb(170, 168, 164), rgb(120, 116, 112), rgb(140, 80, 64)]),
            1 => chance.pick(&[rgb(60, 80, 100), rgb(40, 48, 70), rgb(150, 170, 185)]),
            _ => scaled(house.colour, chance.between(0.75, 1.2)),
        };
        let colour = if what == 0 { varied(chance, colour, 0.2, 0.06) } else { colour };
        for (spot, painted) in spots.iter_mut().zip(&mut *colours) {
            let (p, q) = house.pose.seen(spot.pixel);
            if (p - x).abs() < half[0] && (q - y).abs() < half[1] {
                *painted = colour;
                if what == 0 {
                    (spot.height, spot.slope) = (spot.height + rise, [0.0; 2]);
                }
            }
        }
    }
    if !is_flat && chance.happens(0.12) {
        let x = chance.between(-0.3, 0.3) * along;
        for (spot, painted) in spots.iter().zip(colours) {
            let (p, q) = house.pose.seen(spot.pixel);
            if (p - x).abs() < 0.4 * along && (q - 0.5 * across).abs() < 0.33 * across {
                let frame = phase(p, 4.0) < 0.8 || phase(q, 5.0) < 0.8;
                *painted = if frame { rgb(120, 130, 150) } else { rgb(30, 38, 70) };
            }
        }
    }
}

/// Where snow lies on roofs: a field, and how much of it there is.
fn snow(town: &Town) -> (Vec<f32>, f32) {
    let chance = &mut town.chance("snow on roofs");
    let (side, zoom) = (town.canvas.side, town.canvas.zoom);
    let mut field = noise(chance, side, 30.0 * zoom, 1.0);
    let small = noise(chance, side, 6.0 * zoom, 1.0);
    field.iter_mut().zip(small).for_each(|(field, small)| *field = 0.5 * *field + 0.3 * small);
    (field, chance.between(0.1, 0.7))
}

/// The ground around a house, of a kind of its own, perhaps behind a wall or a hedge.
fn yard(town: &mut Town, chance: &mut Chance, house: &House, textures: &mut Textures) {
    let margin = chance.between(10.0, 22.0);
    let half = house.half.map(|half| half + margin);
    let pose = house.pose.moved(chance.between(-5.0, 5.0), chance.between(-5.0, 5.0), 0.0);
    let kinds = [Soil::Lawn, Soil::Lawn, Soil::Lawn, Soil::Paved, Soil::Gravel, Soil::Dry, Soil::Sand];
    let kind = chance.pick(&kinds);
    let ground = town.soil(chance, kind);
    let wall = chance.happens(0.4).then(|| {
        let colour = chance.pick(&[rgb(190, 180, 165), rgb(120, 100, 80), rgb(90, 84, 78)]);
        varied(chance, colour, 0.2, 0.06)
    });
    if wall.is_none() && chance.happens(0.5) {
        town.hedges.push((pose, half));
    }
    for pixel in town.canvas.near(pose.x, pose.y, length(half[0], half[1]) + 1.0) {
        let at = pixel.at;
        let (p, q) = pose.seen(pixel);
        let inside = (half[0] - p.abs()).min(half[1] - q.abs());
        let is_free = town.canvas.class[at] == GROUND
            && town.beside_road[at] > 5.0
            && town.shore[at] < -6.0
            && !textures.yards[at];
        if inside <= 0.0 || !is_free {
            continue;
        }
        textures.yards[at] = true;
        town.canvas.albedo[at] = ground.at(pixel, &town.grain);
        if let Some(wall) = wall.filter(|_| inside < 1.6) {
            town.canvas.albedo[at] = wall;
            town.canvas.height[at] = 3.0;
        }
    }
}

fn pool_behind(town: &mut Town, chance: &mut Chance, house: &House) {
    let half = [chance.between(5.0, 9.0), chance.between(3.5, 6.0)];
    let pose = house.pose.moved(0.0, house.half[1] + half[1] + 6.0, 0.0);
    if town.canvas.share_taken(pose, half, 3.0) == Some(0.0) {
        water::pool(town, chance, pose, half);
    }
}
