//! Where and on which images a term is computed, and its columns in the log.

use mentor_types::{Found, Tap, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The keys that terms share; a term without one of them gives the value that changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Factor in the loss.
    pub weight: f64,
    /// Optimizer steps over which the weight grows to all of its value, as
    /// `exp(-5 (1 - step / ramp_steps)^2)`; 0 for none.
    pub ramp_steps: u64,
    /// The images that it is computed on.
    pub on: &'a [Stream],
    /// Where it compares, one column each; none for a term that has no places to choose from.
    pub at: &'a [Place],
}

impl Shared<'_> {
    /// Reports values out of range.
    pub(crate) fn check(&self, found: &mut Found) {
        check_weight("weight", self.weight, found);
        match self.on {
            [] => found.push(("on".into(), "must name at least one of \"labelled\" and \"unlabelled\"".into())),
            [first, rest @ ..] if rest.contains(first) || rest.len() > 1 => {
                found.push(("on".into(), "must name each stream once".into()));
            }
            _ => {}
        }
        for (index, place) in self.at.iter().enumerate() {
            check_weight(&format!("at[{index}].weight"), place.weight, found);
            let same = |other: &Place| (other.student, other.teacher) == (place.student, place.teacher);
            if self.at[..index].iter().any(same) {
                let message = format!("names the place {}-{} again", place.student, place.teacher);
                found.push((format!("at[{index}]"), message));
            }
        }
    }
}

/// One column of the log: a term at one of its places.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The term: its file and its table in a recipe.
    pub term: &'static str,
    /// `pixel_wise`, `pair_wise@c5`, or `pair_wise@c4-c5` where the taps differ.
    pub name: String,
    /// The term's weight times the place's, before any ramp.
    pub weight: f64,
    /// The place; `None` for a term without.
    pub place: Option<Place>,
}

impl Column {
    /// Its name in the log: with the teacher's where there are several, and with the stream where it is the unlabelled one.
    #[must_use]
    pub fn logged(&self, teacher: Option<&str>, stream: Stream) -> String {
        let teacher = teacher.map_or_else(String::new, |name| format!(":{name}"));
        let stream = if stream == Stream::Unlabelled { "/unlabelled" } else { "" };
        format!("{}{teacher}{stream}", self.name)
    }

    /// The columns of a term: one for each place, or one without a place.
    #[must_use]
    pub fn of(term: &'static str, shared: &Shared<'_>) -> Vec<Self> {
        if shared.at.is_empty() {
            return vec![Self { term, name: term.to_owned(), weight: shared.weight, place: None }];
        }
        let column = |place: &Place| {
            let Place { student, teacher, weight } = *place;
            let name =
                if student == teacher { format!("{term}@{student}") } else { format!("{term}@{student}-{teacher}") };
            Self { term, name, weight: shared.weight * weight, place: Some(*place) }
        };
        shared.at.iter().map(column).collect()
    }

    /// The place.
    ///
    /// # Panics
    /// If the term has none.
    #[must_use]
    pub fn place(&self) -> &Place {
        self.place.as_ref().unwrap_or_else(|| panic!("{} is evaluated at a place", self.term))
    }
}
