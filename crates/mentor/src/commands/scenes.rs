//! `mentor scenes`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use clap::Args;
use mentor_scenes::{SetSpec, write_set};
use mentor_types::Season;

use crate::drawing::Drawing;
use crate::print::say;

/// Draw a data set: small towns from above, with exact masks and boxes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mentor scenes --out scenes\n  mentor scenes --out few --count 40 --size 96\n  \
    mentor scenes --out winter --season winter\n\nWrites images, masks (the number of the class), boxes as COCO JSON, lists of the \
    splits and a card.")]
pub struct Scenes {
    /// The folder, which must not be there yet.
    #[arg(long)]
    out: PathBuf,
    /// How many scenes, all splits together.
    #[arg(long, default_value_t = SetSpec::COUNT)]
    count: u64,
    /// Which world: another seed has other towns.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pixels along a side: more show more of a town.
    #[arg(long, value_name = "PX", default_value_t = SetSpec::SIZE)]
    size: usize,
    /// When the towns are seen; the streets and houses are the same.
    #[arg(long, default_value = Season::Summer.as_str())]
    season: Season,
}

impl Scenes {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let spec = SetSpec { seed: self.seed, count: self.count, size: self.size, season: self.season };
        let drawing = Mutex::new(Drawing::new(self.count));
        write_set(&self.out, &spec, &|| drawing.lock().unwrap_or_else(PoisonError::into_inner).scene())?;
        drop(drawing);
        say!(
            "{}: {} scenes; name the card {} in a recipe",
            self.out.display(),
            self.count,
            self.out.join("dataset.toml").display()
        );
        Ok(ExitCode::SUCCESS)
    }
}
