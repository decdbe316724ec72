//! A run that is killed goes on bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mentor_distill::TermTable;
use mentor_seg::distill::DistillConfig;
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::UnlabelledConfig;
use mentor_seg::views::Teaching;
use serde_json::Value;

use crate::support::{fail, log_without_times, mentor, recipe, succeed, tiny};

/// Everything that has a memory: dropout, `CutMix`, an average, momentum, and every term that is in a list, with what it
/// keeps from step to step.
fn everything() -> String {
    let mut distill = DistillConfig::all();
    distill.pair_wise.as_mut().unwrap().adapter = true;
    distill.holistic.as_mut().unwrap().rival.channels = 4;
    let mut unlabelled = UnlabelledConfig::all();
    unlabelled.mean_teacher.as_mut().unwrap().ramp_steps = 20;
    let fixmatch = unlabelled.fixmatch.as_mut().unwrap();
    (fixmatch.threshold, fixmatch.teacher) = (0.3, Teaching::Ema);
    let tables = toml::Table::from_iter([
        ("supervised".to_owned(), toml::Value::try_from(SupervisedConfig::all()).unwrap()),
        ("distill".to_owned(), toml::Value::try_from(distill).unwrap()),
        ("unlabelled".to_owned(), toml::Value::try_from(unlabelled).unwrap()),
    ]);
    EVERYTHING_ELSE.to_owned() + &toml::to_string(&tables).unwrap()
}

const EVERYTHING_ELSE: &str = r#"
[teachers.small.fcn]
backbone = "resnet18"
width = 4
output_stride = 16
weights = "teacher"

[views.strong]
cutmix = 1.0
flip = 0.5

[ema]
decay = 0.9

"#;

const STEPS: u64 = 40;

/// A folder with a short-lived teacher and the recipe that learns from it.
fn prepare() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let teacher = recipe(folder.path(), "teacher.toml", &tiny("fcn", "", 2));
    succeed(mentor().args(["train", "--no-report"]).arg(teacher).arg("--out").arg(folder.path().join("teacher")));
    let text = tiny("fcn", &everything(), STEPS).replacen("output_stride = 16", "output_stride = 16\ndropout = 0.2", 1);
    // Often, so that there are many moments to be killed in.
    let text = text.replace("checkpoint_every_steps = 10", "checkpoint_every_steps = 2");
    let recipe = recipe(folder.path(), "student.toml", &text);
    (folder, recipe)
}

/// The files of the last checkpoint, and the log without its times.
fn outcome(run: &Path) -> (BTreeMap<String, Vec<u8>>, Vec<Value>) {
    let checkpoint = run.join(format!("checkpoints/step-{STEPS:08}"));
    let files = fs::read_dir(&checkpoint).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    (files.collect(), log_without_times(run))
}

fn train(recipe: &Path, out: &Path, threads: &str, workers: &str) -> std::process::Command {
    let mut command = mentor();
    command.args(["train", "--no-report"]).arg(recipe).arg("--out").arg(out).env("RAYON_NUM_THREADS", threads);
    command.arg("--set").arg(format!("data.workers={workers}"));
    command
}

/// Starts a run and kills it as soon as `now` says so; not where the run ended before it was seen to.
fn kill_when(mut command: std::process::Command, now: impl Fn() -> bool) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !now() {
        assert!(start.elapsed() < Duration::from_secs(300), "the moment never came");
        if child.try_wait().unwrap().is_some() {
            return now();
        }
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

/// Puts what lies in a folder, and below it, into another that takes its place.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => assert!(fs::copy(from, to).is_ok()),
        }
    }
}

#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let (folder, recipe) = prepare();
    let whole = folder.path().join("whole");
    succeed(&mut train(&recipe, &whole, "2", "2"));
    let expected = outcome(&whole);
    assert!(expected.0.contains_key("holistic.safetensors") && expected.0.contains_key("ema.safetensors"));
    assert_eq!(expected.1.len() as u64, STEPS + 2);

    let out = folder.path().join("killed");
    let checkpoints = out.join("checkpoints");
    let lines = |least: usize| {
        let log = out.join("log.jsonl");
        move || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= least)
    };
    // In the middle of a step after the first checkpoint, with one worker and one thread.
    assert!(kill_when(train(&recipe, &out, "1", "1"), lines(14)));
    // While a checkpoint is being written, which takes so short a time that a busy machine may miss it.
    let before = folder.path().join("before");
    copy(&out, &before);
    let writing = checkpoints.join(".writing");
    if before.join("checkpoints/.writing").exists() {
        fs::remove_dir_all(before.join("checkpoints/.writing")).unwrap();
    }
    let killed_in_writing = (0..20).any(|_| {
        copy(&before, &out);
        let mut resumed = train(&recipe, &out, "2", "3");
        resumed.arg("--resume");
        kill_when(resumed, || writing.exists()) && writing.exists()
    });
    assert!(killed_in_writing, "no kill of 20 met a checkpoint half written");
    // Right after a checkpoint got its name.
    let mut resumed = train(&recipe, &out, "2", "1");
    resumed.arg("--resume");
    let renamed = checkpoints.join("step-00000030");
    assert!(kill_when(resumed, || renamed.exists()));
    let (success, _, said) = crate::support::run(train(&recipe, &out, "1", "8").arg("--resume"));
    assert!(success && said.contains("going on after step 3"), "{said}");

    let found = outcome(&out);
    for (name, bytes) in &expected.0 {
        assert!(found.0.get(name) == Some(bytes), "{name} differs");
    }
    assert_eq!(found.1, expected.1);
}

#[test]
fn only_more_steps_may_change_on_the_way() {
    let (folder, recipe) = prepare();
    let out = folder.path().join("run");
    let mut first = train(&recipe, &out, "2", "2");
    succeed(first.args(["--set", "train.steps=3"]));
    let changed = fail(train(&recipe, &out, "2", "2").args(["--set", "optimizer.sgd.lr=0.5", "--resume"]));
    assert!(changed.contains("optimizer.sgd.lr") && changed.contains("0.02") && changed.contains("0.5"), "{changed}");
    let shorter = fail(train(&recipe, &out, "2", "2").args(["--set", "train.steps=2", "--resume"]));
    assert!(shorter.contains("train.steps"), "{shorter}");
    let again = fail(train(&recipe, &out, "2", "2").args(["--set", "train.steps=3"]));
    assert!(again.contains("--resume"), "{again}");
    succeed(train(&recipe, &out, "2", "2").args(["--set", "train.steps=5", "--resume"]));
    // A finished run that is resumed is finished still.
    succeed(train(&recipe, &out, "2", "2").args(["--set", "train.steps=5", "--resume"]));
    let lines = fs::read_to_string(out.join("log.jsonl")).unwrap().lines().count();
    // Five steps, and val of the average and the student after the third and the fifth.
    assert_eq!(lines, 9);
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_it_taken() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), "plain.toml", &tiny("fcn", "", 20));
    let out = folder.path().join("run");
    succeed(mentor().args(["train", "--no-report"]).arg(&recipe).arg("--out").arg(&out));
    let model = out.join("checkpoints/step-00000020/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&model, &bytes).unwrap();
    let (success, _, stderr) = crate::support::run(
        mentor().args(["train", "--no-report"]).arg(&recipe).arg("--out").arg(&out).args(["--resume"]),
    );
    assert!(success && stderr.contains("differs from its checksum"), "{stderr}");
    assert!(stderr.contains("going on after step 10"), "{stderr}");
}

#[test]
fn a_step_is_replayed_bit_for_bit_and_its_images_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let rest = "[unlabelled.fixmatch]\nthreshold = 0.3\nteacher = \"student\"";
    let recipe = recipe(folder.path(), "plain.toml", &tiny("fcn", rest, 13));
    let out = folder.path().join("run");
    succeed(&mut train(&recipe, &out, "2", "2"));
    succeed(train(&recipe, &out, "1", "1").args(["--replay", "12"]));
    let replayed = out.join("replay/step-00000012");
    let steps = |run: &Path| -> Vec<Value> {
        let lines = log_without_times(run).into_iter();
        lines.filter(|line| [11, 12].map(Value::from).contains(&line["step"])).collect()
    };
    assert_eq!(steps(&replayed).len(), 2);
    assert_eq!(steps(&replayed), steps(&out));
    for name in ["micro0_labelled_001.png", "micro0_unlabelled_001.png"] {
        assert!(replayed.join(name).is_file(), "{name}");
    }
    let late = fail(train(&recipe, &out, "1", "1").args(["--replay", "14"]));
    assert!(late.contains("steps 1 to 13"), "{late}");
}

#[test]
fn a_loss_that_is_not_finite_names_its_step_and_how_to_look_at_it() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), "wild.toml", &tiny("fcn", "", 40).replace("lr = 0.02", "lr = 1e30"));
    let out = folder.path().join("run");
    let error = fail(train(&recipe, &out, "2", "2").args(["--set", "train.checkpoint_every_steps=1"]));
    assert!(error.contains("not finite at step ") && error.contains("cross_entropy"), "{error}");
    let step = error.rsplit("--replay ").next().unwrap().trim().to_owned();
    let said =
        succeed(train(&recipe, &out, "2", "2").args(["--set", "train.checkpoint_every_steps=1", "--replay", &step]));
    assert!(said.contains(&format!("not finite at step {step}")), "{said}");
}
