//! Sets of scenes as folders that any reader of data sets takes: pictures, masks, boxes, lists and a card.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{GrayImage, ImageError};
use rayon::prelude::*;
use serde_json::{Value, json};
use thiserror::Error;

use crate::classes::{CLASSES, COLOURS, THINGS};
use crate::labels::Object;
use crate::plan::Season;
use crate::scene::{Scene, VERSION, draw};

/// The nested parts of the labelled scenes that have lists of their own, one in so many.
const FRACTIONS: [u64; 6] = [2, 4, 8, 16, 32, 64];

/// Which scenes a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// Which world.
    pub seed: u64,
    /// How many scenes, all splits together: 1024 to train on, 2048 without use of their labels, 400 for val and test
    /// each, or as many of each as come to `count`.
    pub count: u64,
    /// Pixels along a side.
    pub size: usize,
    /// When they are seen.
    pub season: Season,
}

impl SetSpec {
    /// A whole set.
    pub const COUNT: u64 = 3872;

    /// The names of the splits, each with the scenes in it, one after the other.
    fn splits(&self) -> [(&'static str, Range<u64>); 4] {
        let of = |share: u64| (self.count * share / Self::COUNT).max(1);
        let (train, val) = (of(1024), of(400));
        let [val, test] = [self.count - 2 * val..self.count - val, self.count - val..self.count];
        [("train", 0..train), ("unlabelled", train..val.start), ("val", val), ("test", test)]
    }
}

/// Why a set was not written.
#[derive(Debug, Error)]
pub enum SetError {
    /// A count or size that makes no set.
    #[error("{0}")]
    Spec(String),
    /// What the system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A picture that could not be encoded.
    #[error("{}: {source}", path.display())]
    Image {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SetError {
    move |source| SetError::Io { path: path.to_owned(), source }
}

/// Writes a set into a folder that is not there yet, on all threads of the current pool; `done` is told after each scene.
/// The folder gets its name when all of it is written: a part of a set is never there.
///
/// # Errors
/// A folder that is there; fewer than four scenes; a size that is not in `[32, 2048]`; what the system refuses, after
/// what was written is removed.
pub fn write_set(folder: &Path, spec: &SetSpec, done: &(dyn Fn() + Sync)) -> Result<(), SetError> {
    if spec.count < 4 {
        return Err(SetError::Spec(format!("a set has at least 4 scenes, one for each split, found {}", spec.count)));
    }
    if !(32..=2048).contains(&spec.size) {
        return Err(SetError::Spec(format!("a scene has 32 to 2048 pixels along a side, found {}", spec.size)));
    }
    if folder.exists() {
        return Err(SetError::Spec(format!("{} is already there", folder.display())));
    }
    // The name of a card becomes a part of paths.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let aside = folder.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written = write_parts(&aside, &name, spec, done).and_then(|()| fs::rename(&aside, folder).map_err(at(folder)));
    if written.is_err() {
        // What was written is worthless; that it cannot be removed adds nothing to the first error.
        let _ = fs::remove_dir_all(&aside);
    }
    written
}

fn write_parts(folder: &Path, name: &str, spec: &SetSpec, done: &(dyn Fn() + Sync)) -> Result<(), SetError> {
    for part in ["images", "masks"] {
        let path = folder.join(part);
        fs::create_dir_all(&path).map_err(at(&path))?;
    }
    let scene = |index: u64| -> Result<Vec<Object>, SetError> {
        let scene = draw(spec.seed, index, spec.size, spec.season);
        write_scene(folder, index, &scene)?;
        done();
        Ok(scene.objects)
    };
    let objects = (0..spec.count).into_par_iter().map(scene).collect::<Result<Vec<_>, _>>()?;
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        fs::write(&path, text).map_err(at(&path))
    };
    let splits = spec.splits();
    for (split, scenes) in &splits {
        write(&format!("{split}.txt"), &list(scenes.clone()))?;
        write(&format!("instances_{split}.json"), &coco(spec, scenes.clone(), &objects).to_string())?;
    }
    for fraction in FRACTIONS {
        write(&format!("train_1_{fraction}.txt"), &list(splits[0].1.clone().step_by(fraction as usize)))?;
    }
    write("dataset.toml", &card(name, spec, &splits))
}

fn image_name(index: u64) -> String {
    format!("images/{index:06}.jpg")
}

fn write_scene(folder: &Path, index: u64, scene: &Scene) -> Result<(), SetError> {
    let (width, height) = (scene.image.width as u32, scene.image.height as u32);
    let path = folder.join(image_name(index));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| match source {
            ImageError::IoError(source) => SetError::Io { path, source },
            source => SetError::Image { path, source },
        }
    };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, scene.quality)
        .encode(&scene.image.rgb, width, height, image::ExtendedColorType::Rgb8)
        .map_err(failed(&path))?;
    fs::write(&path, jpeg).map_err(at(&path))?;
    let path = folder.join(format!("masks/{index:06}.png"));
    let mask = GrayImage::from_raw(width, height, scene.mask.labels().to_vec());
    mask.expect("a label for each pixel").save(&path).map_err(failed(&path))
}

/// Lines of a picture and its mask.
fn list(scenes: impl Iterator<Item = u64>) -> String {
    scenes.fold(String::new(), |mut text, index| {
        let _ = writeln!(text, "{} masks/{index:06}.png", image_name(index));
        text
    })
}

/// Boxes in the format of COCO, with how far things are occluded or cut off as further keys.
fn coco(spec: &SetSpec, scenes: Range<u64>, objects: &[Vec<Object>]) -> Value {
    let image =
        |index: u64| json!({ "id": index, "file_name": image_name(index), "width": spec.size, "height": spec.size });
    let mut annotations = Vec::new();
    for index in scenes.clone() {
        for object in &objects[index as usize] {
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
    }
    let category = |class: u8| json!({ "id": class, "name": CLASSES[usize::from(class)] });
    json!({
        "images": scenes.map(image).collect::<Vec<_>>(),
        "annotations": annotations,
        "categories": THINGS.map(category),
    })
}

fn card(name: &str, spec: &SetSpec, splits: &[(&str, Range<u64>)]) -> String {
    let season = if spec.season == Season::Winter { "winter" } else { "summer" };
    let SetSpec { seed, count, size, .. } = spec;
    let mut text = format!(
        "# Drawn by mentor-scenes: world {VERSION}, seed {seed}, {count} scenes of {size} x {size} pixels, {season}.\n\
         name = \"{name}\"\n\
         title = \"Small towns from above, drawn, 7 classes, {size} x {size}, {season}\"\n\
         licence = \"CC0 1.0\"\n\
         source = \"mentor scenes --seed {seed} --count {count} --size {size} --season {season} (world {VERSION})\"\n\
         get = \"mentor scenes --out DIR\"\n\n\
         [masks]\nformat = \"index\"\n\n[splits]\n"
    );
    let mut split = |name: &str, scenes: u64| {
        let _ = writeln!(text, "{name} = {{ list = \"{name}.txt\", count = {scenes} }}");
    };
    for (name, scenes) in splits {
        split(name, scenes.end - scenes.start);
    }
    let train = splits[0].1.end - splits[0].1.start;
    for fraction in FRACTIONS {
        split(&format!("train_1_{fraction}"), train.div_ceil(fraction));
    }
    for (class, [red, green, blue]) in CLASSES.iter().zip(COLOURS) {
        let _ = write!(text, "\n[[classes]]\nname = \"{class}\"\ncolor = [{red}, {green}, {blue}]\n");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SPEC: SetSpec = SetSpec { seed: 1, count: 12, size: 32, season: Season::Summer };

    #[test]
    fn splits_cover_all_scenes_once() {
        for count in [4, 5, 100, 1000, SetSpec::COUNT] {
            let splits = SetSpec { count, ..SPEC }.splits();
            let mut next = 0;
            for (name, scenes) in &splits {
                assert!(scenes.start == next && scenes.end > next, "{name} of {count}: {scenes:?}");
                next = scenes.end;
            }
            assert_eq!(next, count);
        }
        let whole = SetSpec { count: SetSpec::COUNT, ..SPEC }.splits();
        assert_eq!(
            whole.iter().map(|(_, scenes)| scenes.end - scenes.start).collect::<Vec<_>>(),
            [1024, 2048, 400, 400]
        );
    }

    #[test]
    fn a_set_is_whole_or_not_there_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("my towns");
        let refused = |spec: &SetSpec, out: &Path| write_set(out, spec, &|| {}).unwrap_err().to_string();
        assert!(refused(&SetSpec { count: 0, ..SPEC }, &out).contains("at least 4 scenes"));
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
        let mask = image::open(out.join("masks/000003.png")).unwrap().into_luma8();
        assert_eq!(mask.as_raw(), &draw(1, 3, 32, Season::Summer).mask.labels());
        let boxes: Value = serde_json::from_str(&fs::read_to_string(out.join("instances_val.json")).unwrap()).unwrap();
        assert_eq!(boxes["images"].as_array().unwrap().len(), 1);
        assert_eq!(boxes["categories"][1], json!({ "id": 3, "name": "tree" }));
        // A folder that cannot be made leaves nothing behind.
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(&SPEC, &file.join("towns")).contains("file"));
    }
}
