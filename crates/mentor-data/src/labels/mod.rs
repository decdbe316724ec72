//! Labels as this crate needs them: read from files, and taken along by the views of their image.
//!
//! A new kind of label is a file here, its table in a card, and what reads its files.

mod boxes;
mod masks;

use std::fmt::Debug;
use std::ops::AddAssign;

use mentor_types::{CutBox, Geometry, Labels};

pub use self::boxes::{BoxCounts, BoxReader};
pub use self::masks::{LabelMap, PixelCounts};
use crate::card::Card;
use crate::config::{PseudoLabels, ViewsConfig};
use crate::error::{BadSample, DataError};
use crate::split::{Entry, LabelFiles, Split};

/// Labels that are read from files and follow the views of their image. Sizes are height and width, in pixels.
pub trait ReadLabels: Labels {
    /// What a card says of them. How it prints for debugging is a part of the fingerprint of its data.
    type Reader: Clone + Debug + Send + Sync + 'static;
    /// What there is of them in some images.
    type Counts: Clone + Debug + Default + PartialEq + AddAssign + Send + 'static;

    /// The table of a card that says how they are read.
    const TABLE: &'static str;
    /// How often something is pasted into a strong view, unless a recipe says it.
    const CUTMIX: f64;

    /// A card with those of its classes alone that have labels of this kind. Default: all.
    #[must_use]
    fn classes_of(card: Card) -> Card {
        card
    }

    /// Whether a card has that table.
    fn are_in(card: &Card) -> bool;

    /// What stands for a class in their files, for people; two cards that say the same mean the same class.
    fn stored_as(reader: &Self::Reader, class: u8) -> String;

    /// Where their files lie.
    fn files(card: &Card) -> LabelFiles<'_>;

    /// What a card says of them.
    ///
    /// # Errors
    /// Where it says nothing, or what means nothing.
    fn reader(card: &Card) -> Result<Self::Reader, DataError>;

    /// From now on leaves out of a file what is wrong in it, and uses the rest; else all of it is refused. Default: changes
    /// nothing, as where labels cannot be wrong in part.
    fn skip_bad(_: &mut Self::Reader) {}

    /// A reader that takes the labels of `images` from a file of pseudo-labels instead of the card's files; `None` where there is
    /// no such file for this kind of label. Default: there is none.
    ///
    /// # Errors
    /// The file cannot be used, or says nothing of one of the images.
    fn reader_of_pseudo(
        _reader: &Self::Reader,
        _pseudo: &PseudoLabels,
        _images: &[Entry],
    ) -> Result<Option<Self::Reader>, DataError> {
        Ok(None)
    }

    /// What people should know of the files that were read so far, a line each. Default: nothing.
    #[must_use]
    fn notes(_: &Self::Reader) -> Vec<String> {
        Vec::new()
    }

    /// The files read so far out of which something was left, and what. Default: none.
    #[must_use]
    fn left_out(_: &Self::Reader) -> Vec<BadSample> {
        Vec::new()
    }

    /// Pushes the settings of views that they cannot follow, or that change nothing about them: (key below `views`, message).
    /// Strong views matter only where `pairs` are made.
    fn check_views(views: &ViewsConfig, pairs: bool, problems: &mut Vec<(String, String)>);

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

    /// Whether an image of a split all of whose classes were labelled has, or may have, unknown parts.
    ///
    /// # Errors
    /// One line with the path, where that is said by a file that cannot be read.
    fn may_be_partial(reader: &Self::Reader, split: &Split, entry: &Entry) -> Result<bool, DataError>;

    /// The labels of an image that nobody labelled.
    fn unknown(size: [usize; 2]) -> Self;

    /// Makes unknown what belongs to none of these classes: it was looked at for them only, and is never background.
    fn only(&mut self, classes: &[u8]);

    /// Their size in memory.
    fn bytes(&self) -> usize;

    /// What a view of these settings shows of them, through the geometry that leads from it to the image; what lies beyond
    /// the image is `beyond`: ignored or unknown.
    fn view(&self, view_to_source: Geometry, views: &ViewsConfig, beyond: u8) -> Self;

    /// Whether a view of a size through a geometry shows at least a share of something that is labelled, or there is nothing
    /// such. Default: yes.
    fn shows(&self, _view_to_source: Geometry, _view_size: [usize; 2], _share: f64) -> bool {
        true
    }

    /// The labels of a view that is made of others, each in a rectangle of its own; together they fill it.
    #[must_use]
    fn join(parts: Vec<(CutBox, Self)>, view_size: [usize; 2]) -> Self;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    use crate::batches::{BatchMaker, BatchPlan};
    use crate::config::{DataConfig, OnBadSample, StrongConfig};
    use crate::dataset::Dataset;
    use mentor_types::{Images, MAX_CLASSES, UNKNOWN};

    /// A second kind of label: points with a class, lines of `x y class` in a file beside the image.
    #[derive(Clone, Debug, PartialEq)]
    struct Points(Vec<([f64; 2], u8)>);

    impl Labels for Points {
        type Targets = Vec<Points>;
        type Link = Vec<Geometry>;
    }

    impl ReadLabels for Points {
        type Reader = ();
        type Counts = usize;

        const TABLE: &'static str = "points";
        const CUTMIX: f64 = 0.0;

        fn are_in(_: &Card) -> bool {
            true
        }

        fn stored_as((): &(), class: u8) -> String {
            class.to_string()
        }

        fn files(_: &Card) -> LabelFiles<'_> {
            LabelFiles::default()
        }

        fn reader(_: &Card) -> Result<(), DataError> {
            Ok(())
        }

        fn check_views(_: &ViewsConfig, _: bool, _: &mut Vec<(String, String)>) {}

        fn read((): &(), split: &Split, entry: &Entry, _: [usize; 2], _: bool) -> Result<Option<Self>, DataError> {
            let Some(path) = split.label_path(entry) else { return Ok(None) };
            let text = std::fs::read_to_string(&path).map_err(|error| DataError::io(&path, error))?;
            let point = |line: &str| {
                let mut numbers = line.split(' ').map(str::parse::<f64>);
                let mut number = || numbers.next()?.ok();
                Some(([number()?, number()?], number()? as u8))
            };
            let points = text.lines().map(|line| point(line).ok_or_else(|| BadSample::new(&path, line)));
            Ok(Some(Self(points.collect::<Result<_, _>>()?)))
        }

        fn may_be_partial((): &(), _: &Split, entry: &Entry) -> Result<bool, DataError> {
            Ok(entry.label.is_none())
        }

        fn unknown(_: [usize; 2]) -> Self {
            Self(Vec::new())
        }

        fn only(&mut self, classes: &[u8]) {
            self.0.iter_mut().filter(|(_, class)| !classes.contains(class)).for_each(|(_, class)| *class = UNKNOWN);
        }

        fn bytes(&self) -> usize {
            size_of_val(self.0.as_slice())
        }

        fn view(&self, view_to_source: Geometry, views: &ViewsConfig, _: u8) -> Self {
            let [height, width] = views.crop_px;
            let to_view = view_to_source.inverse();
            let inside = |[x, y]: [f64; 2]| (0.0..width as f64).contains(&x) && (0.0..height as f64).contains(&y);
            let moved = self.0.iter().map(|(point, class)| (to_view.apply(*point), *class));
            Self(moved.filter(|(point, _)| inside(*point)).collect())
        }

        fn join(parts: Vec<(CutBox, Self)>, _: [usize; 2]) -> Self {
            panic!("nothing is joined here: {parts:?}");
        }

        fn push(self, targets: &mut Vec<Self>) {
            targets.push(self);
        }

        fn link(strong_to_weak: Geometry, _: Geometry, _: [usize; 2], _: [usize; 2]) -> Vec<Geometry> {
            vec![strong_to_weak]
        }

        fn push_link(next: Vec<Geometry>, link: &mut Vec<Geometry>) {
            link.extend(next);
        }

        fn paste(_: &mut Vec<Geometry>, _: &Vec<Geometry>, _: [usize; 2], cut: CutBox, _: usize, _: usize) {
            panic!("nothing is pasted here: {cut:?}");
        }

        fn count(&self, classes: usize) -> usize {
            self.0.iter().filter(|(_, class)| usize::from(*class) < classes.min(MAX_CLASSES)).count()
        }

        fn has_class(counts: &usize) -> bool {
            *counts > 0
        }

        fn no_class(_: &usize, images: usize, bad: usize) -> String {
            format!("no point in {images} images ({bad} bad)")
        }
    }

    /// Whether the pixel at a point of a batch's image is the marked one.
    fn is_marked(images: &Images, sample: usize, [x, y]: [f64; 2]) -> bool {
        let place = (sample * images.height + y as usize) * images.width + x as usize;
        images.rgb[3 * place] > 200
    }

    fn dataset(folder: &Path) -> Dataset<Points> {
        for (name, [x, y]) in [("a", [3, 9]), ("b", [12, 2])] {
            let mark = image::Rgb([255, 0, 0]);
            let mut photo = image::RgbImage::new(16, 16);
            photo.put_pixel(x, y, mark);
            photo.save(folder.join(format!("{name}.png"))).unwrap();
            let text = format!("{}.5 {}.5 1\n5.5 5.5 0\n", x, y);
            std::fs::write(folder.join(format!("{name}.txt")), text).unwrap();
        }
        std::fs::write(folder.join("train.txt"), "a.png a.txt class_1\nb.png b.txt class_1\n").unwrap();
        let card = crate::card::tests::card("format = \"index\"", 2).unwrap();
        Dataset::new(Card { folder: folder.to_owned(), ..card }, &[]).unwrap()
    }

    #[test]
    fn another_kind_of_label_is_read_follows_its_views_and_goes_from_the_weak_to_the_strong_one() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Arc::new(dataset(folder.path()));
        let split = dataset.split("train").unwrap();
        assert_eq!(dataset.sample(&split, 1).unwrap().labels, Points(vec![([12.5, 2.5], 1), ([5.5, 5.5], UNKNOWN)]));
        assert_eq!(dataset.verify_split(&split, OnBadSample::Fail, None).unwrap().counts, 2);
        let strong = StrongConfig {
            jitter_probability: 0.0,
            grey: 0.0,
            blur: 0.0,
            cutmix: Some(0.0),
            flip: Some(0.5),
            shift: Some(0.1),
            ..StrongConfig::default()
        };
        let views = ViewsConfig { scale: [1.0, 1.0], strong: Some(strong), ..ViewsConfig::of_size([20, 18]) };
        let data: DataConfig = toml::from_str("card = \"t\"\nlabelled = \"train\"\nval = \"train\"").unwrap();
        let plan = BatchPlan { seed: 5, batch_labelled: 2, batch_unlabelled: 2, accumulate: 1 };
        let maker = BatchMaker::new(dataset, &data, &views, plan).unwrap();
        let mut flipped = 0;
        for step in 0..8 {
            let batch = maker.make(step, 0).unwrap();
            for (sample, points) in batch.labelled.targets.iter().enumerate() {
                assert!(is_marked(&batch.labelled.images, sample, points.0[0].0));
            }
            let pairs = batch.unlabelled.unwrap();
            for (sample, (points, strong_to_weak)) in pairs.targets.iter().zip(&pairs.link).enumerate() {
                let weak = points.0[0].0;
                let strong = strong_to_weak.inverse().apply(weak);
                assert!(is_marked(&pairs.weak, sample, weak));
                let inside = (0.0..18.0).contains(&strong[0]) && (0.0..20.0).contains(&strong[1]);
                assert!(!inside || is_marked(&pairs.strong, sample, strong));
                flipped += usize::from(strong_to_weak.scale[0] < 0.0);
            }
        }
        assert!((1..16).contains(&flipped), "{flipped}");
    }
}
