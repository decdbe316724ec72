//! What a person sees while a run goes on: a bar in a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{Evaluation, LogLine};

/// Shows how a run goes, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
}

impl Progress {
    /// A bar from `start` to `steps` where standard error is a terminal, plain lines elsewhere.
    #[must_use]
    pub fn new(start: u64, steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30.green} step {pos}/{len}, {eta} left  {msg}")
                .expect("a fixed template");
            let bar = ProgressBar::new(steps).with_style(style);
            bar.set_position(start);
            bar.reset_eta();
            bar
        });
        Self { bar, steps }
    }

    /// Moves the bar.
    pub fn step(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Shows what a step did; a line of the log that says something else is shown by [`judged`](Self::judged).
    pub fn show(&self, line: &LogLine) {
        let LogLine::Step { step, lr, terms, stats, time, .. } = line else { return };
        let terms = terms.iter().map(|(name, term)| format!("{name} {:.4}", term.value));
        let stats = stats.iter().map(|(name, value)| format!("{name} {value:.3}"));
        let shown: Vec<String> = terms.chain(stats).collect();
        let number = |key: &str| time[key].as_f64().unwrap_or(0.0);
        let speed = format!(
            "{:.1} images/s, {:.0} % waiting, {:.0} MiB",
            number("images_per_second"),
            100.0 * number("waiting"),
            number("memory_mib"),
        );
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}  {speed}", shown.join("  "))),
            None => self.line(&format!(
                "step {step}/{}  {}  lr {lr:.2e}  {speed}, {} left",
                self.steps,
                shown.join("  "),
                clock(number("seconds_left")),
            )),
        }
    }

    /// Shows how a model did after a step.
    pub fn judged(&self, step: u64, evaluation: &Evaluation) {
        let Evaluation { model, shown, .. } = evaluation;
        self.line(&format!("step {step}/{}  val of the {model}: {shown}", self.steps));
    }

    /// Prints a line above the bar. A run goes on though its terminal, or the program that read, is gone.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}
