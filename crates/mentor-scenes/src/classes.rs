//! The classes.

/// The classes of masks, by number.
pub const CLASSES: [&str; 7] = ["ground", "road", "building", "tree", "water", "car", "boat"];

/// Their colours.
pub const COLOURS: [[u8; 3]; 7] =
    [[214, 196, 140], [96, 96, 110], [220, 84, 60], [52, 140, 70], [50, 120, 205], [240, 200, 40], [240, 240, 250]];

/// The classes of things, by number: those with boxes.
pub const THINGS: [u8; 4] = [BUILDING, TREE, CAR, BOAT];

// Their numbers.
pub(crate) const GROUND: u8 = 0;
pub(crate) const ROAD: u8 = 1;
pub(crate) const BUILDING: u8 = 2;
pub(crate) const TREE: u8 = 3;
pub(crate) const WATER: u8 = 4;
pub(crate) const CAR: u8 = 5;
pub(crate) const BOAT: u8 = 6;
