//! The machine that a run is on.

/// The name of the CPU and the instructions that the operations use, for people:
/// `cpu (AMD EPYC, 2 threads, AVX-512)`.
///
/// # Errors
/// If `MENTOR_CPU` asks for instructions that are unknown or that the CPU lacks.
pub fn cpu_name() -> Result<String, String> {
    let instructions = mentor_ops::instructions()?;
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| {
        let line = info.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("cpu ({}, {threads} threads, {instructions})", model.as_deref().unwrap_or("unknown model")))
}
