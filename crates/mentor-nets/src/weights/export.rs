//! Writing weights.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bytes, DType, f16};
use mentor_weights::{is_buffer, named_weights, write_atomically, write_parts_atomically};

use super::{CHECKSUM, WeightsError, checksum};
use crate::pytorch_name;

/// Writes all weights and buffers of `net` as safetensors in PyTorch naming, in f32, or with `half`
/// in f16 (running statistics stay f32: small variances would vanish).
///
/// The file also holds `metadata` and a checksum of its tensors, which loading checks. Equal weights
/// and metadata give equal files. It is written aside, synced and renamed, so that a reader sees the
/// old file or the whole new one.
///
/// # Errors
/// [`WeightsError::Io`]; with `half`, [`WeightsError::Value`] for a weight that f16 cannot hold.
pub fn export_safetensors<M: Module>(
    net: &M,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    half: bool,
) -> Result<(), WeightsError> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut tensors = encode(net, path, half)?;
    // f32 before f16, so that every tensor starts at a multiple of its element size.
    tensors.sort_by(|a, b| (a.half, &a.name).cmp(&(b.half, &b.name)));
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.bytes);
        let dtype = if tensor.half { "F16" } else { "F32" };
        let entry = serde_json::json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(tensor.name, entry);
    }
    let mut keys = metadata.clone();
    keys.insert(CHECKSUM.into(), checksum(&data));
    header.insert("__metadata__".into(), serde_json::json!(keys));
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    Ok(write_parts_atomically(path, &[&length, &header, &data])?)
}

struct Encoded {
    name: String,
    shape: Vec<usize>,
    half: bool,
    bytes: Vec<u8>,
}

fn encode<M: Module>(net: &M, path: &Path, half: bool) -> Result<Vec<Encoded>, WeightsError> {
    let mut tensors = Vec::new();
    for (weight_path, (shape, values)) in named_weights(net) {
        let (name, half) = (pytorch_name(&weight_path), half && !is_buffer(&weight_path));
        let bytes = if half {
            let halves: Vec<f16> = values.iter().copied().map(f16::from_f32).collect();
            if let Some(index) = halves.iter().position(|value| !value.is_finite()) {
                return Err(WeightsError::Value { path: path.into(), name, value: values[index] });
            }
            halves.iter().flat_map(|value| value.to_le_bytes()).collect()
        } else {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        tensors.push(Encoded { name, shape, half, bytes });
    }
    Ok(tensors)
}

/// Writes all weights and buffers of `net` in burn's own format, by module path, in f32. Parameter
/// ids are left out, so equal weights give equal files; the file opens with burn's `ModuleRecord`.
///
/// # Errors
/// [`WeightsError::Io`] or [`WeightsError::Unreadable`] if burn cannot encode it.
pub fn export_burnpack<M: Module>(net: &M, path: &Path) -> Result<(), WeightsError> {
    let tensors = named_weights(net).into_iter().map(|(name, (shape, values))| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        burn_pack::Tensor::new(name, DType::F32, shape, None, Bytes::from_bytes_vec(bytes))
    });
    let bytes = burn_pack::Writer::new(tensors.collect()).into_bytes().map_err(|error| WeightsError::Unreadable {
        path: path.into(),
        kind: "burnpack",
        reason: error.to_string(),
    })?;
    Ok(write_atomically(path, &bytes)?)
}
