//! Folders as people have them, made on the spot.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use image::RgbImage;
use mentor_types::{BoxLabels, TaskName};

use crate::card::Card;
use crate::config::OnBadSample;
use crate::dataset::{Dataset, SplitStats};
use crate::labels::BoxCounts;
use crate::starter::{Starter, starter_card};

/// Writes a file, with the folders above it.
fn put(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// An image of 64x48 pixels.
fn photo(folder: &Path, path: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::new(64, 48).save(path).unwrap();
}

fn starter(folder: &Path) -> Starter {
    let starter = starter_card(folder, None).unwrap();
    assert_eq!(starter, starter_card(folder, Some(TaskName::Det)).unwrap());
    assert_eq!(starter.task, TaskName::Det);
    starter
}

/// What a split of the card holds, once its files are written; a recipe's word on bad samples counts.
fn stats(folder: &Path, starter: &Starter, split: &str) -> SplitStats<BoxCounts> {
    fs::write(folder.join("dataset.toml"), &starter.card).unwrap();
    starter.lists.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    let skips = starter.recipe_tables.contains("on_bad_sample = \"skip\"");
    let on_bad = if skips { OnBadSample::Skip } else { OnBadSample::Fail };
    let dataset = Dataset::<BoxLabels>::new(Card::read(&folder.join("dataset.toml")).unwrap(), &[]).unwrap();
    let dataset = dataset.on_bad_sample(on_bad);
    dataset.verify_split(&dataset.split(split).unwrap(), on_bad, None).unwrap()
}

fn class_names(starter: &Starter) -> Vec<String> {
    let card: toml::Table = starter.card.parse().unwrap();
    card["classes"].as_array().unwrap().iter().map(|class| class["name"].as_str().unwrap().to_owned()).collect()
}

fn says(starter: &Starter, expected: &str) {
    assert!(starter.said.iter().any(|line| line.contains(expected)), "{expected} is not in {:#?}", starter.said);
}

#[test]
fn yolo_as_exported_by_tools_keeps_its_splits_and_the_names_of_data_yaml() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (part, count) in [("train", 4), ("valid", 2)] {
        for at in 0..count {
            photo(folder, &format!("{part}/images/{at}_jpg.rf.7.{}", if at == 1 { "png" } else { "jpg" }));
            put(folder, &format!("{part}/labels/{at}_jpg.rf.7.txt"), "1 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.25 0.5\n");
        }
    }
    put(folder, "train/labels/0_jpg.rf.7.txt", "");
    fs::remove_file(folder.join("train/labels/1_jpg.rf.7.txt")).unwrap();
    put(folder, "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['7', \"gull\"]\n");
    put(folder, "README.txt", "Exported by a tool.\n");
    put(folder, "__MACOSX/train/images/._0.jpg", "no image");
    let starter = starter(folder);
    assert_eq!((starter.labelled, starter.unlabelled, starter.classes), ([3, 2], 1, 2));
    assert_eq!(class_names(&starter), ["class_0", "gull"]);
    for line in
        ["YOLO's text for 5 images", "1 images without a box", "class 0 is called `class_0`", "class_0 4, gull 4"]
    {
        says(&starter, line);
    }
    let train = stats(folder, &starter, "train");
    assert_eq!((train.images, train.counts.classes, train.counts.empty), (3, vec![2, 2], 1));
    assert_eq!(stats(folder, &starter, "val").counts.classes, [2, 2]);
}

#[test]
fn yolo_in_one_folder_is_divided_and_lists_of_its_own_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for at in 0..7 {
        photo(folder, &format!("images/{at}.jpg"));
        put(folder, &format!("labels/{at}.txt"), if at < 2 { "" } else { "0 0.5 0.5 0.5 0.5\n2 0.1 0.1 0.1 0.1" });
    }
    put(folder, "labels/6.txt", "0 20 20 4 4\n0 0.5 0.5 0.5 0.5\n");
    put(folder, "train.txt", "images/0.jpg\n");
    let starter = starter(folder);
    assert_eq!((starter.labelled, starter.classes), ([5, 2], 3));
    assert_eq!(class_names(&starter), ["class_0", "class_1", "class_2"]);
    assert_eq!(starter.lists[0].0, "mentor_train.txt");
    says(&starter, "neither data.yaml nor classes.txt");
    says(&starter, "1 boxes are none");
    says(&starter, "labels/6.txt:1: `20` is no fraction");
    // Each kind of image is divided by itself, so that val has boxes.
    let val = stats(folder, &starter, "val");
    assert_eq!((val.labelled_images, val.counts.empty), (1, 1));
    assert_eq!(fs::read_to_string(folder.join("train.txt")).unwrap(), "images/0.jpg\n");
}

fn voc(class: &str, size: &str, edges: [i32; 4]) -> String {
    let [x0, y0, x1, y1] = edges;
    format!(
        "<annotation><source><database>The VOC2007 Database</database></source>{size}<object><name>{class}</name><bndbox>\
         <xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"
    )
}

#[test]
fn pascal_voc_keeps_its_lists_and_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for at in 0..6 {
        photo(folder, &format!("JPEGImages/{at}.jpg"));
        let (class, edges) = (if at == 5 { "Cat" } else { "cat" }, [1, 1, if at == 4 { 0 } else { 64 }, 48]);
        put(folder, &format!("Annotations/{at}.xml"), &voc(class, "", edges));
    }
    let size = "<size><width>640</width><height>480</height></size>";
    put(folder, "Annotations/3.xml", &voc("cat", size, [1, 1, 9, 9]));
    put(folder, "ImageSets/Main/train.txt", "0\n3\n4\n5\n");
    put(folder, "ImageSets/Main/val.txt", "1\n");
    put(folder, "ImageSets/Main/cat_train.txt", "1 1\n");
    let starter = starter(folder);
    assert_eq!((starter.labelled, class_names(&starter)), ([3, 1], vec!["Cat".to_owned(), "cat".to_owned()]));
    says(&starter, "`Cat` and `cat` differ by capitals alone");
    says(&starter, "Annotations/3.xml: is about an image of another size");
    says(&starter, "1 boxes are none");
    says(&starter, "rest 1 images");
    assert!(starter.card.contains("first_pixel = 1"));
    let train = stats(folder, &starter, "train");
    assert_eq!((train.images, train.counts.classes, train.counts.empty), (3, vec![1, 1], 1));
    assert_eq!(stats(folder, &starter, "val").counts.classes, [0, 1]);
}

fn coco(images: &[&str], boxes: &str) -> String {
    let images = images
        .iter()
        .enumerate()
        .map(|(id, name)| format!("{{\"id\": {id}, \"file_name\": \"{name}\", \"width\": 64, \"height\": 48}}"));
    format!(
        "{{\"images\": [{}], \"categories\": [{{\"id\": 7, \"name\": \"hen\"}}, {{\"id\": 3, \"name\": \"birds\"}}], \
         \"annotations\": [{boxes}]}}",
        images.collect::<Vec<_>>().join(", ")
    )
}

fn annotation(id: usize, image: usize, bbox: [i32; 4]) -> String {
    format!("{{\"id\": {id}, \"image_id\": {image}, \"category_id\": 7, \"bbox\": {bbox:?}}}")
}

#[test]
fn coco_files_of_a_split_each_become_splits_and_the_rest_is_unlabelled() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for path in ["train/0.jpg", "train/1.jpg", "valid/0.jpg", "train/more.jpg"] {
        photo(folder, path);
    }
    let train = [annotation(1, 0, [1, 1, 9, 9]), annotation(2, 0, [1, 1, 0, 9])].join(", ");
    put(folder, "train/_annotations.coco.json", &coco(&["0.jpg", "1.jpg", "gone.jpg"], &train));
    put(folder, "valid/_annotations.coco.json", &coco(&["0.jpg"], &annotation(1, 0, [1, 1, 9, 9])));
    put(folder, "results.json", "[]");
    let starter = starter(folder);
    assert_eq!((starter.labelled, starter.unlabelled), ([2, 1], 1));
    for line in
        ["without any box: `birds`", "1 images that train/_annotations.coco.json names", "results.json: holds a list"]
    {
        says(&starter, line);
    }
    says(&starter, "1 boxes are none");
    let train = stats(folder, &starter, "train");
    assert_eq!((train.images, train.counts.classes, train.counts.empty), (2, vec![1, 0], 1));
    assert_eq!(stats(folder, &starter, "val").counts.classes, [1, 0]);
}

#[test]
fn of_masks_and_boxes_the_task_decides_and_what_is_missing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for at in 0..3 {
        photo(folder, &format!("images/{at}.jpg"));
    }
    let error = |task| starter_card(folder, task).unwrap_err().to_string();
    assert!(error(Some(TaskName::Det)).contains("holds no image with boxes"), "{}", error(Some(TaskName::Det)));
    put(folder, "all.json", &coco(&["x.jpg"], ""));
    assert!(error(None).contains("all.json: none of the images that it names is here"), "{}", error(None));
    let boxes: Vec<String> = (0..3).map(|image| annotation(image, image, [1, 1, 9, 9])).collect();
    put(folder, "all.json", &coco(&["0.jpg", "1.jpg", "2.jpg"], &boxes.join(", ")));
    assert_eq!(starter(folder).labelled, [2, 1]);
    fs::create_dir(folder.join("masks")).unwrap();
    for at in 0..3 {
        let mask = image::GrayImage::from_fn(64, 48, |x, _| image::Luma([u8::from(x < 9)]));
        mask.save(folder.join(format!("masks/{at}.png"))).unwrap();
    }
    assert!(error(None).contains("holds masks and boxes (COCO JSON): say which with --task"), "{}", error(None));
    assert_eq!(starter_card(folder, Some(TaskName::Seg)).unwrap().task, TaskName::Seg);
    assert_eq!(starter_card(folder, Some(TaskName::Det)).unwrap().unlabelled, 0);
}
