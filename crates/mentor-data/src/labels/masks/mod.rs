//! Masks: one label for each pixel.

mod map;
mod views;

use std::ops::AddAssign;
use std::path::Path;

use mentor_types::{CutBox, Geometry, IGNORE, LabelMask, MAX_CLASSES, UNKNOWN};

pub use self::map::LabelMap;
use super::ReadLabels;
use crate::card::Card;
use crate::config::ViewsConfig;
use crate::dataset::Dataset;
use crate::error::{BadSample, DataError};
use crate::files::exists;
use crate::read::read_mask;
use crate::split::{Entry, LabelFiles, Split};

/// How many pixels there are of each label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PixelCounts {
    /// Pixels by class.
    pub classes: Vec<u64>,
    /// Ignored pixels.
    pub ignored: u64,
    /// Unknown pixels.
    pub unknown: u64,
}

impl AddAssign for PixelCounts {
    fn add_assign(&mut self, other: Self) {
        self.classes.resize(self.classes.len().max(other.classes.len()), 0);
        self.classes.iter_mut().zip(other.classes).for_each(|(sum, pixels)| *sum += pixels);
        self.ignored += other.ignored;
        self.unknown += other.unknown;
    }
}

impl ReadLabels for LabelMask {
    type Reader = LabelMap;
    type Counts = PixelCounts;

    const TABLE: &'static str = "masks";
    const CUTMIX: f64 = 0.5;

    fn are_in(card: &Card) -> bool {
        card.masks.is_some()
    }

    fn stored_as(map: &LabelMap, class: u8) -> String {
        map.stored_as(class)
    }

    fn files(card: &Card) -> LabelFiles<'_> {
        card.masks.as_ref().map_or_else(LabelFiles::default, |masks| LabelFiles {
            root: &masks.root,
            path: masks.path.as_deref(),
            replace_column: masks.replace_column,
            one_a_split: false,
        })
    }

    fn reader(card: &Card) -> Result<LabelMap, DataError> {
        card.label_map()
    }

    fn check_views(views: &ViewsConfig, _: bool, problems: &mut Vec<(String, String)>) {
        for (key, share) in [("visible_share", views.visible_share), ("keep_box", views.keep_box)] {
            if share.is_some() {
                problems.push((key.to_owned(), "has no effect: masks have no boxes".to_owned()));
            }
        }
    }

    fn read(
        map: &LabelMap,
        split: &Split,
        entry: &Entry,
        [height, width]: [usize; 2],
        required: bool,
    ) -> Result<Option<Self>, DataError> {
        let Some(path) = split.label_path(entry) else { return Ok(None) };
        if !required && !exists(&path)? {
            return Ok(None);
        }
        let mask = read_mask(&path, map)?;
        if (mask.width(), mask.height()) != (width, height) {
            let (mask_width, mask_height) = (mask.width(), mask.height());
            let turned = (mask_width, mask_height) == (height, width);
            let hint = if turned {
                " (photos are turned upright by their EXIF orientation: was this mask drawn over the pixels as they are stored?)"
            } else {
                ""
            };
            let reason = format!("the mask is {mask_width} x {mask_height} pixels, its image {width} x {height}{hint}");
            return Err(BadSample::new(&path, reason).into());
        }
        Ok(Some(mask))
    }

    fn may_be_partial(map: &LabelMap, _: &Split, entry: &Entry) -> Result<bool, DataError> {
        Ok(entry.label.is_none() || map.raw_value(UNKNOWN).is_some())
    }

    fn unknown([height, width]: [usize; 2]) -> Self {
        Self::filled(width, height, UNKNOWN)
    }

    fn only(&mut self, classes: &[u8]) {
        for label in self.labels_mut() {
            if usize::from(*label) < MAX_CLASSES && !classes.contains(label) {
                *label = UNKNOWN;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.labels().len()
    }

    fn view(&self, view_to_source: Geometry, views: &ViewsConfig, beyond: u8) -> Self {
        let [height, width] = views.crop_px;
        Self::new(width, height, views::resample(self, view_to_source, [height, width], beyond))
    }

    fn join(parts: Vec<(CutBox, Self)>, [height, width]: [usize; 2]) -> Self {
        let mut whole = Self::filled(width, height, UNKNOWN);
        for (cut, part) in parts {
            for (row, line) in part.labels().chunks_exact(cut.width).enumerate() {
                let start = (cut.y + row) * width + cut.x;
                whole.labels_mut()[start..start + cut.width].copy_from_slice(line);
            }
        }
        whole
    }

    fn push(self, targets: &mut Vec<u8>) {
        targets.extend(self.into_labels());
    }

    fn link(
        strong_to_weak: Geometry,
        weak_to_source: Geometry,
        view_size: [usize; 2],
        source_size: [usize; 2],
    ) -> Vec<i32> {
        views::origin(strong_to_weak, weak_to_source, view_size, source_size)
    }

    fn push_link(next: Vec<i32>, link: &mut Vec<i32>) {
        let first = i32::try_from(link.len()).unwrap_or(i32::MAX);
        link.extend(next.into_iter().map(|place| if place < 0 { -1 } else { place + first }));
    }

    fn paste(link: &mut Vec<i32>, before: &Vec<i32>, [height, width]: [usize; 2], cut: CutBox, from: usize, to: usize) {
        for y in cut.y..cut.y + cut.height {
            let [from, to] = [from, to].map(|sample| (sample * height + y) * width + cut.x);
            link[to..to + cut.width].copy_from_slice(&before[from..from + cut.width]);
        }
    }

    fn count(&self, classes: usize) -> PixelCounts {
        let mut pixels = [0; 256];
        for label in self.labels() {
            pixels[usize::from(*label)] += 1;
        }
        PixelCounts {
            classes: pixels[..classes].to_vec(),
            ignored: pixels[usize::from(IGNORE)],
            unknown: pixels[usize::from(UNKNOWN)],
        }
    }

    fn has_class(counts: &PixelCounts) -> bool {
        counts.classes.iter().any(|pixels| *pixels > 0)
    }

    fn no_class(counts: &PixelCounts, images: usize, bad: usize) -> String {
        format!(
            "no pixel belongs to a class in {images} images ({} ignored, {} unknown pixels, {bad} bad samples); \
             compare [masks] of the card with the values in the masks",
            counts.ignored, counts.unknown
        )
    }
}

impl Dataset<LabelMask> {
    /// The meaning of the values in its masks.
    #[must_use]
    pub fn label_map(&self) -> &LabelMap {
        self.reader()
    }

    /// Reads a mask that any tool wrote in the card's format.
    ///
    /// # Errors
    /// One line with the path.
    pub fn read_mask(&self, path: &Path) -> Result<LabelMask, DataError> {
        read_mask(path, self.reader())
    }
}
