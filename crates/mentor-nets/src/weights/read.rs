//! Files of weights as named tensors, whose bytes are converted only when they are asked for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Bytes, DType, bf16, f16};
use mentor_weights::NamedTensors;
use pytorch_reader::PytorchReader;
use safetensors::tensor::{Dtype, SafeTensors};

use super::{CHECKSUM, WeightsError, checksum};
use crate::pytorch_name;

/// The floating-point types that weights may have in a file.
#[derive(Clone, Copy)]
enum Float {
    F16,
    Bf16,
    F32,
    F64,
}

enum Source {
    Values(Vec<f32>),
    Memory(Range<usize>),
    Pickle(pytorch_reader::Tensor),
    Pack(Bytes),
}

/// A tensor of a file.
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    float: Result<Float, String>,
    source: Source,
}

/// A file of weights: tensors by PyTorch name.
pub(super) struct WeightsFile {
    path: PathBuf,
    kind: &'static str,
    bytes: Vec<u8>,
    pub(super) entries: BTreeMap<String, Entry>,
    /// What it says of itself.
    pub(super) metadata: BTreeMap<String, String>,
}

impl WeightsFile {
    /// Tensors in memory, by module path, as if they had come out of a file; `origin` is named in errors.
    pub(super) fn of_tensors(origin: &Path, tensors: NamedTensors) -> Self {
        let mut file = Self::new(origin, "checkpoint", Vec::new());
        for (name, (shape, values)) in tensors {
            let entry = Entry { shape, float: Ok(Float::F32), source: Source::Values(values) };
            file.entries.insert(pytorch_name(&name), entry);
        }
        file
    }

    /// Reads a file by the kind that its name says.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { path: path.into(), source };
        let metadata = std::fs::metadata(path).map_err(io)?;
        if !metadata.is_file() {
            return Err(WeightsError::NotAFile { path: path.into() });
        }
        if metadata.len() == 0 {
            return Err(WeightsError::Empty { path: path.into() });
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let file = match extension.as_deref() {
            Some("pth" | "pt") => Self::pickle(path),
            Some("safetensors") => Self::safetensors(path, std::fs::read(path).map_err(io)?),
            Some("bpk") => Self::pack(path, std::fs::read(path).map_err(io)?),
            _ => Err(WeightsError::UnknownKind { path: path.into() }),
        }?;
        if file.entries.is_empty() {
            return Err(WeightsError::NoTensors { path: path.into() });
        }
        Ok(file.in_pytorch_naming())
    }

    /// Renames tensors that are called by module path, as in burn's files and in checkpoints.
    fn in_pytorch_naming(mut self) -> Self {
        if self.entries.keys().any(|name| name.ends_with(".gamma")) {
            let entries = std::mem::take(&mut self.entries);
            self.entries = entries.into_iter().map(|(name, entry)| (pytorch_name(&name), entry)).collect();
        }
        self
    }

    fn pickle(path: &Path) -> Result<Self, WeightsError> {
        let reader = PytorchReader::new(path).map_err(|error| unreadable(path, "PyTorch", &error))?;
        let mut file = Self::new(path, "PyTorch", Vec::new());
        for (name, tensor) in reader.into_tensors() {
            use pytorch_reader::DType as Type;
            let float = match tensor.dtype() {
                Type::F16 => Ok(Float::F16),
                Type::BF16 => Ok(Float::Bf16),
                Type::F32 => Ok(Float::F32),
                Type::F64 => Ok(Float::F64),
                other => Err(format!("{other:?}")),
            };
            let shape = tensor.shape().to_vec();
            file.entries.insert(name, Entry { shape, float, source: Source::Pickle(tensor) });
        }
        Ok(file)
    }

    fn safetensors(path: &Path, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let kind = "safetensors";
        let (length, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| unreadable(path, kind, &error))?;
        let data_start = length + 8;
        let mut file = Self::new(path, kind, Vec::new());
        for (name, info) in metadata.tensors() {
            let float = match info.dtype {
                Dtype::F16 => Ok(Float::F16),
                Dtype::BF16 => Ok(Float::Bf16),
                Dtype::F32 => Ok(Float::F32),
                Dtype::F64 => Ok(Float::F64),
                other => Err(format!("{other:?}")),
            };
            let (start, end) = info.data_offsets;
            let source = Source::Memory(data_start + start..data_start + end);
            file.entries.insert(name, Entry { shape: info.shape.clone(), float, source });
        }
        file.metadata = metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let written = file.metadata.get(CHECKSUM);
        if written.is_some_and(|written| *written != checksum(&bytes[data_start..])) {
            return Err(WeightsError::Checksum { path: path.into() });
        }
        file.bytes = bytes;
        Ok(file)
    }

    fn pack(path: &Path, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let kind = "burnpack";
        let tensors = burn_pack::Reader::from_bytes(Bytes::from_bytes_vec(bytes))
            .and_then(burn_pack::Reader::into_tensors)
            .map_err(|error| unreadable(path, kind, &error))?;
        let mut file = Self::new(path, kind, Vec::new());
        for tensor in tensors {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(|error| unreadable(path, kind, &error))?;
            let float = match dtype {
                DType::F16 => Ok(Float::F16),
                DType::BF16 => Ok(Float::Bf16),
                DType::F32 => Ok(Float::F32),
                DType::F64 => Ok(Float::F64),
                other => Err(format!("{other:?}")),
            };
            let entry = Entry { shape: shape.to_vec(), float, source: Source::Pack(bytes) };
            file.entries.insert(name, entry);
        }
        Ok(file)
    }

    fn new(path: &Path, kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), kind, bytes, entries: BTreeMap::new(), metadata: BTreeMap::new() }
    }

    /// The values of a tensor as f32, checked to be weights.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let entry = &self.entries[name];
        let (path, name) = (self.path.clone(), name.to_owned());
        let float = match &entry.float {
            Ok(float) => *float,
            Err(found) => return Err(WeightsError::Type { path, name, found: found.clone() }),
        };
        let values = match &entry.source {
            Source::Values(values) => values.clone(),
            Source::Memory(range) => float.decode(&self.bytes[range.clone()]),
            Source::Pack(bytes) => float.decode(bytes),
            Source::Pickle(tensor) => {
                float.decode(&tensor.read().map_err(|error| unreadable(&self.path, self.kind, &error))?)
            }
        };
        if values.len() != entry.shape.iter().product::<usize>() {
            let reason = format!("tensor `{name}` of shape {:?} holds {} values", entry.shape, values.len());
            return Err(WeightsError::Unreadable { path, kind: self.kind, reason });
        }
        let variance = name.ends_with("running_var");
        match values.iter().find(|value| !value.is_finite() || variance && **value < 0.0) {
            Some(&value) => Err(WeightsError::Value { path, name, value }),
            None => Ok(values),
        }
    }
}

fn unreadable(path: &Path, kind: &'static str, reason: &dyn std::fmt::Display) -> WeightsError {
    WeightsError::Unreadable { path: path.into(), kind, reason: reason.to_string() }
}

impl Float {
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            #[allow(clippy::cast_possible_truncation)]
            Self::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// Names and shapes of the tensors in a file of weights, without reading their values (a checksum
/// is checked where there is one).
///
/// # Errors
/// As [`load_weights`](super::load_weights) for a file that cannot be read.
pub fn tensor_shapes(path: &Path) -> Result<BTreeMap<String, Vec<usize>>, WeightsError> {
    let file = WeightsFile::open(path)?;
    Ok(file.entries.into_iter().map(|(name, entry)| (name, entry.shape)).collect())
}
