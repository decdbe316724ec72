//! Boxes with three-state labels: a class, a region that counts nowhere, or classes nobody looked for.

/// The edges of a box in pixels from the upper left corner of its image: left, top, right, bottom.
pub type Edges = [f32; 4];

/// What stands in a labelled box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BoxKind {
    /// One object.
    #[default]
    Object,
    /// One object that need not be found: no loss, and neither a hit nor a miss (`difficult` in Pascal VOC).
    Difficult,
    /// Any number of objects of the class (`iscrowd` in COCO): no loss inside, and what is found there is no mistake.
    Crowd,
}

/// A labelled box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelBox {
    /// Its edges.
    pub edges: Edges,
    /// Its class, or [`IGNORE`](crate::IGNORE) for a crowd of any class.
    pub class: u8,
    /// What stands in it.
    pub kind: BoxKind,
    /// The area of the object in square pixels, by which scores tell sizes apart: that of its outline where the data set has
    /// one, else of the box.
    pub area: f32,
}

/// The labels of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxLabels {
    /// Its boxes, in the order of their file.
    pub boxes: Vec<LabelBox>,
    /// The classes that were looked for in the whole image, sorted; `None` where all were, `Some` of none where nobody
    /// looked. A place without a box is background for these alone; of the others nothing is known there.
    pub looked_for: Option<Vec<u8>>,
}

impl BoxLabels {
    /// The labels of an image that nobody looked at.
    #[must_use]
    pub fn unknown() -> Self {
        Self { boxes: Vec::new(), looked_for: Some(Vec::new()) }
    }

    /// Whether a class was looked for in the whole image.
    #[must_use]
    pub fn is_known(&self, class: u8) -> bool {
        self.looked_for.as_ref().is_none_or(|classes| classes.binary_search(&class).is_ok())
    }
}

/// A box that a detector found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Its edges.
    pub edges: Edges,
    /// Its class.
    pub class: u8,
    /// How sure the detector is, in `[0, 1]`.
    pub score: f32,
}
