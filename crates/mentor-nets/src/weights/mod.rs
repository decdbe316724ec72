//! Weights in and out of files, by their PyTorch names.
//!
//! In: `.pth` / `.pt` (a state dict or a checkpoint around one; pickles are parsed, never executed),
//! `.safetensors`, and burn's `.bpk`. Out: `.safetensors` in PyTorch naming and `.bpk`; two exports
//! of equal weights are equal files.

mod export;
mod load;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use mentor_weights::FileError;
use thiserror::Error;

pub use export::{export_burnpack, export_safetensors};
pub use load::{load_tensors, load_weights};
pub use read::tensor_shapes;

/// The key under which an export keeps the checksum of its tensors.
const CHECKSUM: &str = "blake3";

/// The checksum of a file's tensor bytes.
fn checksum(data: &[u8]) -> String {
    blake3::hash(data).to_hex().to_string()
}

/// How much of a net a file must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everything but an auxiliary head: a teacher, a net to evaluate.
    #[default]
    Whole,
    /// The backbone; heads are taken where the file has them: the start of a student.
    AtLeastBackbone,
    /// The backbone, and only it is read.
    BackboneOnly,
}

/// What is expected of a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// How much must be there. A net without a `backbone` is all backbone.
    pub scope: Scope,
    /// Convolutions that make class scores stay as they are where the file has another number of
    /// classes, instead of an error.
    pub new_classes: bool,
}

/// What became of a file's tensors and a net's weights; names are PyTorch's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// How many weights and buffers were taken from the file.
    pub loaded: usize,
    /// Weights of the net that the file lacks; they stay as they were.
    pub missing: Vec<String>,
    /// Weights that stay as they were because the file has another number of classes.
    pub new_classes: Vec<String>,
    /// Tensors of the file that the net has no place for (`num_batches_tracked` is not counted).
    pub unused: Vec<String>,
    /// What the file says of itself, as an export of safetensors does.
    pub metadata: BTreeMap<String, String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weights loaded", self.loaded)?;
        let lists = [("missing", &self.missing), ("new classes", &self.new_classes), ("unused", &self.unused)];
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, ", {what}: {}", listed(names))?;
        }
        Ok(())
    }
}

/// A list that stays readable: the first few names and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Why weights could not be read or written.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum WeightsError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// Something else than a file lies there.
    #[error("{path}: not a file, expected a file of weights (.pth, .safetensors or .bpk)")]
    NotAFile { path: PathBuf },
    /// Nothing is in the file.
    #[error("{path}: the file is empty, expected weights")]
    Empty { path: PathBuf },
    /// The name does not say what the file is.
    #[error("{path}: unknown kind of file, expected a name that ends in .pth, .pt, .safetensors or .bpk")]
    UnknownKind { path: PathBuf },
    /// The file is not what its name says, or is damaged.
    #[error("{path}: not a readable {kind} file: {reason}")]
    Unreadable { path: PathBuf, kind: &'static str, reason: String },
    /// The checksum that an export wrote does not fit the tensors.
    #[error("{path}: the tensors do not match the file's checksum, the file is damaged")]
    Checksum { path: PathBuf },
    /// Readable, but without a tensor.
    #[error("{path}: holds no tensors, expected a state dict")]
    NoTensors { path: PathBuf },
    /// The file lacks weights that must be there.
    #[error("{path}: lacks {} weights of this net: {}", names.len(), listed(names))]
    Missing { path: PathBuf, names: Vec<String> },
    /// A tensor has another shape than the weight of its name.
    #[error("{path}: tensor `{name}` has shape {found:?}, this net has {expected:?}")]
    Shape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    /// The net in the file has another number of classes.
    #[error(
        "{path}: tensor `{name}` makes {found} class scores at a place, this net {expected}; \
         `new_classes` starts the last layer afresh"
    )]
    Classes { path: PathBuf, name: String, found: usize, expected: usize },
    /// A tensor is not of a floating-point type.
    #[error("{path}: tensor `{name}` has type {found}, expected F16, BF16, F32 or F64")]
    Type { path: PathBuf, name: String, found: String },
    /// A weight is NaN or infinite, or a variance negative.
    #[error("{path}: tensor `{name}` holds {value}, expected finite weights and variances of at least 0")]
    Value { path: PathBuf, name: String, value: f32 },
}

impl From<FileError> for WeightsError {
    fn from(FileError { path, source }: FileError) -> Self {
        Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_a_few_and_counts_the_rest() {
        let unused = (0..6).map(|i| format!("w{i}")).collect();
        let report = LoadReport { loaded: 3, unused, ..LoadReport::default() };
        assert_eq!(report.to_string(), "3 weights loaded, unused: `w0`, `w1`, `w2`, `w3` and 2 more");
    }
}
