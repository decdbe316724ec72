//! What a user can get wrong is an error that says what, and never a panic.

use std::fs;
use std::path::Path;

use crate::support::{card, fail, mentor, recipe, scenes, succeed, tiny};

fn check(path: &Path) -> String {
    fail(mentor().arg("check").arg(path))
}

#[test]
fn what_is_no_recipe_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(check(folder.path()).contains("is a folder") || check(folder.path()).contains("directory"));
    assert!(check(&folder.path().join("none.toml")).contains("none.toml"));
    let empty = check(&recipe(folder.path(), "empty.toml", ""));
    assert!(empty.contains("empty.toml"), "{empty}");
    let syntax = check(&recipe(folder.path(), "syntax.toml", "task = \"seg\"\nseed = = 1\n"));
    assert!(syntax.contains("syntax.toml:2:"), "{syntax}");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = tiny("fcn", "", 10)
        .replace("crop_px = [64, 64]", "crop_px = [64, 64]\nflop = 0.5")
        .replace("lr = 0.02", "lr = 0.02\nmomentum = \"fast\"")
        .replace("width = 4", "width = 0");
    let line = |word: &str| text.lines().position(|line| line.starts_with(word)).unwrap() + 1;
    let path = recipe(folder.path(), "wrong.toml", &text);
    let found = check(&path);
    for (word, hint) in [("flop", "flip"), ("momentum", "number"), ("width", "512")] {
        let place = format!("wrong.toml:{}:", line(word));
        assert!(found.contains(&place) && found.contains(hint), "{place} {hint} in\n{found}");
    }
    let argument = fail(mentor().arg("check").arg(&path).args(["--set", "train.stepz=3"]));
    assert!(argument.contains("train.stepz"), "{argument}");
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let no_teacher = check(&recipe(folder.path(), "a.toml", &tiny("fcn", "[distill.pixel_wise]", 10)));
    assert!(no_teacher.contains("needs a teacher"), "{no_teacher}");
    let no_ema = check(&recipe(folder.path(), "b.toml", &tiny("fcn", "[unlabelled.mean_teacher]", 10)));
    assert!(no_ema.contains("[ema]"), "{no_ema}");
    let idle = tiny("fcn", "", 10).replace("batch_labelled = 2", "batch_labelled = 2\nbatch_unlabelled = 2");
    assert!(check(&recipe(folder.path(), "c.toml", &idle)).contains("has no effect"));
    let split = tiny("fcn", "", 10).replace("\"train_1_8\"", "\"train_1_9\"");
    let split = check(&recipe(folder.path(), "d.toml", &split));
    assert!(split.contains("train_1_9") && split.contains("train_1_8"), "{split}");
}

#[test]
fn weights_of_another_net_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = recipe(folder.path(), "teacher.toml", &tiny("fcn", "", 1));
    succeed(mentor().args(["train", "--no-report"]).arg(&teacher).arg("--out").arg(folder.path().join("teacher")));
    let wider = |weights: &str| {
        let rest = format!(
            "[teachers.big.fcn]\nbackbone = \"resnet18\"\nwidth = 8\noutput_stride = 16\nweights = \"{weights}\"\n\
             [distill.pixel_wise]\n"
        );
        recipe(folder.path(), "wider.toml", &tiny("fcn", &rest, 1))
    };
    let out = folder.path().join("out");
    let train = |recipe: &Path| fail(mentor().arg("train").arg(recipe).arg("--out").arg(&out));
    let other = train(&wider("teacher"));
    assert!(other.contains("shape"), "{other}");
    let absent = train(&wider("absent.pth"));
    assert!(absent.contains("absent.pth"), "{absent}");
    for (name, bytes) in
        [("junk.pth", b"hello".as_slice()), ("empty.safetensors", b""), ("cut.safetensors", b"\xff\0\0\0\0\0\0\0{")]
    {
        fs::write(folder.path().join(name), bytes).unwrap();
        let error = train(&wider(name));
        assert!(error.contains(name), "{error}");
    }
    // Nothing was written by a run that could not begin.
    assert!(!out.exists());
}

/// A data set of one image, whose files the test then spoils.
fn small_data(folder: &Path) -> std::path::PathBuf {
    let sample = scenes();
    let list = fs::read_to_string(sample.join("val/val.txt")).unwrap();
    let files: Vec<&str> = list.lines().find(|line| line.contains(".jpg")).unwrap().split_whitespace().collect();
    let data = folder.join("größe mit leerzeichen");
    fs::create_dir_all(data.join("images")).unwrap();
    fs::create_dir_all(data.join("labels")).unwrap();
    fs::copy(sample.join(files[0]), data.join("images/a b.jpg")).unwrap();
    fs::copy(sample.join(files[1]), data.join("labels/a b.png")).unwrap();
    let card = fs::read_to_string(sample.join("dataset.toml")).unwrap();
    let classes = card[card.find("[[classes]]").unwrap()..].to_owned();
    let card = format!(
        "name = \"small\"\ntitle = \"one image\"\nlicence = \"CC0\"\nsource = \"a test\"\nget = \"a test\"\n\
         [masks]\nformat = \"index\"\nignore = [255]\n[splits]\nall = {{ list = \"all.txt\" }}\n{classes}"
    );
    fs::write(data.join("dataset.toml"), card).unwrap();
    fs::write(data.join("all.txt"), "images/a b.jpg\tlabels/a b.png\n").unwrap();
    data
}

fn small_recipe(folder: &Path, data: &Path) -> std::path::PathBuf {
    let text = tiny("fcn", "", 2)
        .replace(&card(), &data.join("dataset.toml").display().to_string())
        .replace("\"train_1_8\"", "\"all\"")
        .replace("\"val\"", "\"all\"");
    recipe(folder, "small.toml", &text)
}

#[test]
fn paths_with_spaces_and_letters_of_all_kinds_work() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path());
    let recipe = small_recipe(folder.path(), &data);
    let out = folder.path().join("läuft");
    succeed(mentor().arg("train").arg(&recipe).arg("--out").arg(&out));
    let pictures = folder.path().join("bilder");
    succeed(mentor().arg("predict").arg(&out).arg(data.join("images")).arg("--out").arg(&pictures));
    assert!(pictures.join("a b.png").exists());
}

#[test]
fn bad_images_and_lists_are_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = small_data(folder.path());
    let recipe = small_recipe(folder.path(), &data);
    let out = folder.path().join("out");
    let train = || fail(mentor().arg("train").arg(&recipe).arg("--out").arg(&out));
    let image = data.join("images/a b.jpg");
    let good = fs::read(&image).unwrap();

    fs::write(&image, b"").unwrap();
    assert!(train().contains("a b.jpg"));
    fs::write(&image, &good[..good.len() / 2]).unwrap();
    let error = train();
    assert!(error.contains("a b.jpg"), "{error}");
    fs::write(&image, &good).unwrap();

    fs::write(data.join("all.txt"), "../images/a.jpg labels/a.png\n").unwrap();
    let error = train();
    assert!(error.contains("all.txt:1") && error.contains(".."), "{error}");
    fs::write(data.join("all.txt"), "/etc/passwd labels/a.png\n").unwrap();
    assert!(train().contains("all.txt:1"));
    fs::write(data.join("all.txt"), "images/none.jpg labels/none.png\n").unwrap();
    let error = train();
    assert!(error.contains("none.jpg"), "{error}");
}

#[test]
fn a_compared_result_without_the_score_is_refused_at_its_key_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let other = r#"{"row": "boxes", "seed": 0, "key": "k", "metrics": {"ap": 0.5}, "steps": 7, "device": "cpu",
        "commit": "c", "seconds": 1.0}"#;
    fs::write(folder.path().join("boxes.json"), other).unwrap();
    let text = tiny("fcn", "[compare]\nboxes = \"boxes.json\"\n", 3);
    let line = text.lines().position(|line| line.starts_with("boxes")).unwrap() + 1;
    let path = recipe(folder.path(), "compare.toml", &text);
    let out = folder.path().join("run");
    let found = fail(mentor().arg("train").arg(&path).arg("--out").arg(&out));
    assert!(found.contains(&format!("compare.toml:{line}:")) && found.contains("boxes.json: has no `miou`"), "{found}");
    assert!(!out.exists(), "nothing was trained");
}
