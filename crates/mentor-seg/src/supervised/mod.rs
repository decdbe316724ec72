//! The supervised loss: what the labels say, as a sum of parts.

mod cross_entropy;
mod dice;
mod lovasz;
mod ohem;
#[cfg(test)]
pub(crate) mod testing;

use burn::tensor::{FloatDType, Int, Tensor};
use mentor_ops::resize_bilinear;
use mentor_types::{LossTerms, SegOutput};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cross_entropy::CrossEntropy;
pub use dice::{AbsentClass, Dice};
pub use lovasz::{LovaszClasses, LovaszSoftmax};
pub use ohem::Ohem;

/// `[supervised]`: which losses compare the student with the labels. Without this table it is plain
/// cross-entropy; with it, the parts that it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupervisedConfig {
    /// Factor of all parts (default 1); 0 trains without labels.
    #[serde(default = "one")]
    pub weight: f64,
    /// Cross-entropy per pixel, with class weights or online hard example mining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<CrossEntropy>,
    /// Soft Dice per class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dice: Option<Dice>,
    /// The Lovasz extension of the Jaccard index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lovasz_softmax: Option<LovaszSoftmax>,
    /// Factor of the auxiliary head's cross-entropy, where the net has such a head (default 0.4).
    #[serde(default = "auxiliary_weight")]
    pub auxiliary_weight: f64,
}

pub(crate) fn one() -> f64 {
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

/// Reports a weight that is negative or not finite.
pub(crate) fn check_weight(key: &str, weight: f64, problems: &mut Vec<(String, String)>) {
    if !weight.is_finite() || weight < 0.0 {
        problems.push((key.into(), format!("a weight is a number of at least 0, found {weight}")));
    }
}

impl SupervisedConfig {
    /// Reports every value out of range: (key, message).
    pub fn check(&self, problems: &mut Vec<(String, String)>) {
        check_weight("weight", self.weight, problems);
        check_weight("auxiliary_weight", self.auxiliary_weight, problems);
        if self.weight > 0.0 && self.cross_entropy.is_none() && self.dice.is_none() && self.lovasz_softmax.is_none() {
            let message = "names no loss: add `cross_entropy = {}`, `dice` or `lovasz_softmax`, or set weight = 0";
            problems.push((String::new(), message.into()));
        }
        if let Some(part) = &self.cross_entropy {
            part.check("cross_entropy", problems);
        }
        if let Some(part) = &self.dice {
            part.check("dice", problems);
        }
        if let Some(part) = &self.lovasz_softmax {
            check_weight("lovasz_softmax.weight", part.weight, problems);
        }
    }

    /// Reports what does not fit a data set of `classes` classes: (key, message).
    pub fn check_classes(&self, classes: usize, problems: &mut Vec<(String, String)>) {
        let weights = self.cross_entropy.as_ref().and_then(|part| part.class_weights.as_ref());
        if let Some(weights) = weights.filter(|weights| weights.len() != classes) {
            let message = format!("{} weights for {classes} classes: give one per class", weights.len());
            problems.push(("cross_entropy.class_weights".into(), message));
        }
    }
}

/// Compares what a net returned with the labels and pushes one term per part: `cross_entropy`,
/// `dice`, `lovasz_softmax`, and `auxiliary` where the net has an auxiliary head.
///
/// Logits are upsampled to the size of the labels first (bilinear, corners not aligned), in 32 bits
/// whatever the precision of the net. The auxiliary head is compared by the same cross-entropy
/// (class weights and mining included), or by a plain one where the recipe has none.
///
/// # Shapes
/// `output.logits` `[n, k, h, w]`, `target_nhw` `[n, H, W]`: a class below `k`, unknown or ignored.
///
/// # Panics
/// If the numbers of images differ.
///
/// # Source
/// The weight 0.4 of the auxiliary head: Zhao et al., *Pyramid Scene Parsing Network* (arXiv
/// 1612.01105), section 3.3 (`unchecked`); also the default of the official code of structured distillation.
///
/// # Differs
/// Several official segmentation codes upsample with aligned corners; torchvision's do not.
pub fn supervised(config: &SupervisedConfig, output: &SegOutput, target_nhw: &Tensor<3, Int>, terms: &mut LossTerms) {
    let upsample = |logits: &Tensor<4>| {
        let [images, height, width] = target_nhw.dims();
        assert_eq!(logits.dims()[0], images, "logits {:?} for targets {:?}", logits.dims(), target_nhw.dims());
        resize_bilinear(logits.clone().cast(FloatDType::F32), [height, width], false)
    };
    let logits_nkhw = upsample(&output.logits);
    if let Some(part) = &config.cross_entropy {
        let value = part.loss(logits_nkhw.clone(), target_nhw.clone());
        terms.push("cross_entropy", config.weight * part.weight, value);
    }
    if let Some(part) = &config.dice {
        let value = part.loss(logits_nkhw.clone(), target_nhw.clone());
        terms.push("dice", config.weight * part.weight, value);
    }
    if let Some(part) = &config.lovasz_softmax {
        let value = part.loss(logits_nkhw, target_nhw.clone());
        terms.push("lovasz_softmax", config.weight * part.weight, value);
    }
    if let Some(auxiliary) = &output.auxiliary {
        let part = config.cross_entropy.clone().unwrap_or_default();
        let value = part.loss(upsample(auxiliary), target_nhw.clone());
        terms.push("auxiliary", config.weight * config.auxiliary_weight, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::testing::{Golden, close, target, values};
    use super::*;
    use burn::tensor::Device;
    use mentor_types::Taps;

    fn output(logits: Tensor<4>, auxiliary: Option<Tensor<4>>) -> SegOutput {
        SegOutput { logits, auxiliary, taps: Taps::default(), image_size: [9, 11] }
    }

    fn terms(config: &SupervisedConfig, output: &SegOutput, target: &Tensor<3, Int>) -> Vec<(String, f64, f32)> {
        let mut terms = LossTerms::default();
        supervised(config, output, target, &mut terms);
        terms.iter().map(|term| (term.name.clone(), term.weight, values(&term.value)[0])).collect()
    }

    fn read(text: &str) -> SupervisedConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn coarse_logits_are_upsampled_to_the_labels_as_in_pytorch() {
        Golden::read().assert_case("upsampled", "coarse", |logits, target| {
            let mut terms = LossTerms::default();
            supervised(&SupervisedConfig::default(), &output(logits, None), &target, &mut terms);
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
        config.check_classes(3, &mut problems);
        assert!(problems.is_empty());
        config.check_classes(4, &mut problems);
        assert_eq!(problems[0].0, "cross_entropy.class_weights");
    }

    #[test]
    #[should_panic(expected = "for targets")]
    fn another_number_of_images_is_refused() {
        let output = output(Tensor::zeros([2, 3, 4, 4], &Device::flex()), None);
        terms(&SupervisedConfig::default(), &output, &target(&[0; 16], [1, 4, 4]));
    }
}
