//! The whole page, made from a plausible run over real images. The sample page and some pictures
//! are left in `target/tmp` to be looked at.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use image::RgbImage;
use mentor_report::pictures::{grid, legend, mistakes, overlay, panel, shown_labels, with_legend};
use mentor_report::{
    Class, Comparison, Confusion, Example, Gallery, LineChart, Model, PlotLine, Plots, ReportInput, Section, Tally,
    TallyRow, html,
};
use mentor_train::{LogLine, RunResult, SkippedSample};
use mentor_types::{ClassScore, IGNORE, LabelMask, ScoreNames, ScoreRecord, ScoreRow, Season, UNKNOWN};
use serde_json::{Value, json};

const NAMES: [&str; 5] = ["ground", "road", "building", "tree", "water"];
const COLOURS: [[u8; 3]; 5] = [[222, 196, 132], [90, 90, 102], [228, 87, 46], [58, 157, 75], [45, 125, 210]];

const SCORES: ScoreNames = ScoreNames {
    main: ["miou", "mIoU"],
    rows: &[
        ScoreRow { key: "miou", name: "mIoU", meaning: "IoU averaged over the classes" },
        ScoreRow { key: "boundary_iou", name: "boundary IoU", meaning: "IoU along the edges" },
    ],
    by_class: ClassScore { key: "per_class", column: "iou", name: "IoU" },
    counted: "pixels",
    reading: "IoU is the overlap of prediction and truth.",
};

/// Numbers that look random and never change.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }
}

/// The picture and the mask of scene `index`, with cars as road and boats as water.
fn read(index: u64) -> (RgbImage, LabelMask) {
    let scene = mentor_scenes::draw(0, index, 256, Season::Summer);
    let (width, height) = (scene.mask.width(), scene.mask.height());
    let labels = scene.mask.labels().iter().map(|class| [0, 1, 2, 3, 4, 1, 4][usize::from(*class)]);
    let image = RgbImage::from_raw(width as u32, height as u32, scene.image.rgb).unwrap();
    (image, LabelMask::new(width, height, labels.collect()))
}

/// The truth with blots of wrong classes.
fn guess(truth: &LabelMask, blots: usize, noise: &mut Noise) -> LabelMask {
    let (width, height) = (truth.width(), truth.height());
    let mut guess = truth.clone();
    for label in guess.labels_mut().iter_mut().filter(|label| **label == IGNORE) {
        *label = 1;
    }
    for _ in 0..blots {
        let (x, y) = (noise.next() * width as f64, noise.next() * height as f64);
        let (reach, class) = (6.0 + 30.0 * noise.next() * noise.next(), (noise.next() * 5.0) as u8);
        for place in 0..width * height {
            let (dx, dy) = ((place % width) as f64 - x, (place / width) as f64 - y);
            if dx * dx + 2.0 * dy * dy + 0.5 * dx * dy < reach * reach {
                guess.labels_mut()[place] = class;
            }
        }
    }
    guess
}

fn record(value: Value) -> ScoreRecord {
    serde_json::from_value(value).unwrap()
}

fn result() -> RunResult {
    serde_json::from_value(json!({
        "val": metrics(0.6271, 0.03), "val_model": "ema", "models": {}, "teachers": {},
        "best": {"step": 1200, "score": 0.6271}, "steps": 1200, "images_per_second": 21.37, "seconds": 164.2,
        "device": "cpu", "commit": "b5bcd76",
        "bad_samples": [{"path": "images/000009.jpg", "reason": "0 bytes, not an image"}],
    }))
    .unwrap()
}

fn metrics(miou: f64, lift: f64) -> Value {
    json!({
        "miou": miou, "pixel_accuracy": miou + 0.12, "mean_accuracy": miou + 0.07, "fw_iou": miou + 0.05,
        "boundary_iou": miou - 0.14,
        "per_class": {
            "building": 0.412 + lift, "land_unpaved": 0.741 + lift, "road": 0.387 + lift,
            "vegetation": 0.556 + lift, "water": 0.873 + 0.3 * lift
        }
    })
}

fn log() -> Vec<LogLine> {
    let mut noise = Noise(7);
    let mut lines = Vec::new();
    for step in (5..=1200).step_by(5) {
        let done = f64::from(step) / 1200.0;
        let falling = |from: f64, to: f64, noise: &mut Noise| {
            (to + (from - to) * (-4.0 * done).exp()) * (0.85 + 0.3 * noise.next())
        };
        let ramp = (-5.0 * (1.0 - (done * 3.0).min(1.0)).powi(2)).exp();
        let line = json!({
            "step": step, "lr": 0.02 * (1.0 - done).powf(0.9), "total": falling(4.2, 0.9, &mut noise),
            "grad_norm": falling(9.0, 1.6, &mut noise),
            "terms": {
                "supervised": {"weight": 1.0, "value": falling(1.7, 0.35, &mut noise)},
                "pixel_wise": {"weight": 10.0, "value": falling(0.09, 0.021, &mut noise)},
                "pair_wise@c5": {"weight": 0.5, "value": falling(0.9, 0.01, &mut noise)},
                "fixmatch": {"weight": ramp, "value": falling(0.3, 0.12, &mut noise)}
            },
            "stats": {
                "fixmatch_accepted": (0.08 + 0.7 * done.sqrt()) * (0.95 + 0.1 * noise.next()),
                "fixmatch_precision": (0.83 + 0.1 * done) * (0.98 + 0.02 * noise.next()),
                "holistic_distance": 0.4 - 0.2 * done + 0.05 * noise.next()
            },
            "time": {"seconds": 1.0}
        });
        lines.push(serde_json::from_value(line).unwrap());
        if step % 100 == 0 {
            for (model, gain) in [("ema", 0.012), ("student", 0.0)] {
                let miou = 0.615 - 0.42 * (-4.5 * done).exp() + gain + 0.02 * (noise.next() - 0.5) * (1.0 - done);
                let line = json!({
                    "step": step, "model": model, "score": miou, "metrics": metrics(miou, 0.0), "time": {}
                });
                lines.push(serde_json::from_value(line).unwrap());
            }
        }
    }
    lines
}

fn name(name: &str) -> String {
    name.to_owned()
}

fn names() -> Vec<String> {
    NAMES.map(name).to_vec()
}

fn classes() -> Vec<Class> {
    let class = |(name, colour): (&str, [u8; 3])| Class { name: name.to_owned(), colour, share: Some(0.2) };
    NAMES.into_iter().zip(COLOURS).map(class).collect()
}

fn examples() -> Gallery {
    let mut noise = Noise(3);
    let mut make = |(file, miou, blots): (u64, f64, usize)| {
        let (image, truth) = read(file);
        let (teacher, student) = (guess(&truth, blots / 2, &mut noise), guess(&truth, blots, &mut noise));
        let painted = |mask: &LabelMask| overlay(&image, mask, &COLOURS, 0.6);
        let tiles = vec![
            (name("truth"), painted(&truth)),
            (name("teacher"), painted(&teacher)),
            (name("student"), painted(&student)),
            (name("mistakes"), mistakes(&image, &truth, &student)),
            (name("image"), image),
        ];
        Example { name: format!("{file:06}.jpg"), scores: vec![(name("mIoU"), Some(miou))], tiles }
    };
    Gallery {
        id: "examples",
        short: "Images",
        heading: name("Where it does best and worst"),
        lead: name("Validation images."),
        legend: legend(&names(), &COLOURS, &[0, 1, 2, 3, 4, UNKNOWN, IGNORE]),
        groups: vec![
            (name("Best"), [(2, 0.803, 6), (5, 0.741, 12)].map(&mut make).to_vec()),
            (name("Worst"), [(3, 0.412, 60), (8, 0.298, 90)].map(&mut make).to_vec()),
        ],
    }
}

fn pseudo() -> Gallery {
    let mut noise = Noise(5);
    let make = |file: u64| {
        let (weak, truth) = read(file);
        let mut labels = guess(&truth, 10, &mut noise);
        let width = labels.width();
        for (place, label) in labels.labels_mut().iter_mut().enumerate() {
            let (x, y) = ((place % width) as f64, (place / width) as f64);
            if (x / 19.0).sin() + (y / 23.0).cos() + (x / 7.0 + y / 11.0).sin() > 0.9 {
                *label = UNKNOWN;
            }
        }
        let strong = image::imageops::blur(&image::imageops::huerotate(&weak, 40), 1.5);
        let painted = overlay(&strong, &labels, &COLOURS, 0.6);
        Example {
            name: format!("{file:06}.jpg"),
            scores: vec![(name("accepted"), Some(0.734)), (name("precision"), None)],
            tiles: vec![(name("weak view"), weak), (name("strong view"), strong), (name("pseudo-labels"), painted)],
        }
    };
    let examples = [1, 6].map(make).to_vec();
    Gallery {
        id: "pseudo",
        short: "Pseudo-labels",
        heading: name("What unlabelled images were taught"),
        groups: vec![(String::new(), examples)],
        ..Gallery::default()
    }
}

fn confusion(classes: usize) -> Vec<Vec<u64>> {
    let mut noise = Noise(11);
    let row = |truth: usize| {
        let pixels = 20_000.0 + 200_000.0 * ((truth * 7 % 5) as f64);
        (0..=classes)
            .map(|column| {
                let share = if column == truth { 0.78 } else { 0.3 * noise.next().powi(4) / classes as f64 * 5.0 };
                if column == classes { 0 } else { (pixels * share) as u64 }
            })
            .collect()
    };
    (0..classes).map(row).collect()
}

fn sample() -> ReportInput {
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let row = |name: &str, score, note: &str, this_run| Comparison {
        name: name.into(),
        score: Some(score),
        note: note.into(),
        this_run,
    };
    ReportInput {
        title: "scenes: FCN-ResNet-18/16 distilled from PSPNet".into(),
        recipe: "# Distils a small net.\ntask = \"seg\"\nseed = 0\n\n[data]\ncard = \"scenes\"\n\n[student.fcn]\nbackbone = \"resnet18\"\nwidth = 16\n\n[distill.pixel_wise]\nweight = 10.0\ntemperature = 1.0\n".into(),
        info: vec![
            text("command", "mentor train recipes/quickstart.toml --out runs/quickstart"),
            text("commit", "b5bcd76c6f2f1d0a9e8d7c6b5a493827161504f3"),
            text("device", "CPU, flex, 2 threads"),
            text("data", "blake3:5f0c8a77c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f405162738495a6b7c"),
            text("weights of big", "blake3:a1b2c3d4e5f60718293a4b5c6d7e8f9001122334455667788990aabbccddeeff"),
        ],
        log: log(),
        result: Some(result()),
        scores: SCORES,
        classes: classes(),
        models: [("teacher", 0.6648, 0.07), ("student", 0.6154, 0.02), ("ema", 0.6271, 0.03)]
            .map(|(name, miou, lift)| Model { name: name.into(), scores: record(metrics(miou, lift)) })
            .to_vec(),
        sections: vec![
            Section::Confusion(Confusion(confusion(5))),
            Section::Gallery(examples()),
            Section::Gallery(pseudo()),
            Section::Plots(precision("car 50.0 %")),
            Section::Tally(reasons()),
        ],
        comparisons: vec![
            row("teacher", 0.6648, "verified on val before the first step", false),
            row("student alone", 0.5873, "quickstart study, 3 seeds, commit 0a1b2c3, 2-core CPU", false),
            row("this run", 0.6271, "ema, after 1200 steps", true),
        ],
    }
}

fn precision(name: &str) -> Plots {
    let points = (0..=100).map(|at| (f64::from(at) / 100.0, if at <= 50 { 1.0 } else { 0.0 })).collect();
    Plots {
        id: "precision",
        short: "Precision",
        heading: "Precision over recall".into(),
        lead: name.into(),
        over: "recall",
        charts: vec![LineChart {
            title: name.into(),
            note: name.into(),
            lines: vec![PlotLine { name: name.into(), points }],
        }],
    }
}

fn reasons() -> Tally {
    let row = |name, count| TallyRow { name, meaning: "<meaning>", count };
    let rows = vec![row("right", 1500), row("background", 500)];
    let (heading, lead) = ("Why boxes are wrong".into(), "Each box once.".into());
    Tally { id: "mistakes", short: "Mistakes", heading, lead, rows }
}

/// Whether every element that is opened is closed, in order; gives the first that is not.
fn unclosed(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').ok_or("a tag without an end")?;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop();
            if last != Some(name) {
                return Err(format!("</{name}> closes {last:?}"));
            }
        } else if !tag.ends_with('/') {
            if !tag.chars().next().is_some_and(|letter| letter.is_ascii_lowercase()) || tag.matches('"').count() % 2 > 0
            {
                return Err(format!("<{tag}> is no tag"));
            }
            open.push(tag.split([' ', '\n']).next().unwrap_or_default());
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

/// Every address in the page is data or a place in the page.
fn assert_self_contained(page: &str) {
    for outside in ["http", "url(", "@import", "<script", "<link", "javascript:", "srcset"] {
        assert!(!page.contains(outside), "the page holds {outside:?}");
    }
    for source in page.split("src=\"").skip(1) {
        assert!(source.starts_with("data:image/"), "{}", &source[..40]);
    }
    for target in page.split("href=\"").skip(1) {
        let target = target.split('"').next().unwrap();
        assert!(target.starts_with('#') && page.contains(&format!("id=\"{}\"", &target[1..])), "{target}");
    }
}

/// The page without its pictures, whose base64 may spell anything.
fn without_data(page: &str) -> String {
    let (first, rest) = page.split_once("base64,").unwrap_or((page, ""));
    let rest = rest.split("base64,").map(|part| part.split_once('"').map_or("", |(_, after)| after));
    std::iter::once(first).chain(rest).collect()
}

fn leave(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn the_sample_page_is_whole_and_needs_nothing_else() {
    let input = sample();
    let page = html(&input);
    std::fs::write(leave("report.html"), &page).unwrap();
    assert_eq!(unclosed(&page), Ok(()));
    assert_self_contained(&page);
    for id in [
        "compared",
        "classes",
        "curves",
        "confusion",
        "examples",
        "pseudo",
        "precision",
        "mistakes",
        "skipped",
        "origin",
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "no section {id}");
    }
    assert!(page.contains("62.71 %") && page.contains("+3.98") && page.contains("−3.77"));
    assert!(page.contains("recall 100 %\ncar 50.0 %: 0.00 %") && page.contains("</i>car 50.0 %</li>"));
    assert!(
        page.contains("&lt;meaning&gt;</td><td class=\"number\">1\u{202f}500</td><td class=\"number\">75.00 %</td>")
    );
    assert!(!without_data(&page).contains("NaN"));
    assert_eq!(page, html(&input), "the same input gives the same page");
}

#[test]
fn markup_in_names_stays_text() {
    let bad = "<b>&\"'</b><script>";
    let mut input = sample();
    input.title = bad.into();
    input.recipe = bad.into();
    input.info = vec![(bad.into(), bad.into())];
    let result = input.result.as_mut().unwrap();
    (result.val_model, result.commit) = (bad.into(), bad.into());
    result.bad_samples = vec![SkippedSample { path: bad.into(), reason: bad.into() }];
    input.classes[0].name = bad.into();
    input.comparisons[0].name = bad.into();
    input.comparisons[0].note = bad.into();
    input.models[1].name = bad.into();
    input.scores = ScoreNames {
        main: [bad, bad],
        rows: &[ScoreRow { key: "miou", name: "<b>&\"'</b><script>", meaning: "<b>&\"'</b><script>" }],
        by_class: ClassScore { name: bad, ..SCORES.by_class },
        counted: bad,
        reading: bad,
    };
    let tiles = vec![(name(bad), RgbImage::new(2, 2))];
    let example = Example { name: bad.into(), scores: vec![(bad.into(), None)], tiles };
    input.sections[1] = Section::Gallery(Gallery {
        heading: bad.into(),
        lead: bad.into(),
        legend: legend(&[name(bad)], &COLOURS, &[0]),
        groups: vec![(bad.into(), vec![example])],
        ..examples()
    });
    input.sections.truncate(2);
    let line = json!({"step": 3, "lr": 0.1, "total": 1.0, "grad_norm": 1.0, "terms": {bad: {"weight": 1.0, "value": 1.0}},
        "stats": {bad: 1.0}, "time": {}});
    input.log = vec![serde_json::from_value(line).unwrap()];
    let page = html(&input);
    assert_eq!(unclosed(&page), Ok(()));
    assert!(!page.contains("<b>&") && !page.contains("<script"));
    assert!(page.contains("&lt;b&gt;&amp;&quot;&#39;&lt;/b&gt;"));
    assert_self_contained(&page);
}

#[test]
fn empty_parts_are_left_out() {
    let page = html(&ReportInput { title: "nothing yet".into(), ..ReportInput::default() });
    assert_eq!(unclosed(&page), Ok(()));
    assert!(page.contains("nothing yet") && !page.contains("<section") && !page.contains("<svg"));
}

#[test]
fn a_page_speaks_of_its_own_task_alone() {
    let mut input = sample();
    input.scores = ScoreNames {
        main: ["ap", "AP"],
        rows: &[ScoreRow { key: "ap", name: "AP", meaning: "average precision" }],
        by_class: ClassScore { key: "per_class", column: "ap", name: "AP" },
        counted: "boxes",
        reading: "AP is the area under the curve of precision over recall.",
    };
    input.models.iter_mut().for_each(|model| model.scores = record(json!({"ap": 0.371})));
    input.result.as_mut().unwrap().val = record(json!({"ap": 0.371}));
    input.sections.truncate(1);
    let page = html(&input);
    assert!(page.contains("37.10 %") && page.contains("AP on val") && page.contains("share of boxes"));
    // The name of a term is the run's own.
    let text = without_data(page.split("</style>").nth(1).unwrap()).replace("pixel_wise", "");
    for word in ["mIoU", "miou", "pixel", "mask", "IoU"] {
        assert!(!text.contains(word), "the page says {word}");
    }
}

#[test]
fn a_log_of_one_line_makes_charts() {
    let log = log();
    let first = |eval: bool| log.iter().find(|line| matches!(line, LogLine::Eval { .. }) == eval).unwrap().clone();
    for line in [first(false), first(true)] {
        let page = html(&ReportInput { log: vec![line], ..ReportInput::default() });
        assert_eq!(unclosed(&page), Ok(()));
        assert!(page.contains("<section id=\"curves\">") && page.contains("class=\"dot\"") && !page.contains("NaN"));
    }
}

#[test]
fn values_that_are_missing_or_not_finite_are_a_dash() {
    let mut input = sample();
    let mut counts = confusion(5);
    counts[2] = vec![0; 6];
    input.sections = vec![Section::Confusion(Confusion(counts))];
    input.models[0].scores = record(json!({"miou": null, "per_class": {"building": null}}));
    input.models[1].scores = ScoreRecord::default();
    input.comparisons[0].score = Some(f64::NAN);
    input.comparisons[1].score = None;
    input.classes[0].share = None;
    for line in &mut input.log {
        if let LogLine::Step { total, grad_norm, .. } = line {
            (*total, *grad_norm) = (f64::NAN, f64::INFINITY);
        }
    }
    let page = html(&input);
    assert_eq!(unclosed(&page), Ok(()));
    assert!(!page.contains("NaN") && !page.contains("inf%") && !page.contains("inf\""));
    assert!(page.contains("<td class=\"number\">–"));
    let row = page.split("student alone</th>").nth(1).unwrap().split("</tr>").next().unwrap();
    assert_eq!(row.matches("–").count(), 2, "neither a score nor a gain: {row}");
    assert!(!row.contains("0.00<"), "{row}");
    assert!(!page.contains("<h3>Total loss</h3>") && page.contains("<h3>Learning rate</h3>"));
}

#[test]
fn many_classes_and_another_class_fit_too() {
    for (classes, wanted) in [(21, "class=\"heat\""), (150, "class=\"matrix\"")] {
        let class = |class: usize| Class {
            name: format!("a class with a long name, number {class}"),
            colour: [9, 90, class as u8],
            share: None,
        };
        let mut confusion = confusion(classes);
        confusion[0][classes] = 500;
        let input = ReportInput {
            classes: (0..classes).map(class).collect(),
            sections: vec![Section::Confusion(Confusion(confusion))],
            models: sample().models,
            ..ReportInput::default()
        };
        let page = html(&input);
        std::fs::write(leave(&format!("report_{classes}.html")), &page).unwrap();
        assert_eq!(unclosed(&page), Ok(()));
        assert!(page.contains(wanted));
        // Only cells have room for the name of a column.
        assert_eq!(page.contains("another class"), classes == 21);
    }
}

#[test]
fn the_check_for_closed_tags_can_fail() {
    assert!(unclosed("<!DOCTYPE html><p><b>x</p></b>").is_err());
    assert!(unclosed("<!DOCTYPE html><p>x").is_err());
    assert!(unclosed("<!DOCTYPE html><p>1 < 2</p>").is_err());
    assert_eq!(unclosed("<!DOCTYPE html><p>x<br/></p>"), Ok(()));
}

#[test]
fn pictures_of_a_real_image_are_drawn() {
    let mut noise = Noise(1);
    let (image, truth) = read(2);
    let student = guess(&truth, 20, &mut noise);
    let mut partial = truth.clone();
    for label in &mut partial.labels_mut()[..30_000] {
        *label = UNKNOWN;
    }
    for label in &mut partial.labels_mut()[30_000..50_000] {
        *label = IGNORE;
    }
    let draw = |mask: &LabelMask| overlay(&image, mask, &COLOURS, 0.55);
    let entries = |masks: &[&LabelMask]| legend(&names(), &COLOURS, &shown_labels(masks));
    let row = panel(&[
        ("image", &image),
        ("truth", &draw(&truth)),
        ("teacher, in part", &draw(&partial)),
        ("student", &draw(&student)),
    ]);
    let whole = with_legend(&grid(&[row.clone(), row], 1), &entries(&[&truth, &partial, &student]));
    whole.save(leave("panel.png")).unwrap();
    let one = with_legend(&draw(&partial), &entries(&[&partial]));
    one.save(leave("overlay.png")).unwrap();
    assert!(whole.width() > 4 * image.width() && one.height() > image.height());
}
