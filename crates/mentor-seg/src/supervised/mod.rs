//! The supervised loss: what the labels say, as a sum of parts.

mod ohem;
#[cfg(test)]
pub(crate) mod testing;

use mentor_distill::{TermTable, check_terms, evaluate, terms};
use mentor_types::{Found, LossTerms, check_weight};

use crate::context::{Context, at_size_of};
use crate::task::Seg;

pub use dice::AbsentClass;
pub use lovasz_softmax::LovaszClasses;
pub use ohem::Ohem;

terms! {
    /// `[supervised]`: which losses compare the student with the labels. Without this table it is plain
    /// cross-entropy; with it, the parts that it names.
    SupervisedConfig of Seg {
        /// Factor of all parts (default 1); 0 trains without labels.
        #[serde(default = "one")]
        weight: f64,
        /// Factor of the auxiliary head's cross-entropy, where the net has such a head (default 0.4).
        #[serde(default = "auxiliary_weight")]
        auxiliary_weight: f64,
        ;
        cross_entropy::CrossEntropy,
        dice::Dice,
        lovasz_softmax::LovaszSoftmax,
    }
}

fn one() -> f64 {
    1.0
}

fn auxiliary_weight() -> f64 {
    0.4
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self {
            weight: one(),
            cross_entropy: Some(CrossEntropy::default()),
            dice: None,
            lovasz_softmax: None,
            auxiliary_weight: auxiliary_weight(),
        }
    }
}

impl SupervisedConfig {
    /// Reports every value out of range.
    pub fn check(&self, found: &mut Found) {
        check_weight("weight", self.weight, found);
        check_weight("auxiliary_weight", self.auxiliary_weight, found);
        if self.weight > 0.0 && self.terms().is_empty() {
            let message = "names no loss: add `cross_entropy = {}`, `dice` or `lovasz_softmax`, or set weight = 0";
            found.push((String::new(), message.into()));
        }
        check_terms(self, found);
    }
}

/// Compares what a net returned with the labels and pushes one term per part, and `auxiliary` where the
/// net has an auxiliary head.
///
/// Logits are upsampled to the size of the labels first (bilinear, corners not aligned), in 32 bits
/// whatever the precision of the net. The auxiliary head is compared by the same cross-entropy
/// (class weights and mining included), or by a plain one where the recipe has none.
///
/// # Shapes
/// The context's logits `[n, k, h, w]`, its labels `[n, H, W]`: a class below `k`, unknown or ignored.
///
/// # Panics
/// If there are no labels, or the numbers of images differ.
///
/// # Source
/// The weight 0.4 of the auxiliary head: Zhao et al., *Pyramid Scene Parsing Network* (arXiv
/// 1612.01105), section 3.3 (`unchecked`); also the default of the official code of structured distillation.
///
/// # Differs
/// Several official segmentation codes upsample with aligned corners; torchvision's do not.
pub fn supervised(config: &SupervisedConfig, context: &Context<'_>, step: u64, terms: &mut LossTerms) {
    evaluate(&config.terms(), context, step, |column, weight, value| {
        terms.push(column.name.clone(), config.weight * weight, value);
    });
    if let Some(auxiliary) = &context.student.auxiliary {
        let part = config.cross_entropy.clone().unwrap_or_default();
        let target_nhw = context.target();
        let value = part.loss(at_size_of(auxiliary, &target_nhw), target_nhw);
        terms.push("auxiliary", config.weight * config.auxiliary_weight, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::testing::{Golden, close, target, values};
    use super::*;
    use burn::tensor::{Device, Int, Tensor};
    use mentor_distill::check_classes;
    use mentor_ops::resize_bilinear;
    use mentor_types::{Key, SegOutput, Taps};

    fn output(logits: Tensor<4>, auxiliary: Option<Tensor<4>>) -> SegOutput {
        SegOutput { logits, auxiliary, taps: Taps::default(), image_size: [9, 11] }
    }

    fn terms(config: &SupervisedConfig, output: &SegOutput, target: &Tensor<3, Int>) -> Vec<(String, f64, f32)> {
        let mut terms = LossTerms::default();
        let context = Context::of(output, Key::new(0)).with(|context| context.target_nhw = Some(target));
        supervised(config, &context, 0, &mut terms);
        terms.iter().map(|term| (term.name.clone(), term.weight, values(&term.value)[0])).collect()
    }

    fn read(text: &str) -> SupervisedConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn coarse_logits_are_upsampled_to_the_labels_as_in_pytorch() {
        Golden::read().assert_case("upsampled", "coarse", |logits, target| {
            let mut terms = LossTerms::default();
            let output = output(logits, None);
            let context = Context::of(&output, Key::new(0)).with(|context| context.target_nhw = Some(&target));
            supervised(&SupervisedConfig::default(), &context, 0, &mut terms);
            terms.total().unwrap()
        });
    }

    #[test]
    fn every_part_is_a_term_with_its_weights() {
        let golden = Golden::read();
        let config = read(
            r#"{"weight": 2.0, "cross_entropy": {"weight": 0.5}, "dice": {"weight": 3.0},
                "lovasz_softmax": {}, "auxiliary_weight": 0.3}"#,
        );
        let output = output(golden.tensor("logits"), Some(golden.tensor("coarse")));
        let terms = terms(&config, &output, &golden.target());
        let names: Vec<(&str, f64)> = terms.iter().map(|(name, weight, _)| (name.as_str(), *weight)).collect();
        assert_eq!(names, [("cross_entropy", 1.0), ("dice", 6.0), ("lovasz_softmax", 2.0), ("auxiliary", 0.6)]);
        let auxiliary = CrossEntropy { weight: 0.5, ..CrossEntropy::default() };
        let coarse = resize_bilinear(golden.tensor("coarse"), [9, 11], false);
        close(&[terms[3].2], &values(&auxiliary.loss(coarse, golden.target())), 0.0);
    }

    #[test]
    fn the_auxiliary_head_shares_class_weights_and_is_plain_without_cross_entropy() {
        let golden = Golden::read();
        let both = output(golden.tensor("logits"), Some(golden.tensor("logits")));
        let weighted =
            terms(&read(r#"{"cross_entropy": {"class_weights": [0.5, 2, 1, 0.25, 3]}}"#), &both, &golden.target());
        assert_eq!(weighted[0].2, weighted[1].2);
        let plain = terms(&SupervisedConfig::default(), &both, &golden.target());
        assert_ne!(weighted[1].2, plain[1].2);
        let dice = terms(&read(r#"{"dice": {}}"#), &both, &golden.target());
        assert_eq!((dice[1].0.as_str(), dice[1].1, dice[1].2), ("auxiliary", 0.4, plain[1].2));
    }

    #[test]
    fn a_table_names_its_parts_and_no_table_is_cross_entropy() {
        let default = SupervisedConfig::default();
        assert_eq!(default.cross_entropy, Some(CrossEntropy::default()));
        let config = read(
            r#"{"cross_entropy": {"ohem": {"min_kept": 9}}, "lovasz_softmax": {"classes": "all", "per_image": true},
                "dice": {"smooth": 1e-5, "squares": true, "absent": "charged"}}"#,
        );
        let ohem = Some(Ohem { threshold: 0.7, min_kept: 9 });
        assert_eq!(config.cross_entropy, Some(CrossEntropy { ohem, ..CrossEntropy::default() }));
        let all = LovaszSoftmax { classes: LovaszClasses::All, per_image: true, ..LovaszSoftmax::default() };
        assert_eq!(config.lovasz_softmax, Some(all));
        assert_eq!((config.weight, config.auxiliary_weight), (1.0, 0.4));
        for config in [config, default] {
            assert_eq!(read(&serde_json::to_string(&config).unwrap()), config);
        }
        assert!(serde_json::from_str::<SupervisedConfig>(r#"{"focal": {}}"#).is_err());
        assert!(serde_json::from_str::<SupervisedConfig>(r#"{"dice": {"smoth": 1}}"#).is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        let keys = |config: &SupervisedConfig| {
            let mut problems = Vec::new();
            config.check(&mut problems);
            problems.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(keys(&SupervisedConfig::default()).is_empty());
        assert!(keys(&read(r#"{"weight": 0}"#)).is_empty());
        assert_eq!(keys(&read("{}")), [""]);
        let config = read(
            r#"{"weight": -1, "auxiliary_weight": -1, "cross_entropy": {"weight": -1}, "dice": {"weight": -1},
                "lovasz_softmax": {"weight": -1}}"#,
        );
        let parts = ["cross_entropy.weight", "dice.weight", "lovasz_softmax.weight"];
        assert_eq!(keys(&config), [&["weight", "auxiliary_weight"], parts.as_slice()].concat());
    }

    #[test]
    fn class_weights_must_fit_the_classes() {
        let config = read(r#"{"cross_entropy": {"class_weights": [1, 2, 3]}}"#);
        let mut problems = Vec::new();
        check_classes(&config, 3, &mut problems);
        assert!(problems.is_empty());
        check_classes(&config, 4, &mut problems);
        assert_eq!(problems[0].0, "cross_entropy.class_weights");
    }

    #[test]
    #[should_panic(expected = "for targets")]
    fn another_number_of_images_is_refused() {
        let output = output(Tensor::zeros([2, 3, 4, 4], &Device::flex()), None);
        terms(&SupervisedConfig::default(), &output, &target(&[0; 16], [1, 4, 4]));
    }
}
