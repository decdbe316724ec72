//! The tensors of a file that `mentor term` reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_weights::{NamedTensors, from_safetensors, to_safetensors, write_atomically};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A safetensors file as it lies on the disk.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl TensorFile {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        SafeTensors::deserialize(&bytes).with_context(|| format!("{}: not a safetensors file", path.display()))?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// A name of the file and what was found in it, for messages.
    pub fn at(&self, name: &str) -> String {
        format!("{}: `{name}`", self.path.display())
    }

    /// The tensor, which the term cannot do without.
    pub fn need<T>(&self, name: &str, tensor: Option<T>) -> Result<T> {
        tensor.with_context(|| format!("{}: this term needs `{name}`", self.path.display()))
    }

    /// The tensors to which `rename` gives a name, under that one.
    pub fn named(&self, rename: impl Fn(&str) -> Option<String>) -> Result<NamedTensors> {
        let all = SafeTensors::deserialize(&self.bytes)?;
        let chosen = all.tensors().into_iter().filter_map(|(name, view)| Some((rename(&name)?, view)));
        let chosen: BTreeMap<String, TensorView> = chosen.collect();
        Ok(from_safetensors(&safetensors::serialize(chosen, None)?)?)
    }

    /// Numbers, where they are there.
    pub fn floats<const D: usize>(&self, name: &str) -> Result<Option<Tensor<D>>> {
        let Some((shape, dtype, data)) = self.raw::<D>(name)? else { return Ok(None) };
        let values: Vec<f32> = match dtype {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            other => bail!("{}: `{name}` has type {other:?}, expected F32", self.path.display()),
        };
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }

    /// Whole numbers with their shape, where they are there.
    #[allow(clippy::type_complexity)]
    pub fn integers<const D: usize>(&self, name: &str) -> Result<Option<([usize; D], Vec<i64>)>> {
        let Some((shape, dtype, data)) = self.raw::<D>(name)? else { return Ok(None) };
        let values: Vec<i64> = match dtype {
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            Dtype::I32 => data.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
            Dtype::U8 => data.iter().map(|byte| i64::from(*byte)).collect(),
            other => bail!("{}: `{name}` has type {other:?}, expected I64", self.path.display()),
        };
        Ok(Some((shape, values)))
    }

    /// Labels of pixels, where they are there.
    pub fn labels(&self) -> Result<Option<Tensor<3, Int>>> {
        let name = "target";
        let Some((shape, values)) = self.integers::<3>(name)? else { return Ok(None) };
        if let Some(wrong) = values.iter().find(|value| !(0..=255).contains(*value)) {
            bail!("{}: `{name}` holds {wrong}, expected classes, 254 or 255", self.path.display());
        }
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }

    #[allow(clippy::type_complexity)]
    fn raw<const D: usize>(&self, name: &str) -> Result<Option<([usize; D], Dtype, Vec<u8>)>> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        let shape: [usize; D] = view.shape().try_into().ok().with_context(|| {
            format!("{}: `{name}` has shape {:?}, expected {D} dimensions", self.path.display(), view.shape())
        })?;
        Ok(Some((shape, view.dtype(), view.data().to_vec())))
    }
}

/// A tensor with a gradient of its own.
pub fn leaf<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().require_grad()
}

/// The gradients of a value that there are, in a file.
#[derive(Default)]
pub struct Slopes(NamedTensors);

impl Slopes {
    /// Keeps a gradient as `grad_NAME`, where there is one.
    pub fn keep<const D: usize>(&mut self, name: &str, gradient: Option<Tensor<D>>) -> Result<()> {
        if let Some(gradient) = gradient {
            let data = gradient.into_data();
            let shape = data.shape().to_vec();
            let values = data.try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
            self.0.insert(format!("grad_{name}"), (shape, values));
        }
        Ok(())
    }

    /// Writes them.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, &to_safetensors(&self.0)?)?)
    }
}
