//! The ground under everything.

use crate::colour::mixed;
use crate::noise::layered;
use crate::town::Town;

/// Covers everything: two or three kinds of ground, with hard or soft borders.
pub(crate) fn lay(town: &mut Town) {
    let mut chance = town.chance("ground");
    let (side, zoom) = (town.canvas.side, town.canvas.zoom);
    let mix = town.plan.look.mix.clone();
    for layer in 0..2 + chance.below(2) {
        let kind = chance.weighed(&mix);
        let ground = town.soil(&mut chance, kind);
        if layer == 0 {
            town.canvas.pixels().for_each(|pixel| town.canvas.albedo[pixel.at] = ground.at(pixel, &town.grain));
            continue;
        }
        let cell = chance.between(90.0, 200.0) * zoom;
        let field = layered(&mut chance, side, cell, 3, 0.5);
        let (offset, softness) = (chance.between(-0.15, 0.1), chance.pick(&[0.02, 0.12]));
        town.canvas.pixels().for_each(|pixel| {
            let part = ((field[pixel.at] + offset) / softness + 0.5).clamp(0.0, 1.0);
            if part > 0.0 {
                let colour = &mut town.canvas.albedo[pixel.at];
                *colour = mixed(*colour, ground.at(pixel, &town.grain), part);
            }
        });
    }
    let pixels = side * side;
    for at in 0..pixels {
        let fine = &town.grain.fine;
        town.canvas.slope[at] = [0.05 * fine[at] + 0.1 * town.grain.coarse[at], 0.05 * fine[pixels - 1 - at]];
    }
}
