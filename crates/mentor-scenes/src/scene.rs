//! A whole scene.

use mentor_types::{Images, Key, LabelMask, Season};

use crate::chance::Chance;
use crate::labels::{self, Object};
use crate::plan::Plan;
use crate::town::Town;
use crate::{boats, buildings, camera, courts, ground, light, roads, trees, vehicles, water};

/// Which world this is: another version draws other scenes.
pub const VERSION: u32 = 1;

/// A picture with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The picture, `n` = 1.
    pub image: Images,
    /// The class of each pixel.
    pub mask: LabelMask,
    /// The things of which enough is seen.
    pub objects: Vec<Object>,
    /// The quality at which the camera keeps the picture as a JPEG file, 1 to 100.
    pub quality: u8,
}

/// Scene `index` of the world of `seed`, `size` pixels along a side: a larger one shows more of a town, no finer one.
///
/// # Panics
/// If `size` is not in `[16, 4096]`.
#[must_use]
pub fn draw(seed: u64, index: u64, size: usize, season: Season) -> Scene {
    assert!((16..=4096).contains(&size), "a scene of {size} pixels");
    let key = Key::new(seed).at("scenes", u64::from(VERSION)).at("scene", index);
    let mut town = Town::new(key, Plan::choose(key, season), 2 * size);
    ground::lay(&mut town);
    water::lay(&mut town);
    roads::lay(&mut town);
    roads::footpath(&mut town);
    courts::court(&mut town);
    courts::parking(&mut town);
    buildings::lay(&mut town);
    vehicles::lay(&mut town);
    boats::lay(&mut town);
    trees::lay(&mut town);
    let light = light::cast(&town);
    let rgb = camera::take(&light, size, &town.plan.lens, &mut Chance::new(key.at("camera", 0)));
    Scene {
        image: Images { n: 1, height: size, width: size, rgb },
        mask: labels::mask(&town.canvas),
        objects: labels::objects(&town.canvas),
        quality: town.plan.lens.quality,
    }
}
