//! Reading, cutting and colouring images into batches.
//!
//! Both sides decode scenes that are drawn for it, take a crop at a random size factor of 0.5 to 2, mirror it half the time, jitter
//! its colours by torchvision's amounts four times of five, and stack batches, on as many workers. What differs: the
//! draws; ours averages over the pixels that a smaller view skips with its own triangle filter, torchvision with its
//! antialiased one; padding is ImageNet's mean here and black there; ours leaves bytes in rows of pixels (NHWC) where
//! torchvision stacks planes (NCHW). Neither side normalises or uploads. A worker is a thread here and a process there.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use mentor_data::{BatchMaker, BatchPlan, Card, DataConfig, Dataset, Loader, OnBadSample, Photometric, ViewsConfig};
use mentor_scenes::{Part, SetSpec, kept_set};
use mentor_types::{LabelMask, Season};
use mentor_weights::NamedTensors;
use serde_json::json;

use crate::work::{Built, Case, Sizes, Tolerance, Work};

const CROP_PX: [usize; 2] = [192, 192];
const BATCH: usize = 8;
const SCALE: [f64; 2] = [0.5, 2.0];
const FLIP: f64 = 0.5;
/// 48 scenes to train on, larger than the crop.
const SCENES: SetSpec = SetSpec { seed: 0, count: 182, size: 384, season: Season::Summer };

/// The rows of this group; `workers` threads or processes each.
pub fn cases(sizes: &Sizes, workers: usize) -> Vec<Case> {
    let batches: u64 = if sizes.quick { 6 } else { 24 };
    let case = |name: &str, cache_mb: usize| {
        let cache = std::env::temp_dir().join("mentor-bench");
        Case {
            name: format!("data/{name}-{BATCH}x{}x{}", CROP_PX[0], CROP_PX[1]),
            spec: json!({
                "kind": "data",
                "folder": SCENES.folder(&cache),
                "crop": CROP_PX,
                "batch": BATCH,
                "batches": batches,
                "workers": workers,
                "scale": SCALE,
                "flip": FLIP,
                "cache": cache_mb > 0,
            }),
            // Decoders may round and blend colours differently, labels not.
            tolerance: Tolerance::Mean(1e-2),
            images: Some(BATCH * batches as usize),
            fresh: false,
            build: Box::new(move |_| build(&cache, batches, workers, cache_mb)),
        }
    };
    vec![case("decode+augment", 0), case("augment-cached", 512)]
}

fn build(cache: &Path, batches: u64, workers: usize, cache_mb: usize) -> Result<Built> {
    // Before the other side looks for it.
    let folder = kept_set(cache, &SCENES, &Part::ALL, &|_| {})?;
    let dataset = Arc::new(Dataset::new(Card::read(&folder.join("dataset.toml"))?, &[])?);
    let data = DataConfig {
        card: folder.display().to_string(),
        labelled: "train".to_owned(),
        unlabelled: None,
        pseudo_labels: None,
        val: "val".to_owned(),
        on_bad_sample: OnBadSample::Fail,
        workers,
        queue: 4,
        cache_mb,
    };
    let photometric = Photometric { jitter: mentor_data::Jitter::default(), jitter_probability: 0.8 };
    let views =
        ViewsConfig { scale: SCALE, flip: FLIP, photometric: Some(photometric), ..ViewsConfig::of_size(CROP_PX) };
    let plan = BatchPlan { seed: 0, batch_labelled: BATCH, batch_unlabelled: 0, accumulate: 1 };
    let maker = Arc::new(BatchMaker::new(dataset.clone(), &data, &views, plan)?);
    Ok(Built { tensors: NamedTensors::new(), work: Box::new(Loading { dataset, maker, data, batches }) })
}

struct Loading {
    dataset: Arc<Dataset<LabelMask>>,
    maker: Arc<BatchMaker<LabelMask>>,
    data: DataConfig,
    batches: u64,
}

impl Work for Loading {
    /// The first image and its labels as they are on the disk, and the shape of a batch.
    fn check(&mut self) -> NamedTensors {
        let floats = |bytes: &[u8]| bytes.iter().map(|byte| f32::from(*byte)).collect::<Vec<f32>>();
        let split = self.dataset.split("train").expect("it was opened before");
        let sample = self.dataset.sample(&split, 0).expect("the sample's images can be read");
        let shape = vec![sample.image.height, sample.image.width];
        let images = self.maker.make(0, 0).expect("the sample's images can be read").labelled.images;
        let batch = [images.n, images.height, images.width].map(|side| side as f32).to_vec();
        [
            ("image".to_owned(), ([shape.clone(), vec![3]].concat(), floats(&sample.image.rgb))),
            ("labels".to_owned(), (shape, floats(sample.labels.labels()))),
            ("batch".to_owned(), (vec![3], batch)),
        ]
        .into()
    }

    fn run(&mut self) {
        let mut loader = Loader::start(self.maker.clone(), 0..self.batches, &self.data, |batch| batch)
            .expect("threads can be started");
        for _ in 0..self.batches {
            drop(loader.next().expect("the sample's images can be read"));
        }
    }
}
