//! A detector from a recipe to its boxes.

use std::fs;
use std::path::{Path, PathBuf};

use mentor_weights::{from_safetensors, to_safetensors};
use serde_json::Value;

use crate::support::{card, fail, log_without_times, mentor, recipe, scenes, succeed};

const NET: &str = "backbone = \"resnet18\"\nwidth = 4\nlevels = [\"p3\", \"p4\"]\nhead_convs = 1\n";

fn text(rest: &str, width: usize, channels: usize) -> String {
    let net = NET.replace("width = 4", &format!("width = {width}\nhead_channels = {channels}"));
    format!(
        "task = \"det\"\nseed = 3\n[data]\ncard = \"{}\"\nlabelled = \"train_1_8\"\nval = \"val\"\n[views]\ncrop_px = [64, 64]\n\
         [student.fcos]\n{net}[optimizer.sgd]\nlr = 0.02\n{rest}\n[train]\nsteps = 6\nbatch_labelled = 2\n\
         log_every_steps = 1\ncheckpoint_every_steps = 3\neval_every_steps = 6\n",
        card()
    )
}

/// Every term that this net can feed, taught by a wider one; `class_kd` on the unlabelled stream, too.
const TAUGHT: &str = r#"
[distill.imitation]
[distill.regression_imitation]
at = [{ student = "p3", teacher = "p3" }]
[distill.pkd]
[distill.fgd]
[distill.weighted_cross_entropy]
[distill.bounded_regression]
[distill.hint]
weight = 0.01
[distill.defeat]
weight = 0.001
[distill.crosskd]
convs = 1
[distill.mgd]
[distill.cwd]
[distill.dist]
[distill.adaptive]
[distill.mimic]
[distill.class_kd]
on = ["labelled", "unlabelled"]
[distill.teacher_boxes]
threshold = 0.05
[distill.box_kd]
[unlabelled.unbiased_teacher]
threshold = 0.05
burn_in_steps = 2
[ema]
decay = 0.9
"#;

fn train(recipe: &Path, out: &Path, more: &[&str]) -> String {
    succeed(mentor().arg("train").arg(recipe).arg("--out").arg(out).args(more))
}

/// A folder with a teacher and a recipe that learns from it.
fn prepare() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let teacher = recipe(folder.path(), "teacher.toml", &text("", 8, 16));
    train(&teacher, &folder.path().join("teacher"), &["--no-report", "--set", "train.steps=2"]);
    let net = NET.replace("width = 4", "width = 8\nhead_channels = 16");
    let taught = format!("[teachers.wide.fcos]\n{net}weights = \"teacher\"\n{TAUGHT}");
    let taught = text(&taught, 4, 8)
        .replace("val = \"val\"", "unlabelled = \"unlabelled\"\nval = \"val\"")
        .replace("batch_labelled = 2", "batch_labelled = 2\nbatch_unlabelled = 2");
    let path = recipe(folder.path(), "taught.toml", &taught);
    (folder, path)
}

#[test]
fn a_detector_is_taught_resumes_bit_for_bit_is_judged_and_draws_its_boxes() {
    let (folder, recipe) = prepare();
    let out = folder.path().join("run");
    train(&recipe, &out, &[]);
    let left = || {
        let model = fs::read(out.join("checkpoints/step-00000006/model.safetensors")).unwrap();
        (log_without_times(&out), model)
    };
    let whole = left();
    for column in [
        "focal",
        "giou",
        "centerness",
        "imitation@p3",
        "imitation@p4",
        "regression_imitation@p3",
        "fgd@p4",
        "crosskd@reg_tower",
        "mgd@p3",
        "class_kd/unlabelled",
        "teacher_boxes/unlabelled",
    ] {
        assert!(whole.0[0].to_string().contains(column), "{column}: {}", whole.0[0]);
    }
    let has = |line: &Value, column: &str| line.to_string().contains(column);
    assert!(!has(&whole.0[1], "unbiased_teacher") && has(&whole.0[2], "unbiased_teacher_boxes"), "its burn-in");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "AP50",
        "building",
        "teacher wide",
        "Where it does best and worst",
        "Precision over recall",
        "What unlabelled images",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(fs::read_dir(out.join("pictures")).unwrap().count() > 0);
    // As if it had been killed after step 3.
    fs::remove_dir_all(out.join("checkpoints/step-00000006")).unwrap();
    fs::remove_file(out.join("result.json")).unwrap();
    train(&recipe, &out, &["--resume", "--no-report"]);
    assert!(left() == whole, "a resumed run differs");

    let scores: Value = serde_json::from_str(&succeed(mentor().arg("eval").arg(&out).arg("--json"))).unwrap();
    for key in ["AP", "AP50", "APs", "AR100"] {
        assert!(scores[key].as_f64().is_some_and(|score| (0.0..=1.0).contains(&score)), "{key}: {scores}");
    }
    let image = fs::read_dir(scenes().join("val/images")).unwrap().next().unwrap().unwrap().path();
    let predictions = folder.path().join("predictions");
    let predict = |more: &[&str]| {
        succeed(mentor().arg("predict").arg(&out).arg(&image).arg("--out").arg(&predictions).args(more))
    };
    predict(&[]);
    predict(&["--as-labels"]);
    let boxes = fs::read_to_string(predictions.join("instances.json")).unwrap();
    let boxes: Value = serde_json::from_str(&boxes).unwrap();
    assert_eq!(boxes["images"][0]["file_name"].as_str(), image.file_name().unwrap().to_str());
    assert_eq!(boxes["categories"].as_array().unwrap().len(), 4);
    let picture = predictions.join(image.file_name().unwrap()).with_extension("png");
    assert!(image::open(picture).unwrap().width() > 96);
}

/// The keys of a net with two stages where those of one with a single stage stand.
const TWO_STAGES: [(&str, &str); 2] =
    [(".fcos]", ".faster_rcnn]"), ("head_convs = 1\n", "region_width = 16\ncandidates = 60\nproposals = 40\n")];

#[test]
fn two_stages_are_taught_resume_bit_for_bit_and_find_boxes() {
    let two_stages = |text: String| TWO_STAGES.iter().fold(text, |text, (one, two)| text.replace(one, two));
    let folder = tempfile::tempdir().unwrap();
    let teacher = recipe(folder.path(), "teacher.toml", &two_stages(text("", 8, 16)));
    train(&teacher, &folder.path().join("teacher"), &["--no-report", "--set", "train.steps=2"]);
    let net = NET.replace("width = 4", "width = 8\nhead_channels = 16");
    let taught = format!(
        "[teachers.wide.fcos]\n{net}weights = \"teacher\"\n[supervised.regions]\nregions = 32\n[distill.mimic]\n[distill.pkd]\n\
         [distill.teacher_boxes]\nthreshold = 0.05\n[unlabelled.unbiased_teacher]\nthreshold = 0.05\n[ema]\ndecay = 0.9\n"
    );
    let taught = text(&taught, 4, 8)
        .replace("val = \"val\"", "unlabelled = \"unlabelled\"\nval = \"val\"")
        .replace("batch_labelled = 2", "batch_labelled = 2\nbatch_unlabelled = 2");
    let recipe = recipe(folder.path(), "taught.toml", &two_stages(taught));
    let out = folder.path().join("run");
    train(&recipe, &out, &[]);
    let left = || {
        let model = fs::read(out.join("checkpoints/step-00000006/model.safetensors")).unwrap();
        (log_without_times(&out), model)
    };
    let whole = left();
    for column in
        ["rpn_objectness", "rpn_boxes", "region_classes", "region_boxes", "mimic@p4", "teacher_boxes/unlabelled"]
    {
        assert!(whole.0[0].to_string().contains(column), "{column}: {}", whole.0[0]);
    }
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("AP50"));
    // As if it had been killed after step 3.
    fs::remove_dir_all(out.join("checkpoints/step-00000006")).unwrap();
    fs::remove_file(out.join("result.json")).unwrap();
    train(&recipe, &out, &["--resume", "--no-report"]);
    assert!(left() == whole, "a resumed run differs");
    let scores: Value = serde_json::from_str(&succeed(mentor().arg("eval").arg(&out).arg("--json"))).unwrap();
    assert!(scores["AP"].as_f64().is_some_and(|score| (0.0..=1.0).contains(&score)), "{scores}");
    let image = fs::read_dir(scenes().join("val/images")).unwrap().next().unwrap().unwrap().path();
    let predictions = folder.path().join("predictions");
    succeed(mentor().arg("predict").arg(&out).arg(&image).arg("--out").arg(&predictions));
    assert_eq!(fs::read_dir(predictions).unwrap().count(), 1);
    // What the first stage says of classes is nothing to compare.
    let said = fail(mentor().arg("check").arg(&recipe).args(["--set", "distill.class_kd={}"]));
    assert!(said.contains("distill.class_kd") && said.contains("says no classes there"), "{said}");
}

#[test]
fn what_a_detector_finds_in_a_split_is_labels_that_another_learns() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = recipe(folder.path(), "teacher.toml", &text("", 4, 8));
    train(&teacher, &folder.path().join("teacher"), &["--no-report", "--set", "train.steps=2"]);
    let found = folder.path().join("found");
    let mut predict = mentor();
    predict.arg("predict").arg(folder.path().join("teacher")).args(["--split", "unlabelled", "--as-labels"]);
    succeed(predict.arg("--out").arg(&found));
    let file: Value = serde_json::from_str(&fs::read_to_string(found.join("instances.json")).unwrap()).unwrap();
    let name = file["images"][0]["file_name"].as_str().unwrap();
    assert!(name.starts_with("unlabelled/"), "{name}");
    // The path is found beside the recipe. A fresh detector is sure of nothing.
    let stac = text("[unlabelled.stac]\n", 4, 8)
        .replace(
            "val = \"val\"",
            "unlabelled = \"unlabelled\"\nval = \"val\"\n\
             pseudo_labels = { file = \"found/instances.json\", min_score = 0.05 }",
        )
        .replace("batch_labelled = 2", "batch_labelled = 2\nbatch_unlabelled = 2");
    let path = recipe(folder.path(), "stac.toml", &stac);
    let out = folder.path().join("run");
    train(&path, &out, &["--set", "train.steps=2"]);
    let log = log_without_times(&out);
    assert!(log[0].to_string().contains("\"stac\"") && log[0].to_string().contains("stac_boxes"), "{}", log[0]);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("What unlabelled images were taught"));

    let refused = |set: &[&str]| fail(mentor().arg("check").arg(&path).args(set));
    assert!(refused(&["--unset", "data.pseudo_labels"]).contains("`unlabelled.stac`: learns labels on file: add"));
    let idle = refused(&["--unset", "unlabelled.stac", "--set", "unlabelled.unbiased_teacher.teacher=\"student\""]);
    assert!(idle.contains("`data.pseudo_labels`: has no effect"), "{idle}");
    let both = refused(&["--set", "unlabelled.unbiased_teacher.teacher=\"student\""]);
    assert!(both.contains("finds no box where there are labels on file"), "{both}");
    let missing = refused(&["--set", "data.pseudo_labels.file=\"nowhere.json\""]);
    assert!(missing.contains("no such file: `nowhere.json`"), "{missing}");
}

#[test]
fn a_folder_of_ones_own_boxes_gets_a_card_and_a_recipe_that_trains() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    for kind in ["images", "labels"] {
        fs::create_dir_all(own.join(kind)).unwrap();
    }
    for at in 0..6 {
        image::RgbImage::new(64, 64).save(own.join(format!("images/{at}.jpg"))).unwrap();
        let label = if at == 4 { "0 9 9 9 9\n0 0.5 0.5 0.5 0.5\n" } else { "1 0.5 0.5 0.5 0.5\n" };
        fs::write(own.join(format!("labels/{at}.txt")), label).unwrap();
    }
    fs::remove_file(own.join("labels/5.txt")).unwrap();
    fs::write(own.join("classes.txt"), "hen\ngoose\n").unwrap();
    let said = succeed(mentor().arg("new").arg(&own));
    for line in ["hen 1, goose 4", "1 images that nobody labelled", "labels/4.txt:1: `9` is no fraction"] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    let recipe = own.join("recipe.toml");
    let checked = succeed(mentor().arg("check").arg(&recipe));
    assert!(checked.contains("1 box left out: ") && checked.contains("goose"), "{checked}");
    let run = folder.path().join("run");
    train(&recipe, &run, &["--set", "train.steps=2", "--set", "student.fcos.width=4"]);
    let result = fs::read_to_string(run.join("result.json")).unwrap();
    assert!(result.contains("labels/4.txt") && result.contains("1 box left out"), "{result}");
}

#[test]
fn images_are_seen_in_another_size_and_their_boxes_are_said_in_their_own() {
    let folder = tempfile::tempdir().unwrap();
    // Scenes of 96 pixels each way.
    let resized = text("[eval]\nresize = { short_px = 160, long_px = 200 }\nscore_threshold = 0.0\n", 4, 8)
        .replace(
            "crop_px = [64, 64]",
            "crop_px = [64, 64]\nresize = { short_px = 64, long_px = 100 }\nscale = [1.0, 1.0]",
        )
        .replace("head_convs = 1\n", "head_convs = 1\npyramid = \"pafpn\"\n");
    let path = recipe(folder.path(), "resized.toml", &resized);
    let out = folder.path().join("run");
    train(&path, &out, &["--no-report", "--set", "train.steps=2"]);
    let image = fs::read_dir(scenes().join("val/images")).unwrap().next().unwrap().unwrap().path();
    let predictions = folder.path().join("predictions");
    succeed(mentor().arg("predict").arg(&out).arg(&image).arg("--as-labels").arg("--out").arg(&predictions));
    let found: Value = serde_json::from_str(&fs::read_to_string(predictions.join("instances.json")).unwrap()).unwrap();
    let ends = found["annotations"].as_array().unwrap().iter().map(|one| {
        let edge = |at: usize| one["bbox"][at].as_f64().unwrap();
        [edge(0) + edge(2), edge(1) + edge(3)]
    });
    let ends: Vec<f64> = ends.flatten().collect();
    assert!(ends.len() > 20 && ends.iter().all(|end| *end <= 96.001), "{ends:?}");
    assert!(ends.iter().any(|end| *end > 64.0), "{ends:?}");
    let scored = |set: &str| succeed(mentor().arg("check").arg(&path).args(["--no-data", "--set", set]));
    assert!(scored("eval.multiple_px=64").contains("multiple_px = 64"));
    let message = fail(mentor().arg("check").arg(&path).args(["--set", "eval.resize.long_px=20"]));
    assert!(message.contains("`eval.resize.long_px`: is 20, below `short_px`"), "{message}");
    let message = fail(mentor().arg("check").arg(&path).args(["--set", "views.resize.short_px=0"]));
    assert!(message.contains("`views.resize.short_px`: is 0"), "{message}");
}

#[test]
fn every_list_of_a_recipe_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str, ids: [usize; 3]| {
        for part in ["images", "labels"] {
            fs::create_dir_all(folder.path().join(name).join(part)).unwrap();
        }
        for id in ids {
            image::RgbImage::new(64, 64).save(folder.path().join(format!("{name}/images/{id}.png"))).unwrap();
            fs::write(folder.path().join(format!("{name}/labels/{id}.txt")), "0 0.5 0.5 0.5 0.5\n").unwrap();
        }
    };
    list("train", [1, 2, 3]);
    list("rest", [4, 5, 6]);
    list("val", [7, 8, 9]);
    let split = |name: &str| format!("{name} = {{ folder = \"{name}\" }}\n");
    let own_card = format!(
        "name = \"own\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"t\"\n\
         [boxes]\nformat = \"yolo\"\npath = \"{{list}}/labels/{{id}}.txt\"\n\
         [pairing]\nid = \"{{list}}/images/{{id}}.png\"\n[splits]\n{}{}{}[[classes]]\nname = \"hen\"\ncolor = [1, 0, 0]\n",
        split("train"),
        split("rest"),
        split("val")
    );
    fs::write(folder.path().join("dataset.toml"), own_card).unwrap();
    let own = text("[unlabelled.unbiased_teacher]\nteacher = \"student\"\n", 4, 8)
        .replace(&card(), &folder.path().join("dataset.toml").display().to_string())
        .replace("\"train_1_8\"\n", "\"train\"\nunlabelled = \"rest\"\n")
        .replace("batch_labelled = 2", "batch_labelled = 2\nbatch_unlabelled = 2");
    let path = recipe(folder.path(), "own.toml", &own);
    let check = || mentor().arg("check").arg(&path).output().unwrap();
    assert!(check().status.success(), "{:?}", check());
    let broken = |file: &str, bytes: &str| {
        let file = folder.path().join(file);
        let before = fs::read(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        let said = fail(mentor().arg("check").arg(&path));
        let left_out = succeed(mentor().arg("check").arg(&path).args(["--set", "data.on_bad_sample=\"skip\""]));
        fs::write(&file, before).unwrap();
        (said, left_out)
    };
    for file in ["rest/images/5.png", "val/images/8.png"] {
        let (said, left_out) = broken(file, "no image");
        assert!(said.contains(file) && left_out.contains(&format!("left out: {}", folder.path().join(file).display())));
    }
    for file in ["rest/labels/5.txt", "val/labels/8.txt"] {
        let (said, left_out) = broken(file, "0 7 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n");
        assert!(said.contains(&format!("{file}:1: `7` is no fraction")), "{said}");
        assert!(left_out.contains("1 box left out") && left_out.contains(file), "{left_out}");
    }
    // Nobody need have labelled the rest.
    for id in 4..7 {
        fs::remove_file(folder.path().join(format!("rest/labels/{id}.txt"))).unwrap();
    }
    assert!(check().status.success(), "{:?}", check());
}

#[test]
fn what_does_not_fit_boxes_is_said_before_the_first_step() {
    let (folder, path) = prepare();
    let said = |set: &str| fail(mentor().arg("check").arg(&path).arg("--set").arg(set));
    assert!(said("views.strong.cutmix=0.5").contains("`views.strong.cutmix`: must be 0: boxes do not follow"));
    let unfit = said("distill.ld.weight=1.0");
    assert!(unfit.contains("distill.ld") && unfit.contains("the student (fcos) has none"), "{unfit}");
    assert!(
        said("distill.crosskd.convs=2").contains("at most the `head_convs` of both nets"),
        "{}",
        said("distill.crosskd.convs=2")
    );
    let place = "distill.imitation.at=[{student=\"p5\",teacher=\"p5\"}]";
    assert!(said(place).contains("p5"), "{}", said(place));
    let masks = fs::read_to_string(&path).unwrap().replace("task = \"det\"", "task = \"seg\"");
    fs::write(folder.path().join("masks.toml"), masks).unwrap();
    assert!(fail(mentor().arg("check").arg(folder.path().join("masks.toml"))).contains("fcos"));
    // A split whose images have labels of another kind alone: there is no box in it.
    let message = fail(mentor().arg("check").arg(&path).args(["--set", "data.labelled=\"train_scribbles\""]));
    assert!(message.contains("no box in"), "{message}");
}

/// A file of tensors.
fn tensors(folder: &Path, parts: &[(&str, &[usize], &[f32])]) -> PathBuf {
    let tensor =
        |(name, shape, values): &(&str, &[usize], &[f32])| ((*name).to_owned(), (shape.to_vec(), values.to_vec()));
    let path = folder.join("tensors.safetensors");
    fs::write(&path, to_safetensors(&parts.iter().map(tensor).collect()).unwrap()).unwrap();
    path
}

#[test]
fn a_term_is_evaluated_on_boxes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (grad, target) = (folder.path().join("grad.safetensors"), [0.0, 0.0, 8.0, 8.0]);
    // Two places of two channels; the second has no target. Overlaps of 1/4 and 1: a gap of 3/4 times 9 / 2.
    let features: (&[usize], &[f32]) = (&[1, 2, 1, 2], &[0.0; 4]);
    let parts: [(&str, &[usize], &[f32]); 5] = [
        ("student_feature", features.0, features.1),
        ("teacher_feature", &[1, 2, 1, 2], &[3.0, 5.0, 0.0, 0.0]),
        ("student_boxes", &[2, 4], &[2.0, 2.0, 6.0, 6.0, 8.0, 0.0, 16.0, 8.0]),
        ("teacher_boxes", &[2, 4], &[0.0, 0.0, 8.0, 8.0, 8.0, 0.0, 16.0, 8.0]),
        ("target_boxes", &[2, 4], &[target, [0.0; 4]].concat()),
    ];
    let path = tensors(folder.path(), &parts);
    let term = |name: &str| {
        let mut command = mentor();
        command.args(["term", name, "--in"]).arg(&path);
        command
    };
    let printed: Value = serde_json::from_str(&succeed(term("regression_imitation").arg("--grad").arg(&grad))).unwrap();
    assert_eq!(printed["column"], "regression_imitation@p3");
    assert!((printed["value"].as_f64().unwrap() - 0.75 * 4.5).abs() < 1e-5, "{printed}");
    let gradient = from_safetensors(&fs::read(&grad).unwrap()).unwrap();
    let (_, slopes) = &gradient["grad_student_feature"];
    assert!((slopes[0] + 0.75 * 3.0).abs() < 1e-5 && slopes[1..] == [0.0; 3], "{slopes:?}");
    // One minus the overlap: the student's box lies inside.
    let printed: Value = serde_json::from_str(&succeed(&mut term("giou"))).unwrap();
    assert!((printed["value"].as_f64().unwrap() - 0.75).abs() < 1e-5, "{printed}");
    let missing = fail(&mut term("class_kd"));
    assert!(missing.contains("this term needs `student_logits`"), "{missing}");
    let at = fail(term("regression_imitation").args(["--set", r#"at=[{student="p4",teacher="p4"}]"#]));
    assert!(at.contains("8 pixels apart, which is the level p3"), "{at}");
    let nets = fail(&mut term("unbiased_teacher"));
    assert!(nets.contains("more than a file can hold"), "{nets}");
    let path = tensors(folder.path(), &[parts[0], parts[1], ("student_boxes", &[1, 4], &[0.0; 4])]);
    let wrong = fail(mentor().args(["term", "imitation", "--in"]).arg(path));
    assert!(wrong.contains("`student_boxes` has 1 places of 4 numbers, expected 2"), "{wrong}");
}
