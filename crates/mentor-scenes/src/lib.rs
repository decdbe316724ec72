//! Small towns seen from above: pictures with exact masks, boxes and instances, from nothing but a seed.
//!
//! A scene is a function of ([`VERSION`], seed, index, season). A plan says what there is and in what light (`plan.rs`);
//! then everything is painted, one topic a file, in the order of `scene.rs`, into planes of twice the size: albedo, height,
//! slopes, class, instance (`canvas.rs`). Light is one pass over the heights (`light.rs`), so that shadows fall on roofs, cars
//! and water without special cases; the camera comes last (`camera.rs`) and sees nothing but light. Labels are read from the
//! planes (`labels.rs`).
//!
//! Each topic draws from a stream of its own, keyed by its name: another season has the same streets, houses and cars.
//! Arithmetic is IEEE's in a fixed order, functions beyond it are those of `libm`: the same bits everywhere.

mod boats;
mod buildings;
mod camera;
mod canvas;
mod chance;
mod classes;
mod colour;
mod courts;
mod ground;
mod kept;
mod labels;
mod layout;
mod light;
mod noise;
mod partial;
mod plan;
mod roads;
mod scene;
mod set;
mod soil;
mod spec;
mod town;
mod trees;
mod vehicles;
mod water;
mod way;
mod writer;

pub use classes::{CLASSES, COLOURS, THINGS};
pub use kept::{News, kept_set};
pub use labels::Object;
pub use scene::{Scene, VERSION, draw};
pub use set::write_set;
pub use spec::{Part, SetSpec};
pub use writer::SetError;
