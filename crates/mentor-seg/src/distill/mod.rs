//! Structured distillation: terms that pull a student's outputs and features towards a teacher's.
//!
//! A term is a function of a [`TermContext`] to a value. It owns no weights and changes nothing:
//! adapters live in the model, the [`Rival`] in the method. What a term needs is its config, so the
//! config struct of a term is the term.
//!
//! A new term is one file here and one line in the list `terms!` below.

use burn::tensor::{DType, Int, Tensor};
use mentor_nets::{Adapter, AdapterSpec, Frozen};
use mentor_ops::{resize_bilinear, resize_nearest_int};
use mentor_types::{IGNORE, Key, SegOutput, Tap};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod rival;

#[cfg(test)]
mod checks;

pub use holistic::RivalConfig;
pub use pixel_wise::Form;
pub use rival::{Discriminator, Rival, RivalError, RivalExample};

/// From one line `file::Type` per term: the module, the optional recipe table, and the list of what
/// a recipe switched on. The file, the table and the log column have one name.
macro_rules! terms {
    ($($file:ident::$Type:ident,)*) => {
        $(mod $file; pub use $file::$Type;)*

        /// `[distill]`: the terms of distillation that are on, each a table of its own.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct DistillConfig {
            $(
                #[doc = concat!("`[distill.", stringify!($file), "]`. Default off.")]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $file: Option<$Type>,
            )*
        }

        impl DistillConfig {
            /// Every term there is, at its defaults.
            #[must_use]
            pub fn all() -> Self {
                Self { $($file: Some($Type::default()),)* }
            }

            /// The terms that are on, by name, in the order of the list.
            pub fn terms(&self) -> impl Iterator<Item = (&'static str, &dyn Term)> {
                [$((stringify!($file), self.$file.as_ref().map(|term| term as &dyn Term))),*]
                    .into_iter()
                    .filter_map(|(name, term)| Some((name, term?)))
            }
        }
    };
}

terms! {
    pixel_wise::PixelWise,
    pair_wise::PairWise,
    holistic::Holistic,
}

impl DistillConfig {
    /// Reports values out of range as (dotted key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        for (name, term) in self.terms() {
            let mut found = Vec::new();
            check_shared(term, &mut found);
            term.check(&mut found);
            problems.extend(found.into_iter().map(|(key, message)| (format!("{name}.{key}"), message)));
        }
    }

    /// Whether a term that is on compares through a [`Rival`].
    #[must_use]
    pub fn needs_rival(&self) -> bool {
        self.terms().any(|(_, term)| term.needs_rival())
    }
}

/// Which images a term is computed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The images with labels.
    Labelled,
    /// The images without, as the student sees them.
    Unlabelled,
}

/// Where a term compares the student with the teacher.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The student's tap.
    pub student: Tap,
    /// The teacher's tap.
    pub teacher: Tap,
    /// Factor on the term's weight at this place. Default 1.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl Place {
    /// The same tap on both sides, with weight 1.
    #[must_use]
    pub fn at(tap: Tap) -> Self {
        Self { student: tap, teacher: tap, weight: 1.0 }
    }
}

/// One column of the log: a term at one of its places.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// `pixel_wise`, `pair_wise@c5`, or `pair_wise@c4-c5` where the taps differ.
    pub name: String,
    /// The term's weight times the place's, before any ramp.
    pub weight: f64,
    /// The place; `None` for a term that compares logits.
    pub place: Option<Place>,
}

/// What the step knows when it evaluates a term.
#[derive(Clone, Copy, Debug)]
pub struct TermContext<'a> {
    /// What the student returned, on the graph.
    pub student: &'a SegOutput,
    /// What the teacher returned for the same images.
    pub teacher: &'a SegOutput,
    /// Labels `[n, h, w]` at the size of the images: a class, 254 unknown or 255 ignored. A pixel that
    /// is ignored counts nowhere, an unknown one like any other; without labels all count.
    pub target_nhw: Option<&'a Tensor<3, Int>>,
    /// The model's adapters, named as the columns that they serve.
    pub adapters: &'a [Adapter],
    /// The rival as it stands, for the terms that need one.
    pub rival: Option<&'a Frozen<Discriminator>>,
    /// The images as the networks saw them, normalised, `[n, 3, h, w]`.
    pub images_nchw: Option<&'a Tensor<4>>,
    /// The key of everything random in this evaluation.
    pub key: Key,
}

impl TermContext<'_> {
    /// The teacher's logits off the graph, resized bilinearly to the size of the student's where they
    /// differ (the smaller map is usually the student's).
    fn teacher_logits(&self) -> Tensor<4> {
        let [_, _, height, width] = self.student.logits.dims();
        resize_bilinear(self.teacher.logits.clone().inner(), [height, width], false)
    }

    /// The features of student and teacher at a place, in f32, the teacher's off the graph and resized
    /// bilinearly to the size of the student's where they differ.
    fn features(&self, place: &Place) -> (Tensor<4>, Tensor<4>) {
        let tap = |output: &SegOutput, tap: Tap, side: &str| {
            let features = output.taps.get(tap).unwrap_or_else(|| panic!("the {side} has no tap `{tap}`"));
            features.clone().cast(DType::F32)
        };
        let student_nchw = tap(self.student, place.student, "student");
        let [_, _, height, width] = student_nchw.dims();
        let teacher_nchw = tap(self.teacher, place.teacher, "teacher").inner();
        (student_nchw, resize_bilinear(teacher_nchw, [height, width], false))
    }

    /// The student's features through the adapter of `column`.
    fn adapted(&self, column: &str, student_nchw: Tensor<4>) -> Tensor<4> {
        let adapter = self.adapters.iter().find(|adapter| adapter.name() == column);
        adapter.unwrap_or_else(|| panic!("the model has no adapter `{column}`")).forward(student_nchw)
    }

    /// 1 where a pixel counts and 0 where it is ignored, `[n, 1, size]`; `None` where all count.
    fn counted(&self, size: [usize; 2]) -> Option<Tensor<4>> {
        self.target_nhw.map(|target_nhw| {
            let target_nhw = resize_nearest_int(target_nhw.clone(), size);
            target_nhw.not_equal_elem(i64::from(IGNORE)).float().inner().unsqueeze_dim(1)
        })
    }
}

/// A term of distillation: its weight, its places, and its value.
pub trait Term {
    /// Its name: file, recipe table and log column.
    fn name(&self) -> &'static str;

    /// The paper and equation that it comes from.
    fn source(&self) -> &'static str;

    /// Its factor in the loss.
    fn weight(&self) -> f64;

    /// Optimizer steps over which the weight rises from 0; 0 for none.
    fn ramp_steps(&self) -> usize;

    /// The images that it is computed on.
    fn on(&self) -> &[Stream];

    /// The features that it compares; none for a term that compares logits.
    fn places(&self) -> &[Place] {
        &[]
    }

    /// The adapters that it needs, given the channels at the taps of student and teacher.
    fn adapters(
        &self,
        _student_channels: &dyn Fn(Tap) -> usize,
        _teacher_channels: &dyn Fn(Tap) -> usize,
    ) -> Vec<AdapterSpec> {
        Vec::new()
    }

    /// Whether it needs [`TermContext::rival`] and [`TermContext::images_nchw`].
    fn needs_rival(&self) -> bool {
        false
    }

    /// Its unweighted value, one number, at one of its [`places`](Self::places), or at `None` where it
    /// has none.
    ///
    /// # Panics
    /// If the context lacks what the term needs, or shapes do not fit.
    fn value(&self, context: &TermContext, place: Option<&Place>) -> Tensor<1>;

    /// Reports values of its own keys that are out of range as (key, message).
    fn check(&self, problems: &mut Vec<(String, String)>);
}

/// The columns of a term: one for each place, or one without a place.
#[must_use]
pub fn columns(term: &dyn Term) -> Vec<Column> {
    let (name, weight) = (term.name(), term.weight());
    if term.places().is_empty() {
        return vec![Column { name: name.to_owned(), weight, place: None }];
    }
    let column =
        |place: &Place| Column { name: column_name(name, place), weight: weight * place.weight, place: Some(*place) };
    term.places().iter().map(column).collect()
}

fn column_name(term: &str, place: &Place) -> String {
    let (student, teacher) = (place.student, place.teacher);
    if student == teacher { format!("{term}@{student}") } else { format!("{term}@{student}-{teacher}") }
}

/// What holds for the keys that all terms share.
fn check_shared(term: &dyn Term, problems: &mut Vec<(String, String)>) {
    let mut problem = |key: &str, message: String| problems.push((key.to_owned(), message));
    let weight_is_right = |weight: f64| weight.is_finite() && weight >= 0.0;
    if !weight_is_right(term.weight()) {
        problem("weight", format!("must be at least 0, found {}", term.weight()));
    }
    match term.on() {
        [] => problem("on", "must name at least one of \"labelled\" and \"unlabelled\"".to_owned()),
        [first, rest @ ..] if rest.contains(first) || rest.len() > 1 => {
            problem("on", "must name each stream once".to_owned());
        }
        _ => {}
    }
    for (index, place) in term.places().iter().enumerate() {
        if !weight_is_right(place.weight) {
            problem(&format!("at.{index}.weight"), format!("must be at least 0, found {}", place.weight));
        }
        let same = |other: &Place| (other.student, other.teacher) == (place.student, place.teacher);
        if term.places()[..index].iter().any(same) {
            problem(&format!("at.{index}"), format!("names the place {}-{} again", place.student, place.teacher));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<DistillConfig, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_term_has_the_name_of_its_table() {
        let all = DistillConfig::all();
        let names: Vec<_> = all.terms().map(|(name, term)| (name, term.name())).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|(table, name)| table == name), "{names:?}");
    }

    #[test]
    fn the_defaults_have_no_problem_and_survive_a_round_trip() {
        let mut problems = Vec::new();
        let all = DistillConfig::all();
        all.check(&mut problems);
        assert_eq!(problems, []);
        assert_eq!(read(serde_json::to_value(&all).unwrap()).unwrap(), all);
        assert_eq!(read(json!({})).unwrap().terms().count(), 0);
        assert_eq!(read(json!({ "pair_wise": {} })).unwrap().pair_wise.unwrap(), PairWise::default());
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        assert!(read(json!({ "pixelwise": {} })).unwrap_err().contains("pair_wise"));
        assert!(read(json!({ "pixel_wise": { "temprature": 1.0 } })).unwrap_err().contains("temperature"));
        assert!(read(json!({ "pair_wise": { "at": [{ "student": "c9", "teacher": "c5" }] } })).is_err());
    }

    #[test]
    fn a_place_has_a_column_with_both_weights() {
        let config = read(json!({ "pair_wise": { "weight": 2.0, "at": [
            { "student": "c5", "teacher": "c5" },
            { "student": "c4", "teacher": "c5", "weight": 0.5 },
        ] }, "pixel_wise": {} }))
        .unwrap();
        let found: Vec<_> =
            config.terms().flat_map(|(_, term)| columns(term)).map(|column| (column.name, column.weight)).collect();
        let expected = [("pixel_wise", 10.0), ("pair_wise@c5", 2.0), ("pair_wise@c4-c5", 1.0)];
        assert_eq!(found, expected.map(|(name, weight)| (name.to_owned(), weight)));
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let mut problems = Vec::new();
        let config = read(json!({
            "pixel_wise": { "weight": -1.0, "temperature": 0.0, "on": [] },
            "pair_wise": { "pool": 1.5, "at": [
                { "student": "c5", "teacher": "c5" },
                { "student": "c5", "teacher": "c5", "weight": -2.0 },
            ], "on": ["labelled", "labelled"] },
            "holistic": { "rival": { "lr": 0.0, "channels": 0, "betas": [1.0, 0.9] } },
        }))
        .unwrap();
        config.check(&mut problems);
        let keys: Vec<_> = problems.iter().map(|(key, _)| key.as_str()).collect();
        let expected = [
            "pixel_wise.weight",
            "pixel_wise.on",
            "pixel_wise.temperature",
            "pair_wise.on",
            "pair_wise.at.1.weight",
            "pair_wise.at.1",
            "pair_wise.pool",
            "holistic.rival.lr",
            "holistic.rival.betas",
            "holistic.rival.channels",
        ];
        assert_eq!(keys, expected, "{problems:?}");
    }

    #[test]
    fn a_schema_names_every_term() {
        let schema = serde_json::to_string(&schemars::schema_for!(DistillConfig)).unwrap();
        for (name, _) in DistillConfig::all().terms() {
            assert!(schema.contains(name));
        }
    }
}
