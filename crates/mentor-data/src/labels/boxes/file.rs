//! A file with the boxes of many images.

use std::collections::BTreeMap;
use std::path::Path;

use mentor_types::BoxLabels;

use crate::error::DataError;

/// What a file says of an image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Described {
    /// Height and width in pixels, where it says them.
    pub(super) size: Option<[usize; 2]>,
    /// Its labels.
    pub(super) labels: BoxLabels,
}

/// The images of a file, by their names there.
#[derive(Clone, Debug, Default)]
pub(super) struct BoxFile(BTreeMap<String, Described>);

impl BoxFile {
    /// What it says of the image at a path of a split: that of the longest end of the path, cut at slashes, which the file
    /// names, since files name images from a folder of theirs.
    pub(super) fn image(&self, path: &str) -> Option<&Described> {
        let ends = std::iter::once(path).chain(path.match_indices('/').map(|(slash, _)| &path[slash + 1..]));
        ends.filter_map(|end| self.0.get(end)).next()
    }
}
