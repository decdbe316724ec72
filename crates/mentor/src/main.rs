//! Mentor: trains small segmentation models from big ones and from unlabelled images.

// The backends nest their types deeply.
#![recursion_limit = "256"]
// A command talks to a person.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod device;
mod run_folder;
mod weights;

use clap::Parser;

fn main() -> std::process::ExitCode {
    mentor_ops::tune_allocator();
    match commands::run(commands::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
