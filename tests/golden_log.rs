//! What a refactor must not change: the log of ten steps with everything on, kept in `golden/log.jsonl`.
//!
//! `MENTOR_WRITE_GOLDEN=1 cargo test -p mentor golden_log` writes it anew, after a change that means to change numbers.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::Value;

use crate::support::{log_without_times, mentor, recipe, root, succeed};

/// How far a number may be from the kept one, relative to the larger of it and 1, on paths that only round differently.
const TOLERANCE: f64 = 2e-2;

const CARD: &str = r#"
name = "shapes"
title = "Discs and bars on noise"
licence = "drawn by a test"
source = "drawn by a test"
get = "beside this card"

[masks]
format = "index"
ignore = [255]

[splits]
few = { list = "few.txt" }
rest = { list = "rest.txt" }
val = { list = "val.txt" }

[[classes]]
name = "ground"
color = [90, 90, 90]

[[classes]]
name = "disc"
color = [220, 80, 40]

[[classes]]
name = "bar"
color = [40, 120, 220]
"#;

const TEACHER: &str = r#"
task = "seg"
seed = 5

[data]
card = "dataset.toml"
labelled = "few"
val = "val"

[views]
crop_px = [64, 64]

[student.pspnet]
backbone = "resnet18"
width = 4
output_stride = 16

[optimizer.sgd]
lr = 0.02

[train]
steps = 2
batch_labelled = 2
"#;

/// Two streams, several losses and terms, a rival, an adapter, an average, dropout, `CutMix`, mining, accumulation.
const EVERYTHING: &str = r#"
task = "seg"
seed = 3

[data]
card = "dataset.toml"
labelled = "few"
unlabelled = "rest"
val = "val"

[views]
crop_px = [64, 64]

[views.photometric]

[views.strong]
cutmix = 1.0
flip = 0.5

[student.fcn]
backbone = "resnet18"
width = 4
output_stride = 16
dropout = 0.2
auxiliary = true

[teachers.big.pspnet]
backbone = "resnet18"
width = 4
output_stride = 16
weights = "teacher"

[supervised.cross_entropy.ohem]
min_kept = 512

[supervised.dice]

[supervised.lovasz_softmax]

[distill.pixel_wise]
on = ["labelled", "unlabelled"]

[distill.pair_wise]
adapter = true
at = [{ student = "c5", teacher = "c5" }, { student = "c4", teacher = "c4", weight = 0.5 }]

[distill.holistic.rival]
channels = 4

[unlabelled.mean_teacher]
weight = 10.0
ramp_steps = 5

[unlabelled.fixmatch]
threshold = 0.4
teacher = "ema"

[ema]
decay = 0.9

[optimizer.sgd]
lr = 0.001

[train]
steps = 10
batch_labelled = 2
batch_unlabelled = 2
accumulate = 2
clip_norm = 10.0
log_every_steps = 1
eval_every_steps = 5
"#;

/// An image and its mask: a disc and a bar on ground, all noisy, in places that follow from `number`.
fn draw(folder: &Path, number: u32) {
    let (width, height) = (96u32, 72u32);
    let noise = |x: u32, y: u32, c: u32| {
        (x.wrapping_mul(374_761_393)
            ^ y.wrapping_mul(668_265_263)
            ^ c.wrapping_mul(2_147_483_647)
            ^ number.wrapping_mul(97))
        .wrapping_mul(2_654_435_761)
            >> 26
    };
    let class = |x: u32, y: u32| {
        let (across, down) = (x.abs_diff(20 + number * 7 % 50), y.abs_diff(15 + number * 11 % 40));
        if across * across + down * down < 14 * 14 {
            1
        } else if (x + number * 5) % 48 < 9 {
            2
        } else {
            0
        }
    };
    let colour = |x: u32, y: u32| {
        let base: [u32; 3] = [[70, 80, 75], [150, 110, 60], [90, 110, 150]][class(x, y) as usize];
        Rgb([0, 1, 2].map(|c| (base[c as usize] + noise(x, y, c)) as u8))
    };
    RgbImage::from_fn(width, height, colour).save(folder.join(format!("photo{number}.png"))).unwrap();
    let label = |x, y| Luma([if y == 0 { 255 } else { class(x, y) as u8 }]);
    GrayImage::from_fn(width, height, label).save(folder.join(format!("mask{number}.png"))).unwrap();
}

fn prepare(folder: &Path) -> PathBuf {
    fs::write(folder.join("dataset.toml"), CARD).unwrap();
    for (name, numbers) in [("few", 0..6), ("rest", 6..16), ("val", 16..20)] {
        let lines: Vec<String> = numbers.map(|n| format!("photo{n}.png mask{n}.png\n")).collect();
        fs::write(folder.join(format!("{name}.txt")), lines.concat()).unwrap();
    }
    (0..20).for_each(|number| draw(folder, number));
    let text =
        |text: &str| text.replace("card = \"dataset.toml\"", &format!("card = {:?}", folder.join("dataset.toml")));
    let teacher = recipe(folder, "teacher.toml", &text(TEACHER));
    // Always by the same path: the teacher's weights belong to what is compared.
    succeed(train(&teacher, &folder.join("teacher")).env("MENTOR_CPU", "portable"));
    recipe(folder, "everything.toml", &text(EVERYTHING))
}

fn train(recipe: &Path, out: &Path) -> std::process::Command {
    let mut command = mentor();
    command.args(["train", "--no-report", "--device", "cpu"]).arg(recipe).arg("--out").arg(out);
    command
}

/// Whether two logs have the same lines and keys, and numbers that agree to `tolerance`; names the first that does not.
fn compare(path: &str, found: &Value, kept: &Value, tolerance: f64) -> Result<(), String> {
    match (found, kept) {
        (Value::Object(ours), Value::Object(theirs)) if ours.keys().eq(theirs.keys()) => {
            ours.iter().try_for_each(|(key, value)| compare(&format!("{path}.{key}"), value, &theirs[key], tolerance))
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => ours
            .iter()
            .zip(theirs)
            .enumerate()
            .try_for_each(|(index, (a, b))| compare(&format!("{path}[{index}]"), a, b, tolerance)),
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            let near = a == b || (a - b).abs() <= tolerance * b.abs().max(1.0);
            if near { Ok(()) } else { Err(format!("{path}: {a}, kept is {b}")) }
        }
        (found, kept) if found == kept => Ok(()),
        (found, kept) => Err(format!("{path}: {found}, kept is {kept}")),
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[test]
fn the_log_of_ten_steps_with_everything_on_is_the_kept_one() {
    let folder = tempfile::tempdir().unwrap();
    let everything = prepare(folder.path());
    let out = folder.path().join("portable");
    succeed(train(&everything, &out).env("MENTOR_CPU", "portable"));
    let found = log_without_times(&out);
    assert_eq!(found.len(), 10 + 2 * 2);

    let path = root().join("tests/golden/log.jsonl");
    if std::env::var_os("MENTOR_WRITE_GOLDEN").is_some() {
        let lines: Vec<String> = found.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
    }
    let kept: Vec<Value> =
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The portable path multiplies by the `gemm` crate, which takes wider kernels, and so another order of sums, where
    // the CPU has them: the kept log was written with AVX-512.
    let tolerance = if has_avx512() { 0.0 } else { TOLERANCE };
    compare("portable", &Value::from(found), &Value::from(kept.clone()), tolerance).unwrap();

    let out = folder.path().join("best");
    succeed(&mut train(&everything, &out));
    compare("vectors", &Value::from(log_without_times(&out)), &Value::from(kept), TOLERANCE).unwrap();
}
