//! The child process that runs PyTorch: one line of JSON for a question, one for the answer.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use mentor_weights::{NamedTensors, from_safetensors, to_safetensors};
use serde_json::{Value, json};

use crate::work::folder;

/// How the peer is started.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The Python to run.
    pub python: String,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Its threads.
    pub threads: usize,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Whether its nets go through `torch.compile`.
    pub compile: bool,
    /// Whether its maps lie in memory as NHWC.
    pub channels_last: bool,
    /// Whether it may use no more than AVX2.
    pub avx2: bool,
    /// Whether its threads spin where they wait for each other.
    pub spin: bool,
}

/// A PyTorch process, ended when this is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// The version of PyTorch.
    pub torch: String,
}

impl Peer {
    /// Starts Python and imports PyTorch.
    ///
    /// # Errors
    /// Where there is no Python, or no PyTorch in it.
    pub fn start(options: &PeerOptions) -> Result<Self> {
        let script = folder().join("peer/peer.py");
        let mut command = Command::new(&options.python);
        command
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An allocator that keeps freed memory, as ours does.
            .env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=4000000000:glibc.malloc.trim_threshold=4000000000")
            .env("OMP_NUM_THREADS", options.threads.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        // A thread that spins while a neighbour has the processor of the one it waits for makes PyTorch several times slower.
        if !options.spin {
            command.env("OMP_WAIT_POLICY", "PASSIVE");
        }
        if options.avx2 {
            command.env("ATEN_CPU_CAPABILITY", "avx2").env("ONEDNN_MAX_CPU_ISA", "AVX2");
        }
        let mut child =
            command.spawn().with_context(|| format!("`{}` cannot be started; see --python", options.python))?;
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut peer = Self { child, to, from: BufReader::new(from), torch: String::new() };
        let answer = peer.ask(&json!({
            "op": "start",
            "device": options.device,
            "threads": options.threads,
            "precision": options.precision,
            "compile": options.compile,
            "channels_last": options.channels_last,
        }))?;
        if let Some(missing) = answer.get("missing") {
            bail!(
                "`{}` cannot import PyTorch ({missing}); get it with\n  pip install torch torchvision\n\
                 or measure ours without it with --alone",
                options.python
            );
        }
        peer.torch = answer["torch"].as_str().unwrap_or("unknown").to_owned();
        Ok(peer)
    }

    fn ask(&mut self, question: &Value) -> Result<Value> {
        writeln!(self.to, "{question}").and_then(|()| self.to.flush()).context("the PyTorch process is gone")?;
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            let status = self.child.wait()?;
            bail!("the PyTorch process ended: {status}");
        }
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("the PyTorch process said: {line}"))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(anyhow!("PyTorch: {error}")),
            None => Ok(answer),
        }
    }

    /// Hands over a piece of work whose inputs lie in `folder`.
    ///
    /// # Errors
    /// Where the peer cannot do it.
    pub fn prepare(&mut self, spec: &Value, folder: &Path) -> Result<()> {
        self.ask(&json!({ "op": "prepare", "spec": spec, "folder": folder })).map(drop)
    }

    /// Its results for comparison.
    ///
    /// # Errors
    /// Where the peer fails.
    pub fn check(&mut self, folder: &Path) -> Result<NamedTensors> {
        self.ask(&json!({ "op": "check" }))?;
        Ok(from_safetensors(&std::fs::read(folder.join("results.safetensors"))?)?)
    }

    /// Milliseconds of one run, the mean of `repeat` runs in a row.
    ///
    /// # Errors
    /// Where the peer fails.
    pub fn run(&mut self, repeat: usize) -> Result<f64> {
        let answer = self.ask(&json!({ "op": "run", "repeat": repeat }))?;
        answer["ms"].as_f64().context("the PyTorch process gave no time")
    }

    /// Its memory in MiB: before the work, and the most so far.
    ///
    /// # Errors
    /// Where the peer fails.
    pub fn memory(&mut self) -> Result<[f64; 2]> {
        let answer = self.ask(&json!({ "op": "memory" }))?;
        let number = |key: &str| answer[key].as_f64().with_context(|| format!("the PyTorch process gave no {key}"));
        Ok([number("before")?, number("peak")?])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A process that is gone already cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the inputs that both sides share.
///
/// # Errors
/// If the file cannot be written.
pub fn write_inputs(tensors: &NamedTensors, folder: &Path) -> Result<()> {
    Ok(std::fs::write(folder.join("inputs.safetensors"), to_safetensors(tensors)?)?)
}
