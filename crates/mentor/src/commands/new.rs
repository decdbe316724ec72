//! `mentor new`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::starter_card;
use mentor_weights::write_atomically;

use crate::print::say;

/// Write a starter card and recipe for a folder of your own images and masks.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mentor new photos\n\nExpects images/ with labels/ or masks/ of the same names, or photos beside \
    masks of the same stem."
)]
pub struct New {
    /// The folder with images and masks.
    folder: PathBuf,
}

impl New {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let starter = starter_card(&self.folder)?;
        let card = self.folder.join("dataset.toml");
        let recipe = self.folder.join("recipe.toml");
        let lists = starter.lists.iter().map(|(name, _)| self.folder.join(name));
        for path in lists.chain([card.clone(), recipe.clone()]) {
            if path.exists() {
                bail!("{} is already there: remove it, or edit it", path.display());
            }
        }
        for (name, text) in &starter.lists {
            write(&self.folder.join(name), text)?;
        }
        write(&card, &starter.card)?;
        write(&recipe, &recipe_text(&starter.recipe_tables, &recipe))?;
        let [train, val] = starter.labelled;
        say!("{}: {} classes, {train} images to train on, {val} for val", card.display(), starter.classes);
        say!("next: name the classes in the card, then\n  mentor check {0}\n  mentor train {0}", recipe.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn recipe_text(tables: &str, path: &Path) -> String {
    format!(
        r#"# A first recipe for your images: a small net on their labels alone.
# Run:  mentor train {}
task = "seg"
seed = 0

{}
[student.fcn]
backbone = "resnet18"
width = 32
output_stride = 16

[optimizer.sgd]
lr = 0.02

[train]
steps = 1000
batch_labelled = 4
eval_every_steps = 250
checkpoint_every_steps = 250
"#,
        path.display(),
        tables.trim_end().to_owned() + "\n"
    )
}
