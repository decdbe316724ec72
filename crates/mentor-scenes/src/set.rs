//! Sets of scenes as folders that any reader of data sets takes: pictures, masks, boxes, lists and a card.

use std::fs;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use crate::labels::Object;
use crate::layout::{
    CARD, IMAGES, REST_AS_GROUND, SCRIBBLES, box_files, card, coco, image_name, lists, mask_folders, mask_name,
};
use crate::partial::{rest_as_ground, scribbles};
use crate::scene::{Scene, draw};
use crate::spec::{Part, SetSpec};
use crate::writer::{SetError, Writer, at};

/// Writes a set into a folder that is not there yet, on all threads of the current pool; `done` is told after each scene.
/// The folder gets its name when all of it is written: a part of a set is never there.
///
/// # Errors
/// A folder that is there; a count or size that makes no set; what the system refuses, after what was written is removed.
pub fn write_set(folder: &Path, spec: &SetSpec, done: &(dyn Fn() + Sync)) -> Result<(), SetError> {
    spec.check()?;
    if folder.exists() {
        return Err(SetError::Spec(format!("{} is already there", folder.display())));
    }
    // The name of a card becomes a part of paths.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let aside = folder.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written = Part::ALL
        .into_iter()
        .try_for_each(|part| write_part(&aside.join(part.as_str()), spec, part, done))
        .and_then(|()| write_card(&aside, &name, spec))
        .and_then(|()| fs::rename(&aside, folder).map_err(at(folder)));
    if written.is_err() {
        remove(&aside);
    }
    written
}

/// Writes the card of a set.
pub(crate) fn write_card(folder: &Path, name: &str, spec: &SetSpec) -> Result<(), SetError> {
    let path = folder.join(CARD);
    fs::write(&path, card(name, spec)).map_err(at(&path))
}

/// Writes all files of a part into `folder`, and leaves nothing of it where that fails.
pub(crate) fn write_part(folder: &Path, spec: &SetSpec, part: Part, done: &(dyn Fn() + Sync)) -> Result<(), SetError> {
    let written = write_files(folder, spec, part, done);
    if written.is_err() {
        remove(folder);
    }
    written
}

/// Removes what is worthless; that it cannot be removed adds nothing to the first error.
fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

fn write_files(folder: &Path, spec: &SetSpec, part: Part, done: &(dyn Fn() + Sync)) -> Result<(), SetError> {
    for pictures in [IMAGES].iter().chain(mask_folders(part)) {
        let path = folder.join(pictures);
        fs::create_dir_all(&path).map_err(at(&path))?;
    }
    let writer = Writer::new(folder);
    let scene = |index: u64| -> Result<Vec<Object>, SetError> {
        let scene = draw(spec.seed, index, spec.size, spec.season);
        write_scene(&writer, index, &scene, part)?;
        done();
        Ok(scene.objects)
    };
    let objects = spec.scenes(part).into_par_iter().map(scene).collect::<Result<Vec<_>, _>>()?;
    for (file, kept) in box_files(part) {
        writer.put(file, coco(spec, part, &objects, *kept).to_string().as_bytes())?;
    }
    for list in lists(spec, part) {
        writer.put(&list.file, list.text.as_bytes())?;
    }
    writer.finish()
}

fn write_scene(writer: &Writer<'_>, index: u64, scene: &Scene, part: Part) -> Result<(), SetError> {
    let (width, height) = (scene.image.width as u32, scene.image.height as u32);
    writer.picture(&image_name(index), |bytes| {
        JpegEncoder::new_with_quality(bytes, scene.quality).encode(
            &scene.image.rgb,
            width,
            height,
            ExtendedColorType::Rgb8,
        )
    })?;
    for folder in mask_folders(part) {
        let mask = match *folder {
            REST_AS_GROUND => &rest_as_ground(&scene.mask, index),
            SCRIBBLES => &scribbles(&scene.mask),
            _ => &scene.mask,
        };
        writer.picture(&mask_name(folder, index), |bytes| {
            PngEncoder::new(bytes).write_image(mask.labels(), width, height, ExtendedColorType::L8)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mentor_types::Season;
    use serde_json::{Value, json};

    use super::*;

    const SPEC: SetSpec = SetSpec { seed: 1, count: 12, size: 32, season: Season::Summer };

    #[test]
    fn a_set_is_whole_or_not_there_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("my towns");
        let refused = |spec: &SetSpec, out: &Path| write_set(out, spec, &|| {}).unwrap_err().to_string();
        assert!(refused(&SetSpec { count: 0, ..SPEC }, &out).contains("at least 4 scenes"));
        assert!(refused(&SetSpec { size: 0, ..SPEC }, &out).contains("32 to 2048"));
        assert!(refused(&SetSpec { size: 1, ..SPEC }, &out).contains("32 to 2048"));
        assert!(refused(&SetSpec { size: 10_000, ..SPEC }, &out).contains("32 to 2048"));
        assert!(!out.exists());
        let counted = std::sync::atomic::AtomicU64::new(0);
        let count = || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        write_set(&out, &SPEC, &count).unwrap();
        assert_eq!(counted.into_inner(), 12);
        assert!(refused(&SPEC, &out).contains("is already there"));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["my towns"]);
        assert!(fs::read_to_string(out.join("dataset.toml")).unwrap().contains("name = \"my_towns\"\n"));
        let mask = image::open(out.join("unlabelled/masks/000003.png")).unwrap().into_luma8();
        assert_eq!(mask.as_raw(), &draw(1, 3, 32, Season::Summer).mask.labels());
        let boxes: Value = serde_json::from_str(&fs::read_to_string(out.join("val/instances.json")).unwrap()).unwrap();
        assert_eq!(boxes["images"].as_array().unwrap().len(), 1);
        assert_eq!(boxes["categories"][1], json!({ "id": 3, "name": "tree" }));
        // A folder that cannot be made leaves nothing behind.
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(&SPEC, &file.join("towns")).contains("file"));
    }

    #[test]
    fn boxes_of_some_classes_are_those_whose_masks_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("towns");
        write_set(&out, &SetSpec { count: 40, size: 64, ..SPEC }, &|| {}).unwrap();
        let read = |name: &str| -> Vec<Value> {
            let set: Value = serde_json::from_str(&fs::read_to_string(out.join(name)).unwrap()).unwrap();
            set["annotations"].as_array().unwrap().clone()
        };
        let (all, some) = (read("train/instances.json"), read("train/instances_rest_as_ground.json"));
        let key = |one: &Value| (one["image_id"].as_u64().unwrap(), one["category_id"].as_u64().unwrap());
        // Of scene 1 buildings and trees, of scene 2 cars and boats, of scene 3 nothing; of scene 8 everything.
        let keeps = |(scene, class): (u64, u64)| match scene {
            _ if scene % 8 == 0 => true,
            _ if scene % 3 == 1 => class == 2 || class == 3,
            _ if scene % 3 == 2 => class == 5 || class == 6,
            _ => false,
        };
        let expected: Vec<_> = all.iter().map(key).filter(|one| keeps(*one)).collect();
        assert!(expected.len() < all.len() && expected.len() > 5);
        assert_eq!(some.iter().map(key).collect::<Vec<_>>(), expected);
        for (split, classes) in [("buildings_and_trees", "building,tree"), ("cars_and_boats", "car,boat")] {
            let list = fs::read_to_string(out.join(format!("train/train_{split}.txt"))).unwrap();
            let first = list.lines().next().unwrap();
            assert_eq!(first, format!("train/images/000000.jpg train/masks/000000.png {classes}"));
            assert!(list.lines().all(|line| line.ends_with(classes)), "{list}");
        }
    }

    #[test]
    fn of_half_of_the_boxes_each_image_says_what_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("towns");
        write_set(&out, &SetSpec { count: 40, size: 64, ..SPEC }, &|| {}).unwrap();
        let read =
            |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(out.join(name)).unwrap()).unwrap() };
        let (all, half) = (read("train/instances.json"), read("train/instances_half.json"));
        let boxes = |set: &Value, image: u64, class: u64| {
            let annotations = set["annotations"].as_array().unwrap().iter();
            annotations.filter(|one| one["image_id"] == image && one["category_id"] == class).count()
        };
        let share =
            half["annotations"].as_array().unwrap().len() as f64 / all["annotations"].as_array().unwrap().len() as f64;
        assert!((0.4..0.6).contains(&share), "{share}");
        for image in half["images"].as_array().unwrap() {
            let id = image["id"].as_u64().unwrap();
            for class in 0..7 {
                let says = |key: &str| image[key].as_array().unwrap().contains(&json!(class));
                assert_eq!(says("not_exhaustive_category_ids"), boxes(&half, id, class) < boxes(&all, id, class));
                let is_thing = crate::THINGS.contains(&(class as u8));
                assert_eq!(says("neg_category_ids"), is_thing && boxes(&all, id, class) == 0);
            }
        }
    }
}
