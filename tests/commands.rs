//! The commands as a user types them.

use std::fs;

use mentor_weights::to_safetensors;
use serde_json::Value;

use crate::support::{card, fail, mentor, recipe, root, scenes, succeed, tiny};

#[test]
fn help_of_every_command_shows_an_example() {
    let help = succeed(mentor().arg("--help"));
    for command in
        ["train", "eval", "predict", "study", "check", "data", "new", "term", "report", "export", "list", "schema"]
    {
        assert!(help.contains(command), "{command} is not listed");
        let help = succeed(mentor().args([command, "--help"]));
        assert!(help.contains("Example") && help.contains(&format!("mentor {command}")), "{command}\n{help}");
    }
}

#[test]
fn a_run_can_be_scored_exported_and_predicted_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let recipe = recipe(folder.path(), "plain.toml", &tiny("fcn", "", 3));
    succeed(mentor().arg("train").arg(&recipe).arg("--out").arg(&out));
    let result: Value = serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!(result["steps"], 3);

    let scored: Value = serde_json::from_str(&succeed(mentor().arg("eval").arg(&out).arg("--json"))).unwrap();
    assert_eq!(scored["miou"], result["val"]["miou"]);

    let export = |name: &str| {
        let path = folder.path().join(name);
        succeed(mentor().arg("export").arg(&out).arg("--to").arg(&path));
        path
    };
    let [first, second] = ["a.safetensors", "b.safetensors"].map(export);
    assert_eq!(fs::read(&first).unwrap(), fs::read(second).unwrap());
    let scored: Value =
        serde_json::from_str(&succeed(mentor().arg("eval").arg(&out).arg("--json").arg("--weights").arg(first)))
            .unwrap();
    assert_eq!(scored["miou"], result["val"]["miou"]);

    // Masks that were written can be scored, and they score as the run does.
    let masks = folder.path().join("masks");
    let (truth, photos) = (folder.path().join("truth"), folder.path().join("photos"));
    fs::create_dir_all(&truth).unwrap();
    fs::create_dir_all(&photos).unwrap();
    let sample = scenes();
    for line in fs::read_to_string(sample.join("val/val.txt")).unwrap().lines().filter(|line| line.contains(".jpg")) {
        let files: Vec<&str> = line.split_whitespace().collect();
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        fs::copy(sample.join(files[0]), photos.join(name(files[0]))).unwrap();
        fs::copy(sample.join(files[1]), truth.join(name(files[1]))).unwrap();
    }
    succeed(mentor().arg("predict").arg(&out).arg(&photos).arg("--as-labels").arg("--out").arg(&masks));
    let command = ["eval", "--card", &card(), "--json"];
    let masks: Value = serde_json::from_str(&succeed(
        mentor().args(command).arg("--truth").arg(&truth).arg("--predictions").arg(&masks),
    ))
    .unwrap();
    for key in ["miou", "pixel_accuracy", "boundary_iou"] {
        let (one, other) = (masks[key].as_f64().unwrap(), result["val"][key].as_f64().unwrap());
        assert!((one - other).abs() < 1e-6, "{key}: {one} and {other}");
    }
}

#[test]
fn samples_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("samples");
    let rest = "[unlabelled.fixmatch]\n";
    let recipe = recipe(folder.path(), "plain.toml", &tiny("fcn", rest, 3));
    succeed(mentor().arg("data").arg(&recipe).args(["--draw", "3"]).arg("--out").arg(&out));
    for name in ["labelled_002.png", "unlabelled_002.png", "labelled.png", "unlabelled.png"] {
        assert!(out.join(name).exists(), "{name}");
    }
}

#[test]
fn report_and_samples_show_what_each_term_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let rest = "[ema]\n\n[unlabelled.mean_teacher]\nmin_confidence = 0.3\n\n[unlabelled.fixmatch]\nthreshold = 0.4\n";
    let recipe = recipe(folder.path(), "both.toml", &tiny("fcn", rest, 3));
    succeed(mentor().arg("train").arg(&recipe).arg("--out").arg(&out));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for words in
        ["pseudo-labels of mean_teacher", "pseudo-labels of fixmatch", "fixmatch accepted <b>", "mIoU on val (ema)"]
    {
        assert!(page.contains(words), "the report does not say {words:?}");
    }
    let draw = |recipe: &std::path::Path, samples: &str| {
        let mut command = mentor();
        command.arg("data").arg(recipe).args(["--draw", "1"]).arg("--run").arg(&out);
        command.arg("--out").arg(folder.path().join(samples));
        command
    };
    succeed(&mut draw(&recipe, "samples"));
    let width = |name: &str| image::open(folder.path().join("samples").join(name)).unwrap().width();
    // Views, and what each of two terms teaches, side by side.
    // Tiles of 64 pixels are drawn three times as wide.
    assert!(width("unlabelled_000.png") >= 4 * 192 && width("labelled_000.png") < 4 * 192);
    let plain = crate::support::recipe(folder.path(), "plain.toml", &tiny("fcn", "", 3));
    let idle = fail(&mut draw(&plain, "idle"));
    assert!(idle.contains("--run has no effect"), "{idle}");
}

#[test]
fn a_term_is_evaluated_on_tensors_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let grad = folder.path().join("grad.safetensors");
    let input = root().join("tests/golden/term.safetensors");
    let printed = succeed(
        mentor()
            .args(["term", "pixel_wise", "--set", "temperature=2.0"])
            .arg("--in")
            .arg(&input)
            .arg("--grad")
            .arg(&grad),
    );
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(root().join("tests/golden/term.json")).unwrap()).unwrap();
    assert_eq!(printed["term"], "pixel_wise");
    let (found, expected) = (printed["value"].as_f64().unwrap(), expected["pixel_wise_t2"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-5 * expected.abs(), "{found} instead of {expected}");
    assert!(grad.exists());
    let unknown = fail(mentor().args(["term", "pixelwise"]).arg("--in").arg(&input));
    assert!(unknown.contains("pixel_wise"), "{unknown}");
}

/// A file of tensors with these shapes, filled with a pattern.
fn tensors(folder: &std::path::Path, shapes: &[(&str, &[usize])]) -> std::path::PathBuf {
    let tensor = |(name, shape): &(&str, &[usize])| {
        let values = (0..shape.iter().product()).map(|i: usize| (i % 7) as f32 - 3.0).collect();
        ((*name).to_owned(), (shape.to_vec(), values))
    };
    let path = folder.join("tensors.safetensors");
    fs::write(&path, to_safetensors(&shapes.iter().map(tensor).collect()).unwrap()).unwrap();
    path
}

#[test]
fn every_column_of_a_term_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let map: &[usize] = &[2, 3, 4, 4];
    let shapes = [("student_feature", map), ("teacher_feature", map), ("student_logits", map), ("teacher_logits", map)];
    let path = tensors(folder.path(), &shapes);
    let places = r#"at=[{student="p3",teacher="p3"},{student="c5",teacher="c4",weight=0.5},{student="logits",teacher="logits"}]"#;
    let printed = succeed(mentor().args(["term", "pair_wise", "--set", places]).arg("--in").arg(path));
    let columns: Vec<String> = printed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["column"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(columns, ["pair_wise@p3", "pair_wise@c5-c4", "pair_wise@logits"]);
}

#[test]
fn tensors_that_do_not_fit_a_term_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let map: &[usize] = &[2, 3, 4, 4];
    for (term, wrong, said) in [
        ("pixel_wise", ("teacher_logits", &[][..]), "`teacher_logits` has shape [], expected 4 dimensions"),
        ("pixel_wise", ("teacher_logits", &[2, 3, 0, 4][..]), "expected no side of 0"),
        ("pixel_wise", ("teacher_logits", &[2, 4, 4, 4][..]), "other classes"),
        ("fixmatch", ("teacher_logits", &[3, 3, 4, 4][..]), "other images"),
        ("holistic", ("images", &[2, 4, 8, 8][..]), "expected 3 channels"),
        ("holistic", ("images", &[1, 3, 8, 8][..]), "other images"),
    ] {
        let teacher = ("teacher_logits", map);
        let others = [("student_logits", map), teacher];
        let shapes: Vec<_> = others.into_iter().filter(|(name, _)| *name != wrong.0).chain([wrong]).collect();
        let path = tensors(folder.path(), &shapes);
        let error = fail(mentor().args(["term", term]).arg("--in").arg(path));
        assert!(error.contains(wrong.0) && error.contains(said), "{term}: {error}");
    }
}

#[test]
fn a_term_with_weights_of_its_own_takes_them_from_file_or_seed() {
    let input = root().join("tests/golden/term.safetensors");
    let value = |arguments: &[&str]| -> f64 {
        let printed = succeed(mentor().arg("term").args(arguments).arg("--in").arg(&input));
        serde_json::from_str::<Value>(&printed).unwrap()["value"].as_f64().unwrap()
    };
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(root().join("tests/golden/term.json")).unwrap()).unwrap();
    let adapted = value(&["pair_wise", "--set", "adapter=true", "--set", "pool=0.5"]);
    assert!((adapted - expected["pair_wise_adapted"].as_f64().unwrap()).abs() < 1e-5, "{adapted}");
    let holistic = |seed: &str| value(&["holistic", "--set", "rival.channels=4", "--seed", seed]);
    assert_eq!(holistic("1"), holistic("1"));
    assert_ne!(holistic("1"), holistic("2"));
}

#[test]
fn a_term_at_a_place_of_two_taps_takes_each_side_from_its_own() {
    let input = root().join("tests/golden/term.safetensors");
    let at = "at=[{ student = \"c5\", teacher = \"logits\" }]";
    // The student's 8 channels meet the teacher's 5 classes; the file's adapter is for its 12 features.
    let said = fail(mentor().args(["term", "cwd", "--set", at]).arg("--in").arg(&input));
    assert!(said.contains("`adapter`"), "{said}");
}

#[test]
fn a_folder_of_ones_own_gets_a_card_and_a_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    for (kind, ending) in [("images", "jpg"), ("labels", "png")] {
        fs::create_dir_all(own.join(kind)).unwrap();
        let sample = scenes().join("train").join(if kind == "labels" { "masks" } else { kind });
        let mut files: Vec<_> = fs::read_dir(sample).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.extension().is_some_and(|e| e == ending)).take(10) {
            fs::copy(&file, own.join(kind).join(file.file_name().unwrap())).unwrap();
        }
    }
    succeed(mentor().arg("new").arg(&own));
    succeed(mentor().arg("check").arg(own.join("recipe.toml")));
    let again = fail(mentor().arg("new").arg(&own));
    assert!(again.contains("already there"), "{again}");
}

#[test]
fn drawn_towns_are_a_data_set_that_trains() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("towns");
    succeed(mentor().args(["scenes", "--count", "12", "--size", "64", "--out"]).arg(&out));
    let again = fail(mentor().args(["scenes", "--count", "12", "--out"]).arg(&out));
    assert!(again.contains("is already there"), "{again}");
    let own = out.join("dataset.toml").display().to_string();
    let text = tiny("fcn", "", 2).replace(&card(), &own).replace("train_1_8", "train");
    let recipe = recipe(folder.path(), "towns.toml", &text);
    let checked = succeed(mentor().arg("check").arg(&recipe));
    assert!(checked.contains("7 classes") && checked.contains("labelled     train: 3 images"), "{checked}");
    let run = folder.path().join("run");
    succeed(mentor().args(["train", "--no-report"]).arg(&recipe).arg("--out").arg(&run));
    let scored = succeed(mentor().arg("eval").arg(&run).args(["--split", "test"]));
    assert!(scored.contains("mIoU") && scored.contains("boat"), "{scored}");
}

#[test]
fn rows_of_a_study_at_once_give_what_they_give_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    recipe(folder.path(), "plain.toml", &tiny("fcn", "", 3));
    let taught = "[teachers.one.fcn]\nbackbone = \"resnet18\"\nwidth = 4\noutput_stride = 16\n\
                  weights = \"none\"\n[distill.pixel_wise]\n";
    recipe(folder.path(), "taught.toml", &tiny("fcn", taught, 3));
    let study = "title = \"t\"\nbaseline = \"plain\"\nseeds = [0, 1]\n\
                 [[rows]]\nname = \"taught\"\nrecipe = \"taught.toml\"\n\
                 set = { \"teachers.one.fcn.weights\" = \"row:plain@0\" }\n\
                 [[rows]]\nname = \"plain\"\nrecipe = \"plain.toml\"\n";
    let study = recipe(folder.path(), "study.toml", study);
    let results = |name: &str, jobs: &str| {
        let results = folder.path().join(name);
        let mut command = mentor();
        command.args(["study", "--device", "cpu", "--jobs", jobs]).arg(&study).arg("--results").arg(&results);
        succeed(command.arg("--out").arg(folder.path().join(format!("{name}_runs"))));
        let names = ["plain.seed0", "plain.seed1", "taught.seed0", "taught.seed1"];
        names.map(|name| {
            let text = fs::read_to_string(results.join(format!("{name}.json"))).unwrap();
            let mut result: Value = serde_json::from_str(&text).unwrap();
            result.as_object_mut().unwrap().retain(|key, _| !["seconds", "device"].contains(&key.as_str()));
            result
        })
    };
    assert_eq!(results("one", "1"), results("three", "3"));
    // A row that fails is named with what it said.
    let broken = tiny("fcn", "", 3).replace("lr = 0.02", "lr = 1e30").replace("steps = 3", "steps = 40");
    recipe(folder.path(), "plain.toml", &broken);
    let mut command = mentor();
    command
        .args(["study", "--device", "cpu", "--jobs", "2"])
        .arg(&study)
        .arg("--results")
        .arg(folder.path().join("bad"));
    let said = fail(command.arg("--out").arg(folder.path().join("bad_runs")));
    assert!(said.contains("plain.seed") && said.contains("finite") && said.contains(".log"), "{said}");
}
