//! What must hold of the workspace as a whole.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::sources::{crates, rust_files, without_test_modules};
use crate::support::root;

/// Every crate with its layer.
const LAYERS: [(&str, u8); 15] = [
    ("mentor-types", 0),
    ("mentor-toml", 0),
    ("mentor-ops", 0),
    ("mentor-weights", 1),
    ("mentor-scenes", 1),
    ("mentor-data", 2),
    ("mentor-nets", 2),
    ("mentor-distill", 2),
    ("mentor-unlabeled", 2),
    ("mentor-train", 2),
    ("mentor-seg", 3),
    ("mentor-det", 3),
    ("mentor-recipe", 4),
    ("mentor-report", 4),
    ("mentor", 5),
];

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, layer)| *layer)
}

#[test]
fn arrows_between_crates_only_go_down() {
    let folders = crates();
    for folder in &folders {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
        let from = layer(name).unwrap_or_else(|| panic!("{name} has no layer here"));
        for to in manifest["dependencies"].as_table().unwrap().keys() {
            if let Some(below) = layer(to) {
                assert!(below < from, "{name} (layer {from}) depends on {to} (layer {below})");
            }
        }
    }
    assert_eq!(folders.len(), LAYERS.len());
}

#[test]
fn what_breaks_reproducibility_is_not_called() {
    // Each of these gave other bits, or other weights, from run to run.
    const FORBIDDEN: [&str; 6] =
        ["Tensor::random", "ModuleRecord::load(", ".seed(", "module::interpolate", "nn::Dropout", "thread_rng"];
    let (mut looked_at, mut all) = (0, 0);
    for file in crates().iter().flat_map(|folder| rust_files(&folder.join("src"))) {
        let text = fs::read_to_string(&file).unwrap();
        let code = without_test_modules(&text);
        all += text.lines().count();
        looked_at += code.lines().count();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for call in FORBIDDEN {
                assert!(!line.contains(call), "{}: {call}", file.display());
            }
        }
    }
    // Test modules are a fifth of all lines; a cut in the wrong place leaves out far more.
    assert!(looked_at > 25_000 && 3 * looked_at > 2 * all, "{looked_at} of {all} lines were looked at");
}

#[test]
fn only_one_file_names_a_gpu() {
    for file in crates().iter().flat_map(|folder| rust_files(folder)) {
        let text = fs::read_to_string(&file).unwrap();
        let allowed = file.ends_with("mentor/src/device.rs");
        assert!(allowed || !text.contains("Device::cuda"), "{} chooses a device", file.display());
    }
}

/// Where one crate has other features in one of them, it and all that stands on it is built a second time.
#[test]
fn the_benchmark_and_the_binary_share_every_build() {
    let features = |package: &str| {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p} {f}", "--package", package])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let lines: BTreeSet<String> = String::from_utf8(tree.stdout)
            .unwrap()
            .lines()
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .collect();
        lines
    };
    let (binary, benchmark) = (features("mentor"), features("mentor-bench"));
    let only: Vec<_> = benchmark.difference(&binary).filter(|line| !line.starts_with("mentor-bench ")).collect();
    assert!(only.is_empty(), "built for the benchmark alone: {only:?}");
    assert!(benchmark.len() > 150, "{} crates were looked at", benchmark.len());
}
