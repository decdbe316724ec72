//! Boxes of any detector, scored from files of COCO.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{fail, mentor, root, run, succeed};

const KEYS: [&str; 13] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "per_class"];

/// A file of annotations: images of 100x80 pixels by id, categories by id and name, and annotations.
fn truth(images: &[i64], categories: &[(i64, &str)], annotations: &Value) -> Value {
    let image = |id: &i64| json!({"id": id, "file_name": format!("{id}.jpg"), "width": 100, "height": 80});
    let category = |(id, name): &(i64, &str)| json!({"id": id, "name": name, "supercategory": "thing"});
    json!({
        "info": {"year": 2026},
        "images": images.iter().map(image).collect::<Vec<_>>(),
        "categories": categories.iter().map(category).collect::<Vec<_>>(),
        "annotations": annotations,
    })
}

fn label(id: i64, image: i64, category: i64, bbox: [f64; 4]) -> Value {
    json!({"id": id, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
}

fn found(image: i64, category: i64, bbox: [f64; 4], score: f64) -> Value {
    json!({"image_id": image, "category_id": category, "bbox": bbox, "score": score})
}

struct Files(tempfile::TempDir);

impl Files {
    fn new(truth: &Value, found: &Value) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.path("truth.json"), truth.to_string()).unwrap();
        fs::write(files.path("found.json"), found.to_string()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn eval(&self, more: &[&str]) -> std::process::Command {
        let mut command = mentor();
        command.arg("eval").arg("--truth").arg(self.path("truth.json"));
        command.arg("--detections").arg(self.path("found.json")).args(more);
        command
    }

    /// The scores, and what was said beside them.
    fn scores(&self, more: &[&str]) -> (Value, String) {
        let (success, printed, said) = run(self.eval(&["--json"]).args(more));
        assert!(success, "{said}");
        (serde_json::from_str(&printed).unwrap(), said)
    }
}

const PLACE: [f64; 4] = [6.0, 4.0, 30.0, 20.0];
const OTHER: [f64; 4] = [50.0, 40.0, 12.0, 14.0];
const PETS: [(i64, &str); 2] = [(1, "hen"), (2, "goose")];

#[test]
fn scores_of_files_are_those_of_pycocotools() {
    let golden = fs::read_to_string(root().join("tests/golden/coco_ap.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let rows = |key: &str| golden[key].as_array().unwrap().clone();
    let images = golden["images"].as_i64().unwrap();
    let annotations = rows("truth").into_iter().enumerate().map(|(at, row)| {
        let bbox = &row.as_array().unwrap()[2..6];
        // An outline is read over; its area is in the file.
        json!({"id": at + 1, "image_id": row[0], "category_id": row[1], "bbox": bbox, "area": row[6], "iscrowd": row[7],
               "segmentation": {"counts": [1, 2], "size": [3, 1]}})
    });
    let found = rows("found").into_iter().map(|row| {
        let bbox = &row.as_array().unwrap()[2..6];
        json!({"image_id": row[0], "category_id": row[1], "bbox": bbox, "score": row[6]})
    });
    let names: Vec<(i64, String)> = (0..7).map(|id| (id, format!("class {id}"))).collect();
    // Out of order in the file: images are taken in the order of their ids.
    let mut file = truth(
        &(0..images).rev().collect::<Vec<_>>(),
        &names.iter().map(|(id, name)| (*id, name.as_str())).collect::<Vec<_>>(),
        &annotations.collect(),
    );
    for image in file["images"].as_array_mut().unwrap() {
        (image["width"], image["height"]) = (json!(1000), json!(1000));
    }
    let files = Files::new(&file, &found.collect());
    let (scores, said) = files.scores(&["--skip-bad-boxes"]);
    for key in &KEYS[..12] {
        let (found, expected) = (scores[key].as_f64().unwrap(), golden["scores"][key].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-9, "{key}: {found} instead of {expected}");
    }
    assert!(scores["per_class"]["class 4"].is_null() && scores["per_class"]["class 5"].is_null());
    assert_eq!(scores["per_class"]["class 6"], 0.0);
    assert!(said.contains("`class 4` is left out") && said.contains("more than 100 boxes"), "{said}");
}

#[test]
fn the_record_has_every_key_and_null_where_nothing_could_be_computed() {
    let files = Files::new(&truth(&[3], &PETS, &json!([label(0, 3, 1, PLACE)])), &json!([found(3, 1, PLACE, 0.5)]));
    let (scores, _) = files.scores(&[]);
    assert!(KEYS.iter().all(|key| scores.get(key).is_some()), "{scores}");
    // An annotation with the id 0 is one as any other.
    assert_eq!([&scores["AP"], &scores["APs"], &scores["AR1"]], [&json!(1.0); 3]);
    assert!(scores["APm"].is_null() && scores["ARl"].is_null());
    assert_eq!(scores["per_class"], json!({"hen": 1.0, "goose": null}));
    let table = succeed(&mut files.eval(&[]));
    let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("AP75").ends_with("100.00 %") && line("AP large").ends_with('-'), "{table}");
    assert!(line("  goose").ends_with('-') && line("  hen").ends_with("100.00 %"), "{table}");
}

#[test]
fn nothing_found_is_zero_and_nothing_to_find_is_null() {
    let labelled = json!([label(1, 3, 1, PLACE)]);
    assert_eq!(Files::new(&truth(&[3], &PETS, &labelled), &json!([])).scores(&[]).0["AP"], 0.0);
    let (scores, said) = Files::new(&truth(&[3], &PETS, &json!([])), &json!([found(3, 2, PLACE, 0.5)])).scores(&[]);
    assert!(scores["AP"].is_null() && said.contains("`goose` is left out: 1 box found"), "{scores} {said}");
}

#[test]
fn a_box_in_an_image_without_boxes_is_a_mistake() {
    let labelled = json!([label(1, 3, 1, PLACE)]);
    let all = json!([found(3, 1, PLACE, 0.4), found(8, 1, PLACE, 0.8)]);
    let (scores, _) = Files::new(&truth(&[3, 8, 9], &PETS, &labelled), &all).scores(&[]);
    assert_eq!([&scores["AP"], &scores["AP50"]], [&json!(0.5); 2]);
}

#[test]
fn ids_have_gaps_any_order_and_other_types() {
    let text = r#"{
        "images": [{"id": "11", "file_name": "a\\\\b.jpg", "width": "100", "height": 80}, {"id": 4.0}, {"id": "x"}],
        "categories": [{"id": "70", "name": "hen"}, {"id": 5, "name": "goose"}],
        "annotations": [
            {"id": "1", "image_id": 11, "category_id": 70, "bbox": ["6", "4", "30", "20"], "iscrowd": false},
            {"image_id": "4", "category_id": "5.", "bbox": [6, 4, 30, 20]},
            {"image_id": "x", "category_id": 5.0, "bbox": [6, 4, 30, 20]}
        ]}"#;
    let all = json!([found(11, 70, PLACE, 0.4), {"image_id": "x", "category_id": "5", "bbox": PLACE, "score": "1e-1"}]);
    let files = Files::new(&Value::Null, &all);
    fs::write(files.path("truth.json"), text).unwrap();
    let said = fail(&mut files.eval(&[]));
    assert!(said.contains("truth.json: annotation without an id, number 2 of its list: category_id \"5.\""), "{said}");
    fs::write(files.path("truth.json"), text.replace("5.\"", "5\"")).unwrap();
    let (scores, _) = files.scores(&[]);
    assert_eq!(scores["per_class"]["hen"], 1.0);
    let goose = scores["per_class"]["goose"].as_f64().unwrap();
    assert!((goose - 51.0 / 101.0).abs() < 1e-12, "{goose}");
}

#[test]
fn what_is_wrong_with_a_box_names_file_and_id_and_can_be_left_out() {
    let wrong = [
        ([5.0, 5.0, 0.0, 20.0], "has no size"),
        ([10.0, 10.0, -4.0, 6.0], "negative width"),
        ([170.0, 70.0, 5.0, 5.0], "outside"),
    ];
    let mut labels = vec![label(40, 3, 1, PLACE), label(41, 3, 1, [90.0, 70.0, 20.0, 20.0])];
    for (id, (bbox, _)) in (42..).zip(&wrong) {
        labels.push(label(id, 3, 1, *bbox));
    }
    labels.extend([label(40, 3, 1, OTHER), label(46, 77, 1, OTHER), label(47, 3, 9, OTHER)]);
    let all = json!([found(3, 1, PLACE, 0.9), found(3, 1, [90.0, 70.0, 20.0, 20.0], 0.9)]);
    let files = Files::new(&truth(&[3], &PETS, &json!(labels)), &all);
    let said = fail(&mut files.eval(&[]));
    for (id, (_, what)) in (42..).zip(&wrong) {
        assert!(
            said.contains("truth.json: annotation 4") && said.contains(&format!("annotation {id}: bbox")),
            "{said}"
        );
        assert!(said.contains(what), "{what} is not in {said}");
    }
    assert!(said.contains("annotation 40: the id is there twice") && said.contains("and 1 more"), "{said}");
    let (scores, said) = files.scores(&["--skip-bad-boxes"]);
    assert_eq!(scores["AP"], 1.0);
    assert!(said.contains("6 boxes left out") && said.contains("annotation 47: category_id 9"), "{said}");
    assert!(said.contains("annotation 46: image_id 77") && said.contains("annotation 41: bbox"), "{said}");
    assert!(said.contains("1 box beyond the edge") && said.contains("reaches 10 pixels out"), "{said}");
}

#[test]
fn results_that_the_truth_does_not_know_are_named() {
    let file = truth(&[3], &PETS, &json!([label(1, 3, 1, PLACE)]));
    for (entry, what) in [
        (found(4, 1, PLACE, 0.5), "image_id 4 is not in the truth"),
        (found(3, 8, PLACE, 0.5), "category_id 8 is not in the truth"),
        (found(3, 1, [36.0, 24.0, -30.0, -20.0], 0.5), "negative width"),
        (json!({"image_id": 3, "category_id": 1, "bbox": [1, 2, 3], "score": 1}), "3 numbers"),
        (json!({"image_id": 3, "category_id": 1, "bbox": PLACE}), "has no score"),
        (json!({"image_id": 3, "category_id": 1, "bbox": PLACE, "score": "nan"}), "not finite"),
    ] {
        let files = Files::new(&file, &json!([found(3, 1, PLACE, 0.5), entry]));
        let said = fail(&mut files.eval(&["--json"]));
        assert!(said.contains("found.json: entry 2 of the list: ") && said.contains(what), "{what} is not in {said}");
        assert_eq!(files.scores(&["--skip-bad-boxes"]).0["AP"], 1.0);
    }
}

#[test]
fn files_that_are_something_else_are_errors_with_their_place() {
    let files = Files::new(&truth(&[3], &PETS, &json!([])), &json!([]));
    let with = |name: &str, text: &str| {
        let files = Files::new(&truth(&[3], &PETS, &json!([])), &json!([]));
        fs::write(files.path(name), text).unwrap();
        fail(&mut files.eval(&[]))
    };
    let twice = truth(&[3, 3], &PETS, &json!([])).to_string();
    let one_id = truth(&[3], &[(1, "hen"), (1, "goose")], &json!([])).to_string();
    let one_name = truth(&[3], &[(1, "hen"), (2, "hen")], &json!([])).to_string();
    for (name, text, said) in [
        ("truth.json", "[]", "truth.json: holds a list"),
        ("found.json", "{}", "found.json: holds one object"),
        ("truth.json", "", "truth.json: is empty"),
        ("truth.json", "{\n \"images\": [],\n \"categories\": [}", "truth.json:3:"),
        ("truth.json", "{\"images\": [], \"categories\": []}", "missing field `annotations`"),
        ("found.json", "[{\"image_id\": 3,\n\"score\": NaN}]", "found.json:2:"),
        ("found.json", "[{\"image_id\": 3,\n\"score\": NaN}]", "NaN and Infinity are no numbers"),
        ("found.json", "[{\"image_id\": 3.5}]", "3.5 is no id"),
        ("truth.json", &twice, "truth.json: image 3 is there twice, as number 1 and 2"),
        ("truth.json", &one_id, "truth.json: category 1 is there twice"),
        ("truth.json", &one_name, "categories 1 and 2 are both called `hen`"),
    ] {
        let error = with(name, text);
        assert!(error.contains(said), "{said} is not in {error}");
    }
    let absent = |path: &Path| fail(mentor().arg("eval").arg("--truth").arg(path).arg("--detections").arg(path));
    assert!(absent(&files.path("none.json")).contains("none.json: does not exist"));
    assert!(absent(files.0.path()).contains("is a folder"));
}

#[test]
fn the_limit_of_boxes_is_a_setting_and_reaching_it_is_said() {
    let place = |at: i64| [(at % 20 * 5) as f64, (at / 20 * 5) as f64, 4.0, 4.0];
    let labels: Vec<Value> = (0..120).map(|at| label(at, 3, 1, place(at))).collect();
    let all: Vec<Value> = (0..120).map(|at| found(3, 1, place(at), 1.0 - at as f64 / 1e3)).collect();
    let files = Files::new(&truth(&[3], &PETS, &json!(labels)), &json!(all));
    let (scores, said) = files.scores(&[]);
    // Recalls up to 0.83 are reached by 100 of 120.
    assert!((scores["AP"].as_f64().unwrap() - 84.0 / 101.0).abs() < 1e-12, "{scores}");
    assert!(said.contains("more than 100 boxes of one class") && said.contains("--max-detections"), "{said}");
    assert_eq!((&scores["max_detections"], &scores["over_max_detections"]), (&json!(100), &json!(1)));
    let (scores, said) = files.scores(&["--max-detections", "120"]);
    assert_eq!((&scores["AP"], said.as_str()), (&json!(1.0), ""));
}

#[test]
fn of_lvis_only_what_was_looked_for_is_a_mistake() {
    let mut file = truth(&[3, 4, 5], &PETS, &json!([label(1, 3, 1, PLACE)]));
    for (at, [negative, partial]) in
        [[json!([]), json!([1])], [json!([1]), json!([])], [json!([]), json!([])]].iter().enumerate()
    {
        (file["images"][at]["neg_category_ids"], file["images"][at]["not_exhaustive_category_ids"]) =
            (negative.clone(), partial.clone());
    }
    let with = |image: i64| {
        let all = json!([found(image, 1, OTHER, 0.9), found(3, 1, PLACE, 0.5)]);
        Files::new(&file, &all).scores(&[]).0["AP"].clone()
    };
    // Image 3 may hold more hens, in 4 there is none, in 5 nobody looked.
    assert_eq!([with(3), with(4), with(5)], [json!(1.0), json!(0.5), json!(1.0)]);
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let files = Files::new(&truth(&[3], &PETS, &json!([])), &json!([]));
    let file = files.path("truth.json");
    let refused = |arguments: &[&str]| fail(mentor().arg("eval").arg("--truth").arg(&file).args(arguments));
    assert!(refused(&[]).contains("--detections"));
    assert!(refused(&["--detections", "a", "--predictions", "b", "--card", "c"]).contains("cannot be used with"));
    assert!(refused(&["--predictions", "b"]).contains("--card"));
    assert!(refused(&["--detections", "a", "--max-detections", "0"]).contains('0'));
    assert!(refused(&["--predictions", "b", "--card", "c", "--skip-bad-boxes"]).contains("cannot be used with"));
    assert!(refused(&["--skip-bad-boxes"]).contains("--detections"));
}
