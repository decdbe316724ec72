//! `mentor list`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mentor_data::Card;
use mentor_distill::TermTable;
use mentor_nets::BackboneKind;
use mentor_recipe::Task;
use mentor_train::{OptimizerConfig, ScheduleConfig};
use mentor_types::TaskName;
use schemars::{JsonSchema, schema_for};

use super::PlaceArgs;
use crate::print::say;
use crate::show::Show;
use crate::tasks::{OnTask, on_task};

/// List what recipes can name: nets, terms, data sets, each with its source.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor list")]
pub struct List {
    #[command(flatten)]
    places: PlaceArgs,
}

impl List {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        TaskName::ALL.iter().try_for_each(|task| on_task(self, *task))?;
        variants::<OptimizerConfig>("optimizers: [optimizer.NAME]");
        variants::<ScheduleConfig>("schedules: [schedule.NAME]");
        say!("data sets: [data] card = \"NAME\"");
        let places = self.places.places();
        for name in Card::names(&places.cards) {
            match Card::find(&name, &places.cards) {
                Ok(card) => say!("  {name:<22} {} ({} classes; {})", card.title, card.classes.len(), card.licence),
                Err(error) => say!("  {name:<22} {error}"),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What the recipes of a task can name.
impl OnTask for List {
    type Out = ();

    fn on<T: Show>(&self) -> Result<()> {
        let task = T::NAME.as_str();
        variants::<T::NetConfig>(&format!("nets of {task}: [student.NAME], [teachers.T.NAME]"));
        variants::<BackboneKind>("backbones: backbone = \"NAME\"");
        terms::<T, T::Supervised>(&format!("losses on labels of {task}: [supervised.NAME]"));
        terms::<T, T::Distill>(&format!("distillation of {task}: [distill.NAME]"));
        terms::<T, T::Unlabelled>(&format!("unlabelled images of {task}: [unlabelled.NAME]"));
        Ok(())
    }
}

/// Every term that a table can name.
fn terms<T: Task, Table: TermTable<T>>(title: &str) {
    let all = Table::all();
    let rows: Vec<(&str, &str)> = all.terms().into_iter().map(|(name, term)| (name, term.source())).collect();
    section(title, &rows);
}

/// Every variant of a type that a recipe names one of, with the first line of what its documentation says.
fn variants<T: JsonSchema>(title: &str) {
    let schema = schema_for!(T).to_value();
    let mut rows = Vec::new();
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        let name = variant["const"].as_str().or_else(|| variant["required"][0].as_str());
        let said = variant["description"].as_str().and_then(|text| text.lines().next());
        rows.extend(name.map(|name| (name, said.unwrap_or_default())));
    }
    section(title, &rows);
}

fn section(title: &str, rows: &[(&str, &str)]) {
    say!("{title}");
    for (name, source) in rows {
        say!("  {name:<22} {source}");
    }
    say!("");
}
