//! The machine that a run is on.

/// The name of the CPU, for people: `cpu (AMD EPYC, 2 threads)`.
#[must_use]
pub fn cpu_name() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| {
        let line = info.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("cpu ({}, {threads} threads)", model.as_deref().unwrap_or("unknown model"))
}
