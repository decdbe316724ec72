//! End-to-end tests: the binary on real images, and what must hold of the workspace as a whole.

#![allow(clippy::unwrap_used, missing_docs)]

mod architecture;
mod bad_input;
mod circles;
mod commands;
mod detection;
mod detections;
mod golden_log;
mod keeping;
mod recipes;
mod resume;
mod sources;
mod support;
mod teaching;
