//! The size that images of all sizes are brought to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Found;

/// The size of the shorter side of an image; both sides are scaled alike, less where the longer one would become too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The shorter side, in pixels. For COCO 800 is published.
    pub short_px: usize,
    /// What the longer side has at most, in pixels. For COCO 1333 is published.
    pub long_px: usize,
}

impl Resize {
    /// By what both sides of an image of a height and width are multiplied.
    ///
    /// # Source
    /// `GeneralizedRCNNTransform` of torchvision, `Resize` with `keep_ratio` of mmdetection.
    #[must_use]
    pub fn factor(&self, [height, width]: [usize; 2]) -> f64 {
        let (short, long) = (height.min(width).max(1) as f64, height.max(width).max(1) as f64);
        (self.short_px as f64 / short).min(self.long_px as f64 / long)
    }

    /// The size of the resized image, height and width, to the nearest pixel.
    ///
    /// # Differs
    /// torchvision rounds down.
    #[must_use]
    pub fn size(&self, size: [usize; 2]) -> [usize; 2] {
        let factor = self.factor(size);
        size.map(|side| ((side as f64 * factor).round() as usize).max(1))
    }

    /// Reports sizes that are out of range as (key, message).
    pub fn check(&self, found: &mut Found) {
        for (key, value) in [("short_px", self.short_px), ("long_px", self.long_px)] {
            if !(1..=8192).contains(&value) {
                found.push((key.to_owned(), format!("is {value}, must be from 1 to 8192")));
            }
        }
        if self.long_px < self.short_px {
            found.push(("long_px".to_owned(), format!("is {}, below `short_px`", self.long_px)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: Resize = Resize { short_px: 800, long_px: 1333 };

    #[test]
    fn the_shorter_side_is_as_told_unless_the_longer_one_is_too_long() {
        for (size, resized) in [
            ([480, 640], [800, 1067]),
            ([640, 480], [1067, 800]),
            ([427, 640], [800, 1199]),
            ([300, 600], [667, 1333]),
            ([2000, 2000], [800, 800]),
            ([1, 5000], [1, 1333]),
        ] {
            assert_eq!(PUBLISHED.size(size), resized, "{size:?}");
        }
        assert!((PUBLISHED.factor([480, 640]) - 5.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn sizes_out_of_range_are_named() {
        let keys = |short_px, long_px| {
            let mut found = Found::new();
            Resize { short_px, long_px }.check(&mut found);
            found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(0, 9000), ["short_px", "long_px"]);
        assert_eq!(keys(800, 600), ["long_px"]);
        assert!(keys(800, 800).is_empty());
    }
}
