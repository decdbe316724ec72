//! `mentor export`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use mentor_nets::{export_burnpack, export_safetensors};
use mentor_recipe::{Loaded, Recipe, RunClasses, run_recipe};

use crate::print::say;
use crate::show::Show;
use crate::tasks::{OnRecipe, on_recipe};
use crate::weights::RunWeights;

/// Write the student of a run to a file of weights.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor export runs/quickstart --to student.safetensors --half")]
pub struct Export {
    /// The run folder.
    run: PathBuf,
    /// The file: `.safetensors` in PyTorch naming, or `.bpk`, burn's own format.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    which: RunWeights,
    /// Half precision (safetensors only).
    #[arg(long)]
    half: bool,
}

impl Export {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        on_recipe(self, run_recipe(&self.run)?)
    }
}

impl OnRecipe for Export {
    type Out = ExitCode;

    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<ExitCode> {
        let recipe = loaded.value;
        let classes = RunClasses::read(&self.run)?;
        let count = classes.names.len();
        let net = self.which.net(&self.run, &recipe, count, &burn::tensor::Device::flex())?;
        match self.to.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => {
                let student = serde_json::to_string(&recipe.student)?;
                let metadata = BTreeMap::from([
                    ("format".to_owned(), "pt".to_owned()),
                    ("net".to_owned(), student),
                    ("classes".to_owned(), count.to_string()),
                    classes.metadata()?,
                ]);
                export_safetensors(&net, &self.to, &metadata, self.half)?;
            }
            Some("bpk") if self.half => bail!("--half: .bpk files hold full precision"),
            Some("bpk") => export_burnpack(&net, &self.to)?,
            _ => bail!("--to {}: expected a name that ends in .safetensors or .bpk", self.to.display()),
        }
        say!("{}", self.to.display());
        Ok(ExitCode::SUCCESS)
    }
}
