//! The tensors that `mentor term` reads for a term of detection, checked against each other.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use burn::tensor::{Device, Tensor};
use mentor_det::assign::{AssignConfig, Assignment, FcosAssign};
use mentor_det::upload::DetTargets;
use mentor_det::{Grid, Labelled};
use mentor_types::{BoxCoding, BoxKind, BoxLabels, DetLevel, DetOutput, LabelBox, LevelLayout, Tap, Taps};

use crate::show::tensors::{TensorFile, leaf};

/// The side of an anchor in strides: the term is evaluated on one level of a net without anchors.
const ANCHOR: usize = 8;

/// The tensors of a file, each where it is there.
pub struct Inputs {
    /// Where they lie.
    pub file: TensorFile,
    /// The student's, on the graph.
    pub student: Side,
    /// The teacher's.
    pub teacher: Side,
    /// `[p, 4]`: what each place is to find.
    pub target_boxes: Option<Tensor<2>>,
    /// `[m, 5]`: image, left, top, right, bottom.
    boxes: Option<Vec<[f32; 5]>>,
    /// Images, and rows and columns of places in each.
    n: usize,
    size: [usize; 2],
    /// Height and width of the images.
    image_size: [usize; 2],
    /// Pixels from one place to the next.
    pub stride: usize,
}

/// What the file holds of one net.
pub struct Side {
    /// `[n, c, h, w]`.
    pub feature: Option<Tensor<4>>,
    /// `[n, k, h, w]`.
    pub logits: Option<Tensor<4>>,
    /// `[p, 4]`: left, top, right, bottom in pixels.
    pub boxes: Option<Tensor<2>>,
    /// `[p, 4, bins]`: scores of distances of 0, 1, .. strides.
    pub edges: Option<Tensor<3>>,
}

impl Side {
    fn read(file: &TensorFile, name: &str) -> Result<Self> {
        let named = |what: &str| format!("{name}_{what}");
        Ok(Self {
            feature: file.floats(&named("feature"))?,
            logits: file.floats(&named("logits"))?,
            boxes: file.floats(&named("boxes"))?,
            edges: file.floats(&named("edges"))?,
        })
    }

    fn on_the_graph(self) -> Self {
        Self {
            feature: self.feature.map(leaf),
            logits: self.logits.map(leaf),
            boxes: self.boxes.map(leaf),
            edges: self.edges.map(leaf),
        }
    }

    /// The images and the places in them that its maps have.
    fn size(&self) -> Option<[usize; 3]> {
        let map = self.feature.as_ref().or(self.logits.as_ref())?;
        let [n, _, height, width] = map.dims();
        Some([n, height, width])
    }

    fn places(&self) -> Option<usize> {
        let of_boxes = self.boxes.as_ref().map(|boxes| boxes.dims()[0]);
        of_boxes.or(self.edges.as_ref().map(|edges| edges.dims()[0]))
    }
}

impl Inputs {
    /// Reads a file; what it holds must fit together.
    pub fn read(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let (student, teacher) = (Side::read(&file, "student")?, Side::read(&file, "teacher")?);
        let target_boxes = file.floats::<2>("target_boxes")?;
        // A file without maps has one image with a row of places.
        let in_a_row = || {
            let places =
                student.places().or(teacher.places()).or(target_boxes.as_ref().map(|boxes| boxes.dims()[0]))?;
            Some([1, 1, places])
        };
        let size = student.size().or(teacher.size()).or_else(in_a_row);
        let Some([n, height, width]) = size.filter(|size| !size.contains(&0)) else {
            bail!("{}: holds no map, no boxes and no edges of a place", path.display());
        };
        let image_size = image_size(&file)?;
        let stride = match image_size {
            Some(image_size) => stride(&file, image_size, [height, width])?,
            None => 8,
        };
        let image_size = image_size.unwrap_or([height * stride, width * stride]);
        let boxes = boxes(&file, n)?;
        let student = student.on_the_graph();
        let size = [height, width];
        let inputs = Self { file, student, teacher, target_boxes, boxes, n, size, image_size, stride };
        inputs.check()?;
        Ok(inputs)
    }

    /// The tensors that fit neither the maps nor each other.
    fn check(&self) -> Result<()> {
        let places = self.n * self.size[0] * self.size[1];
        for (name, side) in [("student", &self.student), ("teacher", &self.teacher)] {
            let maps = [("feature", &side.feature), ("logits", &side.logits)];
            for (what, map) in maps.into_iter().filter_map(|(what, map)| Some((what, map.as_ref()?))) {
                let [n, channels, height, width] = map.dims();
                ensure!(
                    n == self.n && channels > 0 && (what == "feature" || [height, width] == self.size),
                    "{} is {:?}, expected {} images of {:?} places as in the other maps",
                    self.file.at(&format!("{name}_{what}")),
                    map.dims(),
                    self.n,
                    self.size
                );
            }
            self.check_places(&format!("{name}_boxes"), side.boxes.as_ref().map(Tensor::dims), places, 4)?;
            let edges = side.edges.as_ref().map(Tensor::dims);
            self.check_places(&format!("{name}_edges"), edges.map(|[p, edges, _]| [p, edges]), places, 4)?;
        }
        self.check_places("target_boxes", self.target_boxes.as_ref().map(Tensor::dims), places, 4)?;
        let channels = |map: &Option<Tensor<4>>| map.as_ref().map(|map| map.dims()[1]);
        let bins = |edges: &Option<Tensor<3>>| edges.as_ref().map(|edges| edges.dims()[2]);
        for (what, of_student, of_teacher) in [
            ("logits", channels(&self.student.logits), channels(&self.teacher.logits)),
            ("edges", bins(&self.student.edges), bins(&self.teacher.edges)),
        ] {
            if let (Some(ours), Some(theirs)) = (of_student, of_teacher) {
                let at = self.file.at(&format!("teacher_{what}"));
                ensure!(ours == theirs, "{at} has {theirs} classes or bins, `student_{what}` has {ours}");
            }
        }
        Ok(())
    }

    fn check_places(&self, name: &str, found: Option<[usize; 2]>, places: usize, sides: usize) -> Result<()> {
        if let Some([found, of_each]) = found {
            let Self { n, size: [height, width], .. } = self;
            ensure!(
                [found, of_each] == [places, sides],
                "{} has {found} places of {of_each} numbers, expected {places} ({n} images of {height} x {width}) of {sides}",
                self.file.at(name)
            );
        }
        Ok(())
    }

    /// What a net says: on one level, with its features at every tap.
    pub fn output(&self, side: &Side) -> DetOutput {
        let (n, places) = (self.n, self.size[0] * self.size[1]);
        let device = Device::flex();
        let mut taps = Taps::default();
        for tap in Tap::ALL.into_iter().filter(|tap| *tap != Tap::Logits) {
            side.feature.iter().for_each(|feature| taps.insert(tap, feature.clone()));
        }
        let class_logits = side.logits.clone().map(|map| map.flatten(2, 3));
        let coding = side.edges.as_ref().map_or(BoxCoding::Distances, |edges| {
            let bins = edges.dims()[2];
            BoxCoding::Distribution(edges.clone().reshape([n, places, 4, bins]).permute([0, 2, 3, 1]))
        });
        let level = DetLevel {
            layout: self.layout(),
            class_logits: class_logits.unwrap_or_else(|| Tensor::zeros([n, 1, places], &device)),
            distances: side
                .boxes
                .as_ref()
                .map_or_else(|| Tensor::zeros([n, 4, places], &device), |boxes| self.distances(boxes)),
            coding,
            centerness: None,
        };
        DetOutput { levels: vec![level], regions: None, taps, image_size: self.image_size }
    }

    fn layout(&self) -> LevelLayout {
        let anchors = vec![[(ANCHOR * self.stride) as f32; 2]];
        LevelLayout { stride: self.stride, size: self.size, point: 0.5, anchors }
    }

    /// From the points of the places to the edges of their boxes, `[p, 4]` to `[n, 4, p]`.
    fn distances(&self, boxes: &Tensor<2>) -> Tensor<3> {
        let places = self.size[0] * self.size[1];
        let edges = boxes.clone().reshape([self.n, places, 4]).swap_dims(1, 2);
        let [x, y] = Grid::of_levels(vec![self.layout()], &Device::flex()).points;
        let edge = |index: usize| edges.clone().narrow(1, index, 1);
        Tensor::cat(vec![x.clone() - edge(0), y.clone() - edge(1), x.neg() + edge(2), y.neg() + edge(3)], 1)
    }

    /// The labels: `boxes`, which the places of a net of FCOS answer for, or the places of `target_boxes` that have an area.
    pub fn labelled(&self, student: &DetOutput) -> Option<Labelled> {
        if self.boxes.is_none() && self.target_boxes.is_none() {
            return None;
        }
        let images = (0..self.n).map(|image| {
            let of_image = |label: &&[f32; 5]| label[0] as usize == image;
            let label = |label: &[f32; 5]| {
                let edges = [label[1], label[2], label[3], label[4]];
                let area = (edges[2] - edges[0]) * (edges[3] - edges[1]);
                LabelBox { edges, class: 0, kind: BoxKind::Object, area }
            };
            let boxes = self.boxes.iter().flatten().filter(of_image).map(label).collect();
            BoxLabels { boxes, looked_for: None }
        });
        let targets = DetTargets::upload(&images.collect::<Vec<_>>(), &Device::flex());
        let mut labelled = Labelled::of(&targets, student, &AssignConfig::Fcos(FcosAssign::default()));
        if let Some(boxes) = &self.target_boxes {
            labelled.assignment = self.assigned(boxes, labelled.assignment);
        }
        Some(labelled)
    }

    /// Every place whose target has an area answers for it.
    fn assigned(&self, boxes: &Tensor<2>, assignment: Assignment) -> Assignment {
        let distances_n4p = self.distances(boxes);
        let side =
            |edge: usize| distances_n4p.clone().narrow(1, edge, 1) + distances_n4p.clone().narrow(1, edge + 2, 1);
        let positive_n1p = side(0).min_pair(side(1)).greater_scalar(0.0).float();
        Assignment {
            positives: positive_n1p.clone().sum().clamp_min(1.0),
            distances_n4p: distances_n4p * positive_n1p.clone(),
            positive_n1p,
            ..assignment
        }
    }

    /// The level whose places are so far apart; `p3` where no level's are.
    pub fn level(&self) -> Tap {
        match self.stride {
            4 => Tap::P2,
            16 => Tap::P4,
            32 => Tap::P5,
            64 => Tap::P6,
            128 => Tap::P7,
            _ => Tap::P3,
        }
    }

    /// Whether there are boxes of objects.
    pub fn has_boxes(&self) -> bool {
        self.boxes.is_some()
    }
}

/// Height and width of the images.
fn image_size(file: &TensorFile) -> Result<Option<[usize; 2]>> {
    let name = "image_size";
    let Some(([length], values)) = file.integers::<1>(name)? else { return Ok(None) };
    let at = file.at(name);
    ensure!(length == 2, "{at} has {length} numbers, expected height and width");
    let side = |value: i64| usize::try_from(value).ok().filter(|side| *side > 0);
    match (side(values[0]), side(values[1])) {
        (Some(height), Some(width)) => Ok(Some([height, width])),
        _ => bail!("{at} is {values:?}, expected height and width in pixels"),
    }
}

/// The stride of a level with so many places.
fn stride(file: &TensorFile, image_size: [usize; 2], size: [usize; 2]) -> Result<usize> {
    let fits = |stride: &usize| [0, 1].iter().all(|axis| image_size[*axis].div_ceil(*stride) == size[*axis]);
    match (2..8).map(|power| 1 << power).find(fits) {
        Some(stride) => Ok(stride),
        None => {
            bail!("{} is {image_size:?}: maps of {size:?} have no stride of 4, 8, .. 128 pixels", file.at("image_size"))
        }
    }
}

/// The boxes of objects.
fn boxes(file: &TensorFile, images: usize) -> Result<Option<Vec<[f32; 5]>>> {
    let Some(boxes) = file.floats::<2>("boxes")? else { return Ok(None) };
    let [_, columns] = boxes.dims();
    let at = file.at("boxes");
    ensure!(columns == 5, "{at} has {columns} columns, expected image, left, top, right, bottom");
    let values = boxes.into_data().try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let rows: Vec<[f32; 5]> = values.as_chunks::<5>().0.to_vec();
    for (index, row) in rows.iter().enumerate() {
        let [image, left, top, right, bottom] = *row;
        let is_image = image >= 0.0 && image.fract() == 0.0 && (image as usize) < images;
        ensure!(is_image, "{at}, row {index}: image {image}, there are {images}, counted from 0");
        ensure!(left < right && top < bottom, "{at}, row {index}: {row:?} has no area");
    }
    Ok(Some(rows))
}
