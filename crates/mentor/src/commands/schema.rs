//! `mentor schema`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use mentor_data::Card;
use mentor_recipe::{Recipe, StudyFile};
use mentor_toml::schema_json;
use mentor_types::TaskName;

use crate::print::say;
use crate::show::Show;
use crate::tasks::{OnTask, on_task};

/// Print a JSON Schema, for editors and other tools.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor schema > recipe.schema.json")]
pub struct Schema {
    /// Of what.
    #[arg(value_enum, default_value = "recipe")]
    of: Of,
    /// Whose recipes: the name of a task.
    #[arg(long, default_value = "seg")]
    task: TaskName,
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
                Of::Recipe => on_task(self, self.task)?,
                Of::Study => schema_json::<StudyFile>(),
                Of::Card => schema_json::<Card>(),
            }
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl OnTask for Schema {
    type Out = String;

    fn on<T: Show>(&self) -> Result<String> {
        Ok(schema_json::<Recipe<T>>())
    }
}
