//! A scene while it is painted.

use mentor_types::Key;

use crate::canvas::{Canvas, FAR, Pose};
use crate::chance::Chance;
use crate::colour::{Colour, scaled};
use crate::plan::{Plan, Soil};
use crate::soil::{Grain, Ground};
use crate::way::Road;

/// What is there so far.
#[derive(Debug)]
pub(crate) struct Town {
    key: Key,
    pub(crate) plan: Plan,
    pub(crate) canvas: Canvas,
    pub(crate) grain: Grain,
    /// How far inside the water each pixel lies; negative on land, far from it where there is none.
    pub(crate) shore: Vec<f32>,
    pub(crate) roads: Vec<Road>,
    /// How far beyond the edge of the nearest road each pixel lies; negative on it.
    pub(crate) beside_road: Vec<f32>,
    /// Where cars are parked: x, y and direction.
    pub(crate) stalls: Vec<[f32; 3]>,
    /// Yards with a hedge around.
    pub(crate) hedges: Vec<(Pose, [f32; 2])>,
}

impl Town {
    pub(crate) fn new(key: Key, plan: Plan, side: usize) -> Self {
        let canvas = Canvas::new(side, plan.zoom);
        let pixels = side * side;
        Self {
            key,
            grain: Grain::new(&mut Chance::new(key.at("grain", 0)), &canvas),
            plan,
            canvas,
            shore: vec![-FAR; pixels],
            roads: Vec::new(),
            beside_road: vec![FAR; pixels],
            stalls: Vec::new(),
            hedges: Vec::new(),
        }
    }

    /// The draws of a topic.
    pub(crate) fn chance(&self, topic: &str) -> Chance {
        Chance::new(self.key.at(topic, 0))
    }

    /// A kind of ground with its texture.
    pub(crate) fn soil(&self, chance: &mut Chance, soil: Soil) -> Ground {
        Ground::new(chance, &self.plan, &self.canvas, soil)
    }

    /// A colour with the fine grain of what lies outside.
    pub(crate) fn grained(&self, at: usize, colour: Colour, fine: f32, coarse: f32) -> Colour {
        scaled(colour, 1.0 + fine * self.grain.fine[at] + coarse * self.grain.coarse[at])
    }

    /// Paints a flat thing of a class: its colour, and no slope.
    pub(crate) fn paint(&mut self, at: usize, colour: Colour, class: u8) {
        self.canvas.albedo[at] = colour;
        self.canvas.class[at] = class;
        self.canvas.slope[at] = [0.0; 2];
    }
}
