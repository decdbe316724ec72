//! The texts of a set: lists, boxes and the card, all that is not a picture.

use std::fmt::Write as _;
use std::ops::Range;

use mentor_types::Key;
use serde_json::{Value, json};

use crate::classes::{CLASSES, COLOURS, THINGS};
use crate::labels::Object;
use crate::partial::{SOME, all_classes};
use crate::scene::VERSION;
use crate::spec::SetSpec;

/// The nested parts of the labelled scenes that have lists of their own, one in so many.
pub(crate) const FRACTIONS: [u64; 6] = [2, 4, 8, 16, 32, 64];

/// The name of the card inside a set.
pub(crate) const CARD: &str = "dataset.toml";

pub(crate) fn image_name(index: u64) -> String {
    format!("images/{index:06}.jpg")
}

/// The name of a mask in one of the folders of masks.
pub(crate) fn mask_name(folder: &str, index: u64) -> String {
    format!("{folder}/{index:06}.png")
}

/// Every list by the name of its split, with its text and the number of its scenes.
pub(crate) fn lists(spec: &SetSpec) -> Vec<(String, String, u64)> {
    let splits = spec.splits();
    let train = &splits[0].1;
    let mut lists = Vec::new();
    let mut list = |name: String, scenes: &mut dyn Iterator<Item = u64>, line: &dyn Fn(u64) -> String| {
        let lines: Vec<String> = scenes.map(|index| format!("{} {}\n", image_name(index), line(index))).collect();
        lists.push((name, lines.concat(), lines.len() as u64));
    };
    let whole = |index| mask_name("masks", index);
    for (name, scenes) in &splits {
        list((*name).to_owned(), &mut scenes.clone(), &whole);
    }
    for fraction in FRACTIONS {
        list(format!("train_1_{fraction}"), &mut train.clone().step_by(fraction as usize), &whole);
    }
    list("train_some_classes".to_owned(), &mut train.clone(), &|index| {
        let classes = if all_classes(index) { String::new() } else { format!(" {}", names(SOME[index as usize % 3])) };
        whole(index) + &classes
    });
    for (split, folder) in [("train_rest_as_ground", "masks_rest_as_ground"), ("train_scribbles", "scribbles")] {
        list(split.to_owned(), &mut train.clone(), &|index| mask_name(folder, index));
    }
    lists
}

fn names(classes: &[u8]) -> String {
    classes.iter().map(|class| CLASSES[usize::from(*class)]).collect::<Vec<_>>().join(",")
}

/// The boxes of a split in the format of COCO, with how far things are occluded or cut off as further keys. With
/// `half`, every second box is left out, and images say of which classes there may be more (as LVIS does).
pub(crate) fn coco(spec: &SetSpec, scenes: Range<u64>, objects: &[Vec<Object>], half: bool) -> Value {
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for index in scenes {
        let mut chance = crate::chance::Chance::new(Key::new(spec.seed).at("half of the boxes", index));
        let mut not_exhaustive: Vec<u8> = Vec::new();
        for object in &objects[index as usize] {
            if half && chance.happens(0.5) {
                not_exhaustive.push(object.class);
                continue;
            }
            let [left, top, right, bottom] = object.extent;
            annotations.push(json!({
                "id": annotations.len() + 1,
                "image_id": index,
                "category_id": object.class,
                "bbox": [left, top, right - left, bottom - top],
                "area": object.area,
                "iscrowd": 0,
                "occluded": (100.0 * object.occluded).round() / 100.0,
                "truncated": object.truncated,
            }));
        }
        let mut image = json!({ "id": index, "file_name": image_name(index), "width": spec.size, "height": spec.size });
        if half {
            let is_there = |class: &u8| objects[index as usize].iter().any(|object| object.class == *class);
            not_exhaustive.sort_unstable();
            not_exhaustive.dedup();
            image["not_exhaustive_category_ids"] = json!(not_exhaustive);
            image["neg_category_ids"] = json!(THINGS.into_iter().filter(|class| !is_there(class)).collect::<Vec<_>>());
        }
        images.push(image);
    }
    let category = |class: u8| json!({ "id": class, "name": CLASSES[usize::from(class)] });
    json!({ "images": images, "annotations": annotations, "categories": THINGS.map(category) })
}

/// The card of a set.
pub(crate) fn card(name: &str, spec: &SetSpec) -> String {
    let season = spec.season.as_str();
    let SetSpec { seed, count, size, .. } = spec;
    let mut text = format!(
        "# Drawn by mentor-scenes: world {VERSION}, seed {seed}, {count} scenes of {size} x {size} pixels, {season}.\n\
         name = \"{name}\"\n\
         title = \"Small towns from above, drawn, 7 classes, {size} x {size}, {season}\"\n\
         licence = \"CC0 1.0\"\n\
         source = \"mentor scenes --seed {seed} --count {count} --size {size} --season {season} (world {VERSION})\"\n\
         get = \"mentor scenes --out DIR\"\n\n\
         [masks]\nformat = \"index\"\nunknown = [254]\n\n[splits]\n"
    );
    for (split, _, count) in lists(spec) {
        let _ = writeln!(text, "{split} = {{ list = \"{split}.txt\", count = {count} }}");
    }
    for (class, [red, green, blue]) in CLASSES.iter().zip(COLOURS) {
        let _ = write!(text, "\n[[classes]]\nname = \"{class}\"\ncolor = [{red}, {green}, {blue}]\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use mentor_types::Season;

    use super::*;

    #[test]
    fn the_cards_of_drawn_sets_have_the_splits_and_classes_of_what_is_drawn() {
        for (season, kept) in [
            (Season::Summer, include_str!("../../../datasets/scenes/dataset.toml")),
            (Season::Winter, include_str!("../../../datasets/scenes_winter/dataset.toml")),
        ] {
            let spec = SetSpec { seed: 0, count: SetSpec::COUNT, size: SetSpec::SIZE, season };
            let drawn = card("scenes", &spec);
            let from = |text: &str| {
                let lines = text.lines().skip_while(|line| *line != "[masks]").filter(|line| !line.starts_with('#'));
                lines.collect::<Vec<_>>().join("\n")
            };
            assert_eq!(from(kept), from(&drawn));
            let source = |text: &str| text.lines().find(|line| line.starts_with("source")).map(str::to_owned);
            assert_eq!(source(kept), source(&drawn));
            for line in [format!("count = {}", spec.count), format!("size_px = {}", spec.size)] {
                assert!(kept.lines().any(|other| *other == line), "{line}");
            }
        }
    }
}
