//! Batches as a pure function of (seed, step).

use std::sync::Arc;

use mentor_types::{Images, Key, Pairs, Samples, SegBatch};
use rayon::prelude::*;

use crate::cache::{Cache, Decoded};
use crate::config::{DataConfig, OnBadSample, ViewsConfig};
use crate::dataset::SegDataset;
use crate::error::{BadSamples, DataError};
use crate::sampler::Sampler;
use crate::split::Split;
use crate::views::{self, Known};

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

/// Makes any batch of a run: the same bytes for the same seed, step and micro-batch, whoever asks and when.
#[derive(Debug)]
pub struct BatchMaker {
    dataset: Arc<SegDataset>,
    labelled: Split,
    unlabelled: Option<Split>,
    /// Images of the unlabelled stream: below the length of the labelled split an image of that one with unknown pixels,
    /// from there on one of the unlabelled split.
    pool: Vec<usize>,
    views: ViewsConfig,
    plan: BatchPlan,
    on_bad: OnBadSample,
    cache: Cache,
    bad: BadSamples,
}

impl BatchMaker {
    /// A maker for a run's splits.
    ///
    /// # Errors
    /// Where a split cannot be opened, or unlabelled images are asked for and there are none.
    pub fn new(
        dataset: Arc<SegDataset>,
        data: &DataConfig,
        views: &ViewsConfig,
        plan: BatchPlan,
    ) -> Result<Self, DataError> {
        let labelled = dataset.split(&data.labelled)?;
        let unlabelled = data.unlabelled.as_ref().map(|name| dataset.split(name)).transpose()?;
        let partial = (0..labelled.len()).filter(|index| dataset.may_be_partial(&labelled.entries[*index]));
        let rest = 0..unlabelled.as_ref().map_or(0, Split::len);
        let pool: Vec<usize> = partial.chain(rest.map(|index| labelled.len() + index)).collect();
        if plan.batch_unlabelled > 0 && pool.is_empty() {
            return Err(DataError::Setting {
                key: "data.unlabelled".to_owned(),
                message: format!(
                    "is not set and every image of `{}` is labelled in full, but each step takes {} unlabelled images",
                    data.labelled, plan.batch_unlabelled
                ),
            });
        }
        Ok(Self {
            dataset,
            labelled,
            unlabelled,
            pool,
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
    pub fn make(&self, step: u64, micro: usize) -> Result<SegBatch, DataError> {
        let run = Key::new(self.plan.seed);
        let drawn = |name: &str, batch: usize, len: usize| -> Vec<(usize, Key)> {
            let per_step = (batch * self.plan.accumulate) as u64;
            let mut sampler = (batch > 0).then(|| Sampler::new(run.at(name, 0).at("order", 0), len));
            let place = |index| (micro * batch + index) as u64;
            (0..batch)
                .filter_map(|index| {
                    let position = sampler.as_mut()?.index(step * per_step + place(index));
                    Some((position, run.at(name, 0).at("step", step).at("sample", place(index))))
                })
                .collect()
        };
        let labelled = drawn("labelled", self.plan.batch_labelled, self.labelled.len());
        let labelled = self.labelled_samples(&labelled)?;
        let unlabelled = drawn("unlabelled", self.plan.batch_unlabelled, self.pool.len());
        if unlabelled.is_empty() {
            return Ok(SegBatch { labelled, unlabelled: None });
        }
        let mut pairs = self.pairs(&unlabelled)?;
        let strong = self.views.strong.clone().unwrap_or_default();
        views::cutmix(&mut pairs, &strong, run.at("cutmix", step).at("micro", micro as u64));
        Ok(SegBatch { labelled, unlabelled: Some(pairs) })
    }

    fn labelled_samples(&self, drawn: &[(usize, Key)]) -> Result<Samples, DataError> {
        let all: Vec<usize> = (0..self.labelled.len()).collect();
        let one = |(position, key): &(usize, Key)| {
            let (_, decoded) = self.good(&all, *position)?;
            Ok(views::labelled_view(&decoded.image, &decoded.mask, &self.views, *key))
        };
        let mut samples = Samples { images: self.empty_images(drawn.len()), targets: Vec::new() };
        for view in in_order(drawn.par_iter().map(one).collect())? {
            samples.images.rgb.extend(view.rgb);
            samples.targets.extend(view.target);
        }
        Ok(samples)
    }

    fn pairs(&self, drawn: &[(usize, Key)]) -> Result<Pairs, DataError> {
        let one = |(position, key): &(usize, Key)| {
            let (item, decoded) = self.good(&self.pool, *position)?;
            let known = if item < self.labelled.len() { Known::Labels } else { Known::TruthOnly };
            Ok(views::pair_view(&decoded.image, &decoded.mask, known, &self.views, *key))
        };
        let images = self.empty_images(drawn.len());
        let mut pairs = Pairs { weak: images.clone(), strong: images, ..Pairs::default() };
        let pixels = i32::try_from(pairs.weak.height * pairs.weak.width).unwrap_or(i32::MAX);
        for (sample, view) in (0..).zip(in_order(drawn.par_iter().map(one).collect())?) {
            pairs.weak.rgb.extend(view.weak);
            pairs.strong.rgb.extend(view.strong);
            pairs.origin.extend(view.origin.iter().map(|place| if *place < 0 { -1 } else { place + sample * pixels }));
            pairs.targets.extend(view.target);
            pairs.truth.extend(view.truth);
        }
        Ok(pairs)
    }

    fn empty_images(&self, n: usize) -> Images {
        let [height, width] = self.views.crop_px;
        Images { n, height, width, rgb: Vec::with_capacity(n * height * width * 3) }
    }

    /// The image at a position of a stream or, where that one is bad and skipped, the next good one.
    fn good(&self, stream: &[usize], position: usize) -> Result<(usize, Arc<Decoded>), DataError> {
        for ahead in 0..stream.len() {
            let item = stream[(position + ahead) % stream.len()];
            match self.cache.get(item, || self.decode(item)) {
                Ok(decoded) => return Ok((item, decoded)),
                Err(DataError::Bad(bad)) if self.on_bad == OnBadSample::Skip => self.bad.record(&bad),
                Err(error) => return Err(error),
            }
        }
        let split = self.unlabelled.as_ref().filter(|_| stream.iter().any(|item| *item >= self.labelled.len()));
        Err(DataError::Split {
            card: self.dataset.card().name.clone(),
            split: split.unwrap_or(&self.labelled).name.clone(),
            message: format!("all of its {} images are bad", stream.len()),
        })
    }

    fn decode(&self, item: usize) -> Result<Decoded, DataError> {
        let (image, mask) = match (item.checked_sub(self.labelled.len()), &self.unlabelled) {
            (Some(index), Some(split)) => self.dataset.decode(split, &split.entries[index], false)?,
            _ => self.dataset.decode(&self.labelled, &self.labelled.entries[item], true)?,
        };
        Ok(Decoded { image, mask })
    }
}

/// The first error by order, not by which thread was first.
fn in_order<T>(results: Vec<Result<T, DataError>>) -> Result<Vec<T>, DataError> {
    results.into_iter().collect()
}
