//! Learning from unlabelled images: a labeller finds boxes in the weak view, the student learns them on the strong view.

mod taught;

use burn::tensor::Tensor;
use mentor_distill::{TermTable, evaluate, terms};
use mentor_ops::sum_all;
use mentor_types::{LossTerms, Stats};

use crate::context::Context;
use crate::task::Det;

pub use taught::{Labellers, Taught, pseudo_of, truth_of};

terms! {
    /// `[unlabelled]`: what is learnt from unlabelled images.
    #[derive(Default)]
    UnlabelledConfig of Det {
        ;
        unbiased_teacher::UnbiasedTeacher,
        stac::Stac,
    }
}

/// Pushes the terms that are on at `step` (counted from 0), and for each how many boxes an image has that it teaches.
///
/// # Panics
/// If the context has no views.
pub fn unlabelled(
    config: &UnlabelledConfig,
    context: &Context<'_>,
    step: u64,
    terms: &mut LossTerms,
    stats: &mut Stats,
) {
    let on = config.terms();
    evaluate(&on, context, step, |column, weight, value| terms.push(column.name.clone(), weight, value));
    for (name, term) in on.into_iter().filter(|(_, term)| step >= term.burn_in_steps()) {
        if let Some(labels) = term.pseudo(context) {
            let [images, _] = labels.objects_nm.dims();
            let images = Tensor::full([1], images as f64, &labels.objects_nm.device());
            stats.push(format!("{name}_boxes"), sum_all(labels.objects_nm), images);
        }
    }
}
