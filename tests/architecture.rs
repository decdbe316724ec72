//! What must hold of the workspace as a whole.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// Every crate with its layer.
const LAYERS: [(&str, u8); 12] = [
    ("mentor-types", 0),
    ("mentor-toml", 0),
    ("mentor-ops", 0),
    ("mentor-data", 1),
    ("mentor-nets", 1),
    ("mentor-distill", 1),
    ("mentor-unlabeled", 1),
    ("mentor-train", 1),
    ("mentor-seg", 2),
    ("mentor-recipe", 3),
    ("mentor-report", 3),
    ("mentor", 4),
];

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, layer)| *layer)
}

#[test]
fn arrows_between_crates_only_go_down() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let manifest: toml::Table =
            fs::read_to_string(root().join("crates").join(&name).join("Cargo.toml")).unwrap().parse().unwrap();
        if name == "cubecl-llvm" {
            continue;
        }
        let from = layer(&name).unwrap_or_else(|| panic!("{name} has no layer here"));
        seen += 1;
        for to in manifest["dependencies"].as_table().unwrap().keys() {
            // The keys of randomness are nouns that initial weights are made by.
            if let Some(below) = layer(to).filter(|_| (name.as_str(), to.as_str()) != ("mentor-ops", "mentor-types")) {
                assert!(below < from, "{name} (layer {from}) depends on {to} (layer {below})");
            }
        }
    }
    assert_eq!(seen, LAYERS.len());
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn what_breaks_reproducibility_is_not_called() {
    // Each of these gave other bits, or other weights, from run to run.
    const FORBIDDEN: [&str; 6] =
        ["Tensor::random", "ModuleRecord::load(", ".seed(", "module::interpolate", "nn::Dropout", "thread_rng"];
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    files.retain(|file| file.components().any(|part| part.as_os_str() == "src"));
    assert!(files.len() > 50);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for call in FORBIDDEN {
                assert!(!line.contains(call), "{}: {call}", file.display());
            }
        }
    }
}

#[test]
fn only_one_file_names_a_gpu() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let allowed = file.ends_with("mentor/src/device.rs") || file.to_string_lossy().contains("cubecl-llvm");
        assert!(allowed || !text.contains("Device::cuda"), "{} chooses a device", file.display());
    }
}
