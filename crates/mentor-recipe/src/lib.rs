//! TOML to a checked recipe to a built run.

mod build;
mod classes;
mod recipe;
mod result;
mod study;
mod table;

pub use build::{
    BuildError, BuiltData, BuiltNets, Places, Which, check_classes, find_card, load_net, load_run, net_of, run_recipe,
    weights_path,
};
pub use classes::RunClasses;
pub use mentor_toml::{Changes, Loaded, Problem, Problems};
pub use recipe::{Recipe, Task, changes_no_result};
pub use result::{ResultError, RowResult, row_key};
pub use study::{Job, Need, Study, StudyFile, StudyRow};
pub use table::{mean, spread, table};
