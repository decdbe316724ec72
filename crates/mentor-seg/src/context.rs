//! What the terms of segmentation see.

use std::cell::OnceCell;

use burn::tensor::{DType, FloatDType, Int, Tensor};
use mentor_distill::{Companions, Place};
use mentor_nets::Adapter;
use mentor_ops::{resize_bilinear, resize_nearest_int};
use mentor_types::{IGNORE, Key, SegOutput, Tap};

use crate::task::Seg;
use crate::views::Views;

/// What the step knows when it evaluates a term on one stream of a micro-batch.
#[derive(Debug)]
pub struct Context<'a> {
    /// What the student returned for the images of the stream, on the graph: for unlabelled images, their
    /// strong views.
    pub student: &'a SegOutput,
    /// What the teacher returned for the same images; there for the terms of `[distill]`.
    pub teacher: Option<&'a SegOutput>,
    /// Labels `[n, h, w]` at the size of the images: a class, 254 unknown or 255 ignored; there on the
    /// labelled stream.
    pub target_nhw: Option<&'a Tensor<3, Int>>,
    /// The images as the networks saw them, normalised, `[n, 3, h, w]`.
    pub images_nchw: Option<&'a Tensor<4>>,
    /// The model's adapters, named as the columns that they serve.
    pub adapters: &'a [Adapter],
    /// What the terms keep from step to step.
    pub companions: Option<&'a Companions<Seg>>,
    /// The views of the images; there on the unlabelled stream.
    pub views: Option<&'a Views<'a>>,
    /// The key of everything random in this evaluation.
    pub key: Key,
    full_size: OnceCell<Tensor<4>>,
}

impl<'a> Context<'a> {
    /// A context of the student alone; [`with`](Self::with) says what else there is.
    #[must_use]
    pub fn of(student: &'a SegOutput, key: Key) -> Self {
        Self {
            student,
            teacher: None,
            target_nhw: None,
            images_nchw: None,
            adapters: &[],
            companions: None,
            views: None,
            key,
            full_size: OnceCell::new(),
        }
    }

    /// The same context with what `fill` puts into its fields.
    #[must_use]
    pub fn with(mut self, fill: impl FnOnce(&mut Self)) -> Self {
        fill(&mut self);
        self
    }

    /// The teacher's logits off the graph, resized bilinearly to the size of the student's where they
    /// differ (the smaller map is usually the student's).
    ///
    /// # Panics
    /// If there is no teacher.
    #[must_use]
    pub fn teacher_logits(&self) -> Tensor<4> {
        let [_, _, height, width] = self.student.logits.dims();
        resize_bilinear(self.taught().logits.clone().inner(), [height, width], false)
    }

    /// The features of student and teacher at a place, in f32, the teacher's off the graph and resized
    /// bilinearly to the size of the student's where they differ.
    ///
    /// # Panics
    /// If there is no teacher, or one of the two has no such tap.
    #[must_use]
    pub fn features(&self, place: &Place) -> (Tensor<4>, Tensor<4>) {
        let tap = |output: &SegOutput, tap: Tap, side: &str| {
            let features = output.at(tap).unwrap_or_else(|| panic!("the {side} has no tap `{tap}`"));
            features.clone().cast(DType::F32)
        };
        let student_nchw = tap(self.student, place.student, "student");
        let [_, _, height, width] = student_nchw.dims();
        let teacher_nchw = tap(self.taught(), place.teacher, "teacher").inner();
        (student_nchw, resize_bilinear(teacher_nchw, [height, width], false))
    }

    fn taught(&self) -> &SegOutput {
        self.teacher.expect("a term of [distill] is evaluated with a teacher")
    }

    /// The student's features through the adapter of that name.
    ///
    /// # Panics
    /// If the model has no such adapter.
    #[must_use]
    pub fn adapted(&self, name: &str, student_nchw: Tensor<4>) -> Tensor<4> {
        let adapter = self.adapters.iter().find(|adapter| adapter.name() == name);
        adapter.unwrap_or_else(|| panic!("the model has no adapter `{name}`")).forward(student_nchw)
    }

    /// 1 where a pixel counts and 0 where it is ignored, `[n, 1, size]`; `None` where all count: an unknown
    /// pixel counts like any other.
    #[must_use]
    pub fn counted(&self, size: [usize; 2]) -> Option<Tensor<4>> {
        self.target_nhw.map(|target_nhw| {
            let target_nhw = resize_nearest_int(target_nhw.clone(), size);
            target_nhw.not_equal_elem(i64::from(IGNORE)).float().inner().unsqueeze_dim(1)
        })
    }

    /// The labels.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn target(&self) -> Tensor<3, Int> {
        self.target_nhw.expect("a supervised loss is evaluated with labels").clone()
    }

    /// The student's logits at the size of the labels, `[n, k, h, w]`, upsampled once for all terms
    /// (bilinear, corners not aligned), in 32 bits whatever the precision of the net.
    ///
    /// # Panics
    /// If there are no labels, or of another number of images.
    #[must_use]
    pub(crate) fn full_size_logits(&self) -> Tensor<4> {
        self.full_size.get_or_init(|| at_size_of(&self.student.logits, &self.target())).clone()
    }

    /// The views.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn views(&self) -> &Views<'a> {
        self.views.expect("a term of [unlabelled] is evaluated with views")
    }
}

/// Logits at the size of labels.
pub(crate) fn at_size_of(logits_nkhw: &Tensor<4>, target_nhw: &Tensor<3, Int>) -> Tensor<4> {
    let [images, height, width] = target_nhw.dims();
    assert_eq!(logits_nkhw.dims()[0], images, "logits {:?} for targets {:?}", logits_nkhw.dims(), target_nhw.dims());
    resize_bilinear(logits_nkhw.clone().cast(FloatDType::F32), [height, width], false)
}
