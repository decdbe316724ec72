//! Boxes: objects with their class, and what nobody looked for.

mod file;
mod notes;
mod views;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mentor_types::{BoxKind, BoxLabels, CutBox, Geometry};

use self::file::{BoxFile, Described};
use self::notes::Notes;
use super::ReadLabels;
use crate::card::{BoxFormat, Card};
use crate::config::{PseudoLabels, ViewsConfig};
use crate::error::{BadSample, DataError};
use crate::files::{exists, is_image_name};
use crate::read::{BoxMistake, BoxMistakeKind, ImageBoxes, read_voc, read_yolo};
use crate::split::{Entry, LabelFiles, Split};

/// How many boxes there are of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoxCounts {
    /// Objects by class.
    pub classes: Vec<u64>,
    /// Objects that need not be found.
    pub difficult: u64,
    /// Crowds.
    pub crowds: u64,
    /// Images without any box that somebody looked at: all of them is background.
    pub empty: u64,
    /// Images in which some class, or all, was not looked for.
    pub partial: u64,
}

impl AddAssign for BoxCounts {
    fn add_assign(&mut self, other: Self) {
        self.classes.resize(self.classes.len().max(other.classes.len()), 0);
        self.classes.iter_mut().zip(other.classes).for_each(|(sum, boxes)| *sum += boxes);
        self.difficult += other.difficult;
        self.crowds += other.crowds;
        self.empty += other.empty;
        self.partial += other.partial;
    }
}

/// Reads files of boxes, each once.
#[derive(Clone)]
pub struct BoxReader {
    format: BoxFormat,
    /// The classes, in their order.
    classes: Vec<String>,
    first_pixel: u8,
    /// The file that all labels are in, found by a detector, whatever split and entry say.
    pseudo: Option<Arc<PseudoLabels>>,
    /// Whether boxes that are wrong are left out; else they are errors.
    skips_bad: bool,
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<BoxFile>>>>,
    notes: Arc<Notes>,
}

/// The fingerprint of data is made from it: what was read so far is no part of that.
impl fmt::Debug for BoxReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxReader")
            .field("format", &self.format)
            .field("classes", &self.classes)
            .field("first_pixel", &self.first_pixel)
            .finish()
    }
}

impl BoxReader {
    /// What the file at `path` says of the image at `image`, of a height and width; `None` where it does not name it.
    fn described(&self, path: &Path, image: &str, size: [usize; 2]) -> Result<Option<Described>, DataError> {
        let found = match self.format {
            BoxFormat::Coco => return Ok(self.file(path)?.image(image).cloned()),
            BoxFormat::Voc => read_voc(path, &self.classes, self.first_pixel, size)?,
            BoxFormat::Yolo => read_yolo(path, &self.classes, size)?,
        };
        let ImageBoxes { size: said, file_name, boxes, mut mistakes } = found;
        if let Some(other) = file_name.filter(|name| !names_image(name, image)) {
            let message = format!("<filename> says `{other}`, it is read for `{image}`");
            mistakes.push(BoxMistake { kind: BoxMistakeKind::FileName, line: None, message });
        }
        // Where the file is about an image of another size, its boxes are wrong for that reason.
        if said.is_none_or(|said| said == size) {
            self.settle(path, &mistakes)?;
        }
        Ok(Some(Described { size: said, labels: BoxLabels { boxes, looked_for: None } }))
    }

    /// Refuses what is wrong in a file, or leaves it out and notes it.
    fn settle(&self, path: &Path, mistakes: &[BoxMistake]) -> Result<(), DataError> {
        if !self.skips_bad {
            BoxMistake::refuse(mistakes, path)?;
        }
        self.notes.record(path, mistakes);
        Ok(())
    }

    /// The file of many images at a path, read where it was not before.
    fn file(&self, path: &Path) -> Result<Arc<BoxFile>, DataError> {
        // Held while the file is read, so that threads which want the same one wait for it.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            return Ok(file.clone());
        }
        let file = Arc::new(BoxFile::read_coco(path, &self.classes, self.pseudo.as_deref())?);
        self.settle(path, &file.mistakes)?;
        files.insert(path.to_owned(), file.clone());
        Ok(file)
    }
}

/// Whether a file's name is that of an image, whatever their folders and endings: tools write another, or none.
fn names_image(name: &str, image: &str) -> bool {
    let stem = |path: &str| {
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        if is_image_name(Path::new(&name)) { name[..name.rfind('.').unwrap_or(name.len())].to_owned() } else { name }
    };
    name.is_empty() || stem(name) == stem(image)
}

impl ReadLabels for BoxLabels {
    type Reader = BoxReader;
    type Counts = BoxCounts;

    const TABLE: &'static str = "boxes";
    const CUTMIX: f64 = 0.0;

    fn classes_of(mut card: Card) -> Card {
        if let Some(boxes) = card.boxes.as_ref().filter(|boxes| !boxes.classes.is_empty()) {
            let named = |name: &String| card.classes.iter().find(|class| class.name == *name).cloned();
            let classes = boxes.classes.iter().filter_map(named).collect();
            let others = card.classes.iter().filter(|class| !boxes.classes.contains(&class.name));
            // A card may come here twice; the second time it has no others.
            let others: Vec<String> = others.map(|class| class.name.clone()).collect();
            card.without_labels.extend(others);
            card.classes = classes;
        }
        card
    }

    fn are_in(card: &Card) -> bool {
        card.boxes.is_some()
    }

    fn stored_as(reader: &BoxReader, class: u8) -> String {
        reader.classes.get(usize::from(class)).map_or_else(String::new, |name| format!("the name `{name}`"))
    }

    fn files(card: &Card) -> LabelFiles<'_> {
        card.boxes.as_ref().map_or_else(LabelFiles::default, |boxes| LabelFiles {
            root: &boxes.root,
            path: boxes.path.as_deref(),
            // A label column is about masks.
            replace_column: true,
            one_a_split: boxes.format == BoxFormat::Coco,
        })
    }

    fn reader(card: &Card) -> Result<BoxReader, DataError> {
        let fail = |message: &str| DataError::Card { card: card.name.clone(), message: message.to_owned() };
        let boxes = card.boxes.as_ref().ok_or_else(|| fail("has no [boxes]"))?;
        let (format, first_pixel) = (boxes.format, boxes.first_pixel);
        Ok(BoxReader {
            format,
            classes: card.class_names(),
            first_pixel,
            pseudo: None,
            skips_bad: false,
            files: Arc::default(),
            notes: Arc::default(),
        })
    }

    fn skip_bad(reader: &mut BoxReader) {
        reader.skips_bad = true;
    }

    fn reader_of_pseudo(
        reader: &BoxReader,
        pseudo: &PseudoLabels,
        images: &[Entry],
    ) -> Result<Option<BoxReader>, DataError> {
        let (format, files) = (BoxFormat::Coco, Arc::default());
        let reader = BoxReader { format, pseudo: Some(Arc::new(pseudo.clone())), files, ..reader.clone() };
        let path = Path::new(&pseudo.file);
        let file = reader.file(path)?;
        let mut lacking = images.iter().filter(|entry| file.image(&entry.image).is_none());
        let Some(first) = lacking.next() else { return Ok(Some(reader)) };
        let others = lacking.count();
        let message = format!(
            "says nothing of `{}` and of {others} more of {} images: look for boxes in them, too",
            first.image,
            images.len()
        );
        Err(DataError::Boxes { path: path.to_owned(), message })
    }

    fn notes(reader: &BoxReader) -> Vec<String> {
        reader.notes.lines()
    }

    fn left_out(reader: &BoxReader) -> Vec<BadSample> {
        reader.notes.left_out()
    }

    fn check_views(views: &ViewsConfig, pairs: bool, problems: &mut Vec<(String, String)>) {
        if pairs && views.strong.as_ref().and_then(|strong| strong.cutmix).is_some_and(|cutmix| cutmix > 0.0) {
            problems.push(("strong.cutmix".to_owned(), "must be 0: boxes do not follow what is pasted".to_owned()));
        }
    }

    fn read(
        reader: &BoxReader,
        split: &Split,
        entry: &Entry,
        size: [usize; 2],
        required: bool,
    ) -> Result<Option<Self>, DataError> {
        let own = reader.pseudo.as_ref().map(|pseudo| PathBuf::from(&pseudo.file));
        let Some(path) = own.or_else(|| split.label_path(entry)) else { return Ok(None) };
        let may_lack = !required || reader.format == BoxFormat::Yolo;
        if may_lack && !exists(&path)? {
            return Ok(None);
        }
        let [height, width] = size;
        let Some(found) = reader.described(&path, &entry.image, size)? else { return Ok(None) };
        if let Some([said_height, said_width]) = found.size.filter(|said| *said != size) {
            let name = split.image_path(entry);
            let reason = format!("{} says {said_width} x {said_height}, it is {width} x {height}", path.display());
            return Err(BadSample::new(&name, reason).into());
        }
        Ok(Some(found.labels))
    }

    fn may_be_partial(reader: &BoxReader, split: &Split, entry: &Entry) -> Result<bool, DataError> {
        match (split.label_path(entry), reader.format) {
            (None, _) => Ok(true),
            (Some(_), BoxFormat::Voc) => Ok(false),
            (Some(path), BoxFormat::Yolo) => Ok(!exists(&path)?),
            (Some(path), BoxFormat::Coco) => {
                let file = reader.file(&path)?;
                Ok(file.image(&entry.image).is_none_or(|found| found.labels.looked_for.is_some()))
            }
        }
    }

    fn unknown(_: [usize; 2]) -> Self {
        BoxLabels::unknown()
    }

    fn only(&mut self, classes: &[u8]) {
        self.boxes.retain(|label| classes.contains(&label.class));
        let known = classes.iter().copied().filter(|class| self.is_known(*class)).collect();
        self.looked_for = Some(known);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.boxes.as_slice()) + self.looked_for.as_ref().map_or(0, Vec::len)
    }

    /// What lies beyond the image has no box, whatever `beyond` is.
    fn view(&self, view_to_source: Geometry, views: &ViewsConfig, _beyond: u8) -> Self {
        views::seen(self, view_to_source, views.crop_px, views.visible_share())
    }

    fn shows(&self, view_to_source: Geometry, view_size: [usize; 2], share: f64) -> bool {
        views::shows(self, view_to_source, view_size, share)
    }

    fn join(parts: Vec<(CutBox, Self)>, _: [usize; 2]) -> Self {
        views::join(parts)
    }

    fn push(self, targets: &mut Vec<Self>) {
        targets.push(self);
    }

    fn link(strong_to_weak: Geometry, _: Geometry, _: [usize; 2], _: [usize; 2]) -> Vec<Geometry> {
        vec![strong_to_weak]
    }

    fn push_link(next: Vec<Geometry>, link: &mut Vec<Geometry>) {
        link.extend(next);
    }

    /// Does nothing: a recipe of boxes with `CutMix` is refused when it is checked.
    fn paste(_: &mut Vec<Geometry>, _: &Vec<Geometry>, _: [usize; 2], _: CutBox, _: usize, _: usize) {}

    fn count(&self, classes: usize) -> BoxCounts {
        let mut counts = BoxCounts { classes: vec![0; classes], ..BoxCounts::default() };
        for label in &self.boxes {
            match label.kind {
                BoxKind::Object => counts.classes[usize::from(label.class)] += 1,
                BoxKind::Difficult => counts.difficult += 1,
                BoxKind::Crowd => counts.crowds += 1,
            }
        }
        counts.partial = u64::from(self.looked_for.is_some());
        counts.empty =
            u64::from(self.boxes.is_empty() && self.looked_for.as_ref().is_none_or(|known| !known.is_empty()));
        counts
    }

    fn has_class(counts: &BoxCounts) -> bool {
        counts.classes.iter().any(|boxes| *boxes > 0)
    }

    fn no_class(counts: &BoxCounts, images: usize, bad: usize) -> String {
        format!(
            "no box in {images} images ({} difficult, {} crowds, {} images without labels of every class, {bad} bad samples); \
             compare the names in the files of boxes with the classes of the card, and their places or the images that they \
             name with those of the split",
            counts.difficult, counts.crowds, counts.partial
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batches::{BatchMaker, BatchPlan};
    use crate::config::{DataConfig, OnBadSample};
    use crate::dataset::Dataset;
    use std::fs;

    /// A data set of images of 40x20 pixels whose labels lie in files of their own.
    pub(super) fn dataset(folder: &Path, boxes: &str, labels: &[(&str, Option<&str>)]) -> Dataset<BoxLabels> {
        let text = format!(
            "name = \"t\"\ntitle = \"t\"\nlicence = \"t\"\nsource = \"t\"\nget = \"t\"\n[boxes]\n{boxes}\n\
             [pairing]\nid = \"images/{{id}}.{{ext}}\"\n[splits]\ntrain = {{ folder = \"images\" }}\n\
             [[classes]]\nname = \"cat\"\ncolor = [1, 0, 0]\n[[classes]]\nname = \"dog\"\ncolor = [0, 1, 0]\n"
        );
        for folder in [folder.join("images"), folder.join("labels")] {
            fs::create_dir_all(folder).unwrap();
        }
        for (file, label) in labels {
            let (stem, ending) = file.rsplit_once('|').unwrap();
            image::RgbImage::new(40, 20).save(folder.join(format!("images/{stem}.png"))).unwrap();
            label.iter().for_each(|text| fs::write(folder.join(format!("labels/{stem}.{ending}")), text).unwrap());
        }
        let card = Card::parse(&text, &folder.join("dataset.toml"), folder.to_owned()).unwrap();
        Dataset::new(card, &[]).unwrap()
    }

    #[test]
    fn of_yolo_a_missing_file_is_no_label_and_an_empty_one_says_that_there_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let boxes = "format = \"yolo\"\npath = \"labels/{id}.txt\"\nclasses = [\"dog\", \"cat\"]";
        let files = [("a.b|txt", Some("0 0.5 0.5 0.5 0.5\n")), ("c|txt", Some("")), ("d|txt", None)];
        let dataset = dataset(folder.path(), boxes, &files);
        let split = dataset.split("train").unwrap();
        let labels: Vec<BoxLabels> = (0..3).map(|at| dataset.sample(&split, at).unwrap().labels).collect();
        assert_eq!(labels[0].boxes[0].edges, [10.0, 5.0, 30.0, 15.0]);
        assert_eq!(labels[1..], [BoxLabels::default(), BoxLabels::unknown()]);
        let partial = split.entries.iter().map(|entry| dataset.may_be_partial(&split, entry).unwrap());
        assert_eq!(partial.collect::<Vec<_>>(), [false, false, true]);
        // The order of `boxes.classes` is that of the numbers.
        assert_eq!(dataset.card().class_names()[usize::from(labels[0].boxes[0].class)], "dog");
        let stats = dataset.verify_split(&split, OnBadSample::Fail, None).unwrap();
        assert_eq!((stats.counts.classes, stats.counts.empty, stats.counts.partial), (vec![1, 0], 1, 1));
        fs::write(folder.path().join("labels/c.txt"), "0 10 10 5 5\n").unwrap();
        let message = dataset.verify_split(&split, OnBadSample::Fail, None).unwrap_err().to_string();
        assert!(message.contains("labels/c.txt:1: `10` is no fraction"), "{message}");
    }

    fn voc(file: &str, class: &str, edges: [i32; 4]) -> String {
        let [x0, y0, x1, y1] = edges;
        format!(
            "<annotation><filename>{file}</filename><object><name>{class}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>\
             <xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"
        )
    }

    #[test]
    fn pseudo_labels_teach_and_the_labels_of_the_card_are_only_compared_with() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|stem| (format!("{stem}|xml"), voc(&format!("{stem}.png"), "cat", [1, 1, 9, 9])));
        let dataset = Arc::new(dataset(folder.path(), VOC, &[(&a.0, Some(&a.1)), (&b.0, Some(&b.1))]));
        let path = folder.path().join("found.json");
        let image = |id: usize, name: &str| {
            format!("{{\"id\": {id}, \"file_name\": \"images/{name}.png\", \"width\": 40, \"height\": 20}}")
        };
        let write = |images: &[String]| {
            let text = format!(
                "{{\"images\": [{}], \"categories\": [{{\"id\": 0, \"name\": \"cat\"}}, {{\"id\": 1, \"name\": \"dog\"}}], \
                 \"annotations\": [{{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [5, 5, 10, 10], \"score\": 0.8}}]}}",
                images.join(", ")
            );
            fs::write(&path, text).unwrap();
        };
        let text = format!(
            "card = \"t\"\nlabelled = \"train\"\nunlabelled = \"train\"\nval = \"train\"\n\
             pseudo_labels = {{ file = {:?}, min_score = 0.5 }}\n",
            path.display().to_string()
        );
        let data: DataConfig = toml::from_str(&text).unwrap();
        let views = ViewsConfig { scale: [1.0, 1.0], flip: 0.0, ..ViewsConfig::of_size([20, 40]) };
        let plan = BatchPlan { seed: 5, batch_labelled: 1, batch_unlabelled: 2, accumulate: 1 };
        let maker = || BatchMaker::new(dataset.clone(), &data, &views, plan);
        write(&[image(1, "a"), image(2, "b")]);
        let pairs = maker().unwrap().make(0, 0).unwrap().unlabelled.unwrap();
        // One of the two images has a box on file, the other is background: of neither is anything unknown.
        let mut found: Vec<_> = pairs.targets.iter().map(|labels| labels.boxes.len()).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
        assert!(pairs.targets.iter().all(|labels| labels.looked_for.is_none()));
        let taught = pairs.targets.iter().find_map(|labels| labels.boxes.first()).unwrap();
        assert_eq!((taught.edges, taught.class), ([5.0, 5.0, 15.0, 15.0], 1));
        assert!(pairs.truth.iter().all(|labels| labels.boxes.len() == 1 && labels.boxes[0].class == 0));
        write(&[image(1, "a")]);
        let message = maker().unwrap_err().to_string();
        assert!(message.contains("found.json: says nothing of `images/b.png` and of 0 more of 2 images"), "{message}");
    }

    const VOC: &str = "format = \"voc\"\npath = \"labels/{id}.xml\"";

    #[test]
    fn a_file_that_names_another_image_is_taken_for_that_of_its_path_and_noted_once() {
        let folder = tempfile::tempdir().unwrap();
        let [here, other, bird] = [
            voc("C:\\photos\\a.JPG", "cat", [1, 1, 9, 9]),
            voc("renamed.JPG", "dog", [1, 1, 9, 9]),
            voc("", "bird", [1, 1, 99, 9]),
        ];
        let files = [("a|xml", Some(here.as_str())), ("b|xml", Some(other.as_str())), ("c|xml", Some(bird.as_str()))];
        let dataset = dataset(folder.path(), VOC, &files);
        let split = dataset.split("train").unwrap();
        for _ in 0..2 {
            let stats = dataset.verify_split(&split, OnBadSample::Fail, None).unwrap();
            assert_eq!((stats.counts.classes, stats.counts.empty), (vec![1, 1], 1));
        }
        let notes = dataset.notes();
        assert_eq!(notes.len(), 2, "{notes:?}");
        let expected = "b.xml: <filename> says `renamed.JPG`, it is read for `images/b.png`";
        assert!(notes[0].starts_with("1 file(s) taken for the image") && notes[0].ends_with(expected), "{notes:?}");
        assert_eq!(notes[1], "objects that are of no class of the card are left out: `bird`");
    }

    #[test]
    fn a_broken_box_is_refused_or_left_out_counted_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let good = voc("a", "cat", [1, 1, 9, 9]);
        let object = |edges| {
            let text = voc("a", "dog", edges);
            text[text.find("<object>").unwrap()..text.find("</annotation>").unwrap()].to_owned()
        };
        let broken = [[9, 1, 1, 9], [1, 1, 1, 9], [50, 1, 60, 9], [30, 1, 60, 9]].map(object).concat();
        let text = good.replace("</annotation>", &format!("\n{broken}</annotation>"));
        let refusing = dataset(folder.path(), VOC, &[("a|xml", Some(text.as_str()))]);
        let split = refusing.split("train").unwrap();
        let message = refusing.verify_split(&split, OnBadSample::Fail, None).unwrap_err().to_string();
        assert!(message.contains("a.xml:2: object 2 (`dog`) has a box without area"), "{message}");
        assert!(message.contains("; line 2: object 4 (`dog`) has a box outside of its image of 40x20"), "{message}");
        assert!(refusing.left_out().is_empty() && refusing.notes().is_empty());

        let skipping = refusing.clone().on_bad_sample(OnBadSample::Skip);
        let stats = skipping.verify_split(&split, OnBadSample::Skip, None).unwrap();
        assert_eq!((stats.counts.classes, stats.bad.len()), (vec![1, 1], 0));
        let left_out = skipping.left_out();
        assert_eq!(left_out[0].path, folder.path().join("labels/a.xml"));
        assert!(
            left_out.len() == 1 && left_out[0].reason.starts_with("3 boxes left out: line 2: object 2"),
            "{left_out:?}"
        );
        let notes = skipping.notes();
        assert!(notes.len() == 2 && notes[0].starts_with("3 boxes left out: "), "{notes:?}");
        assert!(notes[1].starts_with("1 box beyond the edge of an image"), "{notes:?}");
        let labels = skipping.sample(&split, 0).unwrap().labels;
        assert_eq!(labels.boxes[1].edges, [30.0, 1.0, 40.0, 9.0]);
    }

    #[test]
    fn of_a_file_of_many_images_broken_boxes_are_left_out_where_they_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let mut card = dataset(folder.path(), VOC, &[("a|xml", None)]).card().clone();
        card.pairing = None;
        card.boxes.as_mut().unwrap().format = BoxFormat::Coco;
        card.splits.get_mut("train").unwrap().boxes = Some("all.json".to_owned());
        let boxes: Vec<String> = [[5, 5, 0, 9], [9, 9, -4, 6], [5, 5, 9, 9], [50, 5, 9, 9]]
            .iter()
            .zip(1..)
            .map(|(bbox, id)| format!("{{\"id\": {id}, \"image_id\": 1, \"category_id\": 7, \"bbox\": {bbox:?}}}"))
            .collect();
        let text = format!(
            "{{\"images\": [{{\"id\": 1, \"file_name\": \"a.png\", \"width\": 40, \"height\": 20}}], \
             \"categories\": [{{\"id\": 7, \"name\": \"cat\"}}], \"annotations\": [{}]}}",
            boxes.join(", ")
        );
        fs::write(folder.path().join("all.json"), text).unwrap();
        let open = |on_bad| Dataset::<BoxLabels>::new(card.clone(), &[]).unwrap().on_bad_sample(on_bad);
        let (refusing, skipping) = (open(OnBadSample::Fail), open(OnBadSample::Skip));
        let split = refusing.split("train").unwrap();
        let message = refusing.verify_split(&split, OnBadSample::Fail, None).unwrap_err().to_string();
        assert!(message.contains("all.json: annotation 1: bbox") && message.contains("; annotation 4: "), "{message}");
        assert_eq!(skipping.verify_split(&split, OnBadSample::Skip, None).unwrap().counts.classes[0], 1);
        assert!(skipping.notes()[0].starts_with("3 boxes left out: "), "{:?}", skipping.notes());
    }
}
