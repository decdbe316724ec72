//! The one trait of all terms of a loss, supervised, distilling or on unlabelled images, and the list
//! that a recipe switches them on in.
//!
//! A term is a function of a context to a value: it owns no weights and changes nothing. Its config is
//! the term. What it needs besides the context (an average of the student, adapters, a companion that
//! moves on between steps) it says itself.

mod companion;
mod list;
mod place;
mod ramp;

use std::fmt::Debug;

use burn::tensor::Tensor;
use mentor_types::{AdapterSpec, Found, Tap};

pub use companion::{Companion, Companions, Examples, Nothing, Start};
pub use list::{TermTable, check_classes, check_terms};
pub use place::{Column, Place, Shared, Stream};
use ramp::sigmoid_ramp;

/// What the terms of a task see.
pub trait Sees: Sized + Debug + 'static {
    /// What the step knows when it evaluates a term on one micro-batch.
    type Context<'a>;
    /// What a term of this task may keep from step to step: one of a closed list.
    type Companion: Companion<Self>;
    /// The labels that a term makes up for unlabelled images.
    type Pseudo;

    /// The levels of a pyramid that both student and teacher have; none for nets without.
    fn levels(_context: &Self::Context<'_>) -> Vec<Tap> {
        Vec::new()
    }
}

/// What a term needs besides student, teacher and labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The moving average of the student, `[ema]`.
    pub average: bool,
    /// The images as the networks saw them.
    pub images: bool,
    /// Pseudo-labels on file, `[data.pseudo_labels]`.
    pub pseudo_labels: bool,
}

/// What a term of detection reads of each place of the nets, for whoever evaluates it on tensors from a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Features.
    pub features: bool,
    /// Class scores.
    pub logits: bool,
    /// Boxes.
    pub boxes: bool,
    /// Distributions over where the edges of boxes lie.
    pub edges: bool,
    /// What the labels ask there.
    pub labels: bool,
    /// The student's class scores and boxes, whatever is read of both nets.
    pub own_places: bool,
}

/// A term of the loss of the task `S`.
pub trait Term<S: Sees>: Debug {
    /// The paper and equation that it comes from.
    fn source(&self) -> &'static str;

    /// The keys that it shares with other terms.
    fn shared(&self) -> Shared<'_>;

    /// What must be there.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// What it reads of the places of a detector; `None` for a term of another task, and for one that asks nets for more than a
    /// file can hold.
    fn reads(&self) -> Option<Reads> {
        None
    }

    /// Optimizer steps before which it is off.
    fn burn_in_steps(&self) -> u64 {
        0
    }

    /// Whether, naming no place, it compares at every level of a pyramid that student and teacher share.
    fn is_on_levels(&self) -> bool {
        false
    }

    /// The adapters of one of its columns, given the channels there of student and teacher. An adapter
    /// is found again by its name: that of the column, or one that begins with it.
    fn adapters(&self, _column: &Column, _channels: [usize; 2]) -> Vec<AdapterSpec> {
        Vec::new()
    }

    /// What it keeps from step to step, fresh.
    fn companion(&self, _fresh: &Start<'_>) -> Option<S::Companion> {
        None
    }

    /// Its unweighted value at one of its columns, one number.
    ///
    /// # Panics
    /// If the context lacks what the term needs, or shapes do not fit.
    fn value(&self, context: &S::Context<'_>, column: &Column) -> Tensor<1>;

    /// The labels that it makes up for the unlabelled images, as it trains on them: for statistics and
    /// pictures.
    fn pseudo(&self, _context: &S::Context<'_>) -> Option<S::Pseudo> {
        None
    }

    /// How much each point of the student's map counts in its value at one of its columns, `[n, 1, h, w]`, not negative and
    /// off the graph: for pictures. Default: it weighs no places.
    fn place_weights(&self, _context: &S::Context<'_>, _column: &Column) -> Option<Tensor<4>> {
        None
    }

    /// Reports values of its own keys that are out of range.
    fn check(&self, _found: &mut Found) {}

    /// Reports what does not fit a data set of so many classes.
    fn check_classes(&self, _classes: usize, _found: &mut Found) {}
}

/// The columns of a term for nets that share the `levels` of a pyramid: one for each place that it names; where it names none,
/// one for each level if it is a term on levels, else one without a place.
#[must_use]
pub fn columns<S: Sees>(name: &'static str, term: &dyn Term<S>, levels: &[Tap]) -> Vec<Column> {
    let shared = term.shared();
    if !(shared.at.is_empty() && term.is_on_levels()) {
        return Column::of(name, &shared);
    }
    let places: Vec<Place> = levels.iter().copied().map(Place::at).collect();
    if places.is_empty() { Vec::new() } else { Column::of(name, &Shared { at: &places, ..shared }) }
}

/// Hands the value of every column of the terms that are on at `step` (counted from 0) to `push`, with its weight, ramp
/// included: a ramp begins where the burn-in ends.
pub fn evaluate<S: Sees>(
    terms: &[(&'static str, &dyn Term<S>)],
    context: &S::Context<'_>,
    step: u64,
    mut push: impl FnMut(&Column, f64, Tensor<1>),
) {
    let levels = S::levels(context);
    for (name, term) in terms {
        let Some(step) = step.checked_sub(term.burn_in_steps()) else { continue };
        let ramp = sigmoid_ramp(step, term.shared().ramp_steps);
        for column in columns(name, *term, &levels) {
            push(&column, column.weight * ramp, term.value(context, &column));
        }
    }
}
