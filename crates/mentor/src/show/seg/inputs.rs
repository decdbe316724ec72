//! The tensors that `mentor term` reads, checked against each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mentor_types::{SegOutput, Tap, Taps, UNKNOWN};
use mentor_weights::{NamedTensors, from_safetensors};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The tensors of a file, each where it is there.
pub struct Inputs {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The student's, on the graph.
    pub student: Side,
    /// The teacher's.
    pub teacher: Side,
    /// `[n, 3, h, w]`.
    pub images: Option<Tensor<4>>,
    /// `[n, h, w]`.
    pub target: Option<Tensor<3, Int>>,
}

/// What the file holds of one net.
pub struct Side {
    /// `[n, k, h, w]`.
    pub logits: Option<Tensor<4>>,
    /// `[n, c, h, w]`.
    pub feature: Option<Tensor<4>>,
}

impl Side {
    /// A network's output that holds the tensors; the features stand at every tap.
    pub fn output(&self) -> SegOutput {
        let mut taps = Taps::default();
        for tap in Tap::ALL.into_iter().filter(|tap| *tap != Tap::Logits) {
            self.feature.iter().for_each(|feature| taps.insert(tap, feature.clone()));
        }
        let logits = self.logits.clone().or_else(|| self.feature.clone());
        let logits = logits.unwrap_or_else(|| Tensor::zeros([1, 1, 1, 1], &Device::flex()));
        let [_, _, height, width] = logits.dims();
        SegOutput { logits, auxiliary: None, taps, image_size: [height, width] }
    }
}

impl Inputs {
    /// Reads a file; what it holds must fit together.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        SafeTensors::deserialize(&bytes).with_context(|| format!("{}: not a safetensors file", path.display()))?;
        let file = File { path, bytes: &bytes };
        let leaf = |tensor: Option<Tensor<4>>| tensor.map(|tensor| tensor.autodiff().require_grad());
        let side = |name: &str| -> Result<Side> {
            let float = |what: &str| file.float::<4>(&format!("{name}_{what}"));
            Ok(Side { logits: float("logits")?, feature: float("feature")? })
        };
        let (student, teacher) = (side("student")?, side("teacher")?);
        let (images, target) = (file.float::<4>("images")?, file.labels()?);
        let student = Side { logits: leaf(student.logits), feature: leaf(student.feature) };
        let inputs = Self { path: path.to_owned(), bytes: bytes.clone(), student, teacher, images, target };
        inputs.check()?;
        Ok(inputs)
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

    /// A name of the file and what was found in it, for messages.
    pub fn at(&self, name: &str) -> String {
        format!("{}: `{name}`", self.path.display())
    }

    fn check(&self) -> Result<()> {
        let maps = [
            ("student_logits", &self.student.logits),
            ("teacher_logits", &self.teacher.logits),
            ("student_feature", &self.student.feature),
            ("teacher_feature", &self.teacher.feature),
            ("images", &self.images),
        ];
        let maps = maps.into_iter().filter_map(|(name, map)| Some((name, map.as_ref()?.dims().to_vec())));
        let target = self.target.as_ref().map(|target| ("target", target.dims().to_vec()));
        let all: Vec<(&str, Vec<usize>)> = maps.chain(target).collect();
        for (name, shape) in &all {
            ensure!(!shape.contains(&0), "{} has shape {shape:?}, expected no side of 0", self.at(name));
            let (first, of_first) = &all[0];
            ensure!(
                shape[0] == of_first[0],
                "{} is {shape:?}, which does not fit `{first}` {of_first:?}: other images",
                self.at(name)
            );
        }
        let shape = |name: &str| all.iter().find(|(found, _)| *found == name).map(|(_, shape)| shape);
        if let (Some(student), Some(teacher)) = (shape("student_logits"), shape("teacher_logits"))
            && student[1] != teacher[1]
        {
            let place = self.at("teacher_logits");
            bail!("{place} is {teacher:?}, which does not fit `student_logits` {student:?}: other classes");
        }
        if let Some(images) = shape("images").filter(|images| images[1] != 3) {
            bail!("{} is {images:?}, expected 3 channels", self.at("images"));
        }
        if let (Some(logits), Some(target)) = (shape("student_logits"), &self.target) {
            let classes = i64::try_from(logits[1])?;
            let values = target.clone().into_data().convert::<i64>();
            let values = values.try_into_vec::<i64>().expect("converted to i64 above");
            if let Some(wrong) = values.into_iter().find(|value| *value >= classes && *value < i64::from(UNKNOWN)) {
                bail!("{} holds {wrong}, expected a class below {classes}, 254 or 255", self.at("target"));
            }
        }
        Ok(())
    }
}

/// A safetensors file as it lies on the disk.
struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl File<'_> {
    fn float<const D: usize>(&self, name: &str) -> Result<Option<Tensor<D>>> {
        let Some((shape, dtype, data)) = self.raw::<D>(name)? else { return Ok(None) };
        let values: Vec<f32> = match dtype {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            other => bail!("{}: `{name}` has type {other:?}, expected F32", self.path.display()),
        };
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }

    fn labels(&self) -> Result<Option<Tensor<3, Int>>> {
        let name = "target";
        let Some((shape, dtype, data)) = self.raw::<3>(name)? else { return Ok(None) };
        let values: Vec<i64> = match dtype {
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            Dtype::I32 => data.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
            Dtype::U8 => data.iter().map(|byte| i64::from(*byte)).collect(),
            other => bail!("{}: `{name}` has type {other:?}, expected I64", self.path.display()),
        };
        if let Some(wrong) = values.iter().find(|value| !(0..=255).contains(*value)) {
            bail!("{}: `{name}` holds {wrong}, expected classes, 254 or 255", self.path.display());
        }
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), &Device::flex())))
    }

    #[allow(clippy::type_complexity)]
    fn raw<const D: usize>(&self, name: &str) -> Result<Option<([usize; D], Dtype, Vec<u8>)>> {
        let file = SafeTensors::deserialize(self.bytes)?;
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        let shape: [usize; D] = view.shape().try_into().ok().with_context(|| {
            format!("{}: `{name}` has shape {:?}, expected {D} dimensions", self.path.display(), view.shape())
        })?;
        Ok(Some((shape, view.dtype(), view.data().to_vec())))
    }
}
