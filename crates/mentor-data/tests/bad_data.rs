//! Partial labels and bad samples, on small data sets made on the spot.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;

use image::{GrayImage, Luma, Rgb, RgbImage};
use mentor_data::{BatchMaker, BatchPlan, Card, DataConfig, Dataset, EvalLoader, OnBadSample, ViewsConfig};
use mentor_types::{IGNORE, LabelMask, UNKNOWN};

const CARD: &str = r#"
name = "made"
title = "made"
licence = "CC0"
source = "made"
get = "make it"
splits = { train = { list = "train.txt" }, rest = { list = "rest.txt" } }
masks = { format = "index", ignore = [255] }
classes = [{ name = "a", color = [1, 0, 0] }, { name = "b", color = [2, 0, 0] }, { name = "c", color = [3, 0, 0] }]
"#;

/// Four photos of 8 x 6 with masks whose columns are a, a, b, b, c, c, ignored, ignored; photo `i` has colour `10 i`.
fn made() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("made with space ö").tempdir().unwrap();
    for index in 0..4_u8 {
        RgbImage::from_pixel(8, 6, Rgb([index * 10; 3])).save(folder.path().join(format!("{index}.png"))).unwrap();
        let mask = GrayImage::from_fn(8, 6, |x, _| Luma([[0, 1, 2, 255][x as usize / 2]]));
        mask.save(folder.path().join(format!("m{index}.png"))).unwrap();
    }
    std::fs::write(folder.path().join("dataset.toml"), CARD).unwrap();
    write(folder.path(), "0.png m0.png\n1.png m1.png\n2.png m2.png\n3.png m3.png\n");
    folder
}

fn write(folder: &Path, list: &str) {
    std::fs::write(folder.join("train.txt"), list).unwrap();
}

fn open(folder: &Path) -> Arc<Dataset<LabelMask>> {
    let card = Card::find(folder.to_str().unwrap(), &[]).unwrap();
    Arc::new(Dataset::new(card, &[]).unwrap())
}

fn config(on_bad_sample: OnBadSample) -> DataConfig {
    let mut data: DataConfig = toml::from_str("card = \"made\"\nlabelled = \"train\"\nval = \"train\"").unwrap();
    data.on_bad_sample = on_bad_sample;
    data
}

fn maker(
    folder: &Path,
    on_bad: OnBadSample,
    batch_unlabelled: usize,
) -> Result<BatchMaker<LabelMask>, mentor_data::DataError> {
    let mut views = ViewsConfig::of_size([6, 8]);
    (views.scale, views.flip) = ([1.0, 1.0], 0.0);
    let plan = BatchPlan { seed: 3, batch_labelled: 4, batch_unlabelled, accumulate: 1 };
    BatchMaker::new(open(folder), &config(on_bad), &views, plan)
}

#[test]
fn a_class_outside_the_third_column_is_unknown_and_ignored_stays_ignored() {
    let folder = made();
    write(folder.path(), "0.png m0.png a,2\n1.png m1.png\n2.png\n");
    let dataset = open(folder.path());
    let split = dataset.split("train").unwrap();
    let sample = dataset.sample(&split, 0).unwrap();
    assert_eq!(sample.labels.labels()[..8], [0, 0, UNKNOWN, UNKNOWN, 2, 2, IGNORE, IGNORE]);
    assert_eq!(sample.classes_labelled, Some(vec![0, 2]));
    let nobody = dataset.sample(&split, 2).unwrap();
    assert!(nobody.labels.labels().iter().all(|label| *label == UNKNOWN));
    let stats = dataset.verify_split(&split, OnBadSample::Fail, None).unwrap();
    assert_eq!((stats.images, stats.labelled_images, stats.counts.classes), (3, 2, vec![24, 12, 24]));
    assert_eq!((stats.counts.ignored, stats.counts.unknown), (24, 12 + 48));
}

#[test]
fn images_with_unknown_pixels_join_the_unlabelled_stream() {
    let folder = made();
    write(folder.path(), "0.png m0.png a,2\n1.png m1.png\n2.png\n");
    let maker = maker(folder.path(), OnBadSample::Fail, 2).unwrap();
    assert_eq!(maker.stream_lengths(), [3, 2]);
    let pairs = maker.make(0, 0).unwrap().unlabelled.unwrap();
    let partial = pairs.weak.rgb.chunks(6 * 8 * 3).position(|rgb| rgb[0] == 0).unwrap();
    assert_eq!(pairs.targets[partial * 48..][..8], [0, 0, UNKNOWN, UNKNOWN, 2, 2, IGNORE, IGNORE]);
    assert!(pairs.targets[(1 - partial) * 48..][..48].iter().all(|label| *label == UNKNOWN));
}

#[test]
fn an_unlabelled_stream_without_images_is_an_error() {
    let folder = made();
    let message = maker(folder.path(), OnBadSample::Fail, 2).unwrap_err().to_string();
    assert!(message.starts_with("data.unlabelled: is not set and every image of `train` is labelled"), "{message}");
}

/// Breaks sample 1 in some way and returns what an error of it must say.
fn break_sample(folder: &Path, way: usize) -> &'static str {
    let (photo, mask) = (folder.join("1.png"), folder.join("m1.png"));
    match way {
        0 => std::fs::write(photo, b"").unwrap(),
        1 => std::fs::remove_file(photo).unwrap(),
        2 => std::fs::write(photo, b"no image at all").unwrap(),
        3 => std::fs::write(&photo, &std::fs::read(&photo).unwrap()[..40]).unwrap(),
        4 => std::fs::remove_file(mask).unwrap(),
        5 => GrayImage::new(4, 6).save(mask).unwrap(),
        6 => GrayImage::from_pixel(8, 6, Luma([3])).save(mask).unwrap(),
        _ => RgbImage::new(8, 6).save(mask).unwrap(),
    }
    [
        "1.png: is empty (0 bytes)",
        "1.png: does not exist",
        "1.png: is no image in a known format",
        "1.png: ",
        "m1.png: does not exist",
        "m1.png: the mask is 4 x 6 pixels, its image 8 x 6",
        "m1.png: value 3 at x = 0, y = 0 is none of the 3 classes and not ignored",
        "m1.png: has colours where an index mask is expected",
    ][way]
}

#[test]
fn a_bad_sample_stops_the_run_or_is_replaced_by_the_next_good_one_and_counted() {
    for way in 0..8 {
        let folder = made();
        let expected = break_sample(folder.path(), way);
        let message = maker(folder.path(), OnBadSample::Fail, 0).unwrap().make(0, 0).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "`{message}` does not say `{expected}`");
        let skipping = maker(folder.path(), OnBadSample::Skip, 0).unwrap();
        let mut firsts: Vec<u8> =
            skipping.make(0, 0).unwrap().labelled.images.rgb.chunks(6 * 8 * 3).map(|rgb| rgb[0]).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 20, 20, 30], "way {way}: sample 2 stands in for sample 1");
        skipping.make(1, 0).unwrap();
        let bad = skipping.bad_samples().list();
        assert_eq!(bad.len(), 1, "each path once: {bad:?}");
        assert!(bad[0].to_string().contains(expected));
    }
}

#[test]
fn evaluation_leaves_bad_samples_out_or_stops() {
    let folder = made();
    break_sample(folder.path(), 5);
    let dataset = open(folder.path());
    let split = dataset.split("train").unwrap();
    let mut skipping = EvalLoader::start(dataset.clone(), split.clone(), &config(OnBadSample::Skip)).unwrap();
    let names: Vec<String> = skipping.by_ref().map(|sample| sample.unwrap().name).collect();
    assert_eq!(names, ["0.png", "2.png", "3.png"]);
    assert_eq!(skipping.bad_samples().list().len(), 1);
    let stopping: Vec<_> =
        EvalLoader::start(dataset.clone(), split.clone(), &config(OnBadSample::Fail)).unwrap().collect();
    assert_eq!((stopping.len(), stopping[1].is_err()), (2, true));
    assert!(dataset.verify_split(&split, OnBadSample::Fail, None).unwrap_err().to_string().contains("4 x 6"));
    let stats = dataset.verify_split(&split, OnBadSample::Skip, None).unwrap();
    assert_eq!((stats.images, stats.bad.len()), (3, 1));
}

#[test]
fn a_split_whose_samples_are_all_bad_or_without_classes_is_an_error() {
    let folder = made();
    for index in 0..4 {
        GrayImage::from_pixel(8, 6, Luma([255])).save(folder.path().join(format!("m{index}.png"))).unwrap();
    }
    let dataset = open(folder.path());
    let split = dataset.split("train").unwrap();
    let message = dataset.verify_split(&split, OnBadSample::Fail, None).unwrap_err().to_string();
    assert!(message.contains("`train`: no pixel belongs to a class in 4 images (192 ignored"), "{message}");
    for index in 1..4 {
        std::fs::write(folder.path().join(format!("{index}.png")), b"").unwrap();
    }
    std::fs::write(folder.path().join("m0.png"), b"").unwrap();
    let message = maker(folder.path(), OnBadSample::Skip, 0).unwrap().make(0, 0).unwrap_err().to_string();
    assert!(message.contains("all of its 4 images are bad"), "{message}");
}

#[test]
fn one_pixel_images_train() {
    let folder = made();
    for index in 0..4 {
        RgbImage::from_pixel(1, 1, Rgb([9, 9, 9])).save(folder.path().join(format!("{index}.png"))).unwrap();
        GrayImage::from_pixel(1, 1, Luma([2])).save(folder.path().join(format!("m{index}.png"))).unwrap();
    }
    let batch = maker(folder.path(), OnBadSample::Fail, 0).unwrap().make(0, 0).unwrap();
    for target in batch.labelled.targets.chunks(48) {
        assert_eq!(target.iter().filter(|label| **label == 2).count(), 1);
        assert_eq!(target.iter().filter(|label| **label == IGNORE).count(), 47);
    }
}

#[test]
fn truth_of_unlabelled_images_is_read_where_it_is_and_unknown_where_it_is_not() {
    let folder = made();
    std::fs::write(folder.path().join("rest.txt"), "2.png m2.png\n3.png gone.png\n").unwrap();
    let mut data = config(OnBadSample::Fail);
    data.unlabelled = Some("rest".into());
    let mut views = ViewsConfig::of_size([6, 8]);
    (views.scale, views.flip) = ([1.0, 1.0], 0.0);
    let plan = BatchPlan { seed: 3, batch_labelled: 1, batch_unlabelled: 2, accumulate: 1 };
    let maker = BatchMaker::new(open(folder.path()), &data, &views, plan).unwrap();
    let pairs = maker.make(0, 0).unwrap().unlabelled.unwrap();
    let with_truth = pairs.weak.rgb.chunks(6 * 8 * 3).position(|rgb| rgb[0] == 20).unwrap();
    assert_eq!(pairs.truth[with_truth * 48..][..8], [0, 0, 1, 1, 2, 2, IGNORE, IGNORE]);
    assert!(pairs.truth[(1 - with_truth) * 48..][..48].iter().all(|label| *label == UNKNOWN));
    assert!(pairs.targets.iter().all(|label| *label == UNKNOWN));
}

/// A link that leads round in a circle stands for all that the system refuses: unlike permissions, it is refused to
/// whoever may read everything, too.
#[cfg(unix)]
#[test]
fn what_the_system_refuses_is_no_bad_sample_and_stops_though_bad_ones_are_skipped() {
    use mentor_data::DataError;
    for name in ["1.png", "m1.png"] {
        let folder = made();
        let path = folder.path().join(name);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let refused = |error: &DataError| {
            let message = error.to_string();
            assert!(matches!(error, DataError::Io { .. }) && message.contains(path.to_str().unwrap()), "{message}");
        };
        let dataset = open(folder.path());
        let split = dataset.split("train").unwrap();
        refused(&dataset.verify_split(&split, OnBadSample::Skip, None).unwrap_err());
        refused(&dataset.fingerprint(&split).unwrap_err());
        let evaluated = EvalLoader::start(dataset, split, &config(OnBadSample::Skip)).unwrap();
        refused(evaluated.collect::<Vec<_>>().iter().find_map(|sample| sample.as_ref().err()).unwrap());
        let maker = maker(folder.path(), OnBadSample::Skip, 0).unwrap();
        refused(&maker.make(0, 0).unwrap_err());
        assert!(maker.bad_samples().list().is_empty());
    }
}
