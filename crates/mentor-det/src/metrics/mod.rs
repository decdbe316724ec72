//! How well boxes agree with the truth: average precision as COCO and as Pascal VOC define it, and which mistakes were made.
//!
//! [`CocoScores`], [`VocScores`] and [`Mistakes`] are pushed one image after another: its truth, and what was found in it.
//! Numbers are whole or f64, and are added in one order, so threads do not change a bit of them.

mod coco;
mod input;
mod matching;
mod mistakes;
mod voc;

use mentor_types::{ClassScore, ScoreNames, ScoreRecord, ScoreRow, Scores};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use coco::{CocoScores, RECALLS};
pub use input::{Extent, FoundBox, ImageTruth, TruthBox};
pub use mistakes::Mistakes;
pub use voc::{VocMetrics, VocScores};

/// What is reported about detection, every share in `[0, 1]`; `None` where there is no box to find, so that nothing
/// could be computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DetMetrics {
    /// Average precision: over recalls, then over ten thresholds of overlap and over the classes that have boxes.
    pub ap: Option<f64>,
    /// At a threshold of 0.5.
    pub ap50: Option<f64>,
    /// At a threshold of 0.75.
    pub ap75: Option<f64>,
    /// Of objects of at most 32x32 pixels.
    pub ap_small: Option<f64>,
    /// Of objects of 32x32 to 96x96 pixels.
    pub ap_medium: Option<f64>,
    /// Of objects of at least 96x96 pixels.
    pub ap_large: Option<f64>,
    /// Share of objects that are found, averaged as `ap` is, if one box of each class counts in an image.
    pub ar1: Option<f64>,
    /// If ten count.
    pub ar10: Option<f64>,
    /// If a hundred count, but no more than `limit`.
    pub ar100: Option<f64>,
    /// Of objects of at most 32x32 pixels, as for the next two with all boxes up to `limit`.
    pub ar_small: Option<f64>,
    /// Of objects of 32x32 to 96x96 pixels.
    pub ar_medium: Option<f64>,
    /// Of objects of at least 96x96 pixels.
    pub ar_large: Option<f64>,
    /// The average precision of each class; `None` where no box has it: it is left out of every mean.
    pub per_class: Vec<Option<f64>>,
    /// Boxes that were to be found.
    pub boxes: u64,
    /// How many boxes of one class in one image count, the surest of them.
    pub limit: usize,
    /// How often more were found, so that the rest did not count.
    pub over_limit: u64,
}

impl Scores for DetMetrics {
    const NAMES: ScoreNames = ScoreNames {
        main: ["AP", "AP"],
        rows: &[
            row("AP", "AP", "average precision, over thresholds of overlap from 0.50 to 0.95"),
            row("AP50", "AP50", "average precision where an overlap of 0.5 is enough"),
            row("AP75", "AP75", "average precision where an overlap of 0.75 is needed"),
            row("APs", "AP small", "AP of objects of at most 32x32 pixels"),
            row("APm", "AP medium", "AP of objects of 32x32 to 96x96 pixels"),
            row("APl", "AP large", "AP of objects of at least 96x96 pixels"),
            row("AR1", "AR 1", "share of objects found with one box of each class in an image"),
            row("AR10", "AR 10", "share of objects found with ten boxes"),
            row("AR100", "AR 100", "share of objects found with a hundred boxes"),
            row("ARs", "AR small", "share of objects of at most 32x32 pixels that are found"),
            row("ARm", "AR medium", "share of objects of 32x32 to 96x96 pixels that are found"),
            row("ARl", "AR large", "share of objects of at least 96x96 pixels that are found"),
        ],
        by_class: ClassScore { key: "per_class", column: "ap", name: "AP" },
        counted: "boxes",
        reading: "A box is right if it overlaps an object of its class enough, and no surer box took that object. Precision \
                  is the share of boxes that are right, recall the share of objects that are found; AP is the precision, \
                  averaged over recalls as one takes less and less sure boxes. A dash means that there was no such \
                  object.",
    };

    /// Not a number where nothing was to be found.
    fn main(&self) -> f64 {
        self.ap.unwrap_or(f64::NAN)
    }

    fn record(&self, classes: &[String]) -> ScoreRecord {
        let of_class = classes.iter().cloned().zip(self.per_class.iter().map(|ap| json!(ap)));
        let per_class = Value::Object(of_class.collect::<Map<_, _>>());
        ScoreRecord::from_iter([
            ("AP", json!(self.ap)),
            ("AP50", json!(self.ap50)),
            ("AP75", json!(self.ap75)),
            ("APs", json!(self.ap_small)),
            ("APm", json!(self.ap_medium)),
            ("APl", json!(self.ap_large)),
            ("AR1", json!(self.ar1)),
            ("AR10", json!(self.ar10)),
            ("AR100", json!(self.ar100)),
            ("ARs", json!(self.ar_small)),
            ("ARm", json!(self.ar_medium)),
            ("ARl", json!(self.ar_large)),
            ("per_class", per_class),
            ("boxes", json!(self.boxes)),
            ("max_detections", json!(self.limit)),
            ("over_max_detections", json!(self.over_limit)),
        ])
    }
}

const fn row(key: &'static str, name: &'static str, meaning: &'static str) -> ScoreRow {
    ScoreRow { key, name, meaning }
}

#[cfg(test)]
mod tests;
