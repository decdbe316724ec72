//! The only file that chooses a device, for the binary and for the benchmark beside it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
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
    /// The GPU of this number through Vulkan, Metal or DirectX.
    Wgpu(usize),
}

impl FromStr for DeviceRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |kind: &str| text.strip_prefix(kind).and_then(|number| number.parse().ok());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => number("cuda:")
                .map(Self::Cuda)
                .or_else(|| number("wgpu:").map(Self::Wgpu))
                .ok_or_else(|| "expected auto, cpu, cuda:N, or wgpu:N".to_owned()),
        }
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Wgpu(number) => write!(f, "wgpu:{number}"),
        }
    }
}

/// The device and its name for people.
pub fn choose(request: DeviceRequest) -> Result<(Device, String)> {
    #[cfg(feature = "cuda")]
    keep_kernels();
    match request {
        DeviceRequest::Cpu => Ok((Device::flex(), cpu_name().map_err(Error::msg)?)),
        DeviceRequest::Auto => match cuda_devices().into_iter().next() {
            Some(device) => Ok((device, DeviceRequest::Cuda(0).to_string())),
            None => choose(DeviceRequest::Cpu),
        },
        DeviceRequest::Cuda(_) if !cfg!(feature = "cuda") => {
            bail!("--device {request}: this program was built without CUDA; build it with `--features cuda`")
        }
        DeviceRequest::Wgpu(_) if !cfg!(feature = "wgpu") => {
            bail!("--device {request}: this program was built without wgpu; build it with `--features wgpu`")
        }
        DeviceRequest::Cuda(number) => {
            numbered(request, cuda_devices(), number, "CUDA", "is the NVIDIA driver installed?")
        }
        DeviceRequest::Wgpu(number) => {
            numbered(request, wgpu_devices(), number, "GPU", "is a driver for Vulkan, Metal or DirectX 12 installed?")
        }
    }
}

fn numbered(
    request: DeviceRequest,
    mut found: Vec<Device>,
    number: usize,
    kind: &str,
    hint: &str,
) -> Result<(Device, String)> {
    if number >= found.len() {
        bail!("--device {request}: {} {kind} devices found; {hint}", found.len());
    }
    Ok((found.swap_remove(number), request.to_string()))
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
fn cuda_devices() -> Vec<Device> {
    Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Vec<Device> {
    Vec::new()
}

#[cfg(feature = "wgpu")]
fn wgpu_devices() -> Vec<Device> {
    Device::enumerate(burn::tensor::DeviceType::Wgpu).into_iter().collect()
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_devices() -> Vec<Device> {
    Vec::new()
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
        assert_eq!("wgpu:0".parse(), Ok(DeviceRequest::Wgpu(0)));
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:x", "wgpu"] {
            assert_eq!(wrong.parse::<DeviceRequest>(), Err("expected auto, cpu, cuda:N, or wgpu:N".to_owned()));
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
