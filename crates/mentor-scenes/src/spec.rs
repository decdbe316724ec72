//! Which scenes a set holds, and how its parts share them out.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mentor_types::Season;

use crate::scene::VERSION;
use crate::writer::SetError;

/// A part of a set: all scenes are in one of them, and each has a folder of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To train on.
    Train,
    /// To train on without their labels, by which pseudo-labels can be judged.
    Unlabelled,
    /// To choose by.
    Val,
    /// To look at once.
    Test,
}

impl Part {
    /// All.
    pub const ALL: [Self; 4] = [Self::Train, Self::Unlabelled, Self::Val, Self::Test];

    /// The name of its folder, and of the split that is all of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Unlabelled => "unlabelled",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    /// The part in whose folder a file of a set lies, by the file's path below the set.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let (folder, _) = path.split_once('/')?;
        Self::ALL.into_iter().find(|part| part.as_str() == folder)
    }
}

/// Which scenes a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// Which world.
    pub seed: u64,
    /// How many scenes, all parts together: 1024 to train on, 2048 without use of their labels, 400 for val and test
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

    /// The scenes of a part: the parts come one after the other.
    pub(crate) fn scenes(&self, part: Part) -> Range<u64> {
        let of = |share: u64| (self.count * share / Self::COUNT).max(1);
        let (train, val) = (of(1024), of(400));
        match part {
            Part::Train => 0..train,
            Part::Unlabelled => train..self.count - 2 * val,
            Part::Val => self.count - 2 * val..self.count - val,
            Part::Test => self.count - val..self.count,
        }
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
            return Err(SetError::Spec(format!("a set has at least 4 scenes, one for each part, found {count}")));
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
    fn parts_cover_all_scenes_once() {
        for count in [4, 5, 100, 1000, SetSpec::COUNT] {
            let mut next = 0;
            for part in Part::ALL {
                let scenes = SetSpec { count, ..SPEC }.scenes(part);
                assert!(scenes.start == next && scenes.end > next, "{part:?} of {count}: {scenes:?}");
                next = scenes.end;
            }
            assert_eq!(next, count);
        }
        let whole = SetSpec { count: SetSpec::COUNT, ..SPEC };
        let counts = Part::ALL.map(|part| whole.scenes(part)).map(|scenes| scenes.end - scenes.start);
        assert_eq!(counts, [1024, 2048, 400, 400]);
    }

    #[test]
    fn a_path_leads_to_its_part() {
        assert_eq!(Part::of_path("train/train_1_8.txt"), Some(Part::Train));
        assert_eq!(Part::of_path("val/images/000001.jpg"), Some(Part::Val));
        assert_eq!([Part::of_path("train.txt"), Part::of_path("my/train.txt")], [None, None]);
    }
}
