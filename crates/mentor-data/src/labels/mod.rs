//! Labels as this crate needs them: read from files, and taken along by the views of their image.
//!
//! A new kind of label is a file here, its table in a card, and what reads its files.

mod masks;

use std::fmt::Debug;
use std::ops::AddAssign;

use mentor_types::{CutBox, Geometry, Labels};

pub use self::masks::{LabelMap, PixelCounts};
use crate::card::Card;
use crate::error::DataError;
use crate::split::{Entry, LabelFiles, Split};

/// Labels that are read from files and follow the views of their image. Sizes are height and width, in pixels.
pub trait ReadLabels: Labels {
    /// What a card says of them. How it prints for debugging is a part of the fingerprint of its data.
    type Reader: Clone + Debug + Send + Sync + 'static;
    /// What there is of them in some images.
    type Counts: Clone + Debug + Default + PartialEq + AddAssign + Send + 'static;

    /// Where their files lie.
    fn files(card: &Card) -> LabelFiles<'_>;

    /// What a card says of them.
    ///
    /// # Errors
    /// Where it says nothing, or what means nothing.
    fn reader(card: &Card) -> Result<Self::Reader, DataError>;

    /// The labels of an image of a size; `None` where nobody labelled it. Where they are not `required` (they are only
    /// compared with), a file that does not exist is no error; one that is broken is bad all the same.
    ///
    /// # Errors
    /// One line with the path.
    fn read(
        reader: &Self::Reader,
        split: &Split,
        entry: &Entry,
        size: [usize; 2],
        required: bool,
    ) -> Result<Option<Self>, DataError>;

    /// Whether an image all of whose classes were labelled has, or may have, unknown parts.
    fn may_be_partial(reader: &Self::Reader, entry: &Entry) -> bool;

    /// The labels of an image that nobody labelled.
    fn unknown(size: [usize; 2]) -> Self;

    /// Makes unknown what belongs to none of these classes: it was looked at for them only, and is never background.
    fn only(&mut self, classes: &[u8]);

    /// Their size in memory.
    fn bytes(&self) -> usize;

    /// What a view shows of them, through the geometry that leads from it to the image; what lies beyond the image is
    /// `beyond`: ignored or unknown.
    fn view(&self, view_to_source: Geometry, view_size: [usize; 2], beyond: u8) -> Self;

    /// Adds the labels of the next view to those of a batch.
    fn push(self, targets: &mut Self::Targets);

    /// What leads from the strong view of an image to its weak one.
    fn link(
        strong_to_weak: Geometry,
        weak_to_source: Geometry,
        view_size: [usize; 2],
        source_size: [usize; 2],
    ) -> Self::Link;

    /// Adds the link of the next image, as [`ReadLabels::link`] makes it, to that of a batch.
    fn push_link(next: Self::Link, link: &mut Self::Link);

    /// Follows a box that was pasted from one strong view of a batch into another, at the same place; `before` is the link
    /// before anything was pasted.
    fn paste(link: &mut Self::Link, before: &Self::Link, view_size: [usize; 2], cut: CutBox, from: usize, to: usize);

    /// What there is of them in one image of a data set with so many classes.
    fn count(&self, classes: usize) -> Self::Counts;

    /// Whether anything belongs to a class.
    fn has_class(counts: &Self::Counts) -> bool;

    /// What is wrong with so many images without anything that belongs to a class, and as many bad ones.
    fn no_class(counts: &Self::Counts, images: usize, bad: usize) -> String;
}
