//! `mentor scenes`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use clap::{Args, ValueEnum};
use mentor_scenes::{Season, SetSpec, write_set};

use crate::print::{note, say};

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
    #[arg(long, value_name = "PX", default_value_t = 160)]
    size: usize,
    /// When the towns are seen; the streets and houses are the same.
    #[arg(long, value_enum, default_value = "summer")]
    season: Time,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Time {
    Summer,
    Winter,
}

impl Scenes {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        let season = match self.season {
            Time::Summer => Season::Summer,
            Time::Winter => Season::Winter,
        };
        let spec = SetSpec { seed: self.seed, count: self.count, size: self.size, season };
        let drawn = AtomicU64::new(0);
        let often = self.count.div_ceil(10);
        write_set(&self.out, &spec, &|| {
            let drawn = drawn.fetch_add(1, Ordering::Relaxed) + 1;
            if drawn.is_multiple_of(often) && drawn < self.count {
                note!("{drawn} of {} scenes", self.count);
            }
        })?;
        say!(
            "{}: {} scenes; name the card {} in a recipe",
            self.out.display(),
            self.count,
            self.out.join("dataset.toml").display()
        );
        Ok(ExitCode::SUCCESS)
    }
}
