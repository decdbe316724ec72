//! The tensors that `mentor term` reads, checked against each other.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor};
use mentor_types::{SegOutput, Tap, Taps, UNKNOWN};

use crate::show::tensors::{TensorFile, leaf};

/// The tensors of a file, each where it is there.
pub struct Inputs {
    /// Where they lie.
    pub file: TensorFile,
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
        let file = TensorFile::open(path)?;
        let side = |name: &str| -> Result<Side> {
            let float = |what: &str| file.floats::<4>(&format!("{name}_{what}"));
            Ok(Side { logits: float("logits")?, feature: float("feature")? })
        };
        let (student, teacher) = (side("student")?, side("teacher")?);
        let (images, target) = (file.floats::<4>("images")?, file.labels()?);
        let student = Side { logits: student.logits.map(leaf), feature: student.feature.map(leaf) };
        let inputs = Self { file, student, teacher, images, target };
        inputs.check()?;
        Ok(inputs)
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
            ensure!(!shape.contains(&0), "{} has shape {shape:?}, expected no side of 0", self.file.at(name));
            let (first, of_first) = &all[0];
            ensure!(
                shape[0] == of_first[0],
                "{} is {shape:?}, which does not fit `{first}` {of_first:?}: other images",
                self.file.at(name)
            );
        }
        let shape = |name: &str| all.iter().find(|(found, _)| *found == name).map(|(_, shape)| shape);
        if let (Some(student), Some(teacher)) = (shape("student_logits"), shape("teacher_logits"))
            && student[1] != teacher[1]
        {
            let place = self.file.at("teacher_logits");
            bail!("{place} is {teacher:?}, which does not fit `student_logits` {student:?}: other classes");
        }
        if let Some(images) = shape("images").filter(|images| images[1] != 3) {
            bail!("{} is {images:?}, expected 3 channels", self.file.at("images"));
        }
        if let (Some(logits), Some(target)) = (shape("student_logits"), &self.target) {
            let classes = i64::try_from(logits[1])?;
            let values = target.clone().into_data().convert::<i64>();
            let values = values.try_into_vec::<i64>().expect("converted to i64 above");
            if let Some(wrong) = values.into_iter().find(|value| *value >= classes && *value < i64::from(UNKNOWN)) {
                bail!("{} holds {wrong}, expected a class below {classes}, 254 or 255", self.file.at("target"));
            }
        }
        Ok(())
    }
}
