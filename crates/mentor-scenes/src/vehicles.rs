//! Cars, vans, trucks and buses: on lanes, in stalls, in yards.

use std::f32::consts::PI;

use crate::canvas::{Pose, phase};
use crate::chance::Chance;
use crate::classes::{CAR, WATER};
use crate::colour::{Colour, rgb, scaled, varied};
use crate::plan::Density;
use crate::roads::BRIDGE;
use crate::town::Town;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Car,
    Van,
    Truck,
    Bus,
}

const KINDS: [(Kind, f32); 4] = [(Kind::Car, 0.76), (Kind::Van, 0.13), (Kind::Truck, 0.08), (Kind::Bus, 0.03)];

/// White, black, grey, dark grey, red, blue, sand, green, yellow, brown.
const PAINTS: [([u8; 3], f32); 10] = [
    ([232, 232, 230], 24.0),
    ([40, 42, 46], 16.0),
    ([150, 152, 156], 18.0),
    ([90, 92, 96], 12.0),
    ([170, 40, 36], 9.0),
    ([44, 70, 130], 9.0),
    ([190, 176, 150], 4.0),
    ([60, 100, 80], 3.0),
    ([220, 180, 60], 3.0),
    ([120, 80, 56], 2.0),
];

pub(crate) fn lay(town: &mut Town) {
    let chance = &mut town.chance("cars");
    for [x, y, angle] in town.stalls.clone() {
        let pose = Pose::new(x, y, angle + chance.between(-0.05, 0.05));
        let pose = pose.moved(chance.between(-1.0, 1.0), chance.between(-1.0, 1.0), 0.0);
        vehicle(town, chance, pose, true);
    }
    let traffic = match town.plan.density {
        Density::Rural => 0.6,
        Density::Suburb => 0.9,
        Density::Town => 1.5,
    };
    for road in 0..town.roads.len() {
        let (half, is_main) = (town.roads[road].half, town.roads[road].is_main);
        let rate = traffic * if is_main { 1.0 } else { 0.6 };
        for _ in 0..chance.how_many(town.roads[road].field.length / 100.0 * rate) {
            let piece = town.roads[road].piece(chance);
            // Traffic keeps to one side; a parked car stands at the edge.
            let sign = chance.sign();
            let off = if half < 10.0 || chance.happens(0.7) { 0.5 * half } else { half - 5.0 };
            let turn = if sign > 0.0 { PI } else { 0.0 } + chance.between(-0.06, 0.06);
            let pose = piece.pose(chance.between(0.05, 0.95)).moved(0.0, sign * off, turn);
            vehicle(town, chance, pose, false);
        }
    }
    for _ in 0..chance.pick(&[0, 0, 1, 2]) {
        let [x, y] = [0; 2].map(|_| chance.unit() * town.canvas.extent);
        let pose = Pose::new(x, y, town.plan.axis + chance.pick(&[0.0, 0.5 * PI]) + chance.between(-0.1, 0.1));
        let at = town.canvas.at(x, y);
        let is_near = (4.0..60.0).contains(&town.beside_road[at]) && town.shore[at] < -16.0;
        if is_near && town.canvas.share_taken(pose, [10.0; 2], 1.0) == Some(0.0) {
            vehicle(town, chance, pose, true);
        }
    }
}

/// A vehicle, unless another thing is there. One that `is_parked` is small.
fn vehicle(town: &mut Town, chance: &mut Chance, pose: Pose, is_parked: bool) {
    let mut kind = chance.weighed(&KINDS);
    if is_parked && [Kind::Truck, Kind::Bus].contains(&kind) {
        kind = Kind::Car;
    }
    let (long, wide) = match kind {
        Kind::Car => ([8.5, 10.5], [4.1, 4.9]),
        Kind::Van => ([10.0, 12.5], [4.6, 5.3]),
        Kind::Truck => ([14.0, 20.0], [5.0, 5.8]),
        Kind::Bus => ([20.0, 24.0], [5.2, 5.8]),
    };
    let half = [long, wide].map(|[least, most]| chance.between(least, most));
    let paint = paint(chance, kind);
    let load = chance.pick(&[rgb(220, 220, 216), rgb(150, 110, 80), rgb(90, 110, 90), rgb(120, 130, 150)]);
    let load = varied(chance, load, 0.15, 0.06);
    let mut seen = Vec::new();
    for pixel in town.canvas.near(pose.x, pose.y, half[0] + half[1]) {
        let (p, q) = pose.seen(pixel);
        // A rectangle with round corners.
        let (x, y) = ((p.abs() - half[0] + 2.2).max(0.0), (q.abs() - half[1] + 2.2).max(0.0));
        if x * x + y * y < 2.2 * 2.2 {
            if town.canvas.instance[pixel.at] != 0 || town.canvas.class[pixel.at] == WATER {
                return;
            }
            seen.push((pixel.at, p, q));
        }
    }
    if seen.is_empty() {
        return;
    }
    let object = town.canvas.object(CAR, 4.0 * half[0] * half[1]);
    for (at, p, q) in seen {
        let (colour, height) = body(kind, half, paint, load, p, q);
        let below = if town.canvas.height[at] >= BRIDGE { BRIDGE } else { 0.0 };
        town.paint(at, colour, CAR);
        town.canvas.height[at] = below + height;
        town.canvas.instance[at] = object;
    }
}

fn paint(chance: &mut Chance, kind: Kind) -> Colour {
    let [red, green, blue] = chance.weighed(&PAINTS);
    let colour = varied(chance, rgb(red, green, blue), 0.15, 0.04);
    match kind {
        Kind::Bus => chance.pick(&[colour, rgb(220, 170, 40), rgb(200, 60, 50)]),
        _ => colour,
    }
}

/// Colour and height of a vehicle so far along it, the front first, and across.
fn body(kind: Kind, [long, wide]: [f32; 2], paint: Colour, load: Colour, p: f32, q: f32) -> (Colour, f32) {
    let glass = rgb(28, 34, 42);
    let (along, aside) = (p / long, q.abs());
    let sides = scaled(paint, if aside > wide - 1.3 { 0.9 } else { 1.0 });
    match kind {
        Kind::Car | Kind::Van => {
            let (front, end) = if kind == Kind::Car { (0.18, 0.5) } else { (0.5, 0.78) };
            let is_cabin = (-0.65..0.3).contains(&along);
            let height = if is_cabin { 5.5 } else { 3.5 };
            let screens = (front..end).contains(&along) || (-0.8..-0.55).contains(&along);
            let colour = match () {
                () if screens && aside < wide - 1.0 => glass,
                () if (aside - wide + 1.1).abs() < 0.6 && (-0.6..0.3).contains(&along) => scaled(glass, 1.3),
                () if (-0.55..front).contains(&along) && aside < wide - 1.2 => scaled(paint, 1.12),
                () => sides,
            };
            (colour, height)
        }
        Kind::Truck => {
            let is_screen = (0.5..0.56).contains(&along) || (along > 0.75 && aside < wide - 1.0);
            let colour = match along < 0.5 {
                true => load,
                false if is_screen => glass,
                false => sides,
            };
            (colour, if along < 0.5 { 10.0 } else { 7.0 })
        }
        Kind::Bus => {
            let hatch = phase(along + 0.5 + 0.9 / long, 0.55) < 1.8 / long && aside < 2.0;
            (if hatch { scaled(paint, 0.75) } else { sides }, 9.0)
        }
    }
}
