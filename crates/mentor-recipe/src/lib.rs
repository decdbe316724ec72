//! TOML to a checked recipe to a built run.

mod any;
mod build;
mod classes;
mod compute;
mod difference;
mod error;
mod recipe;
mod result;
mod shares;
mod statistics;
mod study;
mod study_file;
mod table;
mod tasks;

pub use any::AnyRecipe;
pub use build::{
    BuiltData, BuiltNets, Places, Prepared, Which, check_classes, find_card, load_net, load_run, run_recipe,
    weights_path,
};
pub use classes::RunClasses;
pub use compute::Compute;
pub use error::BuildError;
pub use mentor_toml::{Changes, Loaded, Problem, Problems};
pub use recipe::{Recipe, changes_no_result};
pub use result::{ResultError, RowResult, row_key};
pub use shares::shares_line;
pub use statistics::{mean, spread};
pub use study::{Job, Need, Study};
pub use study_file::{StudyFile, StudyRow};
pub use table::table;
pub use tasks::{NetTable, Parts, SupervisedTable, Table, Task};
