//! Smooth noise in a plane.

use std::ops::Range;

use crate::canvas::floor;
use crate::chance::Chance;

/// Values between the nodes of a random lattice, in `[-1, 1]`: a square of `side` pixels, cells of `cell` pixels, longer
/// along a row by `stretch`. At least one and a half pixels a cell.
pub(crate) fn noise(chance: &mut Chance, side: usize, cell: f32, stretch: f32) -> Vec<f32> {
    let cell = cell.max(1.5);
    let (rows, columns) = (nodes(chance, side, cell), nodes(chance, side, cell * stretch));
    let width = columns[side - 1].0 + 2;
    let lattice: Vec<f32> = (0..(rows[side - 1].0 + 2) * width).map(|_| chance.between(-1.0, 1.0)).collect();
    let mut values = Vec::with_capacity(side * side);
    let mut between = vec![0.0; width];
    // Pixels between the same two nodes in one go.
    let parts: Vec<f32> = columns.iter().map(|(_, part)| *part).collect();
    let cells: Vec<(usize, Range<usize>)> = (0..width - 1)
        .map(|node| {
            (node, columns.partition_point(|(at, _)| *at < node)..columns.partition_point(|(at, _)| *at <= node))
        })
        .collect();
    for (row, part) in rows {
        let (upper, lower) = (&lattice[row * width..][..width], &lattice[(row + 1) * width..][..width]);
        for ((value, upper), lower) in between.iter_mut().zip(upper).zip(lower) {
            *value = upper + (lower - upper) * part;
        }
        for (node, pixels) in &cells {
            let (first, rise) = (between[*node], between[node + 1] - between[*node]);
            values.extend(parts[pixels.clone()].iter().map(|part| first + rise * part));
        }
    }
    values
}

/// For each pixel along a side the node before it, and how far, smoothly, it is on the way to the next.
fn nodes(chance: &mut Chance, side: usize, cell: f32) -> Vec<(usize, f32)> {
    let first = chance.unit();
    let place = |pixel: usize| {
        let at = (pixel as f32 + 0.5) / cell + first;
        let part = at - floor(at);
        (at as usize, part * part * (3.0 - 2.0 * part))
    };
    (0..side).map(place).collect()
}

/// Noise at several scales, each half as wide and `gain` times as strong as the one before it, in `[-1, 1]`.
pub(crate) fn layered(chance: &mut Chance, side: usize, cell: f32, octaves: usize, gain: f32) -> Vec<f32> {
    let mut sum = noise(chance, side, cell, 1.0);
    let (mut strength, mut total, mut cell) = (1.0, 1.0, cell);
    for _ in 1..octaves {
        (strength, cell) = (strength * gain, cell / 2.0);
        total += strength;
        let next = noise(chance, side, cell, 1.0);
        sum.iter_mut().zip(next).for_each(|(sum, value)| *sum += strength * value);
    }
    sum.iter_mut().for_each(|value| *value /= total);
    sum
}

/// A wave of period 1 and height 1, close to `sin(2 pi x)`: a parabola for each half.
pub(crate) fn wave(x: f32) -> f32 {
    let part = x - floor(x);
    let (half, sign) = if part < 0.5 { (part, 1.0) } else { (part - 0.5, -1.0) };
    sign * 16.0 * half * (0.5 - half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mentor_types::Key;

    #[test]
    fn noise_is_smooth_and_bounded() {
        let values = noise(&mut Chance::new(Key::new(3)), 64, 16.0, 1.0);
        assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
        let steps = values.chunks_exact(64).flat_map(|row| row.windows(2).map(|pair| (pair[1] - pair[0]).abs()));
        let largest = steps.fold(0.0, f32::max);
        assert!(largest > 0.01 && largest < 0.2, "{largest}");
    }

    #[test]
    fn a_wave_has_its_period_and_its_turns() {
        for (x, expected) in [(0.0, 0.0), (0.25, 1.0), (0.5, 0.0), (0.75, -1.0), (3.25, 1.0), (-0.25, -1.0)] {
            assert!((wave(x) - expected).abs() < 1e-6, "{x}");
        }
    }
}
