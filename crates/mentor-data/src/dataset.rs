//! A card with the folders its files may lie in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::RgbImage;
use mentor_types::Images;
use rayon::prelude::*;

use crate::card::Card;
use crate::config::OnBadSample;
use crate::error::{BadSample, DataError, folders};
use crate::files::ask;
use crate::labels::ReadLabels;
use crate::read::{read_rgb, read_size};
use crate::split::{Entry, Split};

/// Splits whose files are at most this many bytes together are hashed by content.
const HASHED_BY_CONTENT_BYTES: u64 = 32 * 1024 * 1024;

/// A data set on the disk, with one kind of label.
#[derive(Clone, Debug)]
pub struct Dataset<L: ReadLabels> {
    card: Card,
    reader: L::Reader,
    places: Vec<PathBuf>,
}

/// One image with its labels, at the labels' own size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<L> {
    /// The image's path in the list.
    pub name: String,
    /// The image, `n` = 1.
    pub image: Images,
    /// Its labels: all unknown where nobody labelled it.
    pub labels: L,
    /// The classes that were labelled in this image, sorted; `None` where all were. Evaluation leaves the others out.
    pub classes_labelled: Option<Vec<u8>>,
}

/// What the labels of a split hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitStats<C> {
    /// Images read.
    pub images: usize,
    /// Images that have something of a class.
    pub labelled_images: usize,
    /// How much there is of what.
    pub counts: C,
    /// Bad samples, where they are skipped.
    pub bad: Vec<BadSample>,
}

impl<L: ReadLabels> Dataset<L> {
    /// A card, with its files searched in `roots` (each directly, then in its folder with the card's name), then beside
    /// the card. Those of a card whose files are drawn are in its folder and nowhere else.
    ///
    /// # Errors
    /// Where the card has no labels of this kind, or says of them what has two meanings.
    pub fn new(card: Card, roots: &[PathBuf]) -> Result<Self, DataError> {
        let card = L::classes_of(card);
        let reader = L::reader(&card)?;
        let roots = if card.scenes.is_some() { &[] } else { roots };
        let mut places: Vec<PathBuf> = roots.iter().flat_map(|root| [root.clone(), root.join(&card.name)]).collect();
        places.push(card.folder.clone());
        Ok(Self { card, reader, places })
    }

    /// The same, whose files of labels are refused for what is wrong in them, as they are by default, or used without it.
    #[must_use]
    pub fn on_bad_sample(mut self, on_bad: OnBadSample) -> Self {
        if on_bad == OnBadSample::Skip {
            L::skip_bad(&mut self.reader);
        }
        self
    }

    /// What people should know of the files of labels that were read so far, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        L::notes(&self.reader)
    }

    /// The files of labels read so far out of which something wrong was left, and what.
    #[must_use]
    pub fn left_out(&self) -> Vec<BadSample> {
        L::left_out(&self.reader)
    }

    /// The card.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// What the card says of the labels.
    #[must_use]
    pub fn reader(&self) -> &L::Reader {
        &self.reader
    }

    /// The images of a split, without looking for any.
    ///
    /// # Errors
    /// As [`Card::entries`].
    pub fn entries(&self, name: &str) -> Result<Vec<Entry>, DataError> {
        self.card.entries(name, &self.places, L::files(&self.card))
    }

    /// A split and the first folder that holds one of its images.
    ///
    /// # Errors
    /// Where the card's list is bad, or no place holds any of the images: every place is named.
    pub fn split(&self, name: &str) -> Result<Split, DataError> {
        let entries = self.entries(name)?;
        let holds = |place: &&PathBuf| entries.iter().any(|entry| place.join(&entry.image).is_file());
        match self.places.iter().find(holds) {
            Some(root) => Ok(Split { name: name.to_owned(), root: root.clone(), entries }),
            None => Err(DataError::NotFound {
                card: self.card.name.clone(),
                split: name.to_owned(),
                what: entries.first().map_or_else(String::new, |entry| format!("`{}`", entry.image)),
                searched: folders(&self.places),
                get: self.card.get.clone(),
            }),
        }
    }

    /// Reads one image and its labels.
    ///
    /// # Errors
    /// One line with the path.
    ///
    /// # Panics
    /// Where the split has no image `index`.
    pub fn sample(&self, split: &Split, index: usize) -> Result<Sample<L>, DataError> {
        let entry = &split.entries[index];
        let (image, labels) = self.decode(split, entry, true)?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        Ok(Sample {
            name: entry.image.clone(),
            image: Images { n: 1, height, width, rgb: image.into_raw() },
            labels,
            classes_labelled: entry.classes.clone(),
        })
    }

    /// The image and the labels of an entry. Where labels are not `required` (they are only compared with), those of a file
    /// that does not exist are unknown; one that is broken is bad all the same.
    pub(crate) fn decode(&self, split: &Split, entry: &Entry, required: bool) -> Result<(RgbImage, L), DataError> {
        let image = read_rgb(&split.image_path(entry))?;
        let labels = self.labels(split, entry, image.dimensions(), required)?;
        Ok((image, labels))
    }

    /// The labels of an entry whose image has the given width and height.
    fn labels(
        &self,
        split: &Split,
        entry: &Entry,
        (width, height): (u32, u32),
        required: bool,
    ) -> Result<L, DataError> {
        let size = [height as usize, width as usize];
        let Some(mut labels) = L::read(&self.reader, split, entry, size, required)? else {
            return Ok(L::unknown(size));
        };
        if let Some(classes) = &entry.classes {
            labels.only(classes);
        }
        Ok(labels)
    }

    /// Whether an entry of a split has, or by its card and list may have, unknown parts.
    pub(crate) fn may_be_partial(&self, split: &Split, entry: &Entry) -> Result<bool, DataError> {
        let some_only = entry.classes.as_ref().is_some_and(|classes| classes.len() < self.card.classes.len());
        Ok(some_only || L::may_be_partial(&self.reader, split, entry)?)
    }

    /// The same with the labels that another reader reads.
    #[must_use]
    pub(crate) fn read_by(&self, reader: L::Reader) -> Self {
        Self { reader, ..self.clone() }
    }

    /// Reads the labels of a split (of `at_most` images, in the order of the list) and counts them.
    ///
    /// # Errors
    /// The first bad sample of the list where bad ones are not skipped; a file that the system does not give out; and
    /// where nothing in the split belongs to a class, since nothing could be learnt or measured.
    pub fn verify_split(
        &self,
        split: &Split,
        on_bad: OnBadSample,
        at_most: Option<usize>,
    ) -> Result<SplitStats<L::Counts>, DataError> {
        let stats =
            self.stats(split, &split.entries[..at_most.unwrap_or(split.len()).min(split.len())], on_bad, true)?;
        if stats.labelled_images == 0 {
            let message = L::no_class(&stats.counts, stats.images, stats.bad.len());
            return Err(DataError::Split { card: self.card.name.clone(), split: split.name.clone(), message });
        }
        Ok(stats)
    }

    /// Reads the images of a split, as far as their sizes, and the labels that are there, and counts these: there need be none.
    ///
    /// # Errors
    /// As [`verify_split`](Self::verify_split), but not that nothing belongs to a class.
    pub fn verify_images(&self, split: &Split, on_bad: OnBadSample) -> Result<SplitStats<L::Counts>, DataError> {
        self.stats(split, &split.entries, on_bad, false)
    }

    fn stats(
        &self,
        split: &Split,
        entries: &[Entry],
        on_bad: OnBadSample,
        required: bool,
    ) -> Result<SplitStats<L::Counts>, DataError> {
        let counts: Vec<Result<L::Counts, DataError>> =
            entries.par_iter().map(|entry| self.count(split, entry, required)).collect();
        let mut stats = SplitStats { images: 0, labelled_images: 0, counts: L::Counts::default(), bad: Vec::new() };
        for counts in counts {
            match counts {
                Ok(counts) => {
                    stats.images += 1;
                    stats.labelled_images += usize::from(L::has_class(&counts));
                    stats.counts += counts;
                }
                Err(DataError::Bad(bad)) if on_bad == OnBadSample::Skip => stats.bad.push(bad),
                Err(error) => return Err(error),
            }
        }
        Ok(stats)
    }

    fn count(&self, split: &Split, entry: &Entry, required: bool) -> Result<L::Counts, DataError> {
        let size = read_size(&split.image_path(entry))?;
        Ok(self.labels(split, entry, size, required)?.count(self.card.classes.len()))
    }

    /// A hash of what a split holds, hexadecimal: the meaning of its labels, its list, and its files, by content where
    /// they are small together (32 MiB), else by size.
    ///
    /// # Errors
    /// Where the system does not give out a file that is there.
    pub fn fingerprint(&self, split: &Split) -> Result<String, DataError> {
        // Many images may have their labels in one file, which is read once.
        let mut known = BTreeSet::new();
        let labels = |entry: &Entry| split.label_path(entry);
        let paths = split.entries.iter().flat_map(|entry| [Some(split.image_path(entry)), labels(entry)]).flatten();
        let paths: Vec<PathBuf> = paths.filter(|path| known.insert(path.clone())).collect();
        let sizes = paths.par_iter().map(|path| if_there(path, || Ok(std::fs::metadata(path)?.len())));
        let sizes: Vec<Option<u64>> = sizes.collect::<Result<_, _>>()?;
        let small = sizes.iter().flatten().sum::<u64>() <= HASHED_BY_CONTENT_BYTES;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}\n", self.reader).as_bytes());
        for entry in &split.entries {
            hasher.update(format!("{}\t{:?}\t{:?}\n", entry.image, entry.label, entry.classes).as_bytes());
        }
        for (path, size) in paths.iter().zip(&sizes) {
            hasher.update(format!("{size:?}\n").as_bytes());
            if small && let Some(bytes) = if_there(path, || std::fs::read(path))? {
                hasher.update(&bytes);
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// What the system says of a path, `None` where nothing lies there.
fn if_there<T>(path: &Path, call: impl Fn() -> std::io::Result<T>) -> Result<Option<T>, DataError> {
    match ask(path, call) {
        Ok(answer) => Ok(Some(answer)),
        Err(DataError::Bad(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::tests::card;
    use mentor_types::LabelMask;

    #[test]
    fn a_fingerprint_is_of_the_data_whatever_the_form_of_their_card() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.txt"), "a.jpg a.png\nb.jpg b.png class_1\n").unwrap();
        for name in ["a.jpg", "a.png", "b.jpg", "b.png"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let mut card = card("format = \"index\"\nignore = [255]", 3).unwrap();
        card.folder = folder.path().to_owned();
        let dataset = Dataset::<LabelMask>::new(card, &[]).unwrap();
        // As it was when cards still said [labels]: results and runs from then are known by it.
        let before = "34cbb341fa85a4fda28bf0729df9ee61c57270bba1f5b40faa8e8a85252a4231";
        assert_eq!(dataset.fingerprint(&dataset.split("train").unwrap()).unwrap(), before);
    }
}
