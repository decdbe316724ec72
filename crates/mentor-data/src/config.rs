//! The recipe tables `[data]` and `[views]`.

use std::path::Path;

use mentor_types::{Resize, below};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::files::ask;

/// Problems of a table: dotted key, message.
type Problems = Vec<(String, String)>;

/// `[data]`: which images, and how they are loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The name of a card, or the path of a `dataset.toml`.
    pub card: String,
    /// The split with labels to train on.
    pub labelled: String,
    /// The split whose labels are not trained on. Optional; pixels that nobody labelled in the labelled split join in anyhow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<String>,
    /// Boxes that a detector found in the images of `unlabelled`, for `[unlabelled.stac]`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudo_labels: Option<PseudoLabels>,
    /// The split that is evaluated while training.
    pub val: String,
    /// What a bad image, mask or box does: `fail` stops the run, `skip` takes the next good image of the list, or the other boxes
    /// of the file, and counts. Default `fail`.
    #[serde(default)]
    pub on_bad_sample: OnBadSample,
    /// Threads that decode and augment. Changes no result. Default 2.
    #[serde(default = "two")]
    pub workers: usize,
    /// Batches made ahead. Changes no result. Default 4.
    #[serde(default = "four")]
    pub queue: usize,
    /// Memory for decoded images, in MiB; 0 decodes every time. Changes no result. Default 512.
    #[serde(default = "cache_mb")]
    pub cache_mb: usize,
}

impl DataConfig {
    /// The splits that are named, by their keys.
    pub fn splits(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named =
            [("labelled", Some(&self.labelled)), ("unlabelled", self.unlabelled.as_ref()), ("val", Some(&self.val))];
        named.into_iter().filter_map(|(key, name)| Some((key, name?.as_str())))
    }
}

/// `[data.pseudo_labels]`: a file with the boxes that a detector found in every image of the unlabelled split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PseudoLabels {
    /// COCO JSON in which each box has a `score`, as `mentor predict --as-labels` writes it: below the current folder or beside
    /// the recipe.
    pub file: String,
    /// The score from which a box is an object, in [0, 1]. Default 0.9, as STAC was published.
    #[serde(default = "nine_tenths")]
    pub min_score: f64,
    /// The score from which a box that is no object is no background either: nothing is learnt inside of it; in [0, 1]. Default
    /// 1: everything that is no object is background, as published.
    #[serde(default = "one")]
    pub ignored_from: f64,
}

impl PseudoLabels {
    /// A hash of the file, hexadecimal.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn fingerprint(&self) -> Result<String, DataError> {
        let path = Path::new(&self.file);
        Ok(blake3::hash(&ask(path, || std::fs::read(path))?).to_hex().to_string())
    }
}

fn nine_tenths() -> f64 {
    0.9
}

fn one() -> f64 {
    1.0
}

/// What a bad image, mask or box does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadSample {
    /// It stops the run.
    #[default]
    Fail,
    /// The next good sample of the list takes its place, a box is left out; both are counted and reported.
    Skip,
}

fn two() -> usize {
    2
}

fn four() -> usize {
    4
}

fn cache_mb() -> usize {
    512
}

impl DataConfig {
    /// Pushes what is out of range: (key below `data`, message).
    pub fn check(&self, problems: &mut Problems) {
        for (key, name) in [("card", &self.card), ("labelled", &self.labelled), ("val", &self.val)] {
            if name.is_empty() {
                problems.push((key.to_owned(), "is empty".to_owned()));
            }
        }
        for (key, value, most) in [("workers", self.workers, 256), ("queue", self.queue, 1024)] {
            if !(1..=most).contains(&value) {
                problems.push((key.to_owned(), format!("is {value}, must be from 1 to {most}")));
            }
        }
        if let Some(PseudoLabels { min_score, ignored_from, .. }) = &self.pseudo_labels {
            within(problems, "pseudo_labels.min_score", *min_score, 0.0, 1.0);
            within(problems, "pseudo_labels.ignored_from", *ignored_from, 0.0, 1.0);
            if self.unlabelled.is_none() {
                let message = "has no effect without `unlabelled`, the images that it is about";
                problems.push(("pseudo_labels".to_owned(), message.to_owned()));
            }
        }
        if self.cache_mb > 1 << 20 {
            problems.push(("cache_mb".to_owned(), format!("is {}, must be at most {}", self.cache_mb, 1 << 20)));
        }
    }
}

/// `[views]`: how an image is cut and changed before the networks see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewsConfig {
    /// Height and width of every view, in pixels. Smaller images are padded.
    pub crop_px: [usize; 2],
    /// The size that every image is brought to before all else, as `{ short_px = 800, long_px = 1333 }`. With `scale = [1.0, 1.0]`
    /// views of `long_px` each way show whole images, all of one shape. What lies beside an image is ignored in masks, and holds
    /// no box, as torchvision has it. For val there is the same key in `[eval]` of detection. Default: images have their own sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Range of the random size factor, uniform, both sides alike, after `resize`. Default `[0.5, 2.0]`.
    #[serde(default = "scale")]
    pub scale: [f64; 2],
    /// Probability of mirroring left and right. Default 0.5.
    #[serde(default = "half")]
    pub flip: f64,
    /// The share of a box that a view must show for its object to be found there; one of which it shows less need not be
    /// found. Of pseudo-labels, too. Default 0.25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_share: Option<f64>,
    /// Probability that a labelled view is a mosaic: its own image and three others, each half as large, in four rectangles.
    /// Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mosaic: Option<f64>,
    /// The share of a box that a labelled view must show at least of one object, where its image has any: it is drawn again, up
    /// to 50 times. Default: it may show none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_box: Option<f64>,
    /// Colour jitter of the labelled images and the weak views. Without it their colours stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photometric: Option<Photometric>,
    /// The strong view of an unlabelled image. Without the table the defaults of its keys hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strong: Option<StrongConfig>,
}

fn scale() -> [f64; 2] {
    [0.5, 2.0]
}

fn half() -> f64 {
    0.5
}

/// Random colour changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Photometric {
    /// How far the colours move.
    #[serde(default)]
    pub jitter: Jitter,
    /// Probability that they move at all. Default 0.8.
    #[serde(default = "jitter_probability")]
    pub jitter_probability: f64,
}

/// How far colours move; each factor is drawn uniformly, the four changes come in random order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Brightness factor in `[1 - b, 1 + b]`, not below 0. Default 0.5.
    #[serde(default = "half")]
    pub brightness: f64,
    /// Contrast factor in `[1 - c, 1 + c]`, not below 0. Default 0.5.
    #[serde(default = "half")]
    pub contrast: f64,
    /// Saturation factor in `[1 - s, 1 + s]`, not below 0. Default 0.5.
    #[serde(default = "half")]
    pub saturation: f64,
    /// Hue shift in `[-h, h]`, as a fraction of the colour circle, at most 0.5. Default 0.25.
    #[serde(default = "quarter")]
    pub hue: f64,
}

fn quarter() -> f64 {
    0.25
}

fn jitter_probability() -> f64 {
    0.8
}

impl Default for Jitter {
    fn default() -> Self {
        Self { brightness: 0.5, contrast: 0.5, saturation: 0.5, hue: 0.25 }
    }
}

/// `[views.strong]`: what the student sees of an unlabelled image. The defaults are those of UniMatch's `FixMatch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StrongConfig {
    /// How far the colours move.
    #[serde(default)]
    pub jitter: Jitter,
    /// Probability that they move at all. Default 0.8.
    #[serde(default = "jitter_probability")]
    pub jitter_probability: f64,
    /// Probability of losing all colour. Default 0.2.
    #[serde(default = "grey")]
    pub grey: f64,
    /// Probability of a Gaussian blur. Default 0.5.
    #[serde(default = "half")]
    pub blur: f64,
    /// Range of the blur's standard deviation, in pixels, uniform. Default `[0.1, 2.0]`.
    #[serde(default = "blur_sigma")]
    pub blur_sigma: [f64; 2],
    /// Probability that a box of 2 to 20 % of the view is overwritten with noise. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erase: Option<f64>,
    /// Probability that a box of another image of the batch is pasted in (`CutMix`). Default: 0.5 for masks; boxes do not
    /// follow what is pasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutmix: Option<f64>,
    /// Range of the box's share of the view's area, uniform. Default `[0.02, 0.4]`.
    #[serde(default = "cutmix_area")]
    pub cutmix_area: [f64; 2],
    /// Range of the box's height over its width, uniform. Default `[0.3, 3.3]`.
    #[serde(default = "cutmix_ratio")]
    pub cutmix_ratio: [f64; 2],
    /// Range of a size factor on top of the weak view's, about its centre. Without it (and `flip`, `shift`) both views
    /// show the same pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<[f64; 2]>,
    /// Probability of being mirrored against the weak view. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<f64>,
    /// Largest shift against the weak view, as a fraction of the crop, each way. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
}

fn grey() -> f64 {
    0.2
}

fn blur_sigma() -> [f64; 2] {
    [0.1, 2.0]
}

fn cutmix_area() -> [f64; 2] {
    [0.02, 0.4]
}

fn cutmix_ratio() -> [f64; 2] {
    [0.3, 3.3]
}

impl Default for StrongConfig {
    fn default() -> Self {
        Self {
            jitter: Jitter::default(),
            jitter_probability: jitter_probability(),
            grey: grey(),
            blur: half(),
            blur_sigma: blur_sigma(),
            erase: None,
            cutmix: None,
            cutmix_area: cutmix_area(),
            cutmix_ratio: cutmix_ratio(),
            scale: None,
            flip: None,
            shift: None,
        }
    }
}

impl ViewsConfig {
    /// The share of a box that a view must show for its object to be found there.
    #[must_use]
    pub fn visible_share(&self) -> f64 {
        self.visible_share.unwrap_or(0.25)
    }

    /// Views of one size with every other key at its default.
    #[must_use]
    pub fn of_size(crop_px: [usize; 2]) -> Self {
        Self {
            crop_px,
            resize: None,
            scale: scale(),
            flip: half(),
            visible_share: None,
            mosaic: None,
            keep_box: None,
            photometric: None,
            strong: None,
        }
    }

    /// Pushes what is out of range: (key below `views`, message).
    pub fn check(&self, problems: &mut Problems) {
        if self.crop_px.iter().any(|side| !(1..=8192).contains(side)) {
            problems.push(("crop_px".to_owned(), format!("is {:?}, each side must be from 1 to 8192", self.crop_px)));
        }
        below("resize", problems, |found| self.resize.iter().for_each(|resize| resize.check(found)));
        range(problems, "scale", self.scale, 0.01, 100.0);
        within(problems, "flip", self.flip, 0.0, 1.0);
        for (key, share) in
            [("visible_share", self.visible_share), ("mosaic", self.mosaic), ("keep_box", self.keep_box)]
        {
            within(problems, key, share.unwrap_or(0.0), 0.0, 1.0);
        }
        if self.mosaic.is_some() && self.crop_px.iter().any(|side| *side < 4) {
            problems.push(("mosaic".to_owned(), "has no room for four images in a view of `crop_px`".to_owned()));
        }
        if let Some(photometric) = &self.photometric {
            photometric.jitter.check("photometric", problems);
            within(problems, "photometric.jitter_probability", photometric.jitter_probability, 0.0, 1.0);
        }
        if let Some(strong) = &self.strong {
            strong.check(problems);
        }
    }
}

impl StrongConfig {
    fn check(&self, problems: &mut Problems) {
        self.jitter.check("strong", problems);
        for (key, value) in [
            ("strong.jitter_probability", self.jitter_probability),
            ("strong.grey", self.grey),
            ("strong.blur", self.blur),
            ("strong.erase", self.erase.unwrap_or(0.0)),
            ("strong.cutmix", self.cutmix.unwrap_or(0.0)),
            ("strong.flip", self.flip.unwrap_or(0.0)),
            ("strong.shift", self.shift.unwrap_or(0.0)),
        ] {
            within(problems, key, value, 0.0, 1.0);
        }
        range(problems, "strong.blur_sigma", self.blur_sigma, 0.01, 100.0);
        range(problems, "strong.cutmix_area", self.cutmix_area, 0.0, 1.0);
        range(problems, "strong.cutmix_ratio", self.cutmix_ratio, 0.01, 100.0);
        range(problems, "strong.scale", self.scale.unwrap_or([1.0, 1.0]), 0.01, 100.0);
    }
}

impl Jitter {
    fn check(&self, table: &str, problems: &mut Problems) {
        for (key, value, most) in [
            ("brightness", self.brightness, 10.0),
            ("contrast", self.contrast, 10.0),
            ("saturation", self.saturation, 10.0),
            ("hue", self.hue, 0.5),
        ] {
            within(problems, &format!("{table}.jitter.{key}"), value, 0.0, most);
        }
    }
}

fn within(problems: &mut Problems, key: &str, value: f64, least: f64, most: f64) {
    // Written so that NaN is out of range.
    if !(least <= value && value <= most) {
        problems.push((key.to_owned(), format!("is {value}, must be from {least} to {most}")));
    }
}

fn range(problems: &mut Problems, key: &str, [low, high]: [f64; 2], least: f64, most: f64) {
    if !(least <= low && low <= high && high <= most) {
        problems.push((
            key.to_owned(),
            format!("is [{low}, {high}], must be [low, high] with {least} <= low <= high <= {most}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_short_table_takes_the_documented_defaults_and_round_trips() {
        let views: ViewsConfig = toml::from_str("crop_px = [192, 256]\n[strong]\n").unwrap();
        assert_eq!(views.scale, [0.5, 2.0]);
        assert_eq!(views.strong, Some(StrongConfig::default()));
        assert_eq!(toml::from_str::<ViewsConfig>(&toml::to_string(&views).unwrap()).unwrap(), views);
        let data: DataConfig = toml::from_str("card = \"a\"\nlabelled = \"train\"\nval = \"val\"").unwrap();
        assert_eq!((data.workers, data.queue, data.cache_mb, data.on_bad_sample), (2, 4, 512, OnBadSample::Fail));
        assert!(toml::from_str::<ViewsConfig>("crop_px = [1, 1]\nflop = 1").is_err());
    }

    #[test]
    fn every_value_out_of_range_is_named() {
        let mut views = ViewsConfig::of_size([0, 4]);
        views.scale = [2.0, 0.5];
        views.flip = f64::NAN;
        views.mosaic = Some(0.5);
        views.keep_box = Some(1.5);
        views.photometric =
            Some(Photometric { jitter: Jitter { hue: 0.6, ..Jitter::default() }, jitter_probability: 1.1 });
        views.strong = Some(StrongConfig { shift: Some(-0.1), cutmix_area: [0.5, 1.5], ..StrongConfig::default() });
        let mut problems = Vec::new();
        views.check(&mut problems);
        let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "crop_px",
                "scale",
                "flip",
                "keep_box",
                "mosaic",
                "photometric.jitter.hue",
                "photometric.jitter_probability",
                "strong.shift",
                "strong.cutmix_area"
            ]
        );
        let mut data: DataConfig = toml::from_str("card = \"\"\nlabelled = \"train\"\nval = \"val\"").unwrap();
        data.workers = 0;
        let mut problems = Vec::new();
        data.check(&mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
