//! A checked recipe to what a run consists of.

mod data;
mod nets;
mod prepared;
mod run;

pub use data::{BuiltData, Places, check_classes, find_card};
pub use nets::{BuiltNets, load_net, weights_path};
pub use prepared::Prepared;
pub use run::{Which, load_run, run_recipe};
