//! Batches as a pure function of (seed, step).

use std::sync::{Arc, Mutex, PoisonError};

use mentor_types::{Batch, Images, Key, Pairs, Samples};
use rayon::prelude::*;

use crate::cache::{Cache, Decoded};
use crate::config::{DataConfig, OnBadSample, ViewsConfig};
use crate::dataset::Dataset;
use crate::error::{BadSamples, DataError};
use crate::labels::ReadLabels;
use crate::sampler::Sampler;
use crate::split::Split;
use crate::views;

/// How many images a step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// The seed of the run.
    pub seed: u64,
    /// Labelled images of one micro-batch.
    pub batch_labelled: usize,
    /// Unlabelled images of one micro-batch; 0 where the recipe has no such stream.
    pub batch_unlabelled: usize,
    /// Micro-batches of one step.
    pub accumulate: usize,
}

/// The two streams of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Labelled,
    Unlabelled,
}

impl Stream {
    /// The root of what is random in it.
    fn key(self, seed: u64) -> Key {
        let name = match self {
            Self::Labelled => "labelled",
            Self::Unlabelled => "unlabelled",
        };
        Key::new(seed).at(name, 0)
    }
}

/// Makes any batch of a run: the same bytes for the same seed, step and micro-batch, whoever asks and when.
#[derive(Debug)]
pub struct BatchMaker<L: ReadLabels> {
    dataset: Arc<Dataset<L>>,
    labelled: Split,
    unlabelled: Option<Split>,
    /// The data set with the pseudo-labels of the unlabelled split, where there are any.
    pseudo: Option<Dataset<L>>,
    /// Images of the unlabelled stream: below the length of the labelled split an image of that one with unknown parts, from
    /// there on one of the unlabelled split.
    pool: Vec<usize>,
    /// The order of each stream, kept from one micro-batch to the next; `None` for a stream that takes no image.
    orders: [Option<Mutex<Sampler>>; 2],
    views: ViewsConfig,
    plan: BatchPlan,
    on_bad: OnBadSample,
    cache: Cache<L>,
    bad: BadSamples,
}

impl<L: ReadLabels> BatchMaker<L> {
    /// A maker for a run's splits.
    ///
    /// # Errors
    /// Where a split cannot be opened, or unlabelled images are asked for and there are none; a file of pseudo-labels that cannot
    /// be used, or lacks an image.
    pub fn new(
        dataset: Arc<Dataset<L>>,
        data: &DataConfig,
        views: &ViewsConfig,
        plan: BatchPlan,
    ) -> Result<Self, DataError> {
        let labelled = dataset.split(&data.labelled)?;
        let unlabelled = data.unlabelled.as_ref().map(|name| dataset.split(name)).transpose()?;
        let pseudo = match (&data.pseudo_labels, &unlabelled) {
            (Some(pseudo), Some(split)) => {
                let reader = L::reader_of_pseudo(dataset.reader(), pseudo, &split.entries)?;
                reader.map(|reader| dataset.read_by(reader))
            }
            _ => None,
        };
        let mut pool = Vec::new();
        for (index, entry) in labelled.entries.iter().enumerate() {
            if dataset.may_be_partial(&labelled, entry)? {
                pool.push(index);
            }
        }
        let rest = 0..unlabelled.as_ref().map_or(0, Split::len);
        pool.extend(rest.map(|index| labelled.len() + index));
        if plan.batch_unlabelled > 0 && pool.is_empty() {
            return Err(DataError::Setting {
                key: "data.unlabelled".to_owned(),
                message: format!(
                    "is not set and every image of `{}` is labelled in full, but each step takes {} unlabelled images",
                    data.labelled, plan.batch_unlabelled
                ),
            });
        }
        let order = |stream: Stream, batch: usize, len: usize| {
            (batch > 0).then(|| Mutex::new(Sampler::new(stream.key(plan.seed).at("order", 0), len)))
        };
        let orders = [
            order(Stream::Labelled, plan.batch_labelled, labelled.len()),
            order(Stream::Unlabelled, plan.batch_unlabelled, pool.len()),
        ];
        Ok(Self {
            dataset,
            labelled,
            unlabelled,
            pseudo,
            pool,
            orders,
            views: views.clone(),
            plan,
            on_bad: data.on_bad_sample,
            cache: Cache::new(data.cache_mb),
            bad: BadSamples::default(),
        })
    }

    /// The numbers of images in the labelled and in the unlabelled stream.
    #[must_use]
    pub fn stream_lengths(&self) -> [usize; 2] {
        [self.labelled.len(), self.pool.len()]
    }

    /// How many images of the unlabelled stream are labelled in part, and stand in the labelled stream too.
    #[must_use]
    pub fn in_both_streams(&self) -> usize {
        self.pool.partition_point(|index| *index < self.labelled.len())
    }

    /// The data set with the pseudo-labels of its unlabelled split, where there are any.
    #[must_use]
    pub fn pseudo_labelled(&self) -> Option<&Dataset<L>> {
        self.pseudo.as_ref()
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> BatchPlan {
        self.plan
    }

    /// The bad samples skipped so far.
    #[must_use]
    pub fn bad_samples(&self) -> &BadSamples {
        &self.bad
    }

    /// Micro-batch `micro` of step `step` (both from 0), on the threads of the current rayon pool.
    ///
    /// `mentor data --draw` and `--replay` ask for single batches here.
    ///
    /// # Errors
    /// On a bad sample, or where every sample of a stream is bad and skipped.
    pub fn make(&self, step: u64, micro: usize) -> Result<Batch<L>, DataError> {
        let labelled = self.labelled_samples(&self.drawn(Stream::Labelled, step, micro))?;
        let unlabelled = self.drawn(Stream::Unlabelled, step, micro);
        if unlabelled.is_empty() {
            return Ok(Batch { labelled, unlabelled: None });
        }
        let mut pairs = self.pairs(&unlabelled)?;
        let strong = self.views.strong.clone().unwrap_or_default();
        let key = Key::new(self.plan.seed).at("cutmix", step).at("micro", micro as u64);
        views::cutmix(&mut pairs, &strong, key);
        Ok(Batch { labelled, unlabelled: Some(pairs) })
    }

    /// Which images of a stream a micro-batch takes, as places in the stream, and the key of each.
    fn drawn(&self, stream: Stream, step: u64, micro: usize) -> Vec<(usize, Key)> {
        let batch = match stream {
            Stream::Labelled => self.plan.batch_labelled,
            Stream::Unlabelled => self.plan.batch_unlabelled,
        };
        let Some(order) = &self.orders[stream as usize] else { return Vec::new() };
        // Whoever panicked left an order that is whole, or is drawn anew: it is a function of the key.
        let mut order = order.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, per_step) = (stream.key(self.plan.seed), (batch * self.plan.accumulate) as u64);
        let places = (0..batch).map(|index| (micro * batch + index) as u64);
        places.map(|place| (order.index(step * per_step + place), key.at("step", step).at("sample", place))).collect()
    }

    fn labelled_samples(&self, drawn: &[(usize, Key)]) -> Result<Samples<L>, DataError> {
        let one = |(position, key): &(usize, Key)| {
            let (_, decoded) = self.good(Stream::Labelled, *position)?;
            let Some(others) = views::mosaic_partners(&self.views, self.labelled.len(), *key) else {
                return Ok(views::labelled_view(&decoded.image, &decoded.labels, &self.views, *key));
            };
            let [a, b, c] = others.map(|position| self.good(Stream::Labelled, position));
            let (a, b, c) = (a?.1, b?.1, c?.1);
            Ok(views::mosaic_view([&decoded, &a, &b, &c], &self.views, *key))
        };
        let mut samples = Samples::<L> { images: self.empty_images(drawn.len()), targets: L::Targets::default() };
        for view in in_order(drawn.par_iter().map(one).collect())? {
            samples.images.rgb.extend(view.rgb);
            view.labels.push(&mut samples.targets);
        }
        Ok(samples)
    }

    fn pairs(&self, drawn: &[(usize, Key)]) -> Result<Pairs<L>, DataError> {
        let one = |(position, key): &(usize, Key)| {
            let (item, decoded) = self.good(Stream::Unlabelled, *position)?;
            let known = if item < self.labelled.len() { Some(&decoded.labels) } else { decoded.pseudo.as_ref() };
            Ok(views::pair_view(&decoded.image, &decoded.labels, known, &self.views, *key))
        };
        let images = self.empty_images(drawn.len());
        let mut pairs = Pairs::<L> {
            weak: images.clone(),
            strong: images,
            link: L::Link::default(),
            targets: L::Targets::default(),
            truth: L::Targets::default(),
        };
        for view in in_order(drawn.par_iter().map(one).collect())? {
            pairs.weak.rgb.extend(view.weak);
            pairs.strong.rgb.extend(view.strong);
            L::push_link(view.link, &mut pairs.link);
            view.labels.push(&mut pairs.targets);
            view.truth.push(&mut pairs.truth);
        }
        Ok(pairs)
    }

    fn empty_images(&self, n: usize) -> Images {
        let [height, width] = self.views.crop_px;
        Images { n, height, width, rgb: Vec::with_capacity(n * height * width * 3) }
    }

    /// The image at a position of a stream or, where that one is bad and skipped, the next good one.
    fn good(&self, stream: Stream, position: usize) -> Result<(usize, Arc<Decoded<L>>), DataError> {
        let len = self.stream_lengths()[stream as usize];
        for ahead in 0..len {
            let place = (position + ahead) % len;
            let item = if stream == Stream::Labelled { place } else { self.pool[place] };
            match self.cache.get(item, || self.decode(item)) {
                Ok(decoded) => return Ok((item, decoded)),
                Err(DataError::Bad(bad)) if self.on_bad == OnBadSample::Skip => self.bad.record(&bad),
                Err(error) => return Err(error),
            }
        }
        let split = self.unlabelled.as_ref().filter(|_| stream == Stream::Unlabelled);
        Err(DataError::Split {
            card: self.dataset.card().name.clone(),
            split: split.unwrap_or(&self.labelled).name.clone(),
            message: format!("all of its {len} images are bad"),
        })
    }

    fn decode(&self, item: usize) -> Result<Decoded<L>, DataError> {
        let (Some(index), Some(split)) = (item.checked_sub(self.labelled.len()), &self.unlabelled) else {
            let (image, labels) = self.dataset.decode(&self.labelled, &self.labelled.entries[item], true)?;
            return Ok(Decoded { image, labels, pseudo: None });
        };
        let entry = &split.entries[index];
        let (image, labels) = self.dataset.decode(split, entry, false)?;
        let size = [image.height() as usize, image.width() as usize];
        let read = self.pseudo.as_ref().map(|pseudo| L::read(pseudo.reader(), split, entry, size, true));
        Ok(Decoded { image, labels, pseudo: read.transpose()?.flatten() })
    }
}

/// The first error by order, not by which thread was first.
fn in_order<T>(results: Vec<Result<T, DataError>>) -> Result<Vec<T>, DataError> {
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::Card;
    use crate::split::Entry;
    use mentor_types::LabelMask;

    /// A maker whose labelled stream has `len` images, all of one file.
    fn maker(folder: &std::path::Path, len: usize, plan: BatchPlan) -> BatchMaker<LabelMask> {
        let file = |name: &str| folder.join(name);
        image::GrayImage::new(8, 8).save(file("m.png")).unwrap();
        image::RgbImage::new(8, 8).save(file("a.png")).unwrap();
        std::fs::write(file("train.txt"), "a.png m.png\n").unwrap();
        let text = "name = \"t\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"t\"\n\
                    splits = { train = { list = \"train.txt\" } }\nmasks = { format = \"index\" }\n\
                    classes = [{ name = \"a\", color = [1, 0, 0] }]\n";
        let card = Card::parse(text, &file("dataset.toml"), folder.to_owned()).unwrap();
        let dataset = Arc::new(Dataset::new(card, &[]).unwrap());
        let data: DataConfig = toml::from_str("card = \"t\"\nlabelled = \"train\"\nval = \"train\"").unwrap();
        let mut maker = BatchMaker::new(dataset, &data, &ViewsConfig::of_size([8, 8]), plan).unwrap();
        let entry: Entry = maker.labelled.entries[0].clone();
        maker.labelled.entries = vec![entry; len];
        maker.orders[0] = Some(Mutex::new(Sampler::new(Stream::Labelled.key(plan.seed).at("order", 0), len)));
        maker
    }

    const PLAN: BatchPlan = BatchPlan { seed: 3, batch_labelled: 4, batch_unlabelled: 0, accumulate: 2 };

    #[test]
    fn an_order_that_is_kept_is_the_one_that_is_drawn_anew() {
        let folder = tempfile::tempdir().unwrap();
        let kept = maker(folder.path(), 13, PLAN);
        // Over three ends of an epoch, and back.
        for (step, micro) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 1), (4, 0), (1, 1), (0, 0)] {
            let anew = maker(folder.path(), 13, PLAN).drawn(Stream::Labelled, step, micro);
            assert_eq!(format!("{:?}", kept.drawn(Stream::Labelled, step, micro)), format!("{anew:?}"));
            assert_eq!(anew.len(), 4);
        }
        // The first epoch visits every image once.
        let mut first: Vec<usize> = (0..4)
            .flat_map(|half| kept.drawn(Stream::Labelled, half / 2, half as usize % 2))
            .map(|one| one.0)
            .collect();
        first.truncate(13);
        first.sort_unstable();
        assert_eq!(first, (0..13).collect::<Vec<_>>());
        assert!(kept.drawn(Stream::Unlabelled, 0, 0).is_empty());
    }

    /// `cargo test --release -p mentor-data -- --ignored --nocapture a_batch_of_a_million`
    #[test]
    #[ignore = "measures, and asserts nothing"]
    #[allow(clippy::print_stdout)]
    fn a_batch_of_a_million_names_takes_as_long_as_its_images() {
        let folder = tempfile::tempdir().unwrap();
        let plan = BatchPlan { batch_labelled: 8, accumulate: 1, ..PLAN };
        let maker = maker(folder.path(), 1_000_000, plan);
        maker.make(0, 0).unwrap();
        let start = std::time::Instant::now();
        for step in 1..=20 {
            maker.make(step, 0).unwrap();
        }
        println!("{:.2} ms a batch", 50.0 * start.elapsed().as_secs_f64());
    }
}
