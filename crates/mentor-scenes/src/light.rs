//! Light: shadows cast by what is high, and slopes that face the sun.

use crate::chance::Chance;
use crate::colour::Colour;
use crate::noise::layered;
use crate::town::Town;

/// Longest shadow, in pixels of the planes.
const LONGEST: usize = 90;

/// What each pixel sends up.
pub(crate) fn cast(town: &Town) -> Vec<Colour> {
    let light = town.plan.light;
    let (cos, sin) = (libm::cosf(light.azimuth), libm::sinf(light.azimuth));
    let (flat, up) = (libm::cosf(light.elevation), libm::sinf(light.elevation));
    let mut shade = shadows(town, [cos, sin], up / flat);
    if light.cloud > 0.0 {
        clouds(town, &mut town.chance("clouds"), light.cloud, &mut shade);
    }
    let canvas = &town.canvas;
    let of = |at: usize| -> Colour {
        let [x, y] = canvas.slope[at];
        let facing = (up - flat * (x * cos + y * sin)) / ((1.0 + x * x + y * y).sqrt() * up);
        let sunny = facing.clamp(0.0, 2.2) * (1.0 - shade[at]);
        std::array::from_fn(|channel| canvas.albedo[at][channel] * (light.sky[channel] + light.sun[channel] * sunny))
    };
    (0..canvas.albedo.len()).map(of).collect()
}

/// How much each pixel lies in shadow, 0 to 1: from it one goes towards the sun and looks whether anything rises above
/// the ray.
fn shadows(town: &Town, [dx, dy]: [f32; 2], steepness: f32) -> Vec<f32> {
    let canvas = &town.canvas;
    let (side, zoom) = (canvas.side as isize, canvas.zoom);
    let highest = canvas.height.iter().fold(0.0f32, |highest, height| highest.max(*height)) * zoom;
    let mut above = vec![-99.0f32; canvas.height.len()];
    for step in 1..=((highest / steepness) as usize + 1).min(LONGEST) {
        let [ox, oy] = [dx, dy].map(|part| (part * step as f32).round() as isize);
        let lower = step as f32 * steepness;
        for row in 0..side {
            // Beyond the planes it goes on as at their border.
            let there = (row + oy).clamp(0, side - 1) * side;
            let from = &canvas.height[there as usize..(there + side) as usize];
            let to = &mut above[(row * side) as usize..((row + 1) * side) as usize];
            let (first, last) = ((-ox).clamp(0, side), (side - ox).clamp(0, side));
            let (inside, source) = (first as usize..last.max(first) as usize, (first + ox).clamp(0, side) as usize);
            let border = from[if ox < 0 { 0 } else { (side - 1) as usize }];
            let count = inside.len();
            for (to, from) in to[inside.clone()].iter_mut().zip(&from[source.min(side as usize - count)..][..count]) {
                *to = to.max(from * zoom - lower);
            }
            for at in (0..inside.start).chain(inside.end..side as usize) {
                to[at] = to[at].max(border * zoom - lower);
            }
        }
    }
    above.iter().zip(&canvas.height).map(|(above, height)| (above - height * zoom).clamp(0.0, 1.0)).collect()
}

fn clouds(town: &Town, chance: &mut Chance, darkness: f32, shade: &mut [f32]) {
    let field = layered(chance, town.canvas.side, 150.0 * town.canvas.zoom, 2, 0.5);
    for (shade, cloud) in shade.iter_mut().zip(field) {
        let cloud = (3.0 * cloud + 0.2).clamp(0.0, 1.0) * darkness;
        *shade = 1.0 - (1.0 - *shade) * (1.0 - cloud);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use mentor_types::{Key, Season};

    #[test]
    fn a_tower_casts_a_shadow_of_its_height_away_from_the_sun() {
        let plan = Plan { zoom: 1.0, ..Plan::choose(Key::new(1), Season::Summer) };
        let mut town = Town::new(Key::new(1), plan, 64);
        town.canvas.height.fill(0.0);
        town.canvas.height[32 * 64 + 32] = 10.0;
        // The sun stands in the east, at 45 degrees: the shadow falls to the west.
        let shade = shadows(&town, [1.0, 0.0], 1.0);
        let row = &shade[32 * 64..33 * 64];
        assert!(row[23..32].iter().all(|shade| *shade > 0.9), "{row:?}");
        assert!(row[..22].iter().chain(&row[32..]).all(|shade| *shade < 0.1), "{row:?}");
        assert!(shade[31 * 64..32 * 64].iter().all(|shade| *shade == 0.0));
    }
}
