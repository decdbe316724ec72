//! What differs between tasks outside of the step: the tables of their recipes, what these build, what labels they
//! learn from. Nothing else asks which task it is.

mod det;
mod seg;

use std::collections::BTreeMap;
use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::{DType, Device};
use mentor_data::{ReadLabels, Sample, ViewsConfig};
use mentor_distill::{Companions, Sees, TermTable};
use mentor_nets::{Frozen, Student};
use mentor_train::{Average, Method};
use mentor_types::{Batch, Found, Scores, Tap, TaskName};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A table of a recipe.
pub trait Table: Clone + Debug + PartialEq + Serialize + DeserializeOwned + JsonSchema + 'static {
    /// Reports values out of range.
    fn check(&self, found: &mut Found);
}

/// The table of a net.
pub trait NetTable: Table {
    /// What it builds.
    type Net: Module;

    /// Its name in a recipe.
    fn name(&self) -> &'static str;

    /// The file of weights, or the run, that it starts from.
    fn weights(&self) -> Option<&str>;

    /// Whether these may be for other classes.
    fn new_classes(&self) -> bool;

    /// A fresh net whose weights are a function of the seed and their paths.
    fn init(&self, classes: usize, seed: u64, device: &Device) -> Self::Net;
}

/// `[supervised]`.
pub trait SupervisedTable<S: Sees>: Table + Default + TermTable<S> {
    /// Factor of all parts; 0 trains without labels.
    fn weight(&self) -> f64;
}

/// What a method is put together from.
#[derive(Debug)]
pub struct Parts<T: Task> {
    /// `[views]`.
    pub views: ViewsConfig,
    /// `[supervised]`.
    pub supervised: T::Supervised,
    /// `[distill]`.
    pub distill: T::Distill,
    /// `[unlabelled]`.
    pub unlabelled: T::Unlabelled,
    /// The type of numbers that the nets compute in.
    pub precision: DType,
    /// `[teachers]`, by name.
    pub teachers: Vec<(String, Frozen<T::Net>)>,
    /// `[ema]`.
    pub average: Option<Average<T::Net>>,
    /// What terms keep from step to step.
    pub companions: Companions<T>,
}

/// A task.
pub trait Task: Sees + Clone + PartialEq {
    /// Its name in recipes.
    const NAME: TaskName;

    /// What its images are labelled with.
    type Labels: ReadLabels;
    /// The net.
    type Net: Module;
    /// `[student.NAME]` and `[teachers.T.NAME]`.
    type NetConfig: NetTable<Net = Self::Net>;
    /// `[supervised]`.
    type Supervised: SupervisedTable<Self>;
    /// `[distill]`.
    type Distill: Table + Default + TermTable<Self>;
    /// `[unlabelled]`.
    type Unlabelled: Table + Default + TermTable<Self>;
    /// `[eval]`.
    type Eval: Table + Default;
    /// How nets are judged.
    type Scores: Scores;
    /// A batch on the device.
    type DeviceBatch: Send + 'static;
    /// The step.
    type Method: Method<Model = Student<Self::Net>, Batch = Self::DeviceBatch>;

    /// Multiply-adds of a net on one image of this height and width.
    fn macs(net: &Self::Net, image_px: [usize; 2]) -> u64;

    /// Channels at a tap of a net; `None` where it has no such tap.
    fn tap_channels(net: &Self::Net, tap: Tap) -> Option<usize>;

    /// Reports terms that these nets cannot feed, by their keys in the recipe.
    fn check_fit(
        _student: &Self::NetConfig,
        _teachers: &BTreeMap<String, Self::NetConfig>,
        _supervised: &Self::Supervised,
        _distill: &Self::Distill,
        _unlabelled: &Self::Unlabelled,
        _found: &mut Found,
    ) {
    }

    /// The method of a checked recipe that teaches this student.
    fn method(parts: Parts<Self>, student: &Self::Net) -> Self::Method;

    /// The teachers of a method, by name.
    fn teachers(method: &Self::Method) -> &[(String, Frozen<Self::Net>)];

    /// The average that a method keeps.
    fn average(method: &Self::Method) -> Option<&Average<Self::Net>>;

    /// Brings a batch to the device.
    fn upload(batch: Batch<Self::Labels>, device: &Device) -> Self::DeviceBatch;

    /// How a net does on some images; `None` where nothing in them has a label.
    ///
    /// # Errors
    /// The first of `samples`.
    fn evaluate<E>(
        net: &Self::Net,
        samples: impl Iterator<Item = Result<Sample<Self::Labels>, E>>,
        config: &Self::Eval,
        device: &Device,
    ) -> Result<Option<Self::Scores>, E>;
}
