//! Decoded images kept in memory, up to a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;

use crate::labels::ReadLabels;

/// An image with its labels, before any view of it.
#[derive(Debug)]
pub(crate) struct Decoded<L> {
    pub image: RgbImage,
    pub labels: L,
    /// Labels from a file of pseudo-labels, where the image has such.
    pub pseudo: Option<L>,
}

impl<L: ReadLabels> Decoded<L> {
    fn bytes(&self) -> usize {
        self.image.as_raw().len() + self.labels.bytes() + self.pseudo.as_ref().map_or(0, L::bytes)
    }
}

/// Keeps what comes first until it is full, and then no more: an epoch visits every image once, so throwing out the
/// oldest would throw out exactly what comes next.
#[derive(Debug)]
pub(crate) struct Cache<L> {
    limit: usize,
    kept: Mutex<Kept<L>>,
}

/// What is kept, and how much memory it takes.
#[derive(Debug)]
struct Kept<L> {
    bytes: usize,
    images: BTreeMap<usize, Arc<Decoded<L>>>,
}

impl<L: ReadLabels> Cache<L> {
    pub fn new(megabytes: usize) -> Self {
        Self { limit: megabytes << 20, kept: Mutex::new(Kept { bytes: 0, images: BTreeMap::new() }) }
    }

    /// The image under `key`, decoded now unless it is kept.
    pub fn get<E>(&self, key: usize, decode: impl FnOnce() -> Result<Decoded<L>, E>) -> Result<Arc<Decoded<L>>, E> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = lock().images.get(&key) {
            return Ok(kept.clone());
        }
        let decoded = Arc::new(decode()?);
        let mut kept = lock();
        if kept.bytes + decoded.bytes() <= self.limit && kept.images.insert(key, decoded.clone()).is_none() {
            kept.bytes += decoded.bytes();
        }
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_types::LabelMask;

    #[test]
    fn it_keeps_images_up_to_its_bound() {
        let cache = Cache::new(1);
        let decodes = Mutex::new(0);
        let get = |key| {
            let decode = || {
                *decodes.lock().unwrap() += 1;
                // 600 kB each: one fits into 1 MiB, two do not.
                Ok::<_, ()>(Decoded {
                    image: RgbImage::new(500, 300),
                    labels: LabelMask::filled(500, 300, 0),
                    pseudo: None,
                })
            };
            cache.get(key, decode).unwrap();
            *decodes.lock().unwrap()
        };
        assert_eq!([get(0), get(0), get(1), get(1), get(0)], [1, 1, 2, 3, 3]);
    }
}
