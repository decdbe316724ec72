//! The yardstick: Mentor and PyTorch do the same work in turn, on the same threads, and the ratio is printed.
//!
//! A program beside the layers: it uses the library crates as the binary does. See `benchmarks/README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod boxes;
mod data;
mod detectors;
// The benchmark chooses its device as the binary does.
#[path = "../../crates/mentor/src/device.rs"]
mod device;
mod evaluation;
mod ops;
mod peer;
mod steps;
mod table;
mod updates;
mod work;

use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device};
use clap::Parser;
use mentor_weights::NamedTensors;

use crate::device::DeviceRequest;
use crate::peer::{Peer, PeerOptions, write_inputs};
use crate::table::{Circumstances, Fresh, Row};
use crate::work::{Case, Sizes, Tolerance, difference, folder, is_wanted, measure};

/// Runs Mentor and PyTorch on the same work in turn, and prints ours / PyTorch.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p mentor-bench -- --only op/conv,step/ --rounds 5")]
struct Args {
    /// Only rows whose name contains this; several parts are separated by commas.
    #[arg(long, value_name = "FILTER")]
    only: Option<String>,
    /// Rounds, each of one measurement of ours and one of PyTorch. Default: 7, with --quick 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,
    /// Threads of each side. Default: all processors.
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Two rounds at the smallest sizes: a trial, not a measurement.
    #[arg(long)]
    quick: bool,
    /// The Python that has PyTorch.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Where both compute: cpu, or cuda:N in a build with `--features cuda`. Of wgpu:N, in a build with `--features
    /// wgpu`, PyTorch knows nothing: it stays on the CPU, and only the numbers are worth comparing.
    #[arg(long, default_value_t = DeviceRequest::Cpu)]
    device: DeviceRequest,
    /// Measures ours without PyTorch.
    #[arg(long)]
    alone: bool,
    /// Prints the names of the rows.
    #[arg(long)]
    list: bool,
    /// Holds both sides to AVX2 (ours through MENTOR_CPU=avx2).
    #[arg(long, value_name = "ISA", value_parser = ["avx2"])]
    isa: Option<String>,
    /// PyTorch's maps as NHWC; always so on a GPU.
    #[arg(long)]
    channels_last: bool,
    /// Precision of steps and predictions on both sides; bf16 is autocast in PyTorch.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// PyTorch's nets go through torch.compile.
    #[arg(long)]
    compile: bool,
    /// Lets PyTorch's threads spin where they wait for each other: its default, and for a machine that does nothing else.
    #[arg(long)]
    spin: bool,
    /// Where the record goes. Default: benchmarks/results/DATE-DEVICE.json for a whole run, else nowhere.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Runs one row a few times, prints a line after the first, and then its memory: what this program asks of itself.
    #[arg(long, hide = true, value_name = "NAME")]
    fresh: Option<String>,
}

impl Args {
    fn is_cuda(&self) -> bool {
        matches!(self.device, DeviceRequest::Cuda(_))
    }
}

fn main() -> ExitCode {
    mentor_ops::tune_allocator();
    let args = Args::parse();
    if args.isa.is_some() {
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { std::env::set_var("MENTOR_CPU", "avx2") };
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all results agreed.
fn run(args: &Args) -> Result<bool> {
    let threads = mentor_ops::start_threads(args.threads)?;
    let (device, device_name) = device::choose(args.device)?;
    let cases = cases(args, threads);
    if let Some(name) = &args.fresh {
        let case = cases.iter().find(|case| case.name == *name).with_context(|| format!("no row `{name}`"))?;
        return run_fresh(case, &device).map(|()| true);
    }
    ensure!(!cases.is_empty(), "--only {}: no row has such a name; see --list", args.only.as_deref().unwrap_or(""));
    if args.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(true);
    }
    let mut bench = Bench::new(args, threads, device)?;
    let about = bench.introduce(device_name);
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    println!("{}", Row::head(width));
    let (path, mut rows) = (record_path(args), Vec::new());
    for case in &cases {
        let row = bench.row(case).with_context(|| case.name.clone())?;
        println!("{}", row.line(width));
        rows.push(row);
        // What is cut off later keeps the rows it has.
        if let Some(path) = &path {
            write_record(path, &table::record(&about, &rows))?;
        }
    }
    for (name, count, ratio) in table::groups(&rows) {
        println!("geometric mean of {count} rows, {name}: {ratio:.2}");
    }
    if let Some(path) = path {
        println!("record: {}", path.display());
    }
    let wrong = rows.iter().filter(|row| row.wrong.is_some()).count();
    if wrong > 0 {
        eprintln!("error: {wrong} of {} rows are WRONG: the two sides do not compute the same", rows.len());
    }
    Ok(wrong == 0)
}

fn cases(args: &Args, threads: usize) -> Vec<Case> {
    let is_cuda = args.is_cuda();
    let precision = if args.precision == "bf16" { DType::BF16 } else { DType::F32 };
    let sizes = Sizes::new(is_cuda, args.quick, precision);
    let mut cases = ops::cases(&sizes);
    cases.extend(updates::cases(&sizes));
    cases.extend(steps::training(&sizes));
    cases.extend(detectors::cases(&sizes));
    cases.extend(steps::inference(&sizes));
    cases.push(evaluation::case(&sizes));
    cases.extend(boxes::cases(&sizes));
    cases.extend(data::cases(&sizes, threads));
    if is_cuda || args.precision != "f32" {
        for case in &mut cases {
            case.tolerance = looser(case.tolerance, args.precision != "f32");
        }
    }
    cases.retain(|case| is_wanted(&case.name, args.only.as_deref()));
    cases
}

/// GPUs round the factors of products to 11 bits, and bf16 everything to 8.
fn looser(tolerance: Tolerance, half: bool) -> Tolerance {
    let least = if half { 5e-2 } else { 5e-3 };
    match tolerance {
        Tolerance::Largest(most) => Tolerance::Largest(most.max(least)),
        Tolerance::Steps { logits, losses } => {
            Tolerance::Steps { logits: logits.max(least), losses: losses.max(2.0 * least) }
        }
        mean @ Tolerance::Mean(_) => mean,
    }
}

/// The record of a whole run has a place of its own; any other only where it is asked for.
fn record_path(args: &Args) -> Option<PathBuf> {
    let is_whole = args.only.is_none() && !args.quick && !args.alone;
    let default = || {
        let name = format!("results/{}-{}.json", table::today(), args.device.to_string().replace(':', ""));
        folder().join(name)
    };
    args.record.clone().or_else(|| is_whole.then(default))
}

fn write_record(path: &Path, record: &serde_json::Value) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(record)?))
        .with_context(|| path.display().to_string())
}

/// What all rows share.
struct Bench {
    device: Device,
    threads: usize,
    rounds: u64,
    /// A measurement repeats what is short until it takes about this long.
    least_ms: f64,
    peer: Option<(Peer, PeerOptions)>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(args: &Args, threads: usize, device: Device) -> Result<Self> {
        let options = PeerOptions {
            python: args.python.clone(),
            device: if args.is_cuda() { args.device.to_string() } else { "cpu".to_owned() },
            threads,
            precision: args.precision.clone(),
            compile: args.compile,
            channels_last: args.channels_last || args.is_cuda(),
            avx2: args.isa.is_some(),
            spin: args.spin,
        };
        let peer = if args.alone { None } else { Some((Peer::start(&options)?, options)) };
        let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 7 });
        let least_ms = if args.quick { 5.0 } else { 50.0 };
        Ok(Self { device, threads, rounds, least_ms, peer, folder: tempfile::tempdir()? })
    }

    fn introduce(&self, device: String) -> Circumstances {
        let torch = self.peer.as_ref().map(|(peer, _)| peer.torch.clone());
        println!(
            "{device}, {} threads, {} rounds, ours at {} and {}{}",
            self.threads,
            self.rounds,
            commit(),
            torch.as_ref().map_or_else(|| "alone".to_owned(), |torch| format!("PyTorch {torch}")),
            self.peer.as_ref().map_or_else(String::new, |(_, options)| {
                let flags = [
                    ("channels_last", options.channels_last),
                    ("compile", options.compile),
                    ("avx2", options.avx2),
                    ("spin", options.spin),
                ];
                let on = flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!(", {name}"));
                format!(" ({}{})", options.precision, on.collect::<String>())
            })
        );
        let command = without_paths(std::env::args().skip(1));
        Circumstances { device, threads: self.threads, commit: commit(), torch, command }
    }

    fn row(&mut self, case: &Case) -> Result<Row> {
        let mut row = Row { name: case.name.clone(), images: case.images, ..Row::default() };
        let mut built = (case.build)(&self.device)?;
        if let Some((peer, _)) = &mut self.peer {
            write_inputs(&built.tensors, self.folder.path())?;
            built.tensors = NamedTensors::new();
            peer.prepare(&case.spec, self.folder.path())?;
            let (ours, theirs) = (built.work.check(), peer.check(self.folder.path())?);
            row.wrong = difference(&ours, &theirs, case.tolerance);
            if row.wrong.is_some() {
                return Ok(row);
            }
        }
        let warm = |ms: f64| ((self.least_ms / ms).ceil() as usize).clamp(1, 1000);
        // The first run still pays for memory that later ones find; of what takes long the check has done that.
        let is_long = |ms: f64| ms > LONG_MS;
        let first = measure(&mut *built.work, &self.device, 1)?;
        let ours_repeat = if is_long(first) { 1 } else { warm(measure(&mut *built.work, &self.device, 1)?) };
        let peer_repeat = match &mut self.peer {
            Some((peer, _)) => {
                if is_long(peer.run(1)?) {
                    1
                } else {
                    warm(peer.run(1)?)
                }
            }
            None => 0,
        };
        for _ in 0..self.rounds {
            // What is short starts with the caches that the other side left: one run more, not counted.
            if ours_repeat > 1 {
                measure(&mut *built.work, &self.device, 1)?;
            }
            row.ours_ms.push(measure(&mut *built.work, &self.device, ours_repeat)?);
            if let Some((peer, _)) = &mut self.peer {
                if peer_repeat > 1 {
                    peer.run(1)?;
                }
                row.peer_ms.push(peer.run(peer_repeat)?);
            }
        }
        drop(built);
        if case.fresh {
            row.fresh = self.fresh(case)?;
        }
        Ok(row)
    }

    /// Memory and time to the first result of both sides, each in a process that does nothing else.
    fn fresh(&self, case: &Case) -> Result<Option<(Fresh, Fresh)>> {
        let Some((_, options)) = self.peer.as_ref().filter(|(_, options)| options.device == "cpu") else {
            return Ok(None);
        };
        let start = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args().skip(1))
            .args(["--fresh", &case.name])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let _ = lines.next().context("a process of ours ended before its first run")??;
        let first_s = start.elapsed().as_secs_f64();
        let text = lines.next().context("a process of ours ended before it told its memory")??;
        child.wait()?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [before, peak] = numbers[..] else { bail!("no memory of ours: {text}") };
        let start = Instant::now();
        let mut peer = Peer::start(options)?;
        peer.prepare(&case.spec, self.folder.path())?;
        peer.run(1)?;
        let peer_first_s = start.elapsed().as_secs_f64();
        for _ in 1..FRESH_RUNS {
            peer.run(1)?;
        }
        let [peer_before, peer_peak] = peer.memory()?;
        let of_peer = Fresh { before: peer_before, peak: peer_peak, first_s: peer_first_s };
        Ok(Some((Fresh { before, peak, first_s }, of_peer)))
    }
}

/// A run that takes longer is not tried again before it is measured.
const LONG_MS: f64 = 20_000.0;

/// Runs after which memory has settled.
const FRESH_RUNS: usize = 3;

/// The other end of [`Bench::fresh`].
fn run_fresh(case: &Case, device: &Device) -> Result<()> {
    let before = memory_mib("VmRSS")?;
    let mut built = (case.build)(device)?;
    built.tensors = NamedTensors::new();
    forget_peak();
    measure(&mut *built.work, device, 1)?;
    println!("ran");
    for _ in 1..FRESH_RUNS {
        measure(&mut *built.work, device, 1)?;
    }
    println!("{before} {}", memory_mib("VmHWM")?);
    Ok(())
}

/// Hands back what building left, so that the peak is that of the work. The peer does the same.
fn forget_peak() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: `malloc_trim` takes a plain number and locks the allocator itself.
        unsafe { malloc_trim(0) };
        // Where the kernel does not know it, the peak is that of building too.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// A line of this process's status, in MiB.
fn memory_mib(key: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).with_context(|| format!("/proc/self/status has no {key}"))
}

/// The commit of the working tree.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(folder()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|status| !status.is_empty());
    format!("{commit}{}", if changed { "+changes" } else { "" })
}

/// A command line without the options that name files of this machine: they change nothing that is measured.
fn without_paths(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let (mut arguments, mut kept) = (arguments.into_iter(), Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.split_once('=').map_or(argument.as_str(), |(name, _)| name) {
            // The value is the next argument, unless it stands in this one.
            "--python" | "--record" => drop((!argument.contains('=')).then(|| arguments.next())),
            _ => kept.push(argument),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str]) -> Vec<String> {
        let args = Args::parse_from(["mentor-bench"].iter().chain(arguments));
        cases(&args, 2).into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn rows_have_names_of_their_own_in_every_group() {
        for arguments in [&[][..], &["--quick"], &["--device", "cuda:0"]] {
            let names = names(arguments);
            let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
            for group in ["op/", "step/", "detector/", "infer/", "eval/", "boxes/", "data/"] {
                assert!(names.iter().any(|name| name.starts_with(group)), "{group} in {names:?}");
            }
        }
        assert!(names(&["--only", "data/"]).iter().all(|name| name.starts_with("data/")));
    }

    #[test]
    fn only_a_whole_run_is_recorded_unasked() {
        let path = |arguments: &[&str]| record_path(&Args::parse_from(["mentor-bench"].iter().chain(arguments)));
        let whole = path(&["--device", "cuda:0"]);
        assert!(whole.is_some_and(|path| path.to_string_lossy().ends_with("-cuda0.json")));
        for part in ["--quick", "--alone", "--only=op/"] {
            assert_eq!(path(&[part]), None);
            assert_eq!(path(&[part, "--record", "x.json"]), Some(PathBuf::from("x.json")));
        }
    }

    #[test]
    fn a_recorded_command_names_no_file() {
        let command = ["--python", "/a/python", "--rounds", "5", "--record=/b.json", "--only=op/"].map(str::to_owned);
        assert_eq!(without_paths(command), ["--rounds", "5", "--only=op/"]);
    }

    #[test]
    fn lower_precision_is_compared_more_loosely_but_labels_are_not() {
        assert_eq!(looser(Tolerance::Largest(1e-4), false), Tolerance::Largest(5e-3));
        assert_eq!(looser(Tolerance::Largest(1e-4), true), Tolerance::Largest(5e-2));
        assert_eq!(looser(Tolerance::Mean(1e-2), true), Tolerance::Mean(1e-2));
    }
}
