//! What a person sees while scenes are drawn.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mentor_scenes::News;

use crate::print::note;

/// The one drawing of this process that is going on.
static DRAWING: Mutex<Option<Drawing>> = Mutex::new(None);

/// Shows news of a kept set on standard error.
pub fn show(news: News<'_>) {
    let mut drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    match news {
        News::Waits(folder) => note!("waiting for another process, which draws scenes into {}", folder.display()),
        News::Wrong(what) => note!("{what}: the scenes are drawn anew"),
        News::Begins(folder, scenes) => {
            note!("drawing {scenes} scenes into {}, where they are kept", folder.display());
            *drawing = Some(Drawing::new(scenes));
        }
        News::Scene => drawing.iter_mut().for_each(Drawing::scene),
        News::Ends => *drawing = None,
    }
}

/// A bar in a terminal, some lines elsewhere.
#[derive(Debug)]
pub struct Drawing {
    bar: ProgressBar,
    scenes: u64,
    drawn: u64,
}

impl Drawing {
    /// Begins.
    pub fn new(scenes: u64) -> Self {
        let style =
            ProgressStyle::with_template("{bar:30.green} scene {pos}/{len}, {eta} left").expect("a fixed template");
        let bar = ProgressBar::with_draw_target(Some(scenes), ProgressDrawTarget::stderr()).with_style(style);
        Self { bar, scenes, drawn: 0 }
    }

    /// Another scene is drawn.
    pub fn scene(&mut self) {
        self.drawn += 1;
        self.bar.set_position(self.drawn);
        let often = self.scenes.div_ceil(4);
        if self.bar.is_hidden() && self.drawn.is_multiple_of(often) && self.drawn < self.scenes {
            note!("{} of {} scenes", self.drawn, self.scenes);
        }
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
