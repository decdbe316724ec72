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
    all.retain(|path| !path.to_string_lossy().contains("/studies/"));
    assert!(!all.is_empty());
    for recipe in all {
        succeed(mentor().args(["check", "--no-data", "--quiet"]).arg(&recipe));
        let text = fs::read_to_string(&recipe).unwrap();
        assert!(text.starts_with('#') && text.contains("train recipes/"), "{}: no header", recipe.display());
    }
}

/// The lines of a table in Markdown.
fn table_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("| ")).collect()
}

#[test]
fn every_study_is_valid_and_its_table_is_that_of_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let shown = table_lines(&readme);
    let mut studies = Vec::new();
    recipes(&root().join("recipes/studies"), &mut studies);
    assert!(!studies.is_empty());
    for study in studies {
        let printed = succeed(mentor().args(["study", "--table"]).arg(&study));
        let name = study.file_stem().unwrap().to_str().unwrap();
        let Ok(kept) = fs::read_to_string(root().join("benchmarks").join(name).join("table.md")) else { continue };
        let table = table_lines(&kept);
        assert_eq!(table, table_lines(&printed), "benchmarks/{name}/table.md is not what the study prints");
        assert!(shown.windows(table.len()).any(|lines| lines == table), "README.md lacks the table of {name}");
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
