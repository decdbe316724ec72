//! TOML to a checked recipe to a built run.

mod build;
mod classes;
mod de;
mod difference;
mod problem;
mod read;
mod recipe;
mod result;
#[cfg(test)]
mod sample;
mod schema;
mod set;
mod study;
mod table;
mod tree;
mod walk;

pub use build::{
    BuildError, BuiltData, BuiltNets, Places, Which, check_classes, load_net, load_run, net_of, run_recipe,
    weights_path,
};
pub use classes::{RUN_FILE, RunClasses};
pub use difference::{Difference, differences};
pub use problem::{Origin, Problem, Problems};
pub use read::{Loaded, parse, read};
pub use recipe::{Recipe, Task, has_no_effect};
pub use result::{ResultError, RowResult, row_key};
pub use schema::schema_json;
pub use set::Changes;
pub use study::{Job, Need, Study, StudyFile, StudyRow};
pub use table::{mean, spread, table};
