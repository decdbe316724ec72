//! Which files a set has, and the texts among them: lists, boxes and the card, all that is not a picture.

use std::fmt::Write as _;

use mentor_types::Key;
use serde_json::{Value, json};

use crate::classes::{CLASSES, COLOURS, THINGS};
use crate::labels::Object;
use crate::partial::{SOME, all_classes, is_labelled};
use crate::scene::VERSION;
use crate::spec::{Part, SetSpec};

/// The nested parts of the labelled scenes that have lists of their own, one in so many.
pub(crate) const FRACTIONS: [u64; 6] = [2, 4, 8, 16, 32, 64];

/// The name of the card inside a set.
pub(crate) const CARD: &str = "dataset.toml";

/// The folder of images in a part.
pub(crate) const IMAGES: &str = "images";
/// The folders of masks in a part: exact ones everywhere, of the scenes to train on also those of people with little time.
pub(crate) const MASKS: &str = "masks";
pub(crate) const REST_AS_GROUND: &str = "masks_rest_as_ground";
pub(crate) const SCRIBBLES: &str = "scribbles";
/// The files of boxes in a part: all, and of the scenes to train on also some of them.
pub(crate) const BOXES: &str = "instances.json";
pub(crate) const HALF_OF_BOXES: &str = "instances_half.json";
pub(crate) const BOXES_OF_SOME: &str = "instances_rest_as_ground.json";

/// Which boxes a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of them.
    All,
    /// Every second one; images say of which classes there may be more, as LVIS does.
    Half,
    /// Those of the classes that were labelled in the scene; of the others the file says nothing.
    OfSomeClasses,
}

/// The path of an image in its part.
pub(crate) fn image_name(index: u64) -> String {
    format!("{IMAGES}/{index:06}.jpg")
}

/// The path of a mask in its part, in one of the folders of masks.
pub(crate) fn mask_name(folder: &str, index: u64) -> String {
    format!("{folder}/{index:06}.png")
}

/// The folders of masks in a part.
pub(crate) fn mask_folders(part: Part) -> &'static [&'static str] {
    if part == Part::Train { &[MASKS, REST_AS_GROUND, SCRIBBLES] } else { &[MASKS] }
}

/// The files of boxes in a part, each with what it holds.
pub(crate) fn box_files(part: Part) -> &'static [(&'static str, Kept)] {
    let of_train = &[(BOXES, Kept::All), (HALF_OF_BOXES, Kept::Half), (BOXES_OF_SOME, Kept::OfSomeClasses)];
    if part == Part::Train { of_train } else { &of_train[..1] }
}

/// The paths of all files of a part.
pub(crate) fn file_names(spec: &SetSpec, part: Part) -> Vec<String> {
    let mut names: Vec<String> = box_files(part).iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(lists(spec, part).into_iter().map(|list| list.file));
    for index in spec.scenes(part) {
        names.push(image_name(index));
        names.extend(mask_folders(part).iter().map(|folder| mask_name(folder, index)));
    }
    names
}

/// The list of a split.
pub(crate) struct List {
    /// The name of the split.
    pub(crate) split: String,
    /// Its path in its part.
    pub(crate) file: String,
    /// A line for each scene, with paths below the set.
    pub(crate) text: String,
    /// How many scenes.
    pub(crate) count: u64,
    /// The file of their boxes in the part, where all of them have some.
    pub(crate) boxes: Option<&'static str>,
}

/// The lists of a part.
pub(crate) fn lists(spec: &SetSpec, part: Part) -> Vec<List> {
    let (folder, scenes) = (part.as_str(), spec.scenes(part));
    let mut lists = Vec::new();
    let mut list = |split: String, one_in: u64, boxes: Option<&'static str>, label: &dyn Fn(u64) -> String| {
        let scenes = scenes.clone().step_by(one_in as usize);
        let line = |index| format!("{folder}/{} {folder}/{}\n", image_name(index), label(index));
        let lines: Vec<String> = scenes.map(line).collect();
        let file = format!("{split}.txt");
        lists.push(List { split, file, text: lines.concat(), count: lines.len() as u64, boxes });
    };
    let whole = |index| mask_name(MASKS, index);
    list(folder.to_owned(), 1, Some(BOXES), &whole);
    if part == Part::Train {
        for fraction in FRACTIONS {
            list(format!("train_1_{fraction}"), fraction, Some(BOXES), &whole);
        }
        list("train_some_classes".to_owned(), 1, Some(BOXES), &|index| {
            let some = names(SOME[index as usize % 3]);
            whole(index) + &if all_classes(index) { String::new() } else { format!(" {some}") }
        });
        list("train_rest_as_ground".to_owned(), 1, Some(BOXES_OF_SOME), &|index| mask_name(REST_AS_GROUND, index));
        for (things, classes) in [("buildings_and_trees", SOME[1]), ("cars_and_boats", SOME[2])] {
            let some = names(&classes[1..]);
            list(format!("train_{things}"), 1, Some(BOXES), &|index| format!("{} {some}", whole(index)));
        }
        list("train_scribbles".to_owned(), 1, None, &|index| mask_name(SCRIBBLES, index));
    }
    lists
}

fn names(classes: &[u8]) -> String {
    classes.iter().map(|class| CLASSES[usize::from(*class)]).collect::<Vec<_>>().join(",")
}

/// The boxes of a part, given the objects of each scene, in the format of COCO, with how far things are occluded or cut
/// off as further keys.
pub(crate) fn coco(spec: &SetSpec, part: Part, objects: &[Vec<Object>], kept: Kept) -> Value {
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for (index, objects) in spec.scenes(part).zip(objects) {
        let mut chance = crate::chance::Chance::new(Key::new(spec.seed).at("half of the boxes", index));
        let mut not_exhaustive: Vec<u8> = Vec::new();
        for object in objects {
            if kept == Kept::Half && chance.happens(0.5) {
                not_exhaustive.push(object.class);
                continue;
            }
            if kept == Kept::OfSomeClasses && !is_labelled(object.class, index) {
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
        let file_name = format!("{}/{}", part.as_str(), image_name(index));
        let mut image = json!({ "id": index, "file_name": file_name, "width": spec.size, "height": spec.size });
        if kept == Kept::Half {
            let is_there = |class: &u8| objects.iter().any(|object| object.class == *class);
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
         [masks]\nformat = \"index\"\nunknown = [254]\n\n[boxes]\nformat = \"coco\"\nclasses = {:?}\n\n[splits]\n",
        THINGS.map(|class| CLASSES[usize::from(class)])
    );
    for part in Part::ALL {
        let folder = part.as_str();
        for List { split, file, count, boxes, .. } in lists(spec, part) {
            let boxes = boxes.map_or_else(String::new, |boxes| format!(" boxes = \"{folder}/{boxes}\","));
            let _ = writeln!(text, "{split} = {{ list = \"{folder}/{file}\",{boxes} count = {count} }}");
        }
        if part == Part::Train {
            let (file, count) = (format!("{folder}/{folder}.txt"), spec.scenes(part).count());
            let boxes = format!("{folder}/{HALF_OF_BOXES}");
            let _ =
                writeln!(text, "train_half_of_boxes = {{ list = \"{file}\", boxes = \"{boxes}\", count = {count} }}");
        }
    }
    let train = spec.scenes(Part::Train).end;
    for (fraction, rest) in FRACTIONS.map(|fraction| (fraction, train - train.div_ceil(fraction))) {
        if rest > 0 {
            let split = format!("train_1_{fraction}");
            let _ = writeln!(text, "{split}_rest = {{ all_of = \"train\", minus = \"{split}\", count = {rest} }}");
        }
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
