//! Which image comes at which position of the stream.

use mentor_types::Key;
use rand::RngExt;

/// An endless stream of indices: every epoch visits each of `len` images once, in an order of its own.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    key: Key,
    len: usize,
    /// The epoch whose order is kept, once any position was asked for.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Sampler {
    /// A stream over `len` images.
    ///
    /// # Panics
    /// Where `len` is 0.
    pub fn new(key: Key, len: usize) -> Self {
        assert!(len > 0, "a sampler over no images");
        Self { key, len, epoch: None, order: Vec::new() }
    }

    /// The index at `position`, a function of key, length and position alone.
    pub fn index(&mut self, position: u64) -> usize {
        let len = self.len as u64;
        let epoch = position / len;
        if self.epoch != Some(epoch) {
            // Only the current epoch's order is kept: positions mostly rise.
            (self.epoch, self.order) = (Some(epoch), permutation(self.key.at("epoch", epoch), self.len));
        }
        self.order[(position % len) as usize]
    }
}

/// The numbers below `len` in an order drawn from the key (Fisher-Yates).
fn permutation(key: Key, len: usize) -> Vec<usize> {
    let mut rng = key.rng();
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        // 64 bits on every platform, so that the draw is the same.
        order.swap(last, rng.random_range(0..=last as u64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_visits_each_image_once_in_its_own_order() {
        let mut sampler = Sampler::new(Key::new(3), 20);
        let epochs: Vec<Vec<usize>> =
            (0..3).map(|epoch| (0..20).map(|i| sampler.index(epoch * 20 + i)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[1], epochs[2]);
        // Any position can be asked for at any time.
        assert_eq!(sampler.index(25), epochs[1][5]);
        assert_eq!(Sampler::new(Key::new(3), 20).index(45), epochs[2][5]);
        assert_eq!(Sampler::new(Key::new(3), 1).index(7), 0);
    }
}
