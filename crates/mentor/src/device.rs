//! The only file that chooses a device.

use std::str::FromStr;

use anyhow::{Result, bail};
use burn::tensor::Device;
use mentor_train::cpu_name;

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// A CUDA device where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl FromStr for DeviceRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err("expected auto, cpu or cuda:N".to_owned()),
        }
    }
}

/// The device and its name for people.
pub fn choose(request: DeviceRequest) -> Result<(Device, String)> {
    #[cfg(feature = "cuda")]
    keep_kernels();
    match request {
        DeviceRequest::Cpu => Ok((Device::flex(), cpu_name())),
        DeviceRequest::Auto if cuda_devices() > 0 => cuda(0),
        DeviceRequest::Auto => Ok((Device::flex(), cpu_name())),
        DeviceRequest::Cuda(number) => cuda(number),
    }
}

/// Keeps what the first run compiled and tuned in the user's cache folder, for the runs after it. A
/// `cubecl.toml` in the current folder can say where and how; it must be called before any device is.
#[cfg(feature = "cuda")]
fn keep_kernels() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
    if ["cubecl.toml", "CubeCL.toml"].iter().any(|file| std::path::Path::new(file).exists()) {
        return;
    }
    let mut config = CubeClRuntimeConfig::default().override_from_env();
    config.compilation.cache = true;
    config.environment.path = CacheConfig::Global;
    CubeClRuntimeConfig::try_set(config);
}

#[cfg(feature = "cuda")]
fn cuda_devices() -> usize {
    Device::enumerate(burn::tensor::DeviceType::Cuda).len()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> usize {
    0
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<(Device, String)> {
    let found = cuda_devices();
    if number >= found {
        bail!("--device cuda:{number}: {found} CUDA devices found; is the NVIDIA driver installed?");
    }
    Ok((Device::cuda(number), format!("cuda:{number}")))
}

#[cfg(not(feature = "cuda"))]
fn cuda(number: usize) -> Result<(Device, String)> {
    bail!("--device cuda:{number}: this binary was built without CUDA; build it with `--features cuda`")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_read_as_documented() {
        assert_eq!("auto".parse(), Ok(DeviceRequest::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceRequest::Cpu));
        assert_eq!("cuda:3".parse(), Ok(DeviceRequest::Cuda(3)));
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:x"] {
            assert_eq!(wrong.parse::<DeviceRequest>(), Err("expected auto, cpu or cuda:N".to_owned()));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        let error = choose(DeviceRequest::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
        assert!(choose(DeviceRequest::Auto).is_ok_and(|(_, name)| name.starts_with("cpu")));
    }
}
