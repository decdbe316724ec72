//! Reading, cutting and colouring images into batches.
//!
//! Both sides decode scenes that are drawn for it, take a crop at a random size factor of 0.5 to 2, mirror it half the time, jitter
//! its colours by torchvision's amounts four times of five, and stack batches, on as many workers. What differs: the
//! draws; ours averages over the pixels that a smaller view skips with its own triangle filter, torchvision with its
//! antialiased one; padding is ImageNet's mean here and black there; ours leaves bytes in rows of pixels (NHWC) where
//! torchvision stacks planes (NCHW). Neither side normalises or uploads. A worker is a thread here and a process there.
//!
//! A mosaic is four such views, each half as large, around a point of the middle half of both sides, with the boxes that are left
//! of each; torchvision, which has no such view, makes one of its functions for crops, boxes and colours.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use mentor_data::{
    BatchMaker, BatchPlan, Card, DataConfig, Dataset, Loader, OnBadSample, Photometric, ReadLabels, Sample, ViewsConfig,
};
use mentor_scenes::{Part, SetSpec, kept_set};
use mentor_types::{BoxLabels, LabelMask, Season};
use mentor_weights::NamedTensors;
use serde_json::json;

use crate::work::{Built, Case, Sizes, Tolerance, Work};

const CROP_PX: [usize; 2] = [192, 192];
const BATCH: usize = 8;
const SCALE: [f64; 2] = [0.5, 2.0];
const FLIP: f64 = 0.5;
/// 48 scenes to train on, larger than the crop.
const SCENES: SetSpec = SetSpec { seed: 0, count: 182, size: 384, season: Season::Summer };

/// The side of a view that is a mosaic.
const MOSAIC_PX: [usize; 2] = [256, 256];

/// The rows of this group; `workers` threads or processes each.
pub fn cases(sizes: &Sizes, workers: usize) -> Vec<Case> {
    let batches: u64 = if sizes.quick { 6 } else { 24 };
    let case = |name: &str, crop_px: [usize; 2], mosaic: bool, cache_mb: usize| {
        let cache = std::env::temp_dir().join("mentor-bench");
        let loaded = Loaded { crop_px, mosaic, batches, workers, cache_mb };
        Case {
            name: format!("data/{name}-{BATCH}x{}x{}", crop_px[0], crop_px[1]),
            spec: json!({
                "kind": if mosaic { "mosaic" } else { "data" },
                "folder": SCENES.folder(&cache),
                "crop": crop_px,
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
            build: Box::new(move |_| loaded.build(&cache)),
        }
    };
    vec![
        case("decode+augment", CROP_PX, false, 0),
        case("augment-cached", CROP_PX, false, 512),
        case("mosaic", MOSAIC_PX, true, 0),
        case("mosaic-cached", MOSAIC_PX, true, 512),
    ]
}

/// What is loaded, and by how many.
#[derive(Clone, Copy)]
struct Loaded {
    crop_px: [usize; 2],
    mosaic: bool,
    batches: u64,
    workers: usize,
    cache_mb: usize,
}

impl Loaded {
    fn build(self, cache: &Path) -> Result<Built> {
        // Before the other side looks for it.
        let folder = kept_set(cache, &SCENES, &Part::ALL, &|_| {})?;
        let work: Box<dyn Work> = if self.mosaic {
            Box::new(self.loading::<BoxLabels>(&folder, boxes)?)
        } else {
            Box::new(self.loading::<LabelMask>(&folder, labels)?)
        };
        Ok(Built { tensors: NamedTensors::new(), work })
    }

    fn loading<L: ReadLabels>(self, folder: &Path, compared: fn(&Sample<L>) -> NamedTensors) -> Result<Loading<L>> {
        let Self { crop_px, mosaic, batches, workers, cache_mb } = self;
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
        let views = ViewsConfig {
            scale: SCALE,
            flip: FLIP,
            photometric: Some(Photometric { jitter: mentor_data::Jitter::default(), jitter_probability: 0.8 }),
            mosaic: mosaic.then_some(1.0),
            ..ViewsConfig::of_size(crop_px)
        };
        let plan = BatchPlan { seed: 0, batch_labelled: BATCH, batch_unlabelled: 0, accumulate: 1 };
        let maker = Arc::new(BatchMaker::new(dataset.clone(), &data, &views, plan)?);
        Ok(Loading { dataset, maker, data, batches, compared })
    }
}

fn labels(sample: &Sample<LabelMask>) -> NamedTensors {
    let shape = vec![sample.image.height, sample.image.width];
    [("labels".to_owned(), (shape, floats(sample.labels.labels())))].into()
}

/// Edges of the boxes, and their classes.
fn boxes(sample: &Sample<BoxLabels>) -> NamedTensors {
    let boxes = &sample.labels.boxes;
    let edges = boxes.iter().flat_map(|label| label.edges).collect();
    let classes = boxes.iter().map(|label| f32::from(label.class)).collect();
    [("edges".to_owned(), (vec![boxes.len(), 4], edges)), ("classes".to_owned(), (vec![boxes.len()], classes))].into()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|byte| f32::from(*byte)).collect()
}

struct Loading<L: ReadLabels> {
    dataset: Arc<Dataset<L>>,
    maker: Arc<BatchMaker<L>>,
    data: DataConfig,
    batches: u64,
    compared: fn(&Sample<L>) -> NamedTensors,
}

impl<L: ReadLabels> Work for Loading<L> {
    /// The first image and its labels as they are on the disk, and the shape of a batch.
    fn check(&mut self) -> NamedTensors {
        let split = self.dataset.split("train").expect("it was opened before");
        let sample = self.dataset.sample(&split, 0).expect("the sample's images can be read");
        let shape = vec![sample.image.height, sample.image.width, 3];
        let images = self.maker.make(0, 0).expect("the sample's images can be read").labelled.images;
        let batch = [images.n, images.height, images.width].map(|side| side as f32).to_vec();
        let mut results = (self.compared)(&sample);
        results.insert("image".to_owned(), (shape, floats(&sample.image.rgb)));
        results.insert("batch".to_owned(), (vec![3], batch));
        results
    }

    fn run(&mut self) {
        let mut loader = Loader::start(self.maker.clone(), 0..self.batches, &self.data, |batch| batch)
            .expect("threads can be started");
        for _ in 0..self.batches {
            drop(loader.next().expect("the sample's images can be read"));
        }
    }
}
