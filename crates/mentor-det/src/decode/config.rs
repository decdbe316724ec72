//! `[eval]` of detection.

use mentor_types::{Found, Resize, below, check_probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[eval]`: what is taken for an object. Without the table: as published for COCO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// The size that every image is brought to, as `{ short_px = 800, long_px = 1333 }`; what is found is said in pixels of the
    /// image as it was. Default: images have their own sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Both sides are padded to a multiple of this, in pixels, with the mean colour, so that a device sees few shapes. Default: 32
    /// with `resize`, as torchvision has it, else 1, which pads nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple_px: Option<usize>,
    /// What scores no more than this is dropped, in [0, 1]. Default 0.05.
    pub score_threshold: f64,
    /// Of two boxes of a class that overlap by more than this, the one of the lower score is dropped; intersection over union,
    /// in [0, 1]. Default 0.6.
    pub nms_iou: f64,
    /// Lowers scores of boxes that overlap with better ones instead of dropping the boxes. Default: they are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_nms: Option<SoftNms>,
    /// How many of the best scores of each level, or of all regions, are looked at. Default 1000.
    pub candidates: usize,
    /// How many of the best boxes of an image are kept. Default 100.
    pub detections: usize,
}

/// By what a score is multiplied for each better box that overlaps with its own by `iou`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SoftNms {
    /// `1 - iou`, where `iou` is more than `nms_iou`.
    Linear {},
    /// `exp(-iou^2 / sigma)`, however small `iou` is; `nms_iou` is not looked at.
    Gaussian {
        /// Above 0; the paper has 0.5.
        sigma: f64,
    },
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            resize: None,
            multiple_px: None,
            score_threshold: 0.05,
            nms_iou: 0.6,
            soft_nms: None,
            candidates: 1000,
            detections: 100,
        }
    }
}

impl EvalConfig {
    /// The size that an image of a height and width is brought to, and that to which it is padded.
    #[must_use]
    pub fn sizes(&self, image: [usize; 2]) -> ([usize; 2], [usize; 2]) {
        let size = self.resize.map_or(image, |resize| resize.size(image));
        let multiple = self.multiple_px.unwrap_or(if self.resize.is_some() { 32 } else { 1 });
        (size, size.map(|side| side.next_multiple_of(multiple)))
    }

    /// Reports values out of range as (key, message).
    pub fn check(&self, found: &mut Found) {
        below("resize", found, |found| self.resize.iter().for_each(|resize| resize.check(found)));
        if let Some(multiple) = self.multiple_px.filter(|multiple| !(1..=1024).contains(multiple)) {
            found.push(("multiple_px".to_owned(), format!("found {multiple}, expected 1 to 1024")));
        }
        check_probability("score_threshold", self.score_threshold, found);
        check_probability("nms_iou", self.nms_iou, found);
        for (key, value) in [("candidates", self.candidates), ("detections", self.detections)] {
            if value == 0 {
                found.push((key.to_owned(), "found 0, expected at least 1".to_owned()));
            }
        }
        if let Some(SoftNms::Gaussian { sigma }) = self.soft_nms
            && !(sigma.is_finite() && sigma > 0.0)
        {
            found.push(("soft_nms.gaussian.sigma".to_owned(), format!("found {sigma}, expected a number above 0")));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_reads_with_its_defaults_and_rejects_what_it_does_not_know() {
        let read = |text: &str| serde_json::from_str::<EvalConfig>(text);
        assert_eq!(read("{}").unwrap(), EvalConfig::default());
        let config = read(r#"{"nms_iou": 0.5, "soft_nms": {"gaussian": {"sigma": 0.5}}}"#).unwrap();
        assert_eq!((config.nms_iou, config.soft_nms), (0.5, Some(SoftNms::Gaussian { sigma: 0.5 })));
        assert_eq!(read(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(read(r#"{"soft_nms": {"linear": {}}}"#).unwrap().soft_nms, Some(SoftNms::Linear {}));
        assert!(read(r#"{"nms": 0.5}"#).unwrap_err().to_string().contains("nms_iou"));
    }

    #[test]
    fn images_of_many_sizes_have_few_shapes() {
        let resized = EvalConfig { resize: Some(Resize { short_px: 800, long_px: 1333 }), ..EvalConfig::default() };
        assert_eq!(resized.sizes([480, 640]), ([800, 1067], [800, 1088]));
        assert_eq!(resized.sizes([640, 480]), ([1067, 800], [1088, 800]));
        let coarse = EvalConfig { multiple_px: Some(128), ..resized };
        assert_eq!(coarse.sizes([480, 640]).1, [896, 1152]);
        assert_eq!(EvalConfig::default().sizes([67, 93]), ([67, 93], [67, 93]));
        let padded = EvalConfig { multiple_px: Some(64), ..EvalConfig::default() };
        assert_eq!(padded.sizes([67, 93]), ([67, 93], [128, 128]));
    }

    #[test]
    fn every_value_out_of_range_is_a_problem_of_its_own() {
        let bad = EvalConfig {
            resize: Some(Resize { short_px: 800, long_px: 600 }),
            multiple_px: Some(0),
            score_threshold: -0.1,
            nms_iou: f64::NAN,
            soft_nms: Some(SoftNms::Gaussian { sigma: 0.0 }),
            candidates: 0,
            detections: 0,
        };
        let mut found = Found::new();
        bad.check(&mut found);
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "resize.long_px",
                "multiple_px",
                "score_threshold",
                "nms_iou",
                "candidates",
                "detections",
                "soft_nms.gaussian.sigma"
            ]
        );
        found.clear();
        EvalConfig::default().check(&mut found);
        assert!(found.is_empty());
    }
}
