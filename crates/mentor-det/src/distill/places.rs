//! What both sides say at the places that they share, and what labels ask there.

use burn::tensor::{DType, Tensor};
use mentor_types::DetLevel;

use crate::context::Context;

/// What `part` takes of the levels that student and teacher share, at all their places, in f32; the teacher's off the graph.
pub(super) fn both<const D: usize>(context: &Context<'_>, part: impl Fn(&DetLevel) -> &Tensor<D>) -> [Tensor<D>; 2] {
    let (student, taught): (Vec<_>, Vec<_>) = context.shared_levels().into_iter().unzip();
    let all = |levels: Vec<&DetLevel>| {
        Tensor::cat(levels.into_iter().map(|level| part(level).clone().cast(DType::F32)).collect(), D - 1)
    };
    [all(student), all(taught).inner()]
}

/// Of what is true of all places of the student, `[n, c, p]`, that of the levels that the teacher has, too.
pub(super) fn shared(context: &Context<'_>, of_places_ncp: &Tensor<3>) -> Tensor<3> {
    let grid = &context.labelled().grid;
    let levels = context.shared_levels().into_iter();
    Tensor::cat(levels.map(|(level, _)| grid.at_level(level.layout.stride, of_places_ncp)).collect(), 2)
}
