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

/// The lines of a table in Markdown.
fn table_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("| ")).collect()
}

#[test]
fn the_tables_of_studies_in_the_readme_are_those_of_their_results() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let shown = table_lines(&readme);
    let mut studies = 0;
    for folder in fs::read_dir(root().join("benchmarks")).unwrap() {
        let folder = folder.unwrap().path();
        let Ok(kept) = fs::read_to_string(folder.join("table.md")) else { continue };
        studies += 1;
        let name = folder.file_name().unwrap().to_str().unwrap();
        let study = root().join("recipes/studies").join(name).with_extension("toml");
        let printed = succeed(mentor().args(["study", "--table"]).arg(study));
        assert_eq!(
            table_lines(&kept),
            table_lines(&printed),
            "benchmarks/{name}/table.md is not what the study prints"
        );
        let table = table_lines(&kept);
        assert!(shown.windows(table.len()).any(|lines| lines == table), "README.md lacks the table of {name}");
    }
    assert!(studies > 0);
}

#[test]
fn the_schema_describes_every_table() {
    let schema = succeed(mentor().arg("schema"));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for table in ["task", "data", "views", "student", "teachers", "distill", "unlabelled", "optimizer", "train"] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
}
