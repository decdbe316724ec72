//! `mentor schema`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use mentor_data::Card;
use mentor_recipe::{Recipe, StudyFile};
use mentor_seg::Seg;
use mentor_toml::schema_json;

use crate::print::say;

/// Print a JSON Schema, for editors and other tools.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor schema > recipe.schema.json")]
pub struct Schema {
    /// Of what.
    #[arg(value_enum, default_value = "recipe")]
    of: Of,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    Recipe,
    Study,
    Card,
}

impl Schema {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        say!(
            "{}",
            match self.of {
                Of::Recipe => schema_json::<Recipe<Seg>>(),
                Of::Study => schema_json::<StudyFile>(),
                Of::Card => schema_json::<Card>(),
            }
        );
        Ok(ExitCode::SUCCESS)
    }
}
