//! Every recipe of the repository is valid.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{mentor, root, succeed};

fn recipes(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            recipes(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn every_recipe_is_valid_and_says_how_it_is_run() {
    let mut all = Vec::new();
    recipes(&root().join("recipes"), &mut all);
    let (studies, recipes): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|path| path.to_string_lossy().contains("/studies/"));
    assert!(!recipes.is_empty());
    for recipe in recipes {
        succeed(mentor().args(["check", "--no-data", "--quiet"]).arg(&recipe));
        let text = fs::read_to_string(&recipe).unwrap();
        assert!(text.starts_with('#') && text.contains("train recipes/"), "{}: no header", recipe.display());
    }
    for study in studies {
        succeed(mentor().args(["study", "--table"]).arg(&study));
    }
}

#[test]
fn the_schema_describes_every_table() {
    let schema = succeed(mentor().arg("schema"));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for table in ["task", "data", "views", "student", "teachers", "distill", "unlabelled", "optimizer", "train"] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
}
