//! `mentor new`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use mentor_data::{Starter, starter_card};
use mentor_types::TaskName;
use mentor_weights::write_atomically;

use crate::print::say;
use crate::tasks::first_net;

/// Write a starter card and recipe for a folder of your own images, with masks or boxes.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mentor new photos\n\nMasks: images/ with labels/ or masks/ of the same names, or photos beside masks \
    of the same stem.\nBoxes: COCO JSON; Pascal VOC's XML in Annotations/ or beside the images; YOLO's text in labels/ or beside \
    them,\nwith data.yaml, classes.txt or obj.names. Splits that files or folders tell apart are kept."
)]
pub struct New {
    /// The folder with images and their labels.
    folder: PathBuf,
    /// What to learn, where the folder holds masks and boxes: seg or det.
    #[arg(long)]
    task: Option<TaskName>,
}

impl New {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let starter = starter_card(&self.folder, self.task)?;
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
        write(&recipe, &recipe_text(&starter, &recipe))?;
        starter.said.iter().for_each(|line| say!("{line}"));
        let [train, val] = starter.labelled;
        say!("{}: {} classes, {train} images to train on, {val} for val", card.display(), starter.classes);
        say!(
            "next: look through the card, name the classes, then\n  mentor check {0}\n  mentor train {0}",
            recipe.display()
        );
        Ok(ExitCode::SUCCESS)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn recipe_text(starter: &Starter, path: &Path) -> String {
    format!(
        r#"# A first recipe for your images: a small net on their labels alone.
# Run:  mentor train {}
task = "{}"
seed = 0

{}
{}
[train]
steps = 1000
batch_labelled = 4
eval_every_steps = 250
checkpoint_every_steps = 250
"#,
        path.display(),
        starter.task.as_str(),
        starter.recipe_tables,
        first_net(starter.task),
    )
}
