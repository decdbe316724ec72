//! Several rows of a study at once, each in a process of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mentor_recipe::Job;

use crate::print::note;

/// A row of a study that has no result yet.
pub(super) struct Missing {
    pub(super) job: Job,
    /// What its result will be keyed by.
    pub(super) key: String,
    /// Where its result will be.
    pub(super) file: PathBuf,
}

/// Processes of this very command, each for one row.
pub(super) struct Children {
    at_once: usize,
    /// Threads for each.
    threads: usize,
    /// What they say is kept here.
    logs: PathBuf,
    running: Vec<(String, Child)>,
}

impl Children {
    pub(super) fn new(at_once: usize, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| logs.display().to_string())?;
        let threads = available_parallelism().map_or(1, usize::from).div_ceil(at_once).max(1);
        Ok(Self { at_once, threads, logs: logs.to_owned(), running: Vec::new() })
    }

    /// Runs rows, each after those that it needs, until all are done, one fails, or somebody asks to stop.
    pub(super) fn run(mut self, missing: &[Missing], stop: &AtomicBool) -> Result<()> {
        let mut waiting: Vec<&Job> = missing.iter().map(|missing| &missing.job).collect();
        let (mut failed, mut told) = (None, false);
        loop {
            let ends = stop.load(Ordering::Relaxed) || failed.is_some();
            while !ends && self.running.len() < self.at_once {
                // A row that another one needs has no result before that one is through.
                let open: BTreeSet<String> = waiting
                    .iter()
                    .map(|job| job.name())
                    .chain(self.running.iter().map(|(name, _)| name.clone()))
                    .collect();
                let is_ready = |job: &&Job| job.needs.iter().all(|need| !open.contains(&need.name()));
                let Some(next) = waiting.iter().position(is_ready) else { break };
                let name = waiting.remove(next).name();
                note!("{name}: begins");
                let child = self.start(&name)?;
                self.running.push((name, child));
            }
            if self.running.is_empty() {
                break;
            }
            if ends && !told {
                told = true;
                self.running.iter_mut().for_each(|(_, child)| ask_to_stop(child));
            }
            sleep(Duration::from_millis(50));
            for (name, mut child) in std::mem::take(&mut self.running) {
                match child.try_wait().with_context(|| name.clone())? {
                    None => self.running.push((name, child)),
                    Some(status) if status.success() => note!("{name}: {}", self.last_words(&name)),
                    Some(_) => {
                        failed.get_or_insert(name);
                    }
                }
            }
        }
        match failed {
            Some(name) => bail!("{name}: {}; all that it said is in {}", self.error(&name), self.log(&name).display()),
            None => Ok(()),
        }
    }

    fn start(&self, name: &str) -> Result<Child> {
        let log = self.log(name);
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).args(["--jobs", "1", "--only", name]);
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            command.env("RAYON_NUM_THREADS", self.threads.to_string());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        child.with_context(|| format!("{name} cannot be started"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// The last line that a row said.
    fn last_words(&self, name: &str) -> String {
        self.said(name).trim_end().lines().last().unwrap_or("is done").trim().to_owned()
    }

    /// What a row ended with.
    fn error(&self, name: &str) -> String {
        let said = self.said(name);
        let error = said.rfind("error: ").map_or(said.as_str(), |at| &said[at + "error: ".len()..]);
        error.trim().to_owned()
    }
}

/// A row that is left alone would go on when its study is gone.
impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            ask_to_stop(child);
            let _ = child.wait();
        }
    }
}

/// A training stops after its step, with a checkpoint.
#[cfg(unix)]
fn ask_to_stop(child: &mut Child) {
    // SAFETY: a plain system call; the process has not been waited for, so its number is its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
}

#[cfg(not(unix))]
fn ask_to_stop(child: &mut Child) {
    let _ = child.kill();
}
