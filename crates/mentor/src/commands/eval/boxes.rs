//! `mentor eval --detections`: what any detector found, in the JSON of COCO, against a truth in the JSON of COCO.

use std::path::Path;

use anyhow::Result;
use mentor_data::{BoxMistake, BoxMistakeKind, CocoFound, CocoImage, CocoResults, CocoTruth};
use mentor_det::metrics::{CocoScores, DetMetrics, FoundBox, ImageTruth, TruthBox};
use mentor_types::BoxKind;

use crate::print::note;

/// How found boxes are scored.
pub struct Scoring<'a> {
    /// The annotations.
    pub truth: &'a Path,
    /// The results.
    pub found: &'a Path,
    /// How many boxes of a class in an image count.
    pub limit: usize,
    /// Whether boxes that are wrong are left out.
    pub skips_bad: bool,
}

impl Scoring<'_> {
    /// The scores, and the names of the classes in the order of the truth. What a reader of the scores must know is noted.
    pub fn scores(&self) -> Result<(DetMetrics, Vec<String>)> {
        let truth = CocoTruth::read(self.truth)?;
        self.check(&truth.mistakes, self.truth)?;
        let results = CocoResults::read(self.found, &truth)?;
        self.check(&results.mistakes, self.found)?;
        let classes = truth.class_names();
        let mut images: Vec<(&CocoImage, &Vec<CocoFound>)> = truth.images.iter().zip(&results.images).collect();
        // pycocotools takes images in the order of their ids, which decides between equal scores.
        images.sort_by_key(|(image, _)| &image.id);
        let compared: Vec<(ImageTruth, Vec<FoundBox>)> = images
            .into_iter()
            .map(|(image, found)| (truth_of(image, classes.len()), found.iter().map(found_box).collect()))
            .collect();
        let mut counted = CocoScores::new(classes.len(), self.limit);
        counted.push_all(&compared);
        let scores = counted.scores();
        note_left_out(&scores, &results, &classes);
        Ok((scores, classes))
    }

    /// Refuses what is wrong in a file, or notes what is done about it.
    fn check(&self, mistakes: &[BoxMistake], path: &Path) -> Result<()> {
        if !self.skips_bad {
            BoxMistake::refuse(mistakes, path)?;
        }
        let path = path.display();
        let (dropped, kept): (Vec<_>, Vec<_>) = mistakes.iter().partition(|mistake| mistake.is_dropped());
        for mistake in &dropped {
            note!("{path}: left out: {}", mistake.message);
        }
        if let Some(first) = kept.iter().find(|mistake| mistake.kind == BoxMistakeKind::Leaves) {
            note!("{path}: {} beyond the edge of an image, counted as written: {}", boxes(kept.len()), first.message);
        }
        if !dropped.is_empty() {
            note!("{path}: {} left out", boxes(dropped.len()));
        }
        Ok(())
    }
}

fn boxes(count: usize) -> String {
    if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") }
}

/// Says what no score holds: classes that are in no mean, and boxes beyond the limit.
fn note_left_out(scores: &DetMetrics, results: &CocoResults, classes: &[String]) {
    let mut found = vec![0_usize; classes.len()];
    results.images.iter().flatten().for_each(|of_class| found[of_class.class] += 1);
    for ((class, found), ap) in classes.iter().zip(found).zip(&scores.per_class) {
        if ap.is_none() && found > 0 {
            note!("`{class}` is left out: {} found, but the truth has no object of it", boxes(found));
        }
    }
    if scores.over_limit > 0 {
        let (times, limit) = (scores.over_limit, scores.limit);
        note!(
            "more than {limit} boxes of one class were found in one image, {times} time(s): the surest {limit} count (--max-detections)"
        );
    }
}

fn truth_of(image: &CocoImage, classes: usize) -> ImageTruth {
    let boxes = image.boxes.iter().map(|label| TruthBox {
        extent: label.extent,
        class: Some(label.class),
        kind: if label.is_crowd { BoxKind::Crowd } else { BoxKind::Object },
        area: label.area,
    });
    ImageTruth { boxes: boxes.collect(), looked_for: image.looked_for(classes) }
}

fn found_box(found: &CocoFound) -> FoundBox {
    FoundBox { extent: found.extent, class: found.class, score: found.score }
}
