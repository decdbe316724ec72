//! Learning from unlabelled images: a teacher labels the weak view, the student learns those
//! pseudo-labels on the strong view.
//!
//! The geometry between the views is one gather ([`Origin`](crate::views::Origin)); a pseudo-label never carries a gradient.

mod taught;

use burn::tensor::{FloatDType, Tensor};
use mentor_distill::{TermTable, evaluate, terms};
use mentor_ops::{resize_bilinear, sum_all};
use mentor_types::{LossTerms, Stats};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::task::Seg;

pub use mean_teacher::Consistency;
pub(crate) use taught::weak_logits;
pub use taught::{Labellers, Taught, TaughtView, pseudo_of};

terms! {
    /// `[unlabelled]`: what is learnt from unlabelled images; any of these together.
    #[derive(Default)]
    UnlabelledConfig of Seg {
        /// Whether the student sees the labelled and the strong images in one batch, `"joined"`
        /// (default), or in two, `"apart"`: this is what batch norm averages over.
        #[serde(default)]
        streams: Streams,
        ;
        mean_teacher::MeanTeacher,
        fixmatch::FixMatch,
    }
}

/// What batch norm averages over while the student trains on two streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// Labelled and strong images together, one forward pass.
    #[default]
    Joined,
    /// Each stream on its own, two forward passes.
    Apart,
}

/// Pushes the terms that are on at `step` (counted from 0), and for each the share of pseudo-labels
/// accepted and their precision where the truth is known.
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
    for (name, term) in on {
        if let Some(pseudo) = term.pseudo(context) {
            pseudo.acceptance(context.views().truth()).push(name, stats);
        }
    }
}

/// A student's logits at the size of the views, in 32 bits.
fn strong_logits_at(strong_logits_nkhw: Tensor<4>, view_size: [usize; 2]) -> Tensor<4> {
    resize_bilinear(strong_logits_nkhw.cast(FloatDType::F32), view_size, false)
}

/// The sum of `value_nhw`, each counted as often as `counted_nhw` says, over that of `free_nhw`, which does so for all free
/// pixels; a zero with a gradient where there is none.
fn mean_over_free(value_nhw: Tensor<3>, counted_nhw: Tensor<3>, free_nhw: Tensor<3>) -> Tensor<1> {
    sum_all(value_nhw * counted_nhw) / sum_all(free_nhw).clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::upload::PairPixels;
    use crate::views::Views;
    use crate::views::testing::*;
    use mentor_distill::check_terms;
    use mentor_types::{Key, SegOutput, Taps, UNKNOWN};
    use mentor_unlabeled::Teaching;
    use mentor_weights::NamedTensors;

    const FREE: i64 = UNKNOWN as i64;

    fn golden_pixels(golden: &NamedTensors, truth: i64) -> PairPixels {
        PairPixels {
            origin: labels(golden, "origin"),
            targets: labels(golden, "weak_target"),
            truth: ints(&[truth; 112], [2, 7, 8]),
        }
    }

    fn both(teacher: Teaching) -> UnlabelledConfig {
        UnlabelledConfig {
            streams: Streams::Joined,
            mean_teacher: Some(MeanTeacher { ramp_steps: 10, ..MeanTeacher::default() }),
            fixmatch: Some(FixMatch { threshold: 0.7, teacher, ..FixMatch::default() }),
        }
    }

    fn output(logits: Tensor<4>) -> SegOutput {
        SegOutput { logits, auxiliary: None, taps: Taps::default(), image_size: [7, 8] }
    }

    #[test]
    fn both_terms_are_pushed_with_their_weights_and_statistics() {
        let golden = golden();
        let pixels = golden_pixels(&golden, 1);
        let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
        let weak = |_: Teaching| map(&golden, "weak");
        let (views, student) = (Views::new(&pixels, &weak), output(leaf(map(&golden, "strong"))));
        let context = Context::of(&student, Key::new(0)).with(|context| context.views = Some(&views));
        unlabelled(&both(Teaching::Student), &context, 5, &mut terms, &mut stats);
        let found: Vec<_> = terms.iter().map(|t| (t.name.as_str(), t.weight, values(t.value.clone())[0])).collect();
        assert_eq!(found.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), ["mean_teacher", "fixmatch"]);
        assert!((found[0].1 - 100.0 * (-1.25f64).exp()).abs() < 1e-9 && found[1].1 == 1.0);
        for ((name, _, value), golden_name) in found.iter().zip(["mean_teacher_mse", "fixmatch"]) {
            let expected = golden[&format!("{golden_name}.value")].1[0];
            assert!((value - expected).abs() < 1e-5 * expected, "{name}: {value} instead of {expected}");
        }
        let columns = ["mean_teacher_accepted", "mean_teacher_precision", "fixmatch_accepted", "fixmatch_precision"];
        assert_eq!(stats.iter().map(|stat| stat.name.as_str()).collect::<Vec<_>>(), columns);
    }

    #[test]
    fn each_teacher_is_asked_once_and_only_if_needed() {
        let golden = golden();
        let ask = |config: &UnlabelledConfig| {
            let asked = std::cell::RefCell::new(Vec::new());
            let weak = |teaching: Teaching| {
                asked.borrow_mut().push(teaching);
                map(&golden, "weak")
            };
            let pixels = golden_pixels(&golden, FREE);
            let (mut terms, mut stats) = (LossTerms::default(), Stats::default());
            let (views, student) = (Views::new(&pixels, &weak), output(map(&golden, "strong")));
            let context = Context::of(&student, Key::new(0)).with(|context| context.views = Some(&views));
            unlabelled(config, &context, 0, &mut terms, &mut stats);
            asked.borrow().clone()
        };
        assert_eq!(ask(&both(Teaching::Ema)), [Teaching::Ema]);
        assert_eq!(ask(&both(Teaching::Student)), [Teaching::Ema, Teaching::Student]);
        let alone = UnlabelledConfig { mean_teacher: None, ..both(Teaching::Student) };
        assert_eq!(ask(&alone), [Teaching::Student]);
        let needs_average = |config: &UnlabelledConfig| config.terms().iter().any(|(_, term)| term.needs().average);
        assert!(!needs_average(&alone) && needs_average(&both(Teaching::Student)));
        assert_eq!(ask(&UnlabelledConfig::default()), []);
    }

    #[test]
    fn the_table_is_read_and_its_values_are_checked() {
        let text = r#"{"streams": "apart", "mean_teacher": {"weight": 7, "loss": "cross_entropy"},
            "fixmatch": {"teacher": "ema"}}"#;
        let config: UnlabelledConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.streams, Streams::Apart);
        let expected = MeanTeacher { weight: 7.0, loss: Consistency::CrossEntropy, ..MeanTeacher::default() };
        assert_eq!(config.mean_teacher, Some(expected));
        assert_eq!(config.fixmatch, Some(FixMatch { teacher: Teaching::Ema, ..FixMatch::default() }));
        assert!(serde_json::from_str::<UnlabelledConfig>(r#"{"fixmatch": {"treshold": 0.9}}"#).is_err());

        let mut problems = Vec::new();
        check_terms(&config, &mut problems);
        assert_eq!(problems, []);
        let wrong = UnlabelledConfig {
            streams: Streams::Joined,
            mean_teacher: Some(MeanTeacher { weight: -1.0, min_confidence: Some(2.0), ..MeanTeacher::default() }),
            fixmatch: Some(FixMatch { weight: f64::NAN, threshold: 95.0, ..FixMatch::default() }),
        };
        check_terms(&wrong, &mut problems);
        let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        let expected = ["mean_teacher.weight", "mean_teacher.min_confidence", "fixmatch.weight", "fixmatch.threshold"];
        assert_eq!(keys, expected);
        assert_eq!(problems[3].1, "a probability lies in [0, 1], found 95");
    }
}
