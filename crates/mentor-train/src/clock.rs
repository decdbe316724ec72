//! Where the time of a run goes.

use std::time::Instant;

use burn::tensor::Device;
use serde_json::json;

use crate::TrainConfig;

/// Measures how fast steps are done, without evaluations, checkpoints and the compiling of kernels.
pub(crate) struct Clock {
    images_per_step: f64,
    since_line: Instant,
    paused: f64,
    waited: f64,
    steps: f64,
    all_seconds: f64,
    all_steps: f64,
    warm: bool,
}

impl Clock {
    pub(crate) fn new(train: &TrainConfig) -> Self {
        let images = train.accumulate * (train.batch_labelled + train.batch_unlabelled);
        Self {
            images_per_step: images as f64,
            since_line: Instant::now(),
            paused: 0.0,
            waited: 0.0,
            steps: 0.0,
            all_seconds: 0.0,
            all_steps: 0.0,
            warm: false,
        }
    }

    pub(crate) fn waiting<T>(&mut self, next: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = next();
        self.waited += start.elapsed().as_secs_f64();
        value
    }

    pub(crate) fn stepped(&mut self) {
        self.steps += 1.0;
    }

    /// After the first step on a device that compiles its kernels when they are first called: waits for
    /// it, leaves it out of the figures, and returns how long it took.
    pub(crate) fn warmed_up(&mut self, device: &Device) -> Option<f64> {
        let compiles = device.clone().without_autodiff() != Device::flex();
        if std::mem::replace(&mut self.warm, true) || !compiles {
            return None;
        }
        // An error of the device shows where the first value is read.
        let _ = device.sync();
        let seconds = self.since_line.elapsed().as_secs_f64();
        (self.since_line, self.waited, self.steps) = (Instant::now(), 0.0, 0.0);
        Some(seconds)
    }

    /// Leaves the time since `start` out of the figures.
    pub(crate) fn pause(&mut self, start: Instant) {
        self.paused += start.elapsed().as_secs_f64();
    }

    /// The figures since the line before, which starts a new interval.
    pub(crate) fn line(&mut self, steps_left: u64) -> serde_json::Value {
        let seconds = (self.since_line.elapsed().as_secs_f64() - self.paused).max(1e-9);
        let value = json!({
            "seconds": seconds,
            "images_per_second": self.steps * self.images_per_step / seconds,
            "waiting": self.waited / seconds,
            "seconds_left": steps_left as f64 * seconds / self.steps.max(1.0),
            "memory_mib": memory_mib(),
        });
        self.all_seconds += seconds;
        self.all_steps += self.steps;
        (self.since_line, self.paused, self.waited, self.steps) = (Instant::now(), 0.0, 0.0, 0.0);
        value
    }

    pub(crate) fn images_per_second(&self) -> f64 {
        if self.all_seconds > 0.0 { self.all_steps * self.images_per_step / self.all_seconds } else { 0.0 }
    }
}

/// Resident memory of this process in MiB; 0 where the system does not tell.
fn memory_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<f64>().ok());
    pages.map_or(0.0, |pages| pages * 4096.0 / f64::from(1 << 20))
}
