//! What the terms of detection see.

use std::cell::OnceCell;

use burn::tensor::{DType, Tensor};
use mentor_distill::{Column, Companions, Place, Term};
use mentor_nets::{Adapter, Frozen};
use mentor_ops::resize_bilinear;
use mentor_types::{DetLevel, DetOutput, Key, Regions, Tap};

use crate::assign::{AssignConfig, Assignment};
use crate::grid::Grid;
use crate::nets::{DetNet, TwoStages};
use crate::regions::{RegionSampling, RegionTargets, as_objects, with_regions};
use crate::task::Det;
use crate::upload::DetTargets;
use crate::views::Views;
use crate::ways::Ways;

/// What the step knows when it evaluates a term on one stream of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What the student returned for the images of the stream, on the graph: for unlabelled images, their strong views.
    pub student: &'a DetOutput,
    /// What the teacher returned for the same images; there for the terms of `[distill]`.
    pub teacher: Option<&'a DetOutput>,
    /// What the labels say; there on the labelled stream.
    pub labelled: Option<&'a Labelled>,
    /// The model's adapters, named as the columns that they serve.
    pub adapters: &'a [Adapter],
    /// What terms keep from step to step; there for the terms of `[distill]`.
    pub companions: Option<&'a Companions<Det>>,
    /// The views of the images; there on the unlabelled stream.
    pub views: Option<&'a Views<'a>>,
    /// What is learnt from labels.
    pub parts: Option<Parts<'a>>,
    /// The nets that said all this; there for the terms of `[distill]`.
    pub nets: Option<Nets<'a>>,
    /// The key of everything random in the micro-batch.
    pub key: Key,
}

/// A student and a teacher, for terms that send features of the one through a part of the other.
#[derive(Clone, Copy, Debug)]
pub struct Nets<'a> {
    /// The student, on the graph.
    pub student: &'a DetNet,
    /// The teacher.
    pub teacher: &'a Frozen<DetNet>,
}

/// A part of the supervised loss, with its name.
pub type Part<'a> = (&'static str, &'a dyn Term<Det>);

/// The supervised loss, for terms that make up labels.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Its parts, by name.
    pub all: &'a [Part<'a>],
    /// Those of them that are about classes alone.
    pub of_classes: &'a [Part<'a>],
    /// Which places answer for which objects.
    pub assign: &'a AssignConfig,
    /// The student's second stage, if it has one.
    pub second: Option<SecondStage<'a>>,
}

/// A net with two stages, and what of it is learnt from labels.
#[derive(Clone, Copy, Debug)]
pub struct SecondStage<'a> {
    /// The net, on the graph.
    pub net: &'a TwoStages,
    /// Which anchors and regions.
    pub sampling: &'a RegionSampling,
}

impl Parts<'_> {
    /// The labels as the student learns them, with an output that has the regions that are learnt from.
    #[must_use]
    pub fn labelled(&self, targets: &DetTargets, output: &DetOutput, key: Key) -> (DetOutput, Labelled) {
        match self.second {
            None => (output.clone(), Labelled::of(targets, output, self.assign)),
            Some(second) => Labelled::of_second(targets, output, self.assign, second, key),
        }
    }
}

/// Which parts of the supervised loss are learnt from labels that a term makes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// All of them.
    All,
    /// Those that are about classes alone.
    Classes,
}

/// The labels of a batch, and what they ask of each place of the student.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The boxes.
    pub targets: DetTargets,
    /// The places.
    pub grid: Grid,
    /// Which places answer for which boxes.
    pub assignment: Assignment,
    /// Of a student with two stages, what else is learnt.
    pub second: Option<SecondLabels>,
    /// See [`Labelled::overlap_with_anchors`].
    overlap_nmp: OnceCell<Tensor<3>>,
}

/// What a student with two stages learns.
#[derive(Clone, Debug)]
pub struct SecondLabels {
    /// `[n, 1, p]`: 1 at the places that the first stage learns from.
    pub drawn_n1p: Tensor<3>,
    /// What the regions of its output are to say.
    pub regions: RegionTargets,
}

impl Labelled {
    /// The same of a student with two stages, with the regions of its output that are learnt from: the first stage's only
    /// class is any object.
    #[must_use]
    pub fn of_second(
        targets: &DetTargets,
        output: &DetOutput,
        config: &AssignConfig,
        second: SecondStage<'_>,
        key: Key,
    ) -> (DetOutput, Self) {
        let SecondStage { net, sampling } = second;
        let objects = as_objects(targets, net.classes());
        let labelled = Self::of(&objects, output, config);
        let Assignment { positive_n1p, counted_nkp, .. } = &labelled.assignment;
        let negative_n1p = counted_nkp.clone() * positive_n1p.clone().neg().add_scalar(1.0);
        let [positive_np, negative_np] = [positive_n1p.clone(), negative_n1p].map(|mask| mask.squeeze_dim::<2>(1));
        let drawn_n1p = sampling.anchors_of(&positive_np, &negative_np, key).unsqueeze_dim(1);
        let (output, regions) = with_regions(net, output, targets, sampling, key);
        let second = Some(SecondLabels { drawn_n1p, regions });
        (output, Self { targets: targets.clone(), second, ..labelled })
    }

    /// Assigns the boxes to the places of an output.
    #[must_use]
    pub fn of(targets: &DetTargets, output: &DetOutput, config: &AssignConfig) -> Self {
        let [images, classes, ..] = output.levels[0].class_logits.dims();
        let labelled = targets.edges_nm4.dims()[0];
        assert_eq!(images, labelled, "an output for {images} images, labels of {labelled}");
        let grid = Grid::of(output, &targets.edges_nm4.device());
        let assignment = config.assign(&grid, targets, output, classes);
        Self { targets: targets.clone(), grid, assignment, second: None, overlap_nmp: OnceCell::new() }
    }

    /// How much the anchors of all places overlap with each object, `[n, m, p]`: intersection over union, 0 for a box that is no
    /// object. Computed when a term first asks, since one of several levels asks for each.
    #[must_use]
    pub fn overlap_with_anchors(&self) -> Tensor<3> {
        let overlap_nmp = self.overlap_nmp.get_or_init(|| {
            let objects_nm1 = self.targets.objects_nm.clone().unsqueeze_dim::<3>(2);
            Ways::of(&self.grid, &self.targets).overlap_with_anchors(&self.grid) * objects_nm1
        });
        overlap_nmp.clone()
    }
}

impl<'a> Context<'a> {
    /// A context of the student alone, and of the labels if there are any.
    #[must_use]
    pub fn of(student: &'a DetOutput, labelled: Option<&'a Labelled>) -> Self {
        let (teacher, companions, views, parts, nets) = (None, None, None, None, None);
        Self { student, teacher, labelled, adapters: &[], companions, views, parts, nets, key: Key::new(0) }
    }

    /// The labels.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn labelled(&self) -> &'a Labelled {
        self.labelled.expect("the term is evaluated with labels")
    }

    /// What a student with two stages says of its regions, and what it learns.
    ///
    /// # Panics
    /// If there are no labels, or the student has one stage.
    #[must_use]
    pub fn second(&self) -> (&'a Regions, &'a SecondLabels) {
        let second = self.student.regions.as_ref().zip(self.labelled().second.as_ref());
        second.expect("a student with two stages, and what it learns")
    }

    /// What the teacher returned.
    ///
    /// # Panics
    /// If there is no teacher.
    #[must_use]
    pub fn taught(&self) -> &'a DetOutput {
        self.teacher.expect("a term of [distill] is evaluated with a teacher")
    }

    /// The views.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn views(&self) -> &'a Views<'a> {
        self.views.expect("a term of [unlabelled] is evaluated with views")
    }

    /// The supervised loss of the student with these labels for its images.
    ///
    /// # Panics
    /// If the context does not say what the loss is.
    #[must_use]
    pub fn loss_on(&self, targets: &DetTargets, learnt: Learnt) -> Tensor<1> {
        let parts = self.parts.expect("the step says what is learnt from labels");
        let (output, labelled) = parts.labelled(targets, self.student, self.key.at("made-up labels", 0));
        let seen = Context { student: &output, labelled: Some(&labelled), ..*self };
        let terms = if learnt == Learnt::All { parts.all } else { parts.of_classes };
        let values = terms.iter().flat_map(|(name, term)| {
            let columns = Column::of(name, &term.shared());
            columns.into_iter().map(|column| term.value(&seen, &column).mul_scalar(column.weight)).collect::<Vec<_>>()
        });
        values.reduce(|sum, value| sum + value).expect("a supervised loss has a part")
    }

    /// The levels of student and teacher that have the same places.
    ///
    /// # Panics
    /// If there is no teacher, or none of its levels is one of the student's.
    #[must_use]
    pub fn shared_levels(&self) -> Vec<(&'a DetLevel, &'a DetLevel)> {
        let (student, taught) = (&self.student.levels, &self.taught().levels);
        let same = |level: &'a DetLevel| Some((level, taught.iter().find(|other| other.layout == level.layout)?));
        let shared: Vec<_> = student.iter().filter_map(same).collect();
        assert!(!shared.is_empty(), "student and teacher have no level of the same places");
        shared
    }

    /// The features of student and teacher at a place, in f32: the student's through the adapter `adapter` where the widths
    /// differ, the teacher's off the graph and resized bilinearly to the size of the student's where they differ.
    ///
    /// # Panics
    /// If there is no teacher, one of the two has no such tap, or the model has no such adapter.
    #[must_use]
    pub fn features(&self, place: &Place, adapter: &str) -> (Tensor<4>, Tensor<4>) {
        let [student_nchw, teacher_nchw] = self.unadapted_features(place);
        let same_width = student_nchw.dims()[1] == teacher_nchw.dims()[1];
        (if same_width { student_nchw } else { self.adapted(adapter, student_nchw) }, teacher_nchw)
    }

    /// The same, the student's as they are.
    ///
    /// # Panics
    /// If there is no teacher, or one of the two has no such tap.
    #[must_use]
    pub fn unadapted_features(&self, place: &Place) -> [Tensor<4>; 2] {
        [features_at(self.student, place.student, "student"), self.taught_features(place)]
    }

    /// The teacher's features at a place, in f32 and off the graph, resized bilinearly to the size of the student's.
    ///
    /// # Panics
    /// If there is no teacher, or one of the two has no such tap.
    #[must_use]
    pub fn taught_features(&self, place: &Place) -> Tensor<4> {
        let [.., height, width] = features_at(self.student, place.student, "student").dims();
        resize_bilinear(features_at(self.taught(), place.teacher, "teacher").inner(), [height, width], false)
    }

    /// What the adapter of a name makes of features.
    ///
    /// # Panics
    /// If the model has no such adapter.
    #[must_use]
    pub fn adapted(&self, name: &str, student_nchw: Tensor<4>) -> Tensor<4> {
        let adapter = self.adapters.iter().find(|adapter| adapter.name() == name);
        adapter.unwrap_or_else(|| panic!("the model has no adapter `{name}`")).forward(student_nchw)
    }
}

/// The features of a net at a tap, in f32.
fn features_at(output: &DetOutput, tap: Tap, side: &str) -> Tensor<4> {
    let features = output.taps.get(tap).unwrap_or_else(|| panic!("the {side} has no tap `{tap}`"));
    features.clone().cast(DType::F32)
}
