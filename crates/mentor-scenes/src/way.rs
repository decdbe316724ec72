//! Ways: lines of straight pieces, and how far from them each pixel lies.

use crate::canvas::{Canvas, FAR, Pose, length, middle};
use crate::chance::Chance;

/// Corners of a way, in units.
pub(crate) type Corners = Vec<[f32; 2]>;

/// Ways leave the scene by so much.
const BEYOND: f32 = 60.0;

/// Pixels further than this from a way are far from it.
const REACH: f32 = 80.0;

/// A road.
#[derive(Debug)]
pub(crate) struct Road {
    pub(crate) corners: Corners,
    /// Half of its width.
    pub(crate) half: f32,
    pub(crate) is_main: bool,
    pub(crate) field: Field,
}

/// Where pixels lie relative to a way.
#[derive(Debug)]
pub(crate) struct Field {
    /// How far away.
    pub(crate) away: Vec<f32>,
    /// The same, negative on the left.
    pub(crate) side: Vec<f32>,
    /// How far along.
    pub(crate) along: Vec<f32>,
    /// How long the way is.
    pub(crate) length: f32,
}

impl Road {
    /// A piece of the road, one of its straight ones.
    pub(crate) fn piece(&self, chance: &mut Chance) -> Piece {
        let at = chance.below(self.corners.len() - 1);
        Piece { from: self.corners[at], to: self.corners[at + 1] }
    }
}

/// A straight piece of a way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) from: [f32; 2],
    pub(crate) to: [f32; 2],
}

impl Piece {
    pub(crate) fn length(self) -> f32 {
        length(self.to[0] - self.from[0], self.to[1] - self.from[1])
    }

    /// The place at a part of the piece, in its direction.
    pub(crate) fn pose(self, part: f32) -> Pose {
        let (dx, dy) = (self.to[0] - self.from[0], self.to[1] - self.from[1]);
        Pose::new(self.from[0] + dx * part, self.from[1] + dy * part, libm::atan2f(dy, dx))
    }
}

/// A way through a place, in both directions out of the scene.
pub(crate) fn through(chance: &mut Chance, canvas: &Canvas, place: [f32; 2], angle: f32, bend: f32) -> Corners {
    let mut corners = wandering(chance, canvas, place, angle + std::f32::consts::PI, [40.0, 90.0], bend);
    corners.reverse();
    corners.push(place);
    corners.extend(wandering(chance, canvas, place, angle, [40.0, 90.0], bend));
    corners
}

/// Corners of a way that goes on from a place until it leaves the scene; at least one.
pub(crate) fn wandering(
    chance: &mut Chance,
    canvas: &Canvas,
    [mut x, mut y]: [f32; 2],
    mut angle: f32,
    steps: [f32; 2],
    bend: f32,
) -> Corners {
    let around = -BEYOND..canvas.extent + BEYOND;
    let mut corners = Vec::new();
    // Longer in wider scenes.
    let most = 12 + (canvas.extent / 40.0) as usize;
    loop {
        let step = chance.between(steps[0], steps[1]);
        x += step * libm::cosf(angle);
        y += step * libm::sinf(angle);
        angle += chance.between(-bend, bend);
        corners.push([x, y]);
        if corners.len() == most || !around.contains(&x) || !around.contains(&y) {
            return corners;
        }
    }
}

impl Field {
    pub(crate) fn of(canvas: &Canvas, corners: &[[f32; 2]]) -> Self {
        let pixels = canvas.side * canvas.side;
        let mut field =
            Self { away: vec![FAR; pixels], side: vec![FAR; pixels], along: vec![0.0; pixels], length: 0.0 };
        for ends in corners.windows(2) {
            let piece = Piece { from: ends[0], to: ends[1] };
            let (length, before) = (piece.length(), field.length);
            field.length += length;
            let (ux, uy) = ((piece.to[0] - piece.from[0]) / length, (piece.to[1] - piece.from[1]) / length);
            let low = [0, 1].map(|axis| piece.from[axis].min(piece.to[axis]) - REACH);
            let high = [0, 1].map(|axis| piece.from[axis].max(piece.to[axis]) + REACH);
            let [columns, rows] = canvas.rectangle(low, high);
            for row in rows {
                let dy = middle(row, canvas.zoom) - piece.from[1];
                let pixels = row * canvas.side + columns.start..row * canvas.side + columns.end;
                let known = field.away[pixels.clone()].iter_mut().zip(&mut field.side[pixels.clone()]);
                for (column, ((away, side), along)) in columns.clone().zip(known.zip(&mut field.along[pixels])) {
                    let dx = middle(column, canvas.zoom) - piece.from[0];
                    let here = (dx * ux + dy * uy).clamp(0.0, length);
                    let (ox, oy) = (dx - here * ux, dy - here * uy);
                    let off = ox * ox + oy * oy;
                    // Without a branch, several at once.
                    let is_nearer = off < *away;
                    *away = if is_nearer { off } else { *away };
                    *side = if is_nearer { dy * ux - dx * uy } else { *side };
                    *along = if is_nearer { before + here } else { *along };
                }
            }
        }
        for (away, side) in field.away.iter_mut().zip(&mut field.side) {
            *away = away.sqrt();
            *side = if *side < 0.0 { -*away } else { *away };
        }
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_knows_how_far_on_which_side_and_how_far_along() {
        let canvas = Canvas::new(40, 1.0);
        let field = Field::of(&canvas, &[[5.0, 10.0], [30.0, 10.0], [30.0, 40.0]]);
        let at = canvas.at(15.0, 14.0);
        assert!((field.away[at] - 4.5).abs() < 1e-4 && (field.side[at] - 4.5).abs() < 1e-4, "{}", field.side[at]);
        assert!((field.along[at] - 10.5).abs() < 1e-4);
        let at = canvas.at(34.0, 20.0);
        assert!((field.away[at] - 4.5).abs() < 1e-4 && (field.side[at] + 4.5).abs() < 1e-4);
        assert!((field.along[at] - 35.5).abs() < 1e-4 && (field.length - 55.0).abs() < 1e-4);
    }
}
