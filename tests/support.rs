//! What the tests share: the binary, small recipes, a scratch folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mentor_scenes::{Part, SetSpec, kept_set};
use mentor_types::Season;
use serde_json::Value;

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The binary, run from the top of the repository.
pub fn mentor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mentor"));
    command.current_dir(root()).env_remove("MENTOR_DATA").env("MENTOR_CACHE", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs and returns (success, standard output, standard error).
pub fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// Runs, and demands success.
pub fn succeed(command: &mut Command) -> String {
    let (success, stdout, stderr) = run(command);
    assert!(success, "{command:?}\n{stdout}\n{stderr}");
    stdout
}

/// Runs, and demands an error, which is returned.
pub fn fail(command: &mut Command) -> String {
    let (success, stdout, stderr) = run(command);
    assert!(!success, "{command:?} should have failed\n{stdout}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{command:?} panicked\n{stderr}");
    stderr
}

/// The folder of a small data set, drawn by whichever test asks first.
pub fn scenes() -> PathBuf {
    let spec = SetSpec { seed: 0, count: 96, size: 96, season: Season::Summer };
    kept_set(Path::new(env!("CARGO_TARGET_TMPDIR")), &spec, &Part::ALL, &|_| {}).unwrap()
}

/// Its card, as recipes name it.
pub fn card() -> String {
    scenes().join("dataset.toml").display().to_string()
}

/// A recipe that takes seconds: narrow nets, small crops.
pub fn tiny(student: &str, rest: &str, steps: u64) -> String {
    format!(
        r#"
task = "seg"
seed = 3

[data]
card = "{card}"
labelled = "train_1_8"
{unlabelled}
val = "val"

[views]
crop_px = [64, 64]

[student.{student}]
backbone = "resnet18"
width = 4
output_stride = 16

[optimizer.sgd]
lr = 0.02

{rest}

[train]
steps = {steps}
batch_labelled = 2
{batch_unlabelled}
log_every_steps = 1
checkpoint_every_steps = 10
eval_every_steps = 1000
"#,
        card = card(),
        unlabelled = if rest.contains("[unlabelled") { "unlabelled = \"unlabelled\"" } else { "" },
        batch_unlabelled = if rest.contains("[unlabelled") { "batch_unlabelled = 2" } else { "" },
    )
}

/// Writes a recipe and returns its path.
pub fn recipe(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The lines of a run's log without their times.
pub fn log_without_times(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("time");
        line
    });
    lines.collect()
}
