//! Randomness as a function of (seed, step, sample, purpose), never of a thread or a clock.

use rand::SeedableRng;

/// The generator that a [`Key`] opens: ChaCha with eight rounds, the same stream on every platform.
pub type KeyRng = rand_chacha::ChaCha8Rng;

/// A path of names and numbers below a seed that opens one stream of random numbers.
///
/// Two keys with the same path give the same stream; any difference in the path gives an
/// independent one. Keys are cheap to derive and to copy, so every draw has a key of its own:
///
/// ```
/// use mentor_types::Key;
/// use rand::RngExt;
/// let sample = Key::new(7).at("step", 12).at("sample", 3);
/// let flip: bool = sample.at("flip", 0).rng().random();
/// assert_eq!(flip, sample.at("flip", 0).rng().random::<bool>());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The root key of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(*blake3::hash(&seed.to_le_bytes()).as_bytes())
    }

    /// The key one level down: `name` says what the number counts.
    #[must_use]
    pub fn at(&self, name: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&number.to_le_bytes());
        hasher.update(name.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Opens the stream of this key from its beginning.
    #[must_use]
    pub fn rng(&self) -> KeyRng {
        KeyRng::from_seed(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn equal_paths_give_equal_streams_and_others_differ() {
        let draw = |key: Key| key.rng().next_u64();
        let key = Key::new(1).at("step", 2).at("sample", 3);
        assert_eq!(draw(key), draw(Key::new(1).at("step", 2).at("sample", 3)));
        for other in [
            Key::new(2).at("step", 2).at("sample", 3),
            Key::new(1).at("step", 3).at("sample", 2),
            Key::new(1).at("steps", 2).at("sample", 3),
            Key::new(1).at("step", 2),
        ] {
            assert_ne!(draw(key), draw(other));
        }
    }

    #[test]
    fn a_stream_is_fixed_for_all_time() {
        // A change here changes every run of every recipe: it belongs in the changelog.
        assert_eq!(Key::new(0).at("step", 1).rng().next_u64(), FIRST_DRAW);
    }

    const FIRST_DRAW: u64 = 5_215_945_957_143_506_709;
}
