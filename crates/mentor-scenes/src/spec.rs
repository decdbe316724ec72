//! Which scenes a set holds, and how its splits share them out.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mentor_types::Season;

use crate::scene::VERSION;
use crate::writer::SetError;

/// Which scenes a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// Which world.
    pub seed: u64,
    /// How many scenes, all splits together: 1024 to train on, 2048 without use of their labels, 400 for val and test
    /// each, or as many of each as come to `count`.
    pub count: u64,
    /// Pixels along a side.
    pub size: usize,
    /// When they are seen.
    pub season: Season,
}

impl SetSpec {
    /// A whole set.
    pub const COUNT: u64 = 3872;
    /// Pixels along a side, where nobody says otherwise.
    pub const SIZE: usize = 160;

    /// The names of the splits that share all scenes out, each with those in it, one after the other.
    pub(crate) fn splits(&self) -> [(&'static str, Range<u64>); 4] {
        let of = |share: u64| (self.count * share / Self::COUNT).max(1);
        let (train, val) = (of(1024), of(400));
        let [val, test] = [self.count - 2 * val..self.count - val, self.count - val..self.count];
        [("train", 0..train), ("unlabelled", train..val.start), ("val", val), ("test", test)]
    }

    /// Where it is kept below a cache: a folder of this version and no other set.
    #[must_use]
    pub fn folder(&self, cache: &Path) -> PathBuf {
        let Self { seed, count, size, season } = self;
        cache.join("scenes").join(format!("world{VERSION}-seed{seed}-{count}x{size}px-{}", season.as_str()))
    }

    /// # Errors
    /// Fewer than four scenes, or more than a million; a size that is not in `[32, 2048]`.
    pub(crate) fn check(&self) -> Result<(), SetError> {
        let Self { count, size, .. } = self;
        if *count < 4 {
            return Err(SetError::Spec(format!("a set has at least 4 scenes, one for each split, found {count}")));
        }
        if *count > 1_000_000 {
            return Err(SetError::Spec(format!("a set has at most 1000000 scenes, found {count}")));
        }
        if !(32..=2048).contains(size) {
            return Err(SetError::Spec(format!("a scene has 32 to 2048 pixels along a side, found {size}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: SetSpec = SetSpec { seed: 1, count: 12, size: 32, season: Season::Summer };

    #[test]
    fn splits_cover_all_scenes_once() {
        for count in [4, 5, 100, 1000, SetSpec::COUNT] {
            let splits = SetSpec { count, ..SPEC }.splits();
            let mut next = 0;
            for (name, scenes) in &splits {
                assert!(scenes.start == next && scenes.end > next, "{name} of {count}: {scenes:?}");
                next = scenes.end;
            }
            assert_eq!(next, count);
        }
        let whole = SetSpec { count: SetSpec::COUNT, ..SPEC }.splits();
        assert_eq!(
            whole.iter().map(|(_, scenes)| scenes.end - scenes.start).collect::<Vec<_>>(),
            [1024, 2048, 400, 400]
        );
    }
}
