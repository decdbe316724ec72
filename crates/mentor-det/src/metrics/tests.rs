#![allow(clippy::unwrap_used)]
//! Average precision against pycocotools, and by hand.

use mentor_types::{BoxKind, Scores};
use serde_json::Value;

use super::*;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn rows(golden: &Value, key: &str) -> Vec<Vec<f64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(number).collect();
    golden[key].as_array().unwrap().iter().map(row).collect()
}

type Compared = (ImageTruth, Vec<FoundBox>);

/// What pycocotools scored, image by image.
fn golden() -> (Value, Vec<Compared>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/coco_ap.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut images = vec![Compared::default(); golden["images"].as_u64().unwrap() as usize];
    for row in rows(&golden, "truth") {
        let kind = if row[7] == 1.0 { BoxKind::Crowd } else { BoxKind::Object };
        let extent = [row[2], row[3], row[4], row[5]];
        let truth = TruthBox { extent, class: Some(row[1] as usize), kind, area: row[6] };
        images[row[0] as usize].0.boxes.push(truth);
    }
    for row in rows(&golden, "found") {
        let extent = [row[2], row[3], row[4], row[5]];
        images[row[0] as usize].1.push(FoundBox { extent, class: row[1] as usize, score: row[6] });
    }
    (golden, images)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

fn assert_near(name: &str, found: Option<f64>, expected: &Value) {
    let near = match (found, expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
        (found, expected) => found == expected,
    };
    assert!(near, "{name}: {found:?} instead of {expected}");
}

#[test]
fn scores_are_those_of_pycocotools() {
    let (golden, images) = golden();
    let mut scores = CocoScores::new(7, CocoScores::LIMIT);
    images.iter().for_each(|(truth, found)| scores.push(truth, found));
    let metrics = scores.scores();
    let record = metrics.record(&names(7));
    for row in DetMetrics::NAMES.rows {
        assert!(golden["scores"].get(row.key).is_some(), "{} is not compared", row.key);
        assert_near(row.key, record.get(row.key), &golden["scores"][row.key]);
    }
    for (class, expected) in golden["per_class"].as_array().unwrap().iter().enumerate() {
        assert_near(&format!("class {class}"), metrics.per_class[class], expected);
    }
    assert_eq!(metrics.per_class.iter().filter(|ap| ap.is_none()).count(), 2);
    assert_eq!((metrics.main(), metrics.over_limit), (metrics.ap.unwrap(), 2));
    let curve = scores.curve(0, 5).unwrap();
    for (found, expected) in curve.iter().zip(golden["curve of class 0 at 0.75"].as_array().unwrap()) {
        assert_near("curve", Some(*found), expected);
    }
    assert_eq!(scores.curve(4, 0), None);
}

#[test]
fn thresholds_and_recalls_are_numpys_to_the_last_bit() {
    let (golden, _) = golden();
    let all = |key: &str| golden[key].as_array().unwrap().iter().map(number).collect::<Vec<_>>();
    assert_eq!(matching::thresholds().to_vec(), all("thresholds"));
    assert_eq!((0..RECALLS).map(coco::recall_at).collect::<Vec<_>>(), all("recalls"));
}

#[test]
fn threads_change_no_bit() {
    let (_, images) = golden();
    let mut one_by_one = CocoScores::new(7, 100);
    images.iter().for_each(|(truth, found)| one_by_one.push(truth, found));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut at_once = CocoScores::new(7, 100);
        pool.install(|| {
            at_once.push_all(&images[..20]);
            at_once.push_all(&images[20..]);
        });
        assert_eq!(pool.install(|| at_once.scores()), one_by_one.scores());
    }
}

const PLACE: Extent = [5.0, 5.0, 20.0, 20.0];

fn labelled(class: usize, extent: Extent) -> TruthBox {
    TruthBox { extent, class: Some(class), kind: BoxKind::Object, area: extent[2] * extent[3] }
}

fn found(class: usize, extent: Extent, score: f64) -> FoundBox {
    FoundBox { extent, class, score }
}

fn scored(classes: usize, limit: usize, images: &[Compared]) -> DetMetrics {
    let mut scores = CocoScores::new(classes, limit);
    scores.push_all(images);
    scores.scores()
}

fn truth(boxes: Vec<TruthBox>) -> ImageTruth {
    ImageTruth { boxes, looked_for: None }
}

#[test]
fn what_is_found_in_an_image_without_boxes_is_a_mistake() {
    let right = (truth(vec![labelled(0, PLACE)]), vec![found(0, PLACE, 0.6)]);
    let empty = (truth(vec![]), vec![found(0, PLACE, 0.9)]);
    assert_eq!(scored(1, 100, &[right.clone(), empty.clone()]).ap, Some(0.5));
    let unknown = (ImageTruth { boxes: vec![], looked_for: Some(vec![]) }, empty.1);
    assert_eq!(scored(1, 100, &[right, unknown]).ap, Some(1.0), "nobody looked there");
}

#[test]
fn a_class_without_truth_is_left_out_of_every_mean() {
    let images = [(truth(vec![labelled(0, PLACE)]), vec![found(0, PLACE, 0.6), found(1, PLACE, 0.9)])];
    let metrics = scored(2, 100, &images);
    assert_eq!((metrics.ap, metrics.per_class), (Some(1.0), vec![Some(1.0), None]));
    assert_eq!((metrics.ap_small, metrics.ap_medium, metrics.ar_large), (Some(1.0), None, None));
}

#[test]
fn nothing_to_find_is_no_score_and_no_zero() {
    let metrics = scored(1, 100, &[(truth(vec![]), vec![found(0, PLACE, 0.9)])]);
    assert!(metrics.ap.is_none() && metrics.main().is_nan());
    let record = serde_json::to_value(metrics.record(&names(1))).unwrap();
    assert!(record["AP"].is_null() && record["ARl"].is_null() && record["per_class"]["class 0"].is_null());
}

#[test]
fn the_limit_is_of_a_class_in_an_image_and_is_said_when_it_is_reached() {
    let places: Vec<Extent> = (0..130).map(|at| [f64::from(at) * 30.0, 0.0, 20.0, 20.0]).collect();
    let boxes = places.iter().map(|place| labelled(0, *place)).collect();
    let all = places.iter().enumerate().map(|(at, place)| found(0, *place, 1.0 - at as f64 / 1e3)).collect();
    let images = [(truth(boxes), all)];
    let limited = scored(1, 100, &images);
    // 76 of 101 recalls (0 to 0.76) are reached with 100 of 130.
    assert!((limited.ap.unwrap() - 77.0 / 101.0).abs() < 1e-12, "{:?}", limited.ap);
    assert_eq!((limited.over_limit, limited.limit), (1, 100));
    let near = |share: Option<f64>, expected: f64| assert!((share.unwrap() - expected).abs() < 1e-12, "{share:?}");
    near(limited.ar10, 10.0 / 130.0);
    let whole = scored(1, 130, &images);
    assert_eq!((whole.ap, whole.over_limit), (Some(1.0), 0));
    near(whole.ar100, 100.0 / 130.0);
}

#[test]
fn equal_scores_keep_the_order_of_images() {
    let right = (truth(vec![labelled(0, PLACE)]), vec![found(0, PLACE, 0.5)]);
    let wrong = (truth(vec![]), vec![found(0, PLACE, 0.5)]);
    assert_eq!(scored(1, 100, &[right.clone(), wrong.clone()]).ap50, Some(1.0));
    assert_eq!(scored(1, 100, &[wrong, right]).ap50, Some(0.5));
}

#[test]
fn every_score_is_in_the_record_under_its_name() {
    let (_, images) = golden();
    let record = scored(7, 100, &images).record(&names(7));
    for row in DetMetrics::NAMES.rows {
        assert!(record.get(row.key).is_some_and(|share| (0.0..=1.0).contains(&share)), "{}", row.key);
    }
    assert!(record.get(DetMetrics::NAMES.counted).is_some_and(|boxes| boxes > 100.0));
    assert!(record.of_class(DetMetrics::NAMES.by_class, "class 0").is_some());
}

#[test]
fn mistakes_are_counted_as_tidecv_does() {
    let (golden, mut images) = golden();
    let mut mistakes = Mistakes::default();
    for (truth, found) in &mut images {
        truth.boxes.retain(|label| label.kind == BoxKind::Object);
        mistakes.push(truth, found);
    }
    let expected = &golden["mistakes without crowds"];
    let Mistakes { right, localisation, classification, duplicate, background, both, missed } = mistakes;
    for (name, count) in [
        ("Loc", localisation),
        ("Cls", classification),
        ("Dupe", duplicate),
        ("Bkg", background),
        ("Both", both),
        ("Miss", missed),
    ] {
        assert_eq!(expected[name], count, "{name}");
    }
    let counted: usize = images.iter().map(|(_, found)| found.len().min(Mistakes::LIMIT)).sum();
    assert_eq!(right + localisation + classification + duplicate + background + both, counted as u64);
}
