//! Boats: moored at a pier, or out on the water, some with a wake.

use std::f32::consts::PI;

use crate::canvas::{Pose, phase};
use crate::chance::Chance;
use crate::classes::{BOAT, GROUND, WATER};
use crate::colour::{mixed, rgb, scaled, varied};
use crate::noise::noise;
use crate::town::Town;

pub(crate) fn lay(town: &mut Town) {
    let chance = &mut town.chance("boats");
    let is_open = |at: usize| town.shore[at] > 9.0 && town.canvas.class[at] == WATER;
    let open: Vec<usize> = (0..town.shore.len()).step_by(3).filter(|at| is_open(*at)).collect();
    if open.len() < 80 {
        return;
    }
    if chance.happens(0.55) {
        pier(town, chance);
    }
    let area = 3.0 * open.len() as f32 / (town.canvas.zoom * town.canvas.zoom);
    let rate = chance.between(0.8, 2.4);
    for _ in 0..chance.how_many(rate * area / 7000.0) + usize::from(chance.happens(0.5)) {
        let at = chance.pick(&open);
        let [x, y] = place(town, at);
        let angle = match chance.happens(0.6) {
            true => inwards(town, at) + 0.5 * PI * chance.sign() + 0.4 * chance.bell(),
            false => chance.between(0.0, 2.0 * PI),
        };
        let moves = chance.happens(0.4);
        boat(town, chance, Pose::new(x, y, angle), moves);
    }
}

fn place(town: &Town, at: usize) -> [f32; 2] {
    [at % town.canvas.side, at / town.canvas.side].map(|pixel| (pixel as f32 + 0.5) / town.canvas.zoom)
}

/// The direction away from the shore.
fn inwards(town: &Town, at: usize) -> f32 {
    let side = town.canvas.side;
    let (row, column) = (at / side, at % side);
    let far = |pixel: usize| [pixel.saturating_sub(9), (pixel + 9).min(side - 1)];
    let [left, right] = far(column).map(|column| town.shore[row * side + column]);
    let [above, below] = far(row).map(|row| town.shore[row * side + column]);
    libm::atan2f(below - above, right - left)
}

/// Planks from the shore into the water, with boats on both sides.
fn pier(town: &mut Town, chance: &mut Chance) {
    let suits = |at: &usize| {
        (2.0..8.0).contains(&town.shore[*at]) && town.canvas.class[*at] == WATER && town.beside_road[*at] > 30.0
    };
    let places: Vec<usize> = (0..town.shore.len()).filter(suits).collect();
    if places.is_empty() {
        return;
    }
    let at = chance.pick(&places);
    let [x, y] = place(town, at);
    let half = [chance.between(20.0, 46.0), chance.between(2.4, 4.0)];
    let pose = Pose::new(x, y, inwards(town, at)).moved(half[0] - 12.0, 0.0, 0.0);
    let wood = chance.pick(&[rgb(150, 126, 98), rgb(170, 164, 152), rgb(120, 104, 90)]);
    let wood = varied(chance, wood, 0.15, 0.06);
    for pixel in town.canvas.near(pose.x, pose.y, half[0] + half[1]) {
        let (p, q) = pose.seen(pixel);
        if p.abs() < half[0] && q.abs() < half[1] && [WATER, GROUND].contains(&town.canvas.class[pixel.at]) {
            let gap = if phase(p, 3.2) < 0.9 { 0.15 } else { 0.0 };
            let colour = scaled(wood, 1.0 - gap + 0.05 * town.grain.fine[pixel.at]);
            town.paint(pixel.at, colour, GROUND);
            town.canvas.height[pixel.at] = 2.0;
        }
    }
    for _ in 0..1 + chance.below(6) {
        let (along, sign) = (chance.between(-0.4, 0.95) * half[0], chance.sign());
        let lies_along = chance.happens(0.5);
        let off = half[1] + if lies_along { 6.5 } else { 16.0 };
        let turn = if lies_along { chance.pick(&[0.0, PI]) } else { -0.5 * PI * sign } + chance.between(-0.06, 0.06);
        boat(town, chance, pose.moved(along, sign * off, turn), false);
    }
}

/// A boat, unless it would not lie in open water.
fn boat(town: &mut Town, chance: &mut Chance, pose: Pose, moves: bool) {
    let [least, most] = chance.weighed(&[([9.0, 14.0], 4.0), ([14.0, 22.0], 4.0), ([22.0, 32.0], 1.2)]);
    let long = chance.between(least, most);
    let wide = long * chance.between(0.26, 0.38);
    let bluntness = chance.between(1.8, 2.6);
    let half_width = |p: f32| {
        let bow = ((p / long + 0.1) / 1.1).clamp(0.0, 1.0);
        let stern = if p < -0.7 * long { 0.9 } else { 1.0 };
        wide * stern * (1.0 - libm::powf(bow, bluntness))
    };
    let mut seen = Vec::new();
    for pixel in town.canvas.near(pose.x, pose.y, long + wide) {
        let (p, q) = pose.seen(pixel);
        if p.abs() < long && q.abs() < half_width(p) {
            // Not in a pool, which has no shore.
            if town.canvas.class[pixel.at] != WATER || town.shore[pixel.at] <= 0.0 {
                return;
            }
            seen.push((pixel.at, p, q, half_width(p)));
        }
    }
    if seen.is_empty() {
        return;
    }
    if moves {
        wake(town, chance, pose, long, wide);
    }
    let hull = chance.weighed(&[
        (rgb(235, 235, 232), 10.0),
        (rgb(206, 196, 170), 3.0),
        (rgb(120, 80, 52), 3.0),
        (rgb(40, 60, 110), 2.0),
        (rgb(150, 44, 38), 1.5),
        (rgb(90, 96, 100), 2.0),
    ]);
    let hull = varied(chance, hull, 0.12, 0.04);
    let deck = chance.pick(&[rgb(190, 160, 120), rgb(220, 218, 212), rgb(140, 110, 80), rgb(170, 172, 176)]);
    let deck = varied(chance, deck, 0.15, 0.06);
    let cabin = chance.happens(0.7).then(|| (chance.between(-0.35, 0.1) * long, chance.between(0.2, 0.38) * long));
    let roof = chance.pick(&[rgb(240, 240, 238), scaled(hull, 1.05), rgb(70, 90, 120)]);
    let object = town.canvas.object(BOAT, 3.2 * long * wide);
    for (at, p, q, half) in seen {
        let on_deck = p.abs() < long - 2.4 && q.abs() < half - 1.7;
        let in_cabin = |(middle, reach): &(f32, f32)| (p - middle).abs() < *reach && q.abs() < 0.55 * wide;
        let (colour, height) = match &cabin {
            _ if !on_deck => (hull, 2.0),
            Some(cabin) if in_cabin(cabin) => (if p > cabin.0 + 0.14 * long { rgb(36, 46, 60) } else { roof }, 6.0),
            None if [-0.45, 0.0, 0.35].iter().any(|seat| (p - seat * long).abs() < 1.0) => (scaled(hull, 0.7), 2.0),
            _ => (scaled(deck, if phase(q, 2.0) < 0.7 { 0.88 } else { 1.0 }), 2.0),
        };
        town.paint(at, colour, BOAT);
        town.canvas.height[at] = height;
        town.canvas.instance[at] = object;
    }
}

/// Two lines of foam behind a boat, and churned water between them.
fn wake(town: &mut Town, chance: &mut Chance, pose: Pose, long: f32, wide: f32) {
    let churn = noise(chance, town.canvas.side, 3.0 * town.canvas.zoom, 1.0);
    for pixel in town.canvas.near(pose.x, pose.y, 3.5 * long) {
        let (p, q) = pose.seen(pixel);
        let back = -p - 0.6 * long;
        if back <= 0.0 || town.canvas.class[pixel.at] != WATER {
            continue;
        }
        let fades = |reach: f32| (1.0 - back / (reach * long)).clamp(0.0, 1.0);
        let from_line = (q.abs() - (0.6 * wide + 0.22 * back)).abs();
        let line = (1.0 - from_line / (1.5 + 0.05 * back)).clamp(0.0, 1.0) * fades(2.6);
        let middle = (1.0 - q.abs() / (0.8 * wide)).clamp(0.0, 1.0) * fades(1.8);
        let foam = (line + 0.7 * middle).clamp(0.0, 1.0) * (0.6 + 0.4 * churn[pixel.at]);
        let albedo = &mut town.canvas.albedo[pixel.at];
        *albedo = mixed(*albedo, rgb(225, 232, 235), 0.6 * foam);
    }
}
