//! What a run is to do.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mentor_recipe::{Loaded, Places, Recipe, Task};

use crate::run_folder::Mode;

/// What a run is to do, for `mentor train` and for each row of a study.
#[derive(Debug)]
pub struct Job<'a, T: Task> {
    /// The checked recipe.
    pub loaded: &'a Loaded<Recipe<T>>,
    /// Where it computes, and the name of that for people.
    pub device: (Device, String),
    /// Where its files lie.
    pub places: &'a Places,
    /// The run folder.
    pub out: &'a Path,
    /// How the folder is opened.
    pub mode: Mode,
    /// Set to stop after the current step.
    pub stop: &'a AtomicBool,
    /// Whether a report and pictures are made at the end, and a table printed.
    pub report: bool,
}
