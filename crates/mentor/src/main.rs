//! Mentor: trains small segmentation models from big ones and from unlabelled images.

// The backends nest their types deeply.
#![recursion_limit = "256"]

mod commands;
mod device;
mod drawing;
mod print;
mod run_folder;
mod same_file;
mod scores;
mod show;
mod tasks;
#[cfg(test)]
mod toy;
mod weights;

use anyhow::Context;
use clap::Parser;

use print::note;

fn main() -> std::process::ExitCode {
    mentor_ops::tune_allocator();
    let cli = commands::Cli::parse();
    match mentor_ops::start_threads(None).context("threads for the CPU").and_then(|_| commands::run(cli)) {
        Ok(code) => match print::failure() {
            None => code,
            Some(error) => {
                note!("error: standard output: {error}");
                std::process::ExitCode::FAILURE
            }
        },
        Err(error) => {
            note!("error: {}", message(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// The error with its causes; a cause that an error already spells out is not repeated.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.contains(&cause) => text,
        said => format!("{said}: {cause}"),
    })
}
